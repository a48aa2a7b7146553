"""SES as a simulator: routes, signatures, and the wording of every answer.

``SendEmail``, ``SendBulkEmail`` and ``GetAccount``, below ``/v2/email/``; and two addresses that the real one has elsewhere: the
certificate of its reports, and the visit that confirms a subscription. An entry of a bulk request has its own fate: a magic
recipient that is refused is refused alone, one that delays, drops or closes does so to the whole request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.ledger import Correlation, Sent
from dispatcher_sandbox.magic import Magic, Trick
from dispatcher_sandbox.messages import JSON, REASONS, Answer, Request, gateway_page
from dispatcher_sandbox.rate import Rate
from dispatcher_sandbox.ses.events import SANDBOX, Reports, served
from dispatcher_sandbox.ses.fields import check_bulk, check_mail, document_of, sender_of, tags_of
from dispatcher_sandbox.ses.mailboxes import meaning_of
from dispatcher_sandbox.ses.refusals import Refused, refusal
from dispatcher_sandbox.ses.rendering import recipients_of
from dispatcher_sandbox.ses.signature import Caller, key_id_of, signed_by
from dispatcher_sandbox.simulator import Consent, Entry, EntryResult, Intake, Search

PREFIX = b"/v2/email/"
_SEND = PREFIX + b"outbound-emails"
_BULK = PREFIX + b"outbound-bulk-emails"
_ACCOUNT = PREFIX + b"account"
_METHODS = {_SEND: b"POST", _BULK: b"POST", _ACCOUNT: b"GET"}
SENDS_PER_S = 14
DAY_MAX = 50_000

_NOT_VERIFIED = "Email address is not verified. The following identities failed the check in region {region}: {identities}"
_TEXTS: dict[tuple[int, str], tuple[int, str, str]] = {
    (400, ""): (400, "BadRequestException", "Bad request"),
    (400, "address"): (400, "BadRequestException", "Illegal address"),
    (401, ""): (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
    (401, "credits"): (429, "TooManyRequestsException", "Daily message quota exceeded."),
    (403, ""): (403, "AccessDeniedException", "User is not authorized to perform: ses:SendEmail"),
    (403, "sender"): (400, "MessageRejected", _NOT_VERIFIED.format(region="EU-CENTRAL-1", identities="the sender")),
    (404, ""): (404, "NotFoundException", "The resource you requested does not exist."),
    (429, ""): (429, "TooManyRequestsException", "Maximum sending rate exceeded."),
    (500, ""): (500, "InternalFailure", "The request processing has failed because of an unknown error."),
    (503, ""): (503, "ServiceUnavailable", "The request has failed due to a temporary failure of the server."),
}
"""By status and reason as they are asked for: SES's own status, exception and text."""
_ENTRY_STATUSES = {
    (400, ""): "MESSAGE_REJECTED",
    (400, "address"): "INVALID_PARAMETER",
    (400, "rendering"): "INVALID_PARAMETER",
    (401, ""): "ACCOUNT_SENDING_PAUSED",
    (401, "credits"): "ACCOUNT_DAILY_QUOTA_EXCEEDED",
    (403, ""): "CONFIGURATION_SET_SENDING_PAUSED",
    (403, "sender"): "MAIL_FROM_DOMAIN_NOT_VERIFIED",
    (404, ""): "CONFIGURATION_SET_NOT_FOUND",
    (413, ""): "MESSAGE_REJECTED",
    (429, ""): "ACCOUNT_THROTTLED",
    (503, ""): "TRANSIENT_FAILURE",
}
_BY_FRONT_SERVER = frozenset({413, 502, 504})


