"""What becomes of attempts that were taken back from whoever was lost: counted, queued again when they are due, announced.

Invariant: those that are not due yet wait in the delayed set, and their organization is woken in any case, so that it claims each
when its time has come. If only the next sweep looked, all of them would be due by then and share one fate again.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors import announcements
from actors.metrics import Metrics
from actors.ports import Arrival, Queue, Rescued, Settlement
from dispatcher.model import DeadLetterReason, NotificationId, OrganizationId


async def put_back(rescued: Sequence[Rescued], queue: Queue, metrics: Metrics, now_unix_s: float) -> None:
    """Raises QueueUnavailable, or its ArrivalsRefused; the walk over old queued rows finds what was not put back then."""
    metrics.events["rescued"] += len(rescued)
    ready: dict[tuple[OrganizationId, bool], tuple[list[NotificationId], list[bytes]]] = {}
    waiting: dict[tuple[OrganizationId, bool], Settlement] = {}
    for row in rescued:
        lane = (row.organization_id, row.bulk)
        ids, notices = ready.setdefault(lane, ([], []))
        notices.append(announcements.rescued(row.id, row.channel, dead=row.dead, at_unix_s=now_unix_s))
        if row.dead:
            metrics.dead_letters[row.channel.value, DeadLetterReason.POISON.value] += 1
        elif row.due_in_s > 0:
            waiting.setdefault(lane, Settlement(lane[0], bulk=row.bulk)).delayed.append((row.id, row.due_in_s))
        else:
            ids.append(row.id)
    if waiting:
        await queue.settle(list(waiting.values()))
    if ready:
        await queue.enqueue([Arrival(name, ids, notices, bulk) for (name, bulk), (ids, notices) in ready.items()])
