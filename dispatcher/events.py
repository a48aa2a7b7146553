"""Events: what happened in a neighbouring system, handed in so that rules decide who hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen


@frozen
class Event:
    """One event, valid in itself. ``id`` makes it idempotent within its organization; ``data`` is any JSON object.

    ``request_hash`` identifies its content, so that a replay can be told from a conflict. Times are Unix seconds.
    """

    id: str
    type: str
    data: Mapping[str, Any] = field(repr=False)
    occurred_at_s: float | None = None
    user_id: str | None = None
    correlation_id: str | None = None
    locale: str | None = None
    request_hash: bytes = field(default=b"", repr=False)
