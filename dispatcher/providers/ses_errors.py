"""What the answers of SES mean: its exceptions by name, and the states of the entries of a bulk request.

SES names an exception in a header, its HTTP status says little: half of them are a 400. Two exceptions have several meanings
that only their texts tell apart; those texts are documented, everything else in a text is ignored, because it may repeat an
address. Sources: the service model that AWS publishes with its SDKs, and the developer guide's pages on quotas and errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

import orjson

from dispatcher.http_message import HttpResponse
from dispatcher.outcome import OutcomeClass
from dispatcher.providers.error_table import ErrorTable, Range, Row

DAILY_QUOTA_RETRY_S: Final = 3600.0
"""The quota of 24 hours is a rolling one: some of it is free again within the hour, and how much is not told."""
PAUSED_RETRY_S: Final = 300.0
"""Sending that a person has paused, a person lifts: asked for every few minutes."""
SUSPENDED_RETRY_S: Final = 3600.0
LIMIT_RETRY_S: Final = 60.0

_ERROR_BODY_BYTES_MAX = 64 * 1024
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,127}")


def _rows(codes: str, row: Row) -> Iterable[tuple[str, Row]]:
    return ((code, row) for code in codes.split())


_SENDING_RATE = Row(
    OutcomeClass.RATE_LIMITED,
    "sending_rate",
    "SES takes no more mails a second from this account. Nothing is lost: sending slows down by itself. Set rate_per_s to the "
    "account's maximum send rate, or ask AWS for a higher one.",
)
_DAILY_QUOTA = Row(
    OutcomeClass.RATE_LIMITED,
    "daily_quota",
    "The account's quota of recipients in 24 hours is used up. Mails wait and go out as it frees. Set quota to the account's "
    "daily quota, or ask AWS for a higher one.",
    DAILY_QUOTA_RETRY_S,
)
_NOT_VERIFIED = Row(
    OutcomeClass.MISCONFIGURED,
    "identity_not_verified",
    "An address of the mail is not verified in this region: the sender's domain is not (verify it), or the account is still in "
    "SES's sandbox, where recipients must be verified too (ask AWS for production access).",
)
_REJECTED = Row(
    OutcomeClass.HARD,
    "message_rejected",
    "SES refused this message for what is in it, such as a virus. Change its content; sending it again would not help.",
)
_CREDENTIALS = Row(
    OutcomeClass.MISCONFIGURED,
    "credentials_refused",
    "AWS does not know the access key, or the signature does not fit it. Check access_key_id and secret_access_key.",
)
_SESSION_ENDED = Row(
    OutcomeClass.MISCONFIGURED,
    "session_ended",
    "The session token has expired. Store fresh temporary credentials, or better, those of a user who may only send mail.",
)
_FORBIDDEN = Row(
    OutcomeClass.MISCONFIGURED,
    "not_permitted",
    "The access key is valid and may not do this. Allow ses:SendEmail and ses:SendBulkEmail for the sender's identity and the "
    "configuration set, or subscribe the account to SES.",
)
_SKEWED = Row(
    OutcomeClass.MISCONFIGURED,
    "clock_wrong",
    "The request's time is more than five minutes from that of AWS. Set this machine's clock.",
)
_PAUSED = Row(
    OutcomeClass.MISCONFIGURED,
    "sending_paused",
    "Sending is paused for the account or the configuration set. Find out why (bounces, complaints), and switch it on again.",
    PAUSED_RETRY_S,
)
_SUSPENDED = Row(
    OutcomeClass.MISCONFIGURED,
    "account_suspended",
    "AWS has ended this account's right to send. Only AWS can lift that: open a support case, and use another provider.",
    SUSPENDED_RETRY_S,
)
_MAIL_FROM = Row(
    OutcomeClass.MISCONFIGURED,
    "mail_from_not_verified",
    "The custom MAIL FROM domain of the sender is not set up in DNS. Publish its MX record, or take the domain off.",
)
_NOT_FOUND = Row(
    OutcomeClass.MISCONFIGURED,
    "not_found",
    "Something that the configuration names does not exist in this region: look at configuration_set and region.",
)
_BAD_REQUEST = Row(
    OutcomeClass.HARD,
    "bad_request",
    "SES found the request wrong, mostly an address that it can not use. Look at the recipient; the others are not affected.",
)
_LIMIT = Row(
    OutcomeClass.RATE_LIMITED,
    "limit_exceeded",
    "Some limit of the account is reached. Mails wait; if it goes on, look at the account's quotas.",
    LIMIT_RETRY_S,
)
_FAILED = Row(
    OutcomeClass.SOFT, "provider_failed", "SES failed by itself, for a moment. The mail is tried again without anybody's doing."
)
_TIMED_OUT = Row(OutcomeClass.SOFT, "request_timed_out", "SES did not get the whole request in time. It is tried again.")
_TOO_LARGE = Row(OutcomeClass.HARD, "too_large", "The mail is larger than SES takes. Make it smaller.")
_PAGE = Row(
    OutcomeClass.MISCONFIGURED,
    "http",
    "This was not answered by SES. Look at region and base_url, and what stands between.",
)

ERRORS: Final = ErrorTable[str](
    MappingProxyType(
        dict(
            (
                *_rows("TooManyRequestsException ThrottlingException Throttling ThrottledException", _SENDING_RATE),
                *_rows("RequestThrottledException RequestThrottled RequestLimitExceeded SlowDown", _SENDING_RATE),
                *_rows("BandwidthLimitExceeded PriorRequestNotComplete TransactionInProgressException", _SENDING_RATE),
                *_rows("LimitExceededException", _LIMIT),
                *_rows("MessageRejected MessageRejectedException", _REJECTED),
                *_rows("MailFromDomainNotVerifiedException", _MAIL_FROM),
                *_rows("SendingPausedException", _PAUSED),
                *_rows("AccountSuspendedException", _SUSPENDED),
                *_rows("NotFoundException", _NOT_FOUND),
                *_rows("BadRequestException ValidationException SerializationException", _BAD_REQUEST),
                *_rows("SignatureDoesNotMatch InvalidSignatureException InvalidClientTokenId", _CREDENTIALS),
                *_rows("UnrecognizedClientException IncompleteSignature IncompleteSignatureException", _CREDENTIALS),
                *_rows("MissingAuthenticationToken MissingAuthenticationTokenException", _CREDENTIALS),
                *_rows("InvalidAccessKeyId NotAuthorized", _CREDENTIALS),
                *_rows("ExpiredToken ExpiredTokenException", _SESSION_ENDED),
                *_rows("AccessDenied AccessDeniedException OptInRequired", _FORBIDDEN),
                *_rows("RequestExpired RequestTimeTooSkewed", _SKEWED),
                *_rows("InternalFailure InternalServerError InternalServerErrorException", _FAILED),
                *_rows("InternalServiceErrorException ServiceUnavailable ServiceUnavailableException", _FAILED),
                *_rows("RequestTimeout RequestTimeoutException", _TIMED_OUT),
            )
        )
    ),
    (),
    _BAD_REQUEST,
)
"""By the exception's name. One that is not listed goes by the HTTP status, see ``STATUSES``."""

