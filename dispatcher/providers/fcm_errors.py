"""What FCM and Google's token service say when they refuse, as tables.

FCM's own code is the best word, the status of Google's error model the second, the HTTP status the last: an answer of the
service in front of FCM has only that one. Texts are looked at for two phrases that no code stands for, and never repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson
from attrs import frozen

from dispatcher.outcome import Outcome, OutcomeClass, RateScope
from dispatcher.providers.error_table import ErrorTable, Range, Row

QUOTA_RETRY_S: Final = 60.0
"""FCM counts in minutes, so this is the wait when it names none."""
UNAVAILABLE_WAIT_S: Final = 1.0
"""The least wait FCM asks for before a repetition."""

_ERROR_BODY_BYTES_MAX = 64 * 1024

_SOFT = "Firebase Cloud Messaging failed on its own side. The notification is tried again."
_QUOTA = (
    "The project has sent more than its quota of messages in a minute. Sending goes on more slowly; ask Google for more quota."
)

REGISTRATION_INVALID: Final = Row(
    OutcomeClass.SUPPRESS,
    "registration_invalid",
    "FCM does not take this for a registration token: it was cut, changed, or is a token of another push service. It will not be "
    "used again; have the app report its token anew.",
)
DEVICE_QUOTA: Final = Row(
    OutcomeClass.RATE_LIMITED,
    "device_quota_exceeded",
    "This one device was sent more messages than FCM allows for a device. It is tried again later; nobody else waits.",
    QUOTA_RETRY_S,
    RateScope.RECIPIENT,
)
ACCESS_TOKEN_REFUSED: Final = Row(
    OutcomeClass.MISCONFIGURED,
    "access_token_refused",
    "FCM did not accept the access token, nor a fresh one. See whether the service account still exists and belongs to this "
    "project.",
)
_THIRD_PARTY = Row(
    OutcomeClass.MISCONFIGURED,
    "third_party_auth",
    "FCM itself was turned away by Apple's or the browser's push service. Upload a valid APNs key, or Web Push key pair, in the "
    "settings of the Firebase project under Cloud Messaging.",
)

BY_ERROR_CODE: Final = ErrorTable(
    MappingProxyType(
        {
            "UNREGISTERED": Row(
                OutcomeClass.SUPPRESS,
                "unregistered",
                "The app was uninstalled, its data was cleared, or the token has expired. The token will not be used again.",
            ),
            "INVALID_ARGUMENT": Row(
                OutcomeClass.HARD,
                "invalid_argument",
                "FCM refused this message: it is too large, or a key, a value or the time to live is not allowed.",
            ),
            "SENDER_ID_MISMATCH": Row(
                OutcomeClass.SUPPRESS,
                "sender_id_mismatch",
                "The token belongs to another Firebase project. It will not be used again. If every token fails like this, the "
                "service account is of the wrong project.",
            ),
            "QUOTA_EXCEEDED": Row(OutcomeClass.RATE_LIMITED, "quota_exceeded", _QUOTA, QUOTA_RETRY_S),
            "UNAVAILABLE": Row(OutcomeClass.SOFT, "unavailable", _SOFT, wait_s=UNAVAILABLE_WAIT_S),
            "INTERNAL": Row(OutcomeClass.SOFT, "internal", _SOFT),
            "THIRD_PARTY_AUTH_ERROR": _THIRD_PARTY,
            "APNS_AUTH_ERROR": _THIRD_PARTY,
            "UNSPECIFIED_ERROR": Row(OutcomeClass.SOFT, "unspecified_error", _SOFT),
        }
    ),
    (),
    Row(OutcomeClass.SOFT, "error_code_unknown", "FCM refused with a code that is not known here. It is tried again."),
)
"""By ``errorCode``."""

BY_STATUS: Final = ErrorTable(
    MappingProxyType(
        {
            "INVALID_ARGUMENT": BY_ERROR_CODE.rows["INVALID_ARGUMENT"],
            "UNAUTHENTICATED": ACCESS_TOKEN_REFUSED,
            "PERMISSION_DENIED": Row(
                OutcomeClass.MISCONFIGURED,
                "permission_denied",
                "The service account may not send for this project, or the Firebase Cloud Messaging API is switched off there. "
                "Enable the API, and give the account the role Firebase Cloud Messaging API Admin.",
            ),
            "NOT_FOUND": Row(
                OutcomeClass.MISCONFIGURED,
                "project_not_found",
                "There is no such Firebase project. Compare project_id with the id in the project's settings (not its name or "
                "number).",
            ),
            "RESOURCE_EXHAUSTED": BY_ERROR_CODE.rows["QUOTA_EXCEEDED"],
            "UNAVAILABLE": BY_ERROR_CODE.rows["UNAVAILABLE"],
            "INTERNAL": BY_ERROR_CODE.rows["INTERNAL"],
        }
    ),
    (),
    Row(OutcomeClass.SOFT, "status_unknown", "FCM refused in a way that is not known here. It is tried again."),
)
"""By ``status``, of errors without a code of FCM's own."""

