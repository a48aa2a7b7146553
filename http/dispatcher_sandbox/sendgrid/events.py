"""SendGrid's event webhook: JSON arrays of events, signed with ECDSA over the timestamp and the raw bytes.

A hook's one secret is ``private_key``, PEM; without it a key is invented, and ``public_key`` of the answer is what a receiver
checks signatures with: base64 of the DER form, as the real account page shows it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dispatcher_sandbox.callbacks import Callback, Event, Hook, Message
from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.ledger import Correlation
from dispatcher_sandbox.magic import magic_of
from dispatcher_sandbox.messages import Request

EVENTS_MAX = 1000
"""The real one sends what has gathered in 30 seconds, or 768 KB."""
SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"

_GONE = {
    "event": "bounce",
    "type": "bounce",
    "status": "5.1.1",
    "reason": "550 5.1.1 The email account that you tried to reach does not exist.",
    "bounce_classification": "Invalid Address",
}
_FULL = {
    "event": "bounce",
    "type": "blocked",
    "status": "4.2.2",
    "reason": "452 4.2.2 The email account that you tried to reach is over quota.",
    "bounce_classification": "Mailbox Unavailable",
}
_POLICY = {
    "event": "bounce",
    "type": "blocked",
    "status": "5.7.1",
    "reason": "554 5.7.1 Our policy does not let this sender in.",
    "bounce_classification": "Reputation",
}
_DELIVERED = {"event": "delivered", "response": "250 OK"}
_PROCESSED = {"event": "processed"}
_DEFERRED = {"event": "deferred", "response": "421 4.7.0 Try again later", "attempt": "1"}

_EVENTS: Mapping[Fate, tuple[Mapping[str, Any], ...]] = {
    Fate.DELIVERED: (_PROCESSED, _DELIVERED),
    Fate.READ: (_PROCESSED, _DELIVERED, {"event": "open", "useragent": "Mozilla/5.0"}),
    Fate.DEFERRED: (_PROCESSED, _DEFERRED, _DELIVERED),
    Fate.SOFT_BOUNCED: (_PROCESSED, _DEFERRED, _FULL),
    Fate.BOUNCED: (_PROCESSED, _GONE),
    Fate.INVALID: (_PROCESSED, _GONE),
    Fate.BLOCKED: (_PROCESSED, _POLICY),
    Fate.DROPPED: ({"event": "dropped", "reason": "Bounced Address", "status": "5.0.0"},),
    Fate.COMPLAINED: (_PROCESSED, _DELIVERED, {"event": "spamreport"}),
    Fate.UNSUBSCRIBED: (_PROCESSED, _DELIVERED, {"event": "unsubscribe"}),
    Fate.NOTHING: (),
}


class Events:
    """The half of the simulator that reports. Holds nothing."""

    events_max = EVENTS_MAX
    hooks_in_requests = False

    def keep(self, secrets: Mapping[str, str]) -> Mapping[str, str]:
        """The private key."""
        if unknown := sorted(set(secrets) - {"private_key"}):
            raise ValueError(f"no such secret: {', '.join(unknown)}; there is private_key")
        given = secrets.get("private_key")
        if given is not None:
            _key(given)
            return {"private_key": given}
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {"private_key": pem.decode()}

    def shown(self, hook: Hook) -> Mapping[str, str]:
        """The public key."""
        der = (
            _key(hook.secrets["private_key"])
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        return {"public_key": base64.b64encode(der).decode()}

    def opening(self, hook: Hook, now_s: float, id_bits: int) -> Callback | None:
        """None: no consent is asked for."""
        return None

    def messages(self, request: Request, message_id: str, now_s: float) -> Sequence[Message]:
        """One for each recipient, with the custom arguments of its personalization."""
        mail = orjson.loads(request.body)
        account = request.headers.get(b"authorization", b"").removeprefix(b"Bearer ").decode("latin-1")
        found: list[Message] = []
        for block in mail["personalizations"]:
            arguments = {**(mail.get("custom_args") or {}), **(block.get("custom_args") or {})}
            correlation = Correlation(arguments.get("notification_id"), arguments.get("organization_id"))
            for person in (person for kind in ("to", "cc", "bcc") for person in block.get(kind) or ()):
                address = person["email"]
                magic, details = magic_of(address), {"args": arguments}
                found.append(Message(message_id, len(found), now_s, correlation, address, account, magic, details=details))
        return found

    def events(self, message: Message, fate: Fate, at_s: float, id_bits: int) -> Sequence[Event]:
        """Custom arguments lie at the top level of an event, beside its own fields, which win."""
        return [
            {
                **message.details["args"],
                "email": message.recipient,
                "timestamp": int(at_s) + index,
                "smtp-id": f"<{message.message_id}@geopod-ismtpd-0>",
                "sg_event_id": _id(id_bits, index),
                "sg_message_id": f"{message.message_id}.recvd-sandbox-0.{message.index}",
                **event,
            }
            for index, event in enumerate(_EVENTS[fate])
        ]

    def callback(self, hook: Hook, events: Sequence[Event], now_s: float, id_bits: int) -> Callback:
        """Signed afresh each time. Line breaks in the body, as the real one has them, tell who signs raw bytes."""
        body = b"[" + b",\r\n".join(orjson.dumps(event) for event in events) + b"]\r\n"
        timestamp = str(int(now_s))
        signature = _key(hook.secrets["private_key"]).sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = {
            "content-type": "application/json",
            "user-agent": "SendGrid Event API",
            TIMESTAMP: timestamp,
            SIGNATURE: base64.b64encode(signature).decode(),
        }
        return Callback(hook.url, headers, body)


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError):
        raise ValueError("private_key must be a private key in PEM, without a passphrase") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("private_key must be of the curve P-256")
    return key


def _id(id_bits: int, index: int) -> str:
    digest = hashlib.blake2b(b"%d %d" % (id_bits, index), digest_size=18).digest()
    return base64.urlsafe_b64encode(digest).decode()
