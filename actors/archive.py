"""What the archivist needs of the store: a port of its own, because only :mod:`actors.archivist` uses it.

Everything may be repeated, and may be done by several processes at once. Raises :class:`~dispatcher.errors.StoreUnavailable`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from dispatcher.model import NotificationId
from dispatcher.retention import Span

FIRST_ID = NotificationId("00000000-0000-0000-0000-000000000000")


class Found(NamedTuple):
    """A stretch of the notifications in order of age. ``due`` may go, each to its span; ``after`` is where to go on (None: at
    the end)."""

    due: Mapping[NotificationId, Span]
    after: NotificationId | None


class Moved(NamedTuple):
    """How many left the notifications: ``kept`` into history, ``let_go`` because history would not keep them any longer."""

    kept: int = 0
    let_go: int = 0


class Late(NamedTuple):
    """Confirmations of what had gone already: how many were written to history, and where to go on (None: at the end)."""

    written: int
    after: NotificationId | None


class Partition(NamedTuple):
    """One partition of the history. ``rows`` is an estimate."""

    span: Span
    rows: int
    size_bytes: int


class Archive(Protocol):
    """Moves, makes, drops and forgets."""

    async def look(self, after: NotificationId, limit: int) -> Found:
        """What may go, among the next ``limit`` notifications that are old enough to ask."""

    async def prepare(self, spans: Collection[Span]) -> None:
        """Make the partitions that are not there yet."""

    async def move(self, due: Mapping[NotificationId, Span]) -> Moved:
        """Move those that still may go, all or none; their partitions have to be there."""

    async def confirm(self, after: NotificationId, limit: int) -> Late:
        """Write what was confirmed of moved notifications to their history."""

    async def partitions(self) -> Sequence[Partition]:
        """All partitions there are, by class and age."""

    async def drop(self, span: Span) -> bool:
        """Drop a partition; False when somebody is using its class for longer than anybody should have to wait."""

    async def fold(self, limit: int) -> int:
        """Add up to ``limit`` changes of counts to the counts; how many there were."""

    async def forget(self, limit: int) -> int:
        """Forget up to ``limit`` each of the events and batch answers that are old enough; how many there were."""