BY_HTTP: Final[ErrorTable[int]] = ErrorTable(
    MappingProxyType(
        {
            401: ACCESS_TOKEN_REFUSED,
            403: BY_STATUS.rows["PERMISSION_DENIED"],
            404: Row(
                OutcomeClass.MISCONFIGURED,
                "http_404",
                "Nothing answers for FCM at this address. Check base_url and project_id.",
            ),
            408: Row(OutcomeClass.SOFT, "http_408", _SOFT),
            413: Row(OutcomeClass.HARD, "too_large", "The message is larger than FCM takes."),
            429: BY_ERROR_CODE.rows["QUOTA_EXCEEDED"],
            502: Row(
                OutcomeClass.UNKNOWN, "http_502", "A server before FCM got no answer from it: the message may have been taken."
            ),
            504: Row(
                OutcomeClass.UNKNOWN, "http_504", "A server before FCM got no answer in time: the message may have been taken."
            ),
        }
    ),
    (
        Range(300, 399, Row(OutcomeClass.MISCONFIGURED, "http", "The address leads elsewhere. Check base_url.")),
        Range(400, 499, Row(OutcomeClass.HARD, "http", "FCM refused this message.")),
        Range(500, 599, Row(OutcomeClass.SOFT, "http", _SOFT)),
    ),
    Row(OutcomeClass.UNKNOWN, "answer_not_understood", "What came back is no answer of FCM."),
)
"""By HTTP status, of answers that do not have the form of Google's errors: pages of a server in front, as a rule."""

_GRANT = (
    "Google gives out no token for this service account: its key was deleted, the account was disabled, or the clock here is off "
    "by minutes. Make a new key in the Google Cloud console and store it here."
)
_CLIENT = (
    "Google does not know this service account, or does not let it ask for tokens. Store the key file of an existing account."
)
_GIVER_FAILED = "Google's token service failed on its own side. Nothing was sent; it is tried again."

TOKEN_ERRORS: Final = ErrorTable(
    MappingProxyType(
        {
            "invalid_grant": Row(OutcomeClass.MISCONFIGURED, "token_grant_refused", _GRANT),
            "invalid_client": Row(OutcomeClass.MISCONFIGURED, "token_client_refused", _CLIENT),
            "unauthorized_client": Row(OutcomeClass.MISCONFIGURED, "token_client_refused", _CLIENT),
            "access_denied": Row(OutcomeClass.MISCONFIGURED, "token_client_refused", _CLIENT),
            "internal_failure": Row(OutcomeClass.SOFT, "token_service_failed", _GIVER_FAILED),
            "server_error": Row(OutcomeClass.SOFT, "token_service_failed", _GIVER_FAILED),
            "temporarily_unavailable": Row(OutcomeClass.SOFT, "token_service_failed", _GIVER_FAILED),
        }
    ),
    (),
    Row(OutcomeClass.MISCONFIGURED, "token_request_refused", "Google refused to give out a token. Check the key file."),
)
"""By ``error`` of the token service's answers."""