PHRASES: tuple[tuple[frozenset[str], str, Row], ...] = (
    (frozenset({_SENDING_RATE.code, _LIMIT.code}), "daily message quota exceeded", _DAILY_QUOTA),
    (frozenset({_SENDING_RATE.code, _LIMIT.code}), "maximum sending rate exceeded", _SENDING_RATE),
    (frozenset({_REJECTED.code}), "not verified", _NOT_VERIFIED),
)
"""The texts that say what an exception means where its name does not: of which rows, which words, and the row instead."""

_GATEWAY = (
    "Something before SES answered instead of it, and may have handed the mail on: it counts as one that may have been sent, and "
    "on_unknown decides."
)
_UNAVAILABLE = Row(OutcomeClass.SOFT, "http", _FAILED.words)

STATUSES: Final = ErrorTable[int](
    MappingProxyType(
        {
            400: _BAD_REQUEST,
            401: _CREDENTIALS,
            403: _FORBIDDEN,
            404: _NOT_FOUND,
            408: _TIMED_OUT,
            413: _TOO_LARGE,
            429: _SENDING_RATE,
            500: _FAILED,
            502: Row(OutcomeClass.UNKNOWN, "http_502", _GATEWAY),
            503: _FAILED,
            504: Row(OutcomeClass.UNKNOWN, "http_504", _GATEWAY),
        }
    ),
    (Range(300, 499, _PAGE), Range(500, 599, _UNAVAILABLE)),  # redirects are not followed
    Row(OutcomeClass.UNKNOWN, "not_understood", "The answer was not one of SES: the mail may have been sent."),
)
"""By the HTTP status, for an answer that names no exception we know."""

