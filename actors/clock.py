"""The clock: releases what has waited for its time. Every process runs one; two at once do no harm.

It knows when the first scheduled notification or digest is due, from one cheap question when it starts and after each look, or
from whoever accepts an earlier one here, and sleeps until then. What other processes accepted they release themselves; if they
can not, because they are gone, it is found by a slow look (``LOOK_S``). So a notification is released on time, or after a crash
at most one and a half looks late, and what is not due costs nothing but its row.

* What has nothing to be asked again is queued, in batches.
* What has a plan is asked again: it is queued, put off or canceled.
* Digests that are due become notifications.

Invariant: an id is pushed only after its row is committed as queued. What a crash leaves between the two, the janitor puts back.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from math import inf
from random import Random

import trio

from actors import announcements
from actors.metrics import Metrics
from actors.ports import Admission, Arrival, Queue, Settlement
from actors.pusher import Pusher
from actors.schedule_ports import CANCELED, EXPIRED, Digest, Due, Moved, Ruling, Scheduled, ScheduleStore, Telling
from actors.supervision import describe
from actors.watchdog import SILENT_S, watched
from dispatcher.errors import QueueUnavailable, StoreRefused, StoreUnavailable
from dispatcher.model import Channel, NotificationId, OrganizationId, Status

logger = logging.getLogger(__name__)

ROWS_MAX = 1_000
"""Rows of one look."""
DIGESTS_MAX = 100
"""Digests of one look: each has the data of many events."""
LOOK_S = 30.0
"""How often it looks at what it was not told of: half to one and a half times this."""
AGAIN_S = 0.5
"""When it looks again at what is due and could not be released: another clock has it, or a server is away."""
PUT_OFF_S = 60.0
"""For how long what can not be decided about (a fault of ours) is put off, so that it stands in nobody's way."""
UNPUSHED_MAX = 20_000
"""While so many ids wait for Redis, nothing further is released: a row waits more safely than an id."""
NOTICES_MAX = 10_000
"""Announcements kept until the next look. More are lost, as they are when Redis is away: they are hints."""

Ask = Callable[[Sequence[Due]], Awaitable[Sequence[Ruling]]]
Notice = Callable[[NotificationId, Channel, float], bytes]
Tell = Callable[[Digest], Awaitable[Admission | None]]


