"""The rules of a message to FCM: fields, types, sizes, reserved keys. Names are read in snake_case and in camelCase alike."""

from __future__ import annotations

import re
from typing import Any

BYTES_MAX = 4096
"""Of keys and values of data, and of what is shown."""
TTL_S_MAX = 2_419_200.0

MESSAGE_FIELDS = frozenset(
    {
        "name", "token", "topic", "condition", "fid", "data", "notification", "android", "apns", "webpush", "fcmOptions",
    }
)  # fmt: skip
ANDROID_FIELDS = frozenset(
    {
        "collapseKey", "priority", "ttl", "restrictedPackageName", "data", "notification", "fcmOptions", "directBootOk",
        "bandwidthConstrainedOk", "restrictedSatelliteOk",
    }
)  # fmt: skip
_TARGETS = ("token", "topic", "condition", "fid")
_REGISTRATION = re.compile(r"[A-Za-z0-9_-]{6,}:APA91b[A-Za-z0-9_-]{10,}")
_TTL = re.compile(r"[0-9]{1,7}(\.[0-9]{1,9})?s")
_LABEL = re.compile(r"[A-Za-z0-9_.~%-]{1,50}")

Faults = list[tuple[str, str]]
"""Pairs of a field's path and what is wrong with it."""


def camel(document: dict[str, Any]) -> dict[str, Any]:
    """The same object with its own names in camelCase; what is below stays."""
    return {_camel(name): value for name, value in document.items()}


def faults_of(message: object) -> Faults:
    """Everything that is wrong with a message, apart from whether its registration token exists."""
    if not isinstance(message, dict):
        return [("message", "must be an object")]
    faults: Faults = []
    given = camel(message)
    _known(given, MESSAGE_FIELDS, "message", faults)
    targets = [name for name in _TARGETS if given.get(name) is not None]
    if len(targets) != 1 or not isinstance(given[targets[0]], str):
        faults.append(("message", "exactly one target is needed"))
    notification = given.get("notification") or {}
    if not isinstance(notification, dict):
        faults.append(("message.notification", "must be an object"))
        notification = {}
    _known(notification, frozenset({"title", "body", "image"}), "message.notification", faults)
    shown = [value for value in notification.values() if isinstance(value, str)]
    if len(shown) != len(notification):
        faults.append(("message.notification", "its values must be texts"))
    data = given.get("data") or {}
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        faults.append(("message.data", "must map texts to texts"))
        data = {}
    for key in data:
        if key in ("from", "message_type") or key.startswith(("google.", "gcm.notification.")):
            faults.append(("message.data", "has a key that is reserved"))
    _check_android(given.get("android"), faults)
    options = given.get("fcmOptions") or {}
    label = camel(options).get("analyticsLabel") if isinstance(options, dict) else None
    if label is not None and (not isinstance(label, str) or _LABEL.fullmatch(label) is None):
        faults.append(("message.fcm_options.analytics_label", "is no label"))
    for name in ("apns", "webpush"):
        _check_headers(given.get(name), name, faults)
    if sum(len(text.encode()) for text in (*shown, *data.keys(), *data.values())) > BYTES_MAX:
        faults.append(("message", "is too big"))
    return faults


def is_registration(token: str) -> bool:
    """Whether a text has the form of a registration token."""
    return _REGISTRATION.fullmatch(token) is not None


def _check_android(android: object, faults: Faults) -> None:
    if android is None:
        return
    if not isinstance(android, dict):
        faults.append(("message.android", "must be an object"))
        return
    given = camel(android)
    _known(given, ANDROID_FIELDS, "message.android", faults)
    ttl, priority = given.get("ttl"), given.get("priority")
    if ttl is not None and (not isinstance(ttl, str) or _TTL.fullmatch(ttl) is None or float(ttl[:-1]) > TTL_S_MAX):
        faults.append(("message.android.ttl", "must be a duration of at most four weeks"))
    if priority is not None and str(priority).upper() not in ("NORMAL", "HIGH"):
        faults.append(("message.android.priority", "must be NORMAL or HIGH"))
    for name in ("collapseKey", "restrictedPackageName"):
        if not isinstance(given.get(name, ""), str):
            faults.append((f"message.android.{name}", "must be a text"))


def _check_headers(part: object, name: str, faults: Faults) -> None:
    headers = camel(part).get("headers") if isinstance(part, dict) else part
    if headers is None:
        return
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        faults.append((f"message.{name}.headers", "must map texts to texts"))


def _known(given: dict[str, Any], known: frozenset[str], where: str, faults: Faults) -> None:
    if not given.keys() <= known:
        faults.append((where, "has a field that is not known"))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
