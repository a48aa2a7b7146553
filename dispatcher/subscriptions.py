"""Web Push subscriptions: the JSON that a browser hands to its page, as the recipient of a push notification.

``{"endpoint": "https://…", "keys": {"p256dh": "…", "auth": "…"}}``, as ``JSON.stringify(subscription)`` writes it. Invariant:
nothing here repeats any of it; whoever has an endpoint and its keys can write to the browser behind them.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import Any
from urllib.parse import urlsplit

import orjson
from attrs import field, frozen

from dispatcher.http_message import Origin
from dispatcher.origins import parse_origin

ENDPOINT_CHARS_MAX = 2048
PUBLIC_KEY_BYTES = 65
"""An uncompressed point of P-256."""
AUTH_BYTES = 16


@frozen
class Subscription:
    """``target`` is the endpoint's path and query, ``public_key`` and ``auth`` are the browser's. Whether the key is a point of
    the curve is not known here.
    """

    origin: Origin
    target: bytes = field(repr=False)
    public_key: bytes = field(repr=False)
    auth: bytes = field(repr=False)


def parse_subscription(text: str) -> Subscription | None:
    """Read a subscription; None for anything else. Fields that a browser adds, such as ``expirationTime``, are let pass."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, dict):
        return None
    place = _place(document.get("endpoint"))
    public_key, auth = _decoded(keys.get("p256dh"), PUBLIC_KEY_BYTES), _decoded(keys.get("auth"), AUTH_BYTES)
    if place is None or public_key is None or auth is None or public_key[0] != 4:
        return None
    return Subscription(*place, public_key, auth)


def normal_subscription(recipient: str) -> str:
    """A recipient of push as it is kept: of a subscription only endpoint and keys, always in the same order, so that one browser
    is one recipient however its page wrote it down. Any other token as it is. Only for what is known to be a recipient.
    """
    if not recipient.startswith("{"):
        return recipient
    document = orjson.loads(recipient)
    keys = {name: document["keys"][name] for name in ("p256dh", "auth")}
    return orjson.dumps({"endpoint": document["endpoint"], "keys": keys}).decode()


def _place(endpoint: Any) -> tuple[Origin, bytes] | None:
    """Where an endpoint is. It is kept to the letter: a path may end in a slash, and a query is part of the name."""
    if not isinstance(endpoint, str) or len(endpoint) > ENDPOINT_CHARS_MAX or "#" in endpoint or "\\" in endpoint:
        return None
    if not (endpoint.isascii() and endpoint.isprintable()) or " " in endpoint:
        return None
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return None
    origin = parse_origin(f"{parts.scheme}://{parts.netloc}")
    if origin is None or not parts.path.startswith("/"):
        return None
    query = f"?{parts.query}" if "?" in endpoint else ""
    return origin, f"{parts.path}{query}".encode("ascii")


def _decoded(text: Any, length: int) -> bytes | None:
    """Base64 of this many bytes, in either alphabet, padded or not."""
    if not isinstance(text, str) or not text.isascii() or len(text) > 2 * length:
        return None
    plain = text.rstrip("=").replace("+", "-").replace("/", "_")
    if not plain.replace("-", "a").replace("_", "a").isalnum():
        return None
    try:
        data = urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
    except ValueError:
        return None
    return data if len(data) == length else None
