"""What APNs says when it refuses, as tables: by the ``reason`` of its answer, and by status where there is none.

Apple lists the reasons under "Handling notification responses from APNs" and asks there to wait a quarter of an hour after an
error of its own. The reasons about environments of keys are not on that list; they have been seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson

from dispatcher.outcome import OutcomeClass, RateScope
from dispatcher.providers.error_table import ErrorTable, Range, Row

SERVER_ERROR_WAIT_S: Final = 900.0
"""Apple's own figure for errors of its servers."""
TOKEN_UPDATES_RETRY_S: Final = 300.0
"""Apple takes a new provider token once in 20 minutes and says not when the last one came."""

_ERROR_BODY_BYTES_MAX = 16 * 1024
_HARD, _SOFT, _SUPPRESS = OutcomeClass.HARD, OutcomeClass.SOFT, OutcomeClass.SUPPRESS
_CONFIG, _RATE = OutcomeClass.MISCONFIGURED, OutcomeClass.RATE_LIMITED

_OURS = (
    "Apple found a fault in how the request was made. The notification will not be tried again; report this to the developers."
)
_APPLES = "Apple's servers failed. The notification is tried again after a quarter of an hour, as Apple asks."
_ADDRESS = "What answers is not the interface of APNs. Check base_url."

BY_REASON: Final = ErrorTable(
    MappingProxyType(
        {
            "BadDeviceToken": Row(
                _SUPPRESS,
                "bad_device_token",
                "Apple does not know this device token in this environment. A token of a development build works with the "
                "environment sandbox only, one of a build from the store with production only; if many are refused, it is that.",
            ),
            "DeviceTokenNotForTopic": Row(
                _SUPPRESS,
                "device_token_not_for_topic",
                "This device token belongs to another app. If many are refused, check the topic: it is the app's bundle id.",
            ),
            "Unregistered": Row(
                _SUPPRESS,
                "unregistered",
                "The app was removed from this device, or no longer takes notifications. The token will not be used again.",
            ),
            "ExpiredToken": Row(
                _SUPPRESS, "expired_token", "This device token has expired. The app has to register and report its token anew."
            ),
            "BadCollapseId": Row(_CONFIG, "bad_collapse_id", "Apple refuses the setting collapse_id: it has at most 64 bytes."),
            "BadExpirationDate": Row(_HARD, "bad_expiration_date", _OURS),
            "BadMessageId": Row(_HARD, "bad_message_id", _OURS),
            "BadPriority": Row(_CONFIG, "bad_priority", "Apple refuses the setting priority: it is 10, 5 or 1."),
            "DuplicateHeaders": Row(_HARD, "duplicate_headers", _OURS),
            "InvalidPushType": Row(_CONFIG, "invalid_push_type", "Apple refuses the setting push_type for this topic."),
            "MissingDeviceToken": Row(_HARD, "missing_device_token", _OURS),
            "PayloadEmpty": Row(_HARD, "payload_empty", _OURS),
            "PayloadTooLarge": Row(
                _HARD,
                "payload_too_large",
                "The notification is larger than the 4096 bytes that Apple takes. Shorten text or data.",
            ),
            "BadTopic": Row(_CONFIG, "bad_topic", "Apple does not know this topic. It must be the bundle id of the app."),
            "MissingTopic": Row(_CONFIG, "missing_topic", "Apple misses the topic. Set it to the bundle id of the app."),
            "TopicDisallowed": Row(
                _CONFIG,
                "topic_disallowed",
                "This key may not send to this topic. Use a key of the team that owns the app, or correct the topic.",
            ),
            "IdleTimeout": Row(_SOFT, "idle_timeout", "Apple closed an idle connection. The notification is sent on a new one."),
            "ExpiredProviderToken": Row(
                _SOFT,
                "provider_token_expired",
                "Apple found the provider token too old. It is made anew at once; if this goes on, the clock of this machine is "
                "wrong by more than a quarter of an hour.",
            ),
            "InvalidProviderToken": Row(
                _CONFIG,
                "provider_token_invalid",
                "Apple does not accept the key. Check that private_key, key_id and team_id belong together, and that the key was "
                "not revoked in the developer account.",
            ),
            "MissingProviderToken": Row(_CONFIG, "provider_token_missing", "No provider token reached Apple. Check base_url."),
            "UnrelatedKeyIdInToken": Row(
                _CONFIG,
                "key_of_another_team",
                "A connection carried keys of different teams. Check that key_id and team_id belong together.",
            ),
            "BadEnvironmentKeyIdInToken": Row(
                _CONFIG,
                "key_for_another_environment",
                "This key is for the other environment. Use a key for the chosen environment, or choose the other.",
            ),
            "BadCertificate": Row(_CONFIG, "bad_certificate", "Apple refuses a certificate. Check that base_url leads to Apple."),
            "BadCertificateEnvironment": Row(
                _CONFIG, "bad_certificate_environment", "Apple refuses a certificate for this environment. Check environment."
            ),
            "Forbidden": Row(
                _CONFIG, "forbidden", "Apple forbids this. Check the key, and the agreements of the developer account."
            ),
            "BadPath": Row(_CONFIG, "bad_path", _ADDRESS),
            "MethodNotAllowed": Row(_CONFIG, "method_not_allowed", _ADDRESS),
            "TooManyRequests": Row(
                _RATE,
                "too_many_for_device",
                "Too many notifications went to this one device. It is tried again later; nobody else waits.",
                scope=RateScope.RECIPIENT,
            ),
            "TooManyProviderTokenUpdates": Row(
                _RATE,
                "too_many_token_updates",
                "Apple saw new provider tokens of this key too often. This dispatcher makes one in 40 minutes, so something else "
                "uses the key as well. Give it a key of its own.",
                TOKEN_UPDATES_RETRY_S,
            ),
            "InternalServerError": Row(_SOFT, "internal_server_error", _APPLES, wait_s=SERVER_ERROR_WAIT_S),
            "ServiceUnavailable": Row(_SOFT, "service_unavailable", _APPLES, wait_s=SERVER_ERROR_WAIT_S),
            "Shutdown": Row(
                _SOFT, "shutdown", "One of Apple's servers was shutting down. The notification is sent on a new connection."
            ),
        }
    ),
    (),
    Row(OutcomeClass.UNKNOWN, "answer_not_understood", "What came back is no answer of APNs. Check base_url."),
)
"""By ``reason``. A reason without a row goes by its status."""

