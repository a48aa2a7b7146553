"""What the replies of mail servers mean, as data.

A reply is looked up by its code together with its enhanced code (RFC 3463), by the enhanced code, by the subject of that, by the
code, and at last by its first digit. An enhanced code of another class than its reply is not believed. The words of a reply are
looked at for a few phrases only, which their authors have documented.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dispatcher.outcome import OutcomeClass
from dispatcher.providers.error_table import ErrorTable, Row
from dispatcher.smtp_message import Fault, SmtpReply, Stage

_HARD, _SOFT, _GONE = OutcomeClass.HARD, OutcomeClass.SOFT, OutcomeClass.SUPPRESS
_CONFIG, _RATE = OutcomeClass.MISCONFIGURED, OutcomeClass.RATE_LIMITED

GREYLIST_WAIT_S: Final = 300.0
"""Greylisting servers let a sender in after five minutes, most of them."""
MAILBOX_FULL_WAIT_S: Final = 3600.0
MAILBOX_FULL_ATTEMPTS_MAX: Final = 6
"""One an hour: who has not read mail for so long will not in the next minutes."""
DAILY_QUOTA_RETRY_S: Final = 3600.0
"""The window of a daily quota rolls on, so something is free again long before the day ends."""
PHRASE_BYTES_MAX: Final = 2_048

_FULL = Row(
    _SOFT,
    "mailbox_full",
    "The recipient's mailbox is full. It is tried again for some hours, once an hour.",
    attempts_max=MAILBOX_FULL_ATTEMPTS_MAX,
    wait_s=MAILBOX_FULL_WAIT_S,
)
_LATER = Row(
    _SOFT, "deferred", "The server defers mail from senders it does not know yet. It is tried again.", wait_s=GREYLIST_WAIT_S
)
_SYSTEM = Row(_SOFT, "server_trouble", "The server has trouble of its own. It is tried again by itself.")
_NETWORK = Row(_SOFT, "routing_trouble", "The server could not pass the mail on. It is tried again by itself.")
_TOO_MANY = Row(_SOFT, "too_many_recipients", "The server takes fewer recipients at once. Lower batch_max.")
_RATE_ROW = Row(_RATE, "rate_limited", "The server asks to slow down. Set rate_per_s to what the account allows.")
_NOBODY = Row(_GONE, "no_such_recipient", "There is no such mailbox. Do not send to this address again.")
_NO_DOMAIN = Row(_GONE, "no_such_domain", "The domain of this address takes no mail. Do not send to it again.")
_SYNTAX = Row(_GONE, "recipient_malformed", "The server can not read this address. Correct it, or do not send to it again.")
_MOVED = Row(_GONE, "recipient_moved", "The mailbox has moved, or its name is no longer valid. Do not send to it again.")
_DISABLED = Row(_GONE, "mailbox_disabled", "The mailbox is switched off. Do not send to this address again.")
_LARGE = Row(_HARD, "too_large", "The mail is larger than what the server takes. Shorten it.")
_POLICY = Row(
    _HARD, "policy_refused", "A policy of the server refuses this mail. Look at its content and at the sender's standing."
)
_UNPROVEN = Row(
    _CONFIG,
    "sender_unproven",
    "The sender fails a check of its domain or address: look at its SPF, DKIM and reverse DNS.",
)
_LOGIN = Row(_CONFIG, "login_refused", "The server refuses the login, or wants one. Check username and password.")
_WEAK = Row(_CONFIG, "login_unsafe", "The server wants a safer way of logging in than PLAIN and LOGIN over this connection.")
_COMMAND = Row(_CONFIG, "command_refused", "The server does not understand a command. Check host, port and security.")
_ROUTE = Row(_HARD, "routing_failed", "The server can not pass the mail on to this recipient.")
_BROKEN = Row(_HARD, "system_refused", "The recipient's system does not take this mail.")
_STORAGE = Row(_HARD, "storage_exceeded", "The mail exceeds what the server stores for this recipient.")

ERRORS: Final = ErrorTable[str](
    rows=MappingProxyType(
        {
            "421": Row(_SOFT, "service_closing", "The server ended the session. It is tried again by itself."),
            "4.7.28": _RATE_ROW,
            "450": Row(_SOFT, "mailbox_busy", "The mailbox can not be reached at this moment. It is tried again by itself."),
            "4.2.1": Row(
                _SOFT,
                "recipient_deferred",
                "The mailbox takes nothing at this moment. It is tried again.",
                wait_s=GREYLIST_WAIT_S,
            ),
            "450 4.7.x": _LATER,
            "451 4.7.1": _LATER,
            "451": _SYSTEM,
            "4.3.x": _SYSTEM,
            "4.4.x": _NETWORK,
            "454 4.7.0": Row(_SOFT, "login_deferred", "The server can not begin TLS or check the login at this moment."),
            "4.2.2": _FULL,
            "5.2.2": _FULL,
            "452": Row(_SOFT, "storage_short", "The server is short of storage, or of patience. It is tried again by itself."),
            "4.5.3": _TOO_MANY,
            "5.1.1": _NOBODY,
            "5.1.2": _NO_DOMAIN,
            "5.1.3": _SYNTAX,
            "5.1.6": _MOVED,
            "5.1.10": _NO_DOMAIN,
            "553": _SYNTAX,
            "551": _MOVED,
            "556": _NO_DOMAIN,
            "5.2.1": _DISABLED,
            "5.2.3": _LARGE,
            "5.3.4": _LARGE,
            "552": _STORAGE,
            "5.7.1": _POLICY,
            "5.7.20": _UNPROVEN,
            "5.7.21": _UNPROVEN,
            "5.7.22": _UNPROVEN,
            "5.7.23": _UNPROVEN,
            "5.7.24": _UNPROVEN,
            "5.7.25": _UNPROVEN,
            "5.7.26": _UNPROVEN,
            "5.7.27": _UNPROVEN,
            "530": _LOGIN,
            "535": _LOGIN,
            "5.7.8": _LOGIN,
            "534": _WEAK,
            "538": _WEAK,
            "500": _COMMAND,
            "501": _COMMAND,
            "502": _COMMAND,
            "503": _COMMAND,
            "504": _COMMAND,
            "555": _COMMAND,
            "5.5.x": _COMMAND,
            "5.3.x": _BROKEN,
            "5.4.x": _ROUTE,
            "4xx": Row(_SOFT, "smtp", "The server can not take the mail at this moment. It is tried again by itself."),
            "5xx": Row(_HARD, "smtp", "The server refuses the mail for good. Look at its content and at the recipient."),
        }
    ),
    ranges=(),
    other=Row(OutcomeClass.UNKNOWN, "reply_not_understood", "The server said something that is no answer. Check host and port."),
)
"""By ``code c.s.d``, ``c.s.d``, ``code c.s.x``, ``c.s.x``, ``code``, and the code's hundred."""