TOKEN_BY_HTTP: Final[ErrorTable[int]] = ErrorTable(
    MappingProxyType(
        {
            408: Row(OutcomeClass.SOFT, "token_http_408", _GIVER_FAILED),
            429: Row(OutcomeClass.SOFT, "token_http_429", "Google gives out no more tokens for a while. It is tried again."),
        }
    ),
    (
        Range(300, 499, Row(OutcomeClass.MISCONFIGURED, "token_http", "No token service answers there. Check token_uri.")),
        Range(500, 599, Row(OutcomeClass.SOFT, "token_http", _GIVER_FAILED)),
    ),
    Row(OutcomeClass.SOFT, "token_not_understood", "What came back is no answer of a token service."),
)
"""By HTTP status, of answers of the token service without ``error``. Never unknown: no recipient is concerned."""

EXPLANATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **TOKEN_BY_HTTP.explanations,
        **TOKEN_ERRORS.explanations,
        **BY_HTTP.explanations,
        **BY_STATUS.explanations,
        **BY_ERROR_CODE.explanations,
        REGISTRATION_INVALID.code: REGISTRATION_INVALID.words,
        DEVICE_QUOTA.code: DEVICE_QUOTA.words,
        TOKEN_ERRORS.other.code: TOKEN_ERRORS.other.words,
        "data_key_reserved": "The data has a key that FCM or the dispatcher uses itself: from, message_type, notification_id, or "
        "one that begins with google. or gcm.notification.",
        "data_not_text": "The values of data must be texts: FCM takes nothing else.",
        "payload_too_large": "Title, text and data together are larger than the 4096 bytes that FCM takes.",
    }
)


@frozen
class GoogleError:
    """The parts of an error that a decision looks at. All are None or empty for a body of another form."""

    error_code: str | None = None
    status: str | None = None
    fields: frozenset[str] = frozenset()
    is_about_registration: bool = False
    is_about_device: bool = False


def read_error(body: bytes) -> GoogleError:
    """Read an error of Google's model. Never raises."""
    error = _document(body).get("error")
    if not isinstance(error, dict):
        return GoogleError()
    status, message = error.get("status"), error.get("message")
    code: str | None = None
    fields: set[str] = set()
    quotas = ""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        given = detail.get("errorCode")
        if code is None and isinstance(given, str):
            code = given
        for violation in _dicts(detail.get("fieldViolations")):
            if isinstance(violation.get("field"), str):
                fields.add(violation["field"])
        quotas += "".join(
            f"{violation.get('subject')} {violation.get('description')} " for violation in _dicts(detail.get("violations"))
        )
    text = message.lower() if isinstance(message, str) else ""
    return GoogleError(
        code,
        status if isinstance(status, str) else None,
        frozenset(fields),
        not fields and "registration token" in text,
        "device" in quotas.lower() or "device message rate" in text,
    )


def row_of(http_status: int, error: GoogleError) -> Row:
    """What a refusal of FCM means."""
    if error.error_code in ("QUOTA_EXCEEDED", None) and http_status == 429 and error.is_about_device:
        return DEVICE_QUOTA
    is_argument = error.error_code == "INVALID_ARGUMENT" or (error.error_code is None and error.status == "INVALID_ARGUMENT")
    if is_argument and ("message.token" in error.fields or error.is_about_registration):
        return REGISTRATION_INVALID
    return BY_ERROR_CODE.rows.get(error.error_code or "") or BY_STATUS.rows.get(error.status or "") or BY_HTTP.row(http_status)


def token_refusal(http_status: int, body: bytes, retry_after_s: float | None) -> Outcome:
    """What a refusal of the token service means for the notifications that wait for a token."""
    error = _document(body).get("error")
    if isinstance(error, str) and (error in TOKEN_ERRORS.rows or 400 <= http_status <= 403):
        return TOKEN_ERRORS.row(error).outcome(retry_after_s)
    return TOKEN_BY_HTTP.row(http_status).outcome(retry_after_s)


def _document(body: bytes) -> Mapping[str, Any]:
    if len(body) > _ERROR_BODY_BYTES_MAX:
        return {}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
