"""The submission server as a simulator: what is looked at in a whole mail, and how every decision is put into a reply.

The exchange decides in statuses as for everybody; here they become SMTP's. An Answer's status is the reply's code, its body the
enhanced code and the words.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Sequence
from typing import NamedTuple

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.ledger import Correlation, Sent
from dispatcher_sandbox.magic import Magic, Trick, magic_of
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.rate import Rate
from dispatcher_sandbox.simulator import Intake, Search

REPLIES: dict[tuple[int, str], tuple[int, str]] = {
    (400, "address"): (550, "5.1.1 No such user here"),
    (400, ""): (554, "5.6.0 Message refused"),
    (401, "credits"): (454, "4.7.0 Throttling failure: Daily message quota exceeded."),
    (401, ""): (530, "5.7.0 Authentication required"),
    (403, "sender"): (550, "5.7.1 The sender is not verified"),
    (403, ""): (554, "5.7.1 Not allowed"),
    (413, ""): (552, "5.3.4 Message too large"),
    (429, ""): (454, "4.7.0 Throttling failure: Maximum sending rate exceeded."),
    (452, "full"): (452, "4.2.2 Mailbox full"),
    (452, "too-many"): (452, "4.5.3 Too many recipients"),
    (500, ""): (451, "4.3.0 Trouble of our own"),
    (502, ""): (451, "4.3.0 Trouble of our own"),
    (503, ""): (451, "4.3.0 Trouble of our own"),
    (504, ""): (451, "4.3.0 Trouble of our own"),
}
"""By the status of a decision and its reason. A status that is not here is a code of SMTP already."""

ONCE = ("From", "Date", "Message-ID")
"""Headers that a mail must have exactly once."""

_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_IDS = re.compile(rf"\s*{_ID}(?:\s*,\s*{_ID})*\s*")
_MESSAGE_ID = re.compile(rf"\s*<({_ID})@[^<>\s]+>\s*")
_LINE_BYTES_MAX = 998


class Envelope(NamedTuple):
    """What came before a mail. ``recipients`` are all that were named, with whether they were taken."""

    account: str
    sender: str
    recipients: tuple[tuple[str, bool], ...]
    eight_bit: bool

    def __repr__(self) -> str:
        return f"<envelope for {len(self.recipients)}>"


class MailRequest(Request):
    """A mail as the exchange gets it."""

    __slots__ = ("envelope",)

    def __init__(self, envelope: Envelope, message: bytes) -> None:
        super().__init__(b"DATA", b"smtp:", {}, message)
        self.envelope = envelope


def reply_to(status: int, reason: str) -> Answer:
    """A decision as a reply."""
    code, words = REPLIES.get((status, reason)) or REPLIES.get((status, "")) or (status, f"{status // 100}.0.0 As told")
    return Answer(code, b"", words.encode())


class Smtp:
    """The simulator. Holds nothing."""

    name = "smtp"
    prefix = b"smtp:"
    ceiling_per_s = 1_000

    def account(self, request: Request) -> bytes:
        """Who logged in."""
        assert isinstance(request, MailRequest)
        return request.envelope.account.encode()

    def read(self, request: Request, behaviour: Behaviour, now_s: float) -> Intake | Search | Answer:
        """Check a whole mail."""
        assert isinstance(request, MailRequest)
        message, envelope = request.body, request.envelope
        if not envelope.eight_bit and not message.isascii():
            return Answer(554, b"", b"5.6.1 Eight-bit content without BODY=8BITMIME")
        if max(map(len, message.split(b"\r\n"))) > _LINE_BYTES_MAX:
            return Answer(554, b"", b"5.6.0 Line too long")
        mail = email.message_from_bytes(message, policy=email.policy.compat32)
        for name in ONCE:
            if len(mail.get_all(name, [])) != 1:
                return Answer(554, b"", f"5.6.0 There must be exactly one {name} header".encode())
        if mail.defects:
            return Answer(554, b"", b"5.6.0 Malformed headers")
        domain = envelope.sender.rpartition("@")[2].lower()
        if behaviour.sender_domains and domain not in behaviour.sender_domains:
            return reply_to(403, "sender")
        taken = [recipient for recipient, is_taken in envelope.recipients if is_taken]
        magic, name = _magic(taken) if behaviour.magic_recipients else (None, "")
        ids = _ids(str(mail.get("X-Notification-Id", "")), str(mail["Message-ID"]), envelope.recipients)
        organization_id = mail.get("X-Organization-Id")
        organization = None if organization_id is None else str(organization_id).strip()
        return Intake(tuple(Correlation(id, organization) for id in ids), None, magic, name)

    def listing(self, sent: Sequence[Sent]) -> Answer:
        """A mail server keeps no records that could be asked for."""
        return Answer(502, b"", b"5.5.1 Not implemented")

    def accepted(self, id_bits: int) -> tuple[str, Answer]:
        """The queue id, in Postfix's words."""
        message_id = f"{id_bits:032X}"[:12]
        return message_id, self.replayed(message_id)

    def replayed(self, message_id: str) -> Answer:
        """The reply again."""
        return Answer(250, b"", f"2.0.0 Ok: queued as {message_id}".encode())

    def validated(self) -> Answer:
        """Never asked for."""
        return Answer(250, b"", b"2.0.0 Ok")

    def refused(self, status: int, reason: str) -> Answer:
        """A refusal that was decided, not found."""
        return reply_to(status, reason)

    def rate_headers(self, rate: Rate) -> bytes:
        """SMTP has no such thing."""
        return b""


def refusal_of(recipient: str) -> Magic | None:
    """The row of a magic recipient that is refused by itself, already when it is named."""
    magic = magic_of(recipient)
    return magic if magic is not None and magic.trick is Trick.REFUSE else None


def _magic(recipients: Sequence[str]) -> tuple[Magic | None, str]:
    """The first recipient whose trick is played on the whole mail."""
    for recipient in recipients:
        magic = magic_of(recipient)
        if magic is not None and magic.trick is not Trick.REFUSE:
            return magic, f"smtp message {recipient}"
    return None, ""


def _ids(header: str, message_id: str, recipients: Sequence[tuple[str, bool]]) -> list[str | None]:
    """The notification of each recipient that was taken: the header names one for each of the envelope, in its order."""
    taken = [is_taken for _, is_taken in recipients]
    if _IDS.fullmatch(header):
        ids = [id.strip() for id in header.split(",")]
        if len(ids) == len(taken):
            return [id for id, is_taken in zip(ids, taken, strict=True) if is_taken]
    found = _MESSAGE_ID.fullmatch(message_id)
    return [found[1] if found else None] * sum(taken)
