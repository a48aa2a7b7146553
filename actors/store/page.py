"""One way to page through anything: newest first, by the time-ordered id, "everything older than this id".

Ids are UUIDv7, so an id is also a point in time: a cursor stays meaningful when its row is gone, and nothing that
arrives while somebody pages can shift what they have yet to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from attrs import frozen

ROWS_MAX = 250

_T = TypeVar("_T")


@frozen
class PageRequest:
    """``after`` is the last id already seen (None: start at the newest); ``size`` is 1 to :data:`ROWS_MAX`."""

    after: str | None = None
    size: int = 50


@frozen
class Page(Generic[_T]):
    """``next`` is the cursor of the following page, None on the last one."""

    items: Sequence[_T]
    next: str | None


def page_of(rows: Sequence[_T], ids: Sequence[str], size: int) -> Page[_T]:
    """Cut a page out of rows read with a limit of ``size`` + 1: the surplus row only says that there is more."""
    if len(rows) <= size:
        return Page(rows, None)
    return Page(rows[:size], ids[size - 1])
