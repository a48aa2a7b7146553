"""How long a provider asks us to wait, read from response headers.

Headers are whatever the other side sends, so anything that is not understood is no hint at all. Invariant: a hint is a finite
number of seconds from now, at least 0; the caller caps it.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from dispatcher.http_message import HttpResponse

_SECONDS = re.compile(rb"\d{1,10}(\.\d{1,9})?")


def retry_after_s(value: bytes | None, now_unix_s: float) -> float | None:
    """A ``Retry-After`` header, which holds seconds or an HTTP date."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        at = parsedate_to_datetime(value[:64].decode("ascii"))
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now_unix_s)
    except (ValueError, OverflowError):
        return None


def reset_after_s(value: bytes | None, now_unix_s: float) -> float | None:
    """An ``X-RateLimit-Reset`` header, which holds the Unix second at which the window refills."""
    if value is None or not _SECONDS.fullmatch(value):
        return None
    return max(0.0, float(value) - now_unix_s)


def hint_s(response: HttpResponse, now_unix_s: float) -> float | None:
    """The longer of both hints, as far as they are there."""
    after_s = retry_after_s(response.header(b"retry-after"), now_unix_s)
    reset_s = reset_after_s(response.header(b"x-ratelimit-reset"), now_unix_s)
    if after_s is None or reset_s is None:
        return reset_s if after_s is None else after_s
    return max(after_s, reset_s)