class Clock:
    """Releases what is due. ``ask`` decides again about what has a plan, ``tell`` makes the notification of a digest.

    ``ask`` and ``tell`` may raise StoreUnavailable. ``unix_s`` is the wall clock; ``now_s`` tells that it gets on.
    """

    def __init__(
        self,
        schedule: ScheduleStore,
        queue: Queue,
        pusher: Pusher,
        metrics: Metrics,
        *,
        ask: Ask,
        tell: Tell,
        random: Random,
        unix_s: Callable[[], float],
        now_s: Callable[[], float] = trio.current_time,
    ) -> None:
        self._schedule = schedule
        self._queue = queue
        self._pusher = pusher
        self._metrics = metrics
        self._ask = ask
        self._tell = tell
        self._random = random
        self._unix_s = unix_s
        self._now_s = now_s
        self._due_at_s = -inf
        self._news = trio.Event()
        self._notices: deque[tuple[OrganizationId, bytes]] = deque(maxlen=NOTICES_MAX)
        self.stepped_s = 0.0
        """When it last got on with its round."""

    async def run(self) -> None:
        """Release until cancelled. A server that is away is waited for; raises when a round never ends."""
        await watched("the clock", self._run, lambda: self.stepped_s, silent_s=SILENT_S + 2 * LOOK_S)

    async def _run(self) -> None:
        look_at_s = -inf
        while True:
            self.stepped_s = self._now_s()
            await self._announce()
            if trio.current_time() >= min(self._due_at_s, look_at_s):
                self._due_at_s = inf  # what is accepted from here on makes it earlier again
                self._due_before(await self._look_if_possible())
                look_at_s = trio.current_time() + LOOK_S * (0.5 + self._random.random())
            elif not self._notices:
                self._news = trio.Event()
                with trio.move_on_at(min(self._due_at_s, look_at_s)):
                    await self._news.wait()

    async def _look_if_possible(self) -> float:
        """Look, and say how long until something is due. A server that is away is asked again shortly."""
        try:
            await self.look()
            due_in_s = await self._schedule.next_in_s()
        except StoreUnavailable as error:
            logger.warning("the clock could not look at what is due: %s", error)
            return AGAIN_S
        return inf if due_in_s is None else due_in_s if due_in_s > 0 else AGAIN_S

    def _due_before(self, due_in_s: float) -> None:
        self._due_at_s = min(self._due_at_s, trio.current_time() + due_in_s)

    def scheduled(self, accepted: Iterable[Scheduled], digests_due_s: Iterable[float] = ()) -> None:
        """These were accepted and wait, and digests are due at these times (Unix seconds). Never waits; announces in a moment."""
        now_unix_s = self._unix_s()
        for one in accepted:
            self._due_before(one.at_s - now_unix_s)
            notice = announcements.scheduled(one.id, one.channel, one.at_s, now_unix_s)
            self._notices.append((one.organization_id, notice))
        for at_s in digests_due_s:
            self._due_before(at_s - now_unix_s)
        self._news.set()

    def canceled(
        self, organization_id: OrganizationId, canceled: Iterable[tuple[NotificationId, Channel]], reason: str = CANCELED
    ) -> None:
        """These were canceled by hand, which is on record. Never waits; announces in a moment."""
        now_unix_s = self._unix_s()
        for id, channel in canceled:
            self._metrics.events["canceled"] += 1
            self._notices.append((organization_id, announcements.canceled(id, channel, reason, now_unix_s)))
        self._news.set()

    async def look(self) -> None:
        """Release whatever is due. Raises StoreUnavailable when it could not finish."""
        while moved := await self._schedule.release(ROWS_MAX):
            await self._pass_on(moved)
            if len(moved) < ROWS_MAX:
                break
        while due := await self._schedule.due(ROWS_MAX):
            await self._pass_on(await self._schedule.rule(await self._rulings(due)))
            if len(due) < ROWS_MAX:
                break
        while digests := await self._schedule.digests(DIGESTS_MAX):
            await self._tell_of(digests)
            if len(digests) < DIGESTS_MAX:
                break

    # --- what has a plan --------------------------------------------------------------------------------------------------

    async def _rulings(self, due: Sequence[Due]) -> list[Ruling]:
        """Ask for each organization apart, so that what is wrong with one stands in no other's way."""
        by_organization: dict[OrganizationId, list[Due]] = {}
        for one in due:
            by_organization.setdefault(one.organization_id, []).append(one)
        rulings: list[Ruling] = []
        for organization_id, theirs in by_organization.items():
            try:
                rulings.extend(await self._ask(theirs))
            except StoreUnavailable:
                raise
            except Exception as error:
                logger.error("organization %s: what is due could not be asked again: %s", organization_id, describe(error))
                later_s = self._unix_s() + PUT_OFF_S
                rulings.extend(Ruling(one, Status.SCHEDULED, (), later_s) for one in theirs)
            self.stepped_s = self._now_s()
        return rulings

    # --- digests ----------------------------------------------------------------------------------------------------------

    async def _tell_of(self, digests: Sequence[Digest]) -> None:
        tellings, put_off = [], []
        for digest in digests:
            try:
                tellings.append(Telling(digest, await self._tell(digest)))
            except StoreUnavailable:
                raise
            except Exception as error:
                logger.error("organization %s: a digest could not be told of: %s", digest.organization_id, describe(error))
                put_off.append(digest.id)
            self.stepped_s = self._now_s()
        if put_off:
            await self._schedule.put_off(put_off, PUT_OFF_S)
        parts = [tellings] if tellings else []
        while parts:
            part = parts.pop()
            try:
                told = await self._schedule.tell(part)
            except StoreRefused as error:
                if len(part) > 1:
                    parts.extend((part[len(part) // 2 :], part[: len(part) // 2]))
                else:  # as an item of a batch that can not be stored is refused
                    logger.error("organization %s: a digest is dropped: %s", part[0].digest.organization_id, error)
                    self._metrics.events["digests_refused"] += 1
                    parts.append([Telling(part[0].digest, None)])
                continue
            there = [t.admission for t in part if t.digest.id in told.done and t.admission is not None]
            out = told.inserted.capped | told.inserted.suppressed.keys()
            self._metrics.events["digests_told"] += len(told.done)
            await self._pass_on([_inserted(one) for one in there if one.id not in out], announcements.created)

    # --- telling others ---------------------------------------------------------------------------------------------------

    async def _pass_on(self, moved: Sequence[Moved], notice: Notice = announcements.released) -> None:
        """Push what is queued now, and announce all of it."""
        self.stepped_s = self._now_s()
        now_unix_s = self._unix_s()
        arrivals: dict[tuple[OrganizationId, bool], tuple[list[NotificationId], list[bytes]]] = {}
        for organization_id, id, channel, status, reason, at_s, bulk in moved:
            if status is Status.QUEUED:
                ids, notices = arrivals.setdefault((organization_id, bulk), ([], []))
                ids.append(id)
                notices.append(notice(id, channel, now_unix_s))
                self._metrics.events["released"] += 1
            elif status is Status.SCHEDULED:
                self._notices.append((organization_id, announcements.scheduled(id, channel, at_s or now_unix_s, now_unix_s)))
                self._metrics.events["put_off"] += 1
            else:
                code = reason or Status.CANCELED.value
                self._notices.append((organization_id, announcements.canceled(id, channel, code, now_unix_s)))
                self._metrics.events["expired_waiting" if code == EXPIRED else "canceled_when_due"] += 1
        if arrivals:
            self._pusher.put([Arrival(name, ids, notices, bulk) for (name, bulk), (ids, notices) in arrivals.items()])
        while self._pusher.pending > UNPUSHED_MAX:
            self.stepped_s = self._now_s()
            await trio.sleep(AGAIN_S)

    async def _announce(self) -> None:
        if not self._notices:
            return
        settlements: dict[OrganizationId, Settlement] = {}
        while self._notices:
            organization_id, notice = self._notices.popleft()
            settlements.setdefault(organization_id, Settlement(organization_id)).announcements.append(notice)
        try:
            await self._queue.settle(list(settlements.values()))
        except QueueUnavailable as error:
            logger.warning("what was scheduled or canceled could not be announced: %s", error)


def _inserted(admission: Admission) -> Moved:
    row = admission.row
    status, when = Status(row.get("status") or Status.QUEUED), row.get("send_at")
    return Moved(admission.organization_id, admission.id, Channel(row["channel"]), status, None, when, bool(row.get("bulk")))
