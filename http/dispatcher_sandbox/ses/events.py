"""SES's reports: events wrapped by SNS, each a request of its own, signed with a certificate that the sandbox serves.

A hook's secrets are ``origin`` (the sandbox's own URL as the receiver reaches it; certificate and confirmation lie there),
``topic_arn``, ``signature_version`` (1, as of a topic whose owner set nothing, or 2), and ``form``: ``events`` of a configuration
set, which carry tags, or ``notifications`` of an identity, which carry none.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from dispatcher_sandbox.callbacks import Callback, Event, Hook, Message
from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.ledger import Correlation
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.ses.fields import sender_of, tags_of
from dispatcher_sandbox.ses.mailboxes import meaning_of
from dispatcher_sandbox.ses.refusals import refusal
from dispatcher_sandbox.ses.rendering import recipients_of
from dispatcher_sandbox.ses.signature import key_id_of
from dispatcher_sandbox.simulator import Consent

SANDBOX = b"/v2/email/sandbox/"
"""Below this lies what the real SNS has at a host of its own."""
TOPIC_ARN = "arn:aws:sns:eu-central-1:123456789012:ses-reports"

_CONFIRM = SANDBOX + b"confirm"
_TOPIC_ARN = re.compile(r"arn:aws(?:-[a-z-]+)?:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}")
_TOKEN = re.compile(r"[0-9a-f]{64}")
_CHOICES = {"signature_version": ("1", "2"), "form": ("events", "notifications")}
_OF_IDENTITIES = ("Bounce", "Complaint", "Delivery")
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}

_Kind = tuple[str, Mapping[str, Any], str, str]
_GONE: _Kind = ("Bounce", {"bounceType": "Permanent", "bounceSubType": "General"}, "5.1.1", "smtp; 550 5.1.1 user unknown")
_FULL: _Kind = ("Bounce", {"bounceType": "Transient", "bounceSubType": "MailboxFull"}, "4.2.2", "smtp; 452 4.2.2 mailbox full")
_CONTENT: _Kind = ("Bounce", {"bounceType": "Transient", "bounceSubType": "ContentRejected"}, "5.7.1", "smtp; 554 5.7.1 policy")
_LISTED: _Kind = ("Bounce", {"bounceType": "Permanent", "bounceSubType": "OnAccountSuppressionList"}, "5.1.1", "suppressed")
_NO_EMAIL: _Kind = ("Bounce", {"bounceType": "Permanent", "bounceSubType": "NoEmail"}, "5.1.1", "smtp; 550 5.1.1 no mail here")
_ABUSE: _Kind = ("Complaint", {"complaintFeedbackType": "abuse", "complaintSubType": None}, "", "")
_LATER: _Kind = ("DeliveryDelay", {"delayType": "TransientCommunicationFailure"}, "4.4.1", "smtp; 421 4.4.1 try again later")
_SEND: _Kind = ("Send", {}, "", "")
_DELIVERY: _Kind = ("Delivery", {"smtpResponse": "250 OK"}, "", "")
_OPEN: _Kind = ("Open", {}, "", "")
_LEFT: _Kind = ("Subscription", {"contactList": "people", "newTopicPreferences": {"unsubscribeAll": True}}, "", "")

_EVENTS: Mapping[Fate, tuple[_Kind, ...]] = {
    Fate.DELIVERED: (_SEND, _DELIVERY),
    Fate.READ: (_SEND, _DELIVERY, _OPEN),
    Fate.DEFERRED: (_SEND, _LATER, _DELIVERY),
    Fate.SOFT_BOUNCED: (_SEND, _FULL),
    Fate.BOUNCED: (_SEND, _GONE),
    Fate.INVALID: (_SEND, _NO_EMAIL),
    Fate.BLOCKED: (_SEND, _CONTENT),
    Fate.DROPPED: (_LISTED,),
    Fate.COMPLAINED: (_SEND, _DELIVERY, _ABUSE),
    Fate.UNSUBSCRIBED: (_SEND, _DELIVERY, _LEFT),
    Fate.NOTHING: (),
}
"""What happens, by fate: the event, what its object holds, and status and diagnosis of each recipient."""
_PEOPLE = {"Bounce": "bouncedRecipients", "Complaint": "complainedRecipients", "DeliveryDelay": "delayedRecipients"}
_OBJECTS = {"DeliveryDelay": "deliveryDelay"}


class Identity(NamedTuple):
    """The key that signs, its certificate, and the path where that lies."""

    key: rsa.RSAPrivateKey
    certificate: bytes
    path: bytes


@cache
def identity() -> Identity:
    """Made once a process."""
    key = rsa.generate_private_key(65_537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return Identity(key, pem, SANDBOX + f"SimpleNotificationService-{hashlib.sha256(pem).hexdigest()[:32]}.pem".encode())


class Reports:
    """The half of the simulator that reports. Holds nothing."""

    events_max = 1
    hooks_in_requests = False

    def keep(self, secrets: Mapping[str, str]) -> Mapping[str, str]:
        """Where, as which topic, and how."""
        known = {"origin": "", "topic_arn": TOPIC_ARN, "signature_version": "1", "form": "events"}
        if unknown := sorted(set(secrets) - set(known)):
            raise ValueError(f"no such secret: {', '.join(unknown)}; there are {', '.join(known)}")
        kept = {**known, **secrets}
        if not kept["origin"].startswith(("http://", "https://")) or kept["origin"].endswith("/"):
            raise ValueError("origin must be this sandbox's URL, without a slash at its end")
        if not _TOPIC_ARN.fullmatch(kept["topic_arn"]):
            raise ValueError("topic_arn must be the ARN of an SNS topic")
        for name, choices in _CHOICES.items():
            if kept[name] not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}")
        return kept

    def shown(self, hook: Hook) -> Mapping[str, str]:
        """The topic, which the receiver must believe."""
        return {"topic_arn": hook.secrets["topic_arn"]}

    def opening(self, hook: Hook, now_s: float, id_bits: int) -> Callback | None:
        """A subscription asks to be confirmed by a visit."""
        token = f"{id_bits:032x}" * 2
        arn, origin = hook.secrets["topic_arn"], hook.secrets["origin"]
        query = urlencode({"Action": "ConfirmSubscription", "TopicArn": arn, "Token": token})
        envelope = {
            "Type": "SubscriptionConfirmation",
            "MessageId": _uuid(id_bits, 0),
            "Token": token,
            "TopicArn": arn,
            "Message": f"You have chosen to subscribe to the topic {arn}.\nVisit the SubscribeURL to confirm.",
            "SubscribeURL": f"{origin}{_CONFIRM.decode()}?{query}",
            "Timestamp": _time(now_s),
        }
        return _signed(hook, envelope)

    def messages(self, request: Request, message_id: str, now_s: float) -> Sequence[Message]:
        """One for each mail, with its tags. ``message_id`` is that of the request, whose last digits count its entries."""
        document = orjson.loads(request.body)
        account = key_id_of(request).decode()
        common = {
            "source": document["FromEmailAddress"],
            "sender": sender_of(document),
            "set": document.get("ConfigurationSetName"),
        }
        found: list[Message] = []
        for index, entry in enumerate(document.get("BulkEmailEntries") or (document,)):
            default = tags_of(document.get("DefaultEmailTags"))
            tags = {**default, **tags_of(entry.get("ReplacementTags", entry.get("EmailTags")))}
            recipients = recipients_of(entry["Destination"])
            correlation = Correlation(tags.get("notification_id"), tags.get("organization_id"))
            details = {**common, "tags": tags, "recipients": recipients}
            magic, _ = meaning_of(recipients)
            name = f"{message_id[:-6]}{index:06d}"
            found.append(Message(name, index, now_s, correlation, recipients[0], account, magic, details=details))
        return found

    def events(self, message: Message, fate: Fate, at_s: float, id_bits: int) -> Sequence[Event]:
        """What is published, each with the id that all its deliveries have."""
        return [
            {"id": _uuid(id_bits, index), "at_s": at_s + index / 1000, "payload": _payload(message, kind, at_s + index / 1000)}
            for index, kind in enumerate(_EVENTS[fate])
        ]

    def callback(self, hook: Hook, events: Sequence[Event], now_s: float, id_bits: int) -> Callback:
        """The envelope of one event. It names the time of publication, whenever it is sent."""
        (event,) = events
        payload = dict(event["payload"])
        if hook.secrets["form"] == "notifications" and payload["eventType"] in _OF_IDENTITIES:
            mail = {name: value for name, value in payload["mail"].items() if name != "tags"}
            payload = {"notificationType": payload.pop("eventType"), **payload, "mail": mail}
        envelope = {
            "Type": "Notification",
            "MessageId": event["id"],
            "TopicArn": hook.secrets["topic_arn"],
            "Subject": "Amazon SES Email Event Notification",
            "Message": orjson.dumps(payload).decode() + "\n",
            "Timestamp": _time(event["at_s"]),
        }
        return _signed(hook, envelope)


def served(request: Request) -> Consent | Answer:
    """Certificate and confirmation."""
    if request.method == b"GET" and request.path == identity().path:
        return Answer(200, b"Content-Type: application/x-pem-file\r\n", identity().certificate)
    query = parse_qs(request.target.partition(b"?")[2].decode("latin-1"))
    token = query.get("Token", [""])[0]
    if request.method == b"GET" and request.path == _CONFIRM and query.get("Action") == ["ConfirmSubscription"]:
        if _TOKEN.fullmatch(token) is None:
            return refusal(400, "InvalidParameter", "Invalid token")
        page = "<ConfirmSubscriptionResponse><ConfirmSubscriptionResult/></ConfirmSubscriptionResponse>"
        return Consent(Answer(200, b"Content-Type: text/xml\r\n", page.encode()))
    return refusal(404, "UnknownOperationException", "")


def _payload(message: Message, kind: _Kind, at_s: float) -> dict[str, Any]:
    name, given, status, diagnosis = kind
    details = message.details
    tags = {tag: [value] for tag, value in details["tags"].items()}
    if details["set"]:
        tags["ses:configuration-set"] = [details["set"]]
    mail = {
        "timestamp": _time(message.at_s),
        "messageId": message.message_id,
        "source": details["source"],
        "sourceArn": f"arn:aws:ses:eu-central-1:123456789012:identity/{details['sender'].rpartition('@')[2]}",
        "sendingAccountId": "123456789012",
        "destination": list(details["recipients"]),
        "headersTruncated": False,
        "tags": tags,
    }
    happened: dict[str, Any] = {"timestamp": _time(at_s), **given}
    if name in _PEOPLE:
        said = {"status": status, "diagnosticCode": diagnosis, "action": "failed"} if status else {}
        happened[_PEOPLE[name]] = [{"emailAddress": address, **said} for address in details["recipients"]]
    if name in ("Bounce", "Complaint"):
        happened["feedbackId"] = f"0107{hashlib.sha256(f'{message.message_id} {name}'.encode()).hexdigest()[:32]}-000000"
    if name == "Delivery":
        happened |= {"recipients": list(details["recipients"]), "processingTimeMillis": 546, "reportingMTA": "a8-70.example"}
    return {"eventType": name, "mail": mail, _OBJECTS.get(name, name.lower()): happened}


def _signed(hook: Hook, envelope: Mapping[str, str]) -> Callback:
    kind = envelope["Type"]
    text = "".join(f"{name}\n{envelope[name]}\n" for name in _SIGNED[kind] if name in envelope)
    version = hook.secrets["signature_version"]
    digest = hashes.SHA1() if version == "1" else hashes.SHA256()  # noqa: S303 - as the real one does
    signature = identity().key.sign(text.encode(), padding.PKCS1v15(), digest)
    origin = hook.secrets["origin"]
    document = {
        **envelope,
        "SignatureVersion": version,
        "Signature": base64.b64encode(signature).decode(),
        "SigningCertURL": f"{origin}{identity().path.decode()}",
    }
    if kind == "Notification":
        document["UnsubscribeURL"] = f"{origin}{SANDBOX.decode()}unsubscribe"
    headers = {
        "content-type": "text/plain; charset=UTF-8",
        "user-agent": "Amazon Simple Notification Service Agent",
        "x-amz-sns-message-type": kind,
        "x-amz-sns-message-id": envelope["MessageId"],
        "x-amz-sns-topic-arn": envelope["TopicArn"],
    }
    return Callback(hook.url, headers, orjson.dumps(document, option=orjson.OPT_INDENT_2))


def _uuid(id_bits: int, index: int) -> str:
    return str(uuid.UUID(bytes=hashlib.blake2b(b"%d %d" % (id_bits, index), digest_size=16).digest(), version=4))


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
