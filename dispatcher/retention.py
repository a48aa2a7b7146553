"""Which part of the history a notification belongs to, and when that part may go.

History is kept in partitions: of one class (for how many days it is kept) and of one span of days in which the rows had their
last change. Days are counted from 1970-01-01 in UTC. Invariant: a partition is over only when all that can be in it is older than
its class, so nothing goes early; it goes at most one span and :data:`MARGIN_S` late.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Final

from attrs import frozen

from dispatcher.ids import uuid7_ms

DAY_S: Final = 86_400
STEP_DAYS: Final[Mapping[int, int]] = MappingProxyType(
    {1: 1, 7: 1, 30: 1, 90: 7, 180: 7, 365: 30, 730: 30, 3650: 91},
)
"""Days of one partition, by class (KEPT_DAYS in dispatcher/policy.py): fine enough that little is kept longer than it
should be, and no class has more than 42 partitions."""
MARGIN_S: Final = 3600.0
"""How much later than it could a partition goes, so that clocks and a move that has just begun may disagree a little."""
SKEW_S: Final = 3600.0
"""How much the clock that ids are made by may be ahead of the database's, which dates changes."""
TABLE: Final = "notification_history"

_LATEST_UNIX_S = 250_000_000_000.0  # in the year 9892: later ones are no dates in Python
_EPOCH = date(1970, 1, 1)
_NAME = re.compile(rf"{TABLE}_(\d+)_(\d{{8}})")


@frozen(order=True)
class Span:
    """One partition: ``first_day`` is the first of its days."""

    kept_days: int
    first_day: int

    @property
    def end_day(self) -> int:
        """The first day after it."""
        return self.first_day + STEP_DAYS[self.kept_days]

    @property
    def parent(self) -> str:
        """The table of its class."""
        return f"{TABLE}_{self.kept_days}"

    @property
    def name(self) -> str:
        """Its table."""
        return f"{self.parent}_{_date(self.first_day):%Y%m%d}"

    @property
    def bounds(self) -> tuple[str, str]:
        """From when, and until before when, as Postgres reads them."""
        return f"{_date(self.first_day)} 00:00:00+00", f"{_date(self.end_day)} 00:00:00+00"

    @property
    def over_at_unix_s(self) -> float:
        """From when on all that can be in it has been kept for as long as it should be."""
        return (self.end_day + self.kept_days) * DAY_S + MARGIN_S


def span_of(kept_days: int, unix_day: int) -> Span:
    """The span for what had its last change on that day. Raises KeyError for a class that there is not."""
    step = STEP_DAYS[kept_days]
    return Span(kept_days, unix_day - unix_day % step)


def span_named(name: str) -> Span | None:
    """The span whose table has this name; None for any other table."""
    match = _NAME.fullmatch(name)
    if match is None or int(match[1]) not in STEP_DAYS:
        return None
    try:
        first = date.fromisoformat(f"{match[2][:4]}-{match[2][4:6]}-{match[2][6:]}")
    except ValueError:
        return None
    span = Span(int(match[1]), (first - _EPOCH).days)
    return span if span == span_of(span.kept_days, span.first_day) else None


def made_at_unix_s(id: str) -> float:
    """When an id was made: no change of its row is older, give or take ``SKEW_S``. Of an id that does not say: the beginning."""
    try:
        return min(uuid7_ms(id) / 1000, _LATEST_UNIX_S)
    except ValueError:
        return 0.0


def changed_since(id: str) -> datetime:
    """No change of the row with this id is older: of the history, only partitions from then on can have it."""
    return datetime.fromtimestamp(made_at_unix_s(id) - SKEW_S, UTC)


def _date(unix_day: int) -> date:
    return _EPOCH + timedelta(days=unix_day)