class Ses(Reports):
    """The simulator. Holds nothing."""

    name = "ses"
    prefix = PREFIX
    ceiling_per_s = SENDS_PER_S

    def account(self, request: Request) -> bytes:
        """The access key."""
        return key_id_of(request)

    def read(self, request: Request, behaviour: Behaviour, now_s: float) -> Intake | Search | Consent | Answer:
        """Route, check the signature, check the fields."""
        path = request.path
        if path.startswith(SANDBOX):
            return served(request)
        if path not in _METHODS:
            return refusal(404, "UnknownOperationException", "")
        if request.method != _METHODS[path]:
            return refusal(405, "UnknownOperationException", "")
        try:
            caller = signed_by(request, behaviour.aws_keys, now_s)
            if path == _ACCOUNT:
                return _account(behaviour)
            document = document_of(request.body)
            if path == _SEND:
                check_mail(document)
                _check_account(document, recipients_of(document["Destination"]), caller, behaviour)
                return _mail(document, behaviour.magic_recipients)
            faults = check_bulk(document, len(request.body))
            _check_account(document, (), caller, behaviour)
            return _bulk(document, faults, behaviour.magic_recipients)
        except Refused as refused:
            return refused.answer

    def accepted(self, id_bits: int) -> tuple[str, Answer]:
        """200 with the id in the body."""
        digits = f"{id_bits:032x}"
        message_id = f"0107{digits[:12]}-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}-000000"
        return message_id, self.replayed(message_id)

    def entry_id(self, message_id: str, index: int) -> str:
        """The last six digits count."""
        return f"{message_id[:-6]}{index:06d}"

    def answered(self, results: Sequence[EntryResult]) -> Answer:
        """200 whatever became of the entries."""
        return Answer(200, JSON, orjson.dumps({"BulkEmailEntryResults": [_result(result) for result in results]}))

    def replayed(self, message_id: str) -> Answer:
        """The 200 of a mail."""
        return Answer(200, JSON, orjson.dumps({"MessageId": message_id}))

    def validated(self) -> Answer:
        """SES knows no validation without effect."""
        return Answer(200, JSON, b"{}")

    def listing(self, sent: Sequence[Sent]) -> Answer:
        """SES can not be asked what it has sent."""
        return refusal(404, "UnknownOperationException", "")

    def refused(self, status: int, reason: str) -> Answer:
        """A refusal that was decided, not found."""
        if status in _BY_FRONT_SERVER:
            return gateway_page(status)
        texts = _TEXTS.get((status, reason)) or _TEXTS.get((status, ""))
        return refusal(*texts) if texts else refusal(status, "InternalFailure", REASONS.get(status, "error"))

    def rate_headers(self, rate: Rate) -> bytes:
        """None: SES tells nobody where they stand."""
        return b""


def _account(behaviour: Behaviour) -> Answer:
    document = {
        "DedicatedIpAutoWarmupEnabled": False,
        "EnforcementStatus": "HEALTHY",
        "ProductionAccessEnabled": behaviour.ses_production,
        "SendQuota": {
            "Max24HourSend": DAY_MAX if behaviour.ses_production else 200,
            "MaxSendRate": behaviour.rate_limit_per_s or (SENDS_PER_S if behaviour.ses_production else 1),
            "SentLast24Hours": 0,
        },
        "SendingEnabled": behaviour.ses_sending,
    }
    return Answer(200, JSON, orjson.dumps(document))


def _check_account(document: dict[str, Any], recipients: Sequence[str], caller: Caller, behaviour: Behaviour) -> None:
    """What the account allows: sending at all, the sender, and in SES's own sandbox the recipients."""
    if not behaviour.ses_sending:
        raise Refused(400, "SendingPausedException", "Email sending has been disabled for this account.")
    wanted = [sender_of(document), *(recipients if not behaviour.ses_production else ())]
    if not behaviour.ses_production and "BulkEmailEntries" in document:
        wanted += [address for entry in document["BulkEmailEntries"] for address in recipients_of(entry["Destination"])]
    domains = behaviour.sender_domains
    unverified = [address for address in wanted if domains and address.rpartition("@")[2].lower() not in domains]
    if unverified:
        text = _NOT_VERIFIED.format(region=caller.region.upper(), identities=", ".join(unverified))
        raise Refused(400, "MessageRejected", text)


def _mail(document: dict[str, Any], magic_recipients: bool) -> Intake:
    tags = tags_of(document.get("EmailTags"))
    correlation = Correlation(tags.get("notification_id"), tags.get("organization_id"))
    magic, address = meaning_of(recipients_of(document["Destination"])) if magic_recipients else (None, "")
    return Intake((correlation,), None, magic, correlation.notification_id or address)


def _bulk(document: dict[str, Any], faults: list[str], magic_recipients: bool) -> Intake:
    default = tags_of(document.get("DefaultEmailTags"))
    entries: list[Entry] = []
    whole: Magic | None = None
    whole_name = ""
    for entry, fault in zip(document["BulkEmailEntries"], faults, strict=True):
        tags = {**default, **tags_of(entry.get("ReplacementTags"))}
        own = Correlation(tags.get("notification_id"), tags.get("organization_id"))
        magic, address = meaning_of(recipients_of(entry["Destination"])) if magic_recipients and not fault else (None, "")
        name = own.notification_id or address
        if magic is not None and magic.trick in (Trick.DROP, Trick.CLOSE, Trick.SILENT, Trick.SLOW):
            if whole is None:
                whole, whole_name = magic, name
            magic = None
        entries.append(Entry(own, magic, name, fault))
    return Intake(tuple(entry.correlation for entry in entries), None, whole, whole_name, entries=tuple(entries))


def _result(result: EntryResult) -> dict[str, str]:
    if result.message_id is not None:
        return {"Status": "SUCCESS", "MessageId": result.message_id}
    status = _ENTRY_STATUSES.get((result.status, result.reason)) or _ENTRY_STATUSES.get((result.status, "")) or "FAILED"
    return {"Status": status, "Error": "This entry was not sent."}
