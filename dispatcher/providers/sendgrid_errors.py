"""What SendGrid's refusals mean, as tables, and the words for people who see their codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

import orjson

from dispatcher.outcome import OutcomeClass
from dispatcher.providers.error_table import ErrorTable, Range, Row

ERROR_BODY_BYTES_MAX: Final = 64 * 1024
"""A refusal longer than this is not read: SendGrid's are far shorter."""
CREDITS_EXCEEDED_RETRY_S: Final = 3600.0
"""A used-up plan answers 401 until its daily or monthly reset, whose time it does not tell."""

STATUSES: Final = ErrorTable[int](
    {
        200: Row(
            OutcomeClass.DELIVERED,
            "validated",
            "SendGrid has checked the mail and, because sandbox mode is on, sent nothing. Switch sandbox_mode off to send.",
        ),
        202: Row(OutcomeClass.DELIVERED, "accepted", "SendGrid has taken the mail on. Its delivery events tell how it went on."),
        400: Row(
            OutcomeClass.HARD,
            "http_400",
            "SendGrid found something wrong with the mail itself and did not name a field we know. Look at its content.",
        ),
        401: Row(
            OutcomeClass.MISCONFIGURED,
            "key_refused",
            "SendGrid does not accept the API key: it is mistyped, revoked, or of another region. Store a valid one.",
        ),
        403: Row(
            OutcomeClass.MISCONFIGURED,
            "forbidden",
            "The key may not send, the sender is not verified, or the account is blocked for a while after many bad requests. "
            "Check the key's permissions and the sender's identity at SendGrid.",
        ),
        404: Row(
            OutcomeClass.MISCONFIGURED, "http_404", "There is no such address at this base_url. Check base_url, or leave it out."
        ),
        405: Row(
            OutcomeClass.MISCONFIGURED,
            "http_405",
            "Whatever answers at this base_url takes no mails. Check base_url, or leave it out.",
        ),
        406: Row(
            OutcomeClass.MISCONFIGURED, "http_406", "A server in between changes our headers. Check what base_url leads through."
        ),
        408: Row(OutcomeClass.SOFT, "http_408", "SendGrid gave up waiting for the whole request. It is tried again by itself."),
        409: Row(
            OutcomeClass.SOFT, "in_progress", "A gateway still works on an earlier attempt of this mail. It is tried again."
        ),
        413: Row(OutcomeClass.HARD, "too_large", "The mail is larger than the 30 MB that SendGrid takes. Make it smaller."),
        415: Row(
            OutcomeClass.MISCONFIGURED, "http_415", "A server in between changes our headers. Check what base_url leads through."
        ),
        425: Row(OutcomeClass.SOFT, "http_425", "SendGrid wants the request once its connection is settled. It is tried again."),
        429: Row(
            OutcomeClass.RATE_LIMITED,
            "http_429",
            "SendGrid takes no more for now. Sending slows down by itself; rate_per_s keeps it below what the account may do.",
        ),
        # Not from the service but from a gateway before it, which may have handed the mail on and missed the answer.
        502: Row(
            OutcomeClass.UNKNOWN,
            "http_502",
            "A gateway before SendGrid answered in its place: nobody knows whether the mail went on. on_unknown decides.",
        ),
        504: Row(
            OutcomeClass.UNKNOWN,
            "http_504",
            "A gateway before SendGrid waited in vain: nobody knows whether the mail went on. on_unknown decides.",
        ),
    },
    (
        Range(200, 299, Row(OutcomeClass.DELIVERED, "http", "SendGrid has taken the mail on.")),
        Range(
            300,
            399,
            Row(OutcomeClass.MISCONFIGURED, "http", "Redirects are not followed: base_url leads somewhere else. Check it."),
        ),
        Range(400, 499, Row(OutcomeClass.HARD, "http", "SendGrid refuses this mail.")),
        Range(500, 599, Row(OutcomeClass.SOFT, "http", "SendGrid has a fault of its own. It is tried again by itself.")),
        Range(0, 9999, Row(OutcomeClass.UNKNOWN, "http", "No HTTP status there is: nobody knows what became of the mail.")),
    ),
    Row(OutcomeClass.UNKNOWN, "http_other", "No HTTP status there is: nobody knows what became of the mail."),
)
"""What each status means."""

RECIPIENT_REFUSED: Final = Row(
    OutcomeClass.HARD, "recipient_refused", "SendGrid takes this recipient for no valid address. Correct it and send anew."
)

_SUBJECT: Final = Row(OutcomeClass.HARD, "subject_refused", "SendGrid does not take this subject. Send with another.")

FIELDS: tuple[tuple[str, Row], ...] = (
    ("personalizations.0.to", RECIPIENT_REFUSED),
    # The sender is a setting: every other message would fail as well.
    ("from", Row(OutcomeClass.MISCONFIGURED, "sender_refused", "SendGrid does not take from_email or from_name. Correct them.")),
    ("reply_to", Row(OutcomeClass.MISCONFIGURED, "reply_to_refused", "SendGrid does not take reply_to. Correct it.")),
    ("subject", _SUBJECT),
    ("personalizations.0.subject", _SUBJECT),
    ("content", Row(OutcomeClass.HARD, "content_refused", "SendGrid does not take this text or HTML. Send with another.")),
    ("categories", Row(OutcomeClass.MISCONFIGURED, "categories_refused", "SendGrid does not take the categories. Correct them.")),
)
"""What a 400 means, by the beginning of the name of the first field it complains about."""

CREDITS_EXCEEDED: Final = Row(
    OutcomeClass.RATE_LIMITED,
    "credits_exceeded",
    "The account has used up what its plan allows. Sending goes on at the plan's reset, or with a larger plan.",
    CREDITS_EXCEEDED_RETRY_S,
)

_UNSENDABLE: Mapping[str, str] = {
    "subject_missing": "A mail needs a subject. Send with one.",
    "subject_has_line_break": "A subject must be one line. Send with another.",
    "recipient_invalid": "The recipient is no single e-mail address. Correct it and send anew.",
    "content_missing": "A mail needs a text or HTML. Send with one.",
    "content_invalid": "Text and HTML must be texts. Send with such.",
    "extras_invalid": "A header or an attachment is not of the form that mails have here. Send with others.",
    "payload_not_unicode": "The content holds half of a character and can not be written down. Send without it.",
}

EXPLANATIONS: Mapping[str, str] = MappingProxyType(
    {
        **STATUSES.explanations,
        **{row.code: row.words for _, row in FIELDS},
        CREDITS_EXCEEDED.code: CREDITS_EXCEEDED.words,
        **_UNSENDABLE,
    }
)
"""The words by our codes."""


def named_fields(body: bytes) -> Iterator[str]:
    """The fields that a refusal names, in its order. Nothing else of it is read: SendGrid repeats addresses in its messages."""
    errors = None
    if len(body) <= ERROR_BODY_BYTES_MAX:
        with suppress(orjson.JSONDecodeError, LookupError, TypeError):
            errors = orjson.loads(body)["errors"]
    for error in errors if isinstance(errors, list) else ():
        field = error.get("field") if isinstance(error, dict) else None
        yield field if isinstance(field, str) else ""


def row_of_field(field: str) -> Row | None:
    """What it means that a field is refused, None when it is none we know."""
    for prefix, row in FIELDS:
        if field == prefix or field.startswith(prefix + "."):
            return row
    return None


def row_of_refusal(body: bytes) -> Row:
    """What a 400 means for the one mail that it refuses."""
    return row_of_field(next(named_fields(body), "")) or STATUSES.rows[400]