BY_STATUS: Final[ErrorTable[int]] = ErrorTable(
    MappingProxyType(
        {
            403: Row(_CONFIG, "http_403", "Apple does not accept the key. Check key, team and topic."),
            404: Row(_CONFIG, "http_404", _ADDRESS),
            405: Row(_CONFIG, "http_405", _ADDRESS),
            408: Row(_SOFT, "http_408", "The request took too long to arrive. It is tried again."),
            410: Row(_SUPPRESS, "http_410", "Apple says that this device token is no longer in use. It will not be used again."),
            413: Row(_HARD, "http_413", "The notification is larger than Apple takes. Shorten text or data."),
            429: Row(
                _RATE,
                "http_429",
                "Too many notifications went to this one device. It is tried again later; nobody else waits.",
                scope=RateScope.RECIPIENT,
            ),
            # Of a gateway, which may have handed it on and missed the answer.
            502: Row(OutcomeClass.UNKNOWN, "http_502", "A gateway lost Apple's answer: the notification may have gone out."),
            504: Row(OutcomeClass.UNKNOWN, "http_504", "A gateway lost Apple's answer: the notification may have gone out."),
        }
    ),
    (
        Range(300, 399, Row(_CONFIG, "http", _ADDRESS)),
        Range(400, 499, Row(_HARD, "http", "Apple refused this notification.")),
        Range(500, 599, Row(_SOFT, "http", _APPLES, wait_s=SERVER_ERROR_WAIT_S)),
    ),
    BY_REASON.other,
)
"""By status, of answers without a reason that is known."""

EXPLANATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **BY_STATUS.explanations,
        **BY_REASON.explanations,
        BY_REASON.other.code: BY_REASON.other.words,
        "recipient_invalid": "This is no device token of APNs: it has 64 to 200 hexadecimal digits.",
        "data_key_reserved": "The data has a key aps, which is Apple's own.",
    }
)


class Refusal(NamedTuple):
    """What a refusal says. ``since_unix_s`` comes with a token that is no longer in use: when Apple last found it so."""

    reason: str | None = None
    since_unix_s: float | None = None


def read_refusal(body: bytes) -> Refusal:
    """Read the body of a refusal. Never raises."""
    if len(body) > _ERROR_BODY_BYTES_MAX:
        return Refusal()
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Refusal()
    if not isinstance(document, dict):
        return Refusal()
    reason, at_ms = document.get("reason"), document.get("timestamp")
    is_instant = isinstance(at_ms, int) and not isinstance(at_ms, bool) and 0 < at_ms < 1 << 53
    return Refusal(reason if isinstance(reason, str) else None, at_ms / 1000 if is_instant else None)  # type: ignore[operator]


def row_of(status: int, reason: str | None) -> Row:
    """What a refusal means."""
    return BY_REASON.rows.get(reason or "") or BY_STATUS.row(status)
