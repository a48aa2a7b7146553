"""SMTP submissions as values: what a provider decides to send, and what it is shown of the answers.

A request is one mail transaction: a sender, recipients, one message. The answer tells how far the conversation came. Invariant:
neither shows a login, an address, a message or a server's own words.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from dispatcher.http_message import Origin

SMTP_STARTTLS = "smtp"
"""The scheme of a submission port that begins in the clear and must change to TLS before anything is said."""
SMTP_TLS = "smtps"
"""The scheme of a submission port that speaks TLS from its first byte."""
SMTP_PLAIN = "smtp+plain"
"""The scheme of a submission port without TLS, for this very machine only."""
SMTP_PORTS = {SMTP_STARTTLS: 587, SMTP_TLS: 465, SMTP_PLAIN: 25}


class Stage(StrEnum):
    """The steps of a submission, in their order. An answer names the last one that was reached."""

    GREETING = "greeting"
    HELLO = "hello"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    MESSAGE = "message"
    """The whole message was handed over: its reply is the final one."""


class Fault(StrEnum):
    """Why a submission was ended by our side, before the message: not for a reply, but for what the server is or lacks."""

    CERTIFICATE = "certificate_invalid"
    """Its certificate is not one that this process trusts for this host name."""
    NO_STARTTLS = "starttls_missing"
    """It offers no STARTTLS, so nothing was said to it."""
    NO_AUTH = "auth_missing"
    """There is a login, and it offers no way of showing it that this client has."""
    NO_UTF8 = "utf8_missing"
    """An address is not ASCII, and it does not take such."""
    NO_EIGHT_BIT = "eight_bit_missing"
    """The message is not ASCII, and it does not take such."""
    TOO_LARGE = "too_large"
    """The message is larger than what it says it takes."""


class Login(NamedTuple):
    """Who we are to a server. Part of what connections are shared by, and never shown."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "<login>"


class SmtpRequest(NamedTuple):
    """One mail transaction, or with ``message`` None the attempt at one: it ends after the sender was taken, and is taken back.

    Addresses stand without angle brackets, their domains in ASCII unless ``utf8``. ``message`` is the whole mail with CRLF line
    ends, as the recipient shall see it: the transport does what the wire needs. ``utf8``: an address or a header is not ASCII,
    so only a server with SMTPUTF8 can take it. ``message_id`` is the message's own name, which the answer repeats.
    """

    origin: Origin
    login: Login | None
    sender: str
    recipients: tuple[str, ...]
    message: bytes | None
    utf8: bool = False
    message_id: str | None = None

    def __repr__(self) -> str:
        size = "no message" if self.message is None else f"{len(self.message)} bytes"
        return f"<mail of {size} for {len(self.recipients)} recipients through {self.origin}>"


class SmtpReply(NamedTuple):
    """One reply. ``enhanced`` is its enhanced status code, if it has one; ``text`` its lines without codes, joined by LF."""

    code: int
    enhanced: tuple[int, int, int] | None = None
    text: bytes = b""

    def __repr__(self) -> str:
        enhanced = "" if self.enhanced is None else " {}.{}.{}".format(*self.enhanced)
        return f"<reply {self.code}{enhanced}>"


class SmtpResponse(NamedTuple):
    """How a transaction ended.

    ``reply`` is the last one that mattered: the refusal at ``stage``, or with MESSAGE the server's word about the message; None
    with a ``fault``, and at RCPT, where no recipient was taken. ``recipients`` holds a reply for each recipient, in order, as
    soon as the stage is RCPT or later. A probe that went well ends at MAIL with the reply to the sender.
    """

    stage: Stage
    reply: SmtpReply | None
    recipients: tuple[SmtpReply, ...] = ()
    fault: Fault | None = None
    message_id: str | None = None

    def __repr__(self) -> str:
        what = self.fault if self.reply is None else self.reply
        return f"<answer at {self.stage}: {what}, {len(self.recipients)} recipients>"