STAGES: Final[Mapping[Stage, Row]] = MappingProxyType(
    {
        Stage.GREETING: Row(_CONFIG, "session_refused", "The server refuses to talk to this machine. Check host and port."),
        Stage.HELLO: Row(_CONFIG, "hello_refused", "The server refuses our greeting. Check host, port and security."),
        Stage.TLS: Row(_CONFIG, "starttls_refused", "The server refuses STARTTLS. Check port and security."),
        Stage.AUTH: _LOGIN,
        Stage.MAIL: Row(
            _CONFIG, "sender_refused", "The server refuses the sender. Check from_email, envelope_from, the account."
        ),
    }
)
"""What a refusal for good means before anybody's address was named: it would meet every other mail as well."""

FAULTS: Final[Mapping[Fault, Row]] = MappingProxyType(
    {
        Fault.CERTIFICATE: Row(
            _CONFIG,
            Fault.CERTIFICATE.value,
            "The server's certificate is not one that this machine trusts, or is for another name. Check host and certificate.",
        ),
        Fault.NO_STARTTLS: Row(
            _CONFIG,
            Fault.NO_STARTTLS.value,
            "The server offers no STARTTLS, so nothing was said to it. Check port, or set security to tls.",
        ),
        Fault.NO_AUTH: Row(
            _CONFIG,
            Fault.NO_AUTH.value,
            "The server offers no AUTH PLAIN or LOGIN. Check port, or use no username and password.",
        ),
        Fault.NO_UTF8: Row(_HARD, Fault.NO_UTF8.value, "The server takes no addresses beyond ASCII, and this one is."),
        Fault.NO_EIGHT_BIT: Row(_HARD, Fault.NO_EIGHT_BIT.value, "The server takes no mail beyond ASCII, and this one is."),
        Fault.TOO_LARGE: _LARGE,
    }
)

PHRASES: Final[tuple[tuple[bytes, Row], ...]] = (
    # Amazon SES, which has one code for both.
    (
        b"daily message quota exceeded",
        Row(_RATE, "daily_quota_exceeded", "The account's daily quota is used up. Raise it, or set quota.", DAILY_QUOTA_RETRY_S),
    ),
    (b"maximum sending rate exceeded", _RATE_ROW),
    (b"throttling failure", _RATE_ROW),
    # Postfix, of a client that sends too fast.
    (b"too much mail from", _RATE_ROW),
    (b"too many recipients from", _RATE_ROW),
    (b"rate limit", _RATE_ROW),
)
"""Looked for in temporary refusals, in lower case."""

EXPLANATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{row.code: row.words for row in (*STAGES.values(), *FAULTS.values(), *(row for _, row in PHRASES))},
        **ERRORS.explanations,
    }
)


def row_of(reply: SmtpReply, stage: Stage) -> Row:
    """What a refusal means at a stage."""
    digit = reply.code // 100
    if digit == 4:
        text = reply.text[:PHRASE_BYTES_MAX].lower()
        for phrase, row in PHRASES:
            if phrase in text:
                return row
    if digit not in (4, 5):
        return ERRORS.other
    row = _look_up(reply)
    if row.kind in (_HARD, _GONE) and row is not _LARGE:
        return STAGES.get(stage, row)
    return row


def _look_up(reply: SmtpReply) -> Row:
    code = reply.code
    keys = [str(code)]
    if reply.enhanced is not None and reply.enhanced[0] == code // 100:
        klass, subject, detail = reply.enhanced
        exact, group = f"{klass}.{subject}.{detail}", f"{klass}.{subject}.x"
        keys = [f"{code} {exact}", exact, f"{code} {group}", group, *keys]
    for key in keys:
        if key in ERRORS.rows:
            return ERRORS.rows[key]
    default = ERRORS.rows[f"{code // 100}xx"]
    return default._replace(code=f"{default.code}_{code}")