ENTRIES: Final = ErrorTable[str](
    MappingProxyType(
        dict(
            (
                *_rows("TRANSIENT_FAILURE FAILED", _FAILED),
                *_rows("ACCOUNT_THROTTLED", _SENDING_RATE),
                *_rows("ACCOUNT_DAILY_QUOTA_EXCEEDED", _DAILY_QUOTA),
                *_rows("MESSAGE_REJECTED", _REJECTED),
                *_rows("INVALID_PARAMETER INVALID_PARAMETER_VALUE", _BAD_REQUEST),
                *_rows("MAIL_FROM_DOMAIN_NOT_VERIFIED", _MAIL_FROM),
                *_rows("CONFIGURATION_SET_NOT_FOUND CONFIGURATION_SET_DOES_NOT_EXIST", _NOT_FOUND),
                *_rows("TEMPLATE_NOT_FOUND TEMPLATE_DOES_NOT_EXIST INVALID_SENDING_POOL_NAME", _NOT_FOUND),
                *_rows("ACCOUNT_SUSPENDED", _SUSPENDED),
                *_rows("ACCOUNT_SENDING_PAUSED CONFIGURATION_SET_SENDING_PAUSED", _PAUSED),
            )
        )
    ),
    (),
    Row(
        OutcomeClass.SOFT,
        "entry_failed",
        "SES did not send this mail of a bulk request, for a reason new to us.",
    ),
)
"""By the ``Status`` of an entry that is not SUCCESS. Published models and their own texts spell some of them in two ways."""

EXPLANATIONS: Mapping[str, str] = MappingProxyType(
    {
        row.code: row.words
        for row in (
            *ERRORS.rows.values(),
            *(row for _, _, row in PHRASES),
            *STATUSES.rows.values(),
            STATUSES.other,
            *ENTRIES.rows.values(),
            ENTRIES.other,
        )
    }
)
"""The words by our codes."""


def row_of(response: HttpResponse) -> Row:
    """The row of an answer that is not a success. Never raises."""
    name, text = error_of(response)
    row = ERRORS.rows.get(name) or STATUSES.row(response.status)
    lowered = text.lower()
    for codes, phrase, instead in PHRASES:
        if row.code in codes and phrase in lowered:
            return instead
    return row


def error_of(response: HttpResponse) -> tuple[str, str]:
    """Name and text of the exception in an answer, each empty when it is not there. The text may repeat an address."""
    document: object = None
    if len(response.body) <= _ERROR_BODY_BYTES_MAX:
        with suppress(orjson.JSONDecodeError):
            document = orjson.loads(response.body)
    fields = document if isinstance(document, dict) else {}
    header = response.header(b"x-amzn-errortype")
    named = header.decode("latin-1") if header is not None else fields.get("__type", fields.get("code"))
    text = fields.get("message", fields.get("Message"))
    return _plain(named), text if isinstance(text, str) else ""


def _plain(name: object) -> str:
    """``prefix#Name:url`` without what stands around the name."""
    plain = name.partition(":")[0].rpartition("#")[2].strip() if isinstance(name, str) else ""
    return plain if _NAME.fullmatch(plain) else ""
