"""What push services of browsers say when they refuse, as tables.

Their statuses are one standard's (RFC 8030); the numbers that Mozilla's adds are better where they are there. One thing no code
tells apart from a wrong configuration, a subscription that was made for another key pair, is known by a phrase of each service.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import orjson

from dispatcher.outcome import OutcomeClass, RateScope
from dispatcher.providers.error_table import ErrorTable, Range, Row

_ERROR_BODY_BYTES_MAX = 16 * 1024
_MISMATCH = (b"do not correspond", b"does not correspond", b"key mismatch", b"vapidpkhashmismatch")
_DEVICE_RATE = (b"toomanyrequests", b"device token", b"same subscription")

_SOFT = "The browser's push service failed on its own side. The notification is tried again."
_GONE = "The browser has ended this subscription, or it never existed. It will not be used again."
_REQUEST = "The push service found a fault in the request itself. If many fail like this, report it: no setting causes it."
_GATEWAY = "A server before the push service got no answer from it: the message may have been taken."

KEY_MISMATCH: Final = Row(
    OutcomeClass.HARD,
    "vapid_key_mismatch",
    "The subscription was made for another VAPID key pair. Have the page subscribe anew with this public key. If all fail like "
    "this, vapid_private_key is not the one whose public half the page uses.",
)
RATE_OF_SUBSCRIPTION: Final = Row(
    OutcomeClass.RATE_LIMITED,
    "subscription_rate_limited",
    "This one browser was sent more than its push service allows. It is tried again later; nobody else waits.",
    60.0,
    RateScope.RECIPIENT,
)

_MOVED = Row(
    OutcomeClass.HARD,
    "endpoint_moved",
    "The push service says that this subscription has moved. It is not followed: an endpoint and its keys come from the browser "
    "alone. Have the page read its subscription anew and replace the stored one.",
)

BY_STATUS: Final[ErrorTable[int]] = ErrorTable(
    MappingProxyType(
        {
            301: _MOVED,
            302: _MOVED,
            307: _MOVED,
            308: _MOVED,
            400: Row(OutcomeClass.HARD, "http_400", _REQUEST),
            401: Row(
                OutcomeClass.MISCONFIGURED,
                "vapid_refused",
                "The push service does not accept our VAPID token. Check that subject is a mailto: or https: address that really "
                "exists, and that the clock here is right.",
            ),
            403: Row(
                OutcomeClass.MISCONFIGURED,
                "vapid_forbidden",
                "The push service does not accept our VAPID token. Apple's wants a subject that really exists; check it, and "
                "that vapid_private_key belongs to the public key the page subscribes with.",
            ),
            404: Row(OutcomeClass.SUPPRESS, "subscription_unknown", _GONE),
            406: Row(OutcomeClass.RATE_LIMITED, "http_406", "Windows' push service asks for fewer messages.", 60.0),
            408: Row(OutcomeClass.SOFT, "http_408", _SOFT),
            410: Row(OutcomeClass.SUPPRESS, "subscription_gone", _GONE),
            413: Row(OutcomeClass.HARD, "too_large", "The push service takes less than this. Send a shorter text or less data."),
            429: Row(OutcomeClass.RATE_LIMITED, "http_429", "The push service asks for fewer messages. Sending slows down."),
            502: Row(OutcomeClass.UNKNOWN, "http_502", _GATEWAY),
            504: Row(OutcomeClass.UNKNOWN, "http_504", _GATEWAY),
        }
    ),
    (
        Range(300, 499, Row(OutcomeClass.HARD, "http", "The push service refused this message.")),
        Range(500, 599, Row(OutcomeClass.SOFT, "http", _SOFT)),
    ),
    Row(OutcomeClass.UNKNOWN, "answer_not_understood", "What came back is no answer of a push service."),
)
"""By HTTP status."""

_BRIDGE = Row(OutcomeClass.SOFT, "bridge_failed", "The phone's own push service did not take it. It is tried again.")

BY_NUMBER: Final[ErrorTable[int]] = ErrorTable(
    MappingProxyType(
        {
            101: Row(OutcomeClass.HARD, "encryption_missing", _REQUEST),
            102: Row(OutcomeClass.SUPPRESS, "subscription_unknown", _GONE),
            103: Row(OutcomeClass.SUPPRESS, "subscription_gone", _GONE),
            104: BY_STATUS.rows[413],
            105: Row(OutcomeClass.SUPPRESS, "subscription_gone", _GONE),
            106: Row(OutcomeClass.SUPPRESS, "subscription_gone", _GONE),
            108: Row(OutcomeClass.SUPPRESS, "subscription_unknown", _GONE),
            109: BY_STATUS.rows[401],
            110: Row(OutcomeClass.HARD, "encryption_invalid", _REQUEST),
            111: Row(OutcomeClass.HARD, "header_missing", _REQUEST),
            112: Row(OutcomeClass.HARD, "ttl_invalid", _REQUEST),
            113: Row(OutcomeClass.HARD, "topic_invalid", _REQUEST),
            202: Row(OutcomeClass.SOFT, "try_again", _SOFT),
            900: _BRIDGE,
            901: _BRIDGE,
            902: _BRIDGE,
            903: _BRIDGE,
        }
    ),
    (),
    BY_STATUS.other,
)
"""By ``errno`` of Mozilla's. 201 is not here: it comes with 429 and with 503, and adds nothing to either."""

EXPLANATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **BY_NUMBER.explanations,
        **BY_STATUS.explanations,
        KEY_MISMATCH.code: KEY_MISMATCH.words,
        RATE_OF_SUBSCRIPTION.code: RATE_OF_SUBSCRIPTION.words,
        "recipient_invalid": "The recipient is not the JSON of a Web Push subscription with endpoint, p256dh and auth.",
        "endpoint_not_allowed": "The subscription's endpoint is at no push service that is known here. Ask whoever runs the "
        "dispatcher to allow its origin in DISPATCHER_PROVIDER_URLS_EXTRA.",
        "subscription_key_invalid": "The subscription's p256dh is no public key. Have the page report its subscription anew.",
        "payload_too_large": "Title, text and data together are larger than the 3993 bytes that fit into a push message.",
    }
)


def row_of(status: int, body: bytes) -> Row:
    """What a refusal means. Never raises."""
    head = body[:_ERROR_BODY_BYTES_MAX].lower()
    if status in (400, 401, 403) and any(phrase in head for phrase in _MISMATCH):
        return KEY_MISMATCH
    if status == 429 and any(phrase in head for phrase in _DEVICE_RATE):
        return RATE_OF_SUBSCRIPTION
    number = _number(body)
    if status >= 400 and number in BY_NUMBER.rows:
        return BY_NUMBER.rows[number]
    return BY_STATUS.row(status)


def _number(body: bytes) -> int:
    """The ``errno``, 0 without one."""
    if len(body) > _ERROR_BODY_BYTES_MAX:
        return 0
    try:
        number = orjson.loads(body)["errno"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return 0
    return number if isinstance(number, int) else 0
