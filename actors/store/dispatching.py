"""The store port on Postgres: every statement of the hot path, each a batch.

Statements take ids in sorted order, so that two batches can never wait for each other's rows in a circle. Each can be
repeated when its answer was lost: inserts skip what is there, the gate hands out again what this very incarnation holds,
records check claimer and attempt.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import orjson
from attrs import evolve

from actors.io.postgres import Pool
from actors.ports import (
    DUE_SLACK_S,
    NO_WAYS,
    RESCUES_MAX,
    Admission,
    BatchAnswer,
    EventAdmission,
    Existing,
    Expired,
    Holding,
    Inserted,
    KnownEvent,
    Page,
    Rescued,
)
from actors.store import event_rows, inserting
from actors.store import shards as shard_table
from actors.store.statements import (
    DISOWN,
    EXISTING,
    EXPIRE,
    FORGET_ALL,
    GATE,
    GATE_OPEN,
    GATE_PARTED,
    GIVE_UP,
    HAND_BACK,
    LEFT_OUT,
    PRUNE,
    QUEUED,
    QUEUED_ALL,
    RECLAIM,
    RECORD_DELIVERED,
    RECORD_OTHERS,
    RECORDED,
    REGISTER,
    RELEASE,
    RENEW,
    RESCUE,
    SENDING,
    SUPPRESSED,
    UNBEGIN,
)
from actors.store.translated import translated
from dispatcher.backoff import RESCUE_FIRST_S, RESCUE_LATER_S
from dispatcher.contacts import ContactStatus, suppressed_as
from dispatcher.messages import Gated, Verdict
from dispatcher.model import Channel, Delivery, Lane, NotificationId, OrganizationId, Status
from dispatcher.outcome import FOUND_AT_PROVIDER, OutcomeClass

_RESCUES = {"rescues_max": RESCUES_MAX, "first_s": RESCUE_FIRST_S, "later_s": RESCUE_LATER_S}
_FIRST_ID = NotificationId("00000000-0000-0000-0000-000000000000")


async def forget_incarnations(pool: Pool) -> None:
    """Declare every incarnation dead, and every shard free. Only for who knows that no other process uses this database."""
    await pool.execute(FORGET_ALL)


class PostgresStore:
    """The durable state of notifications, written by one process incarnation.

    ``incarnation`` is a fresh UUID per process start, never a host name: a restarted host must not look like its dead self.
    """

    def __init__(self, pool: Pool, incarnation: str) -> None:
        self._pool = pool
        self.incarnation = incarnation
        self.term = 0

    async def insert(
        self, admissions: Sequence[Admission], batch_answers: Sequence[BatchAnswer], events: Sequence[EventAdmission] = ()
    ) -> Inserted:
        """Insert all in one transaction. Rows whose key is taken or whose contact is suppressed are left out, and named."""
        with translated("a batch of notifications"):
            async with self._pool.connection() as connection:
                return await inserting.insert(connection, admissions, batch_answers, events)

    async def suppressed(
        self, organization_id: OrganizationId, whom: Sequence[tuple[Channel, str]]
    ) -> Mapping[tuple[Channel, str], ContactStatus]:
        """Which of these recipients may not be used, and why."""
        columns = [channel.value for channel, _ in whom], [recipient for _, recipient in whom]
        rows = await self._pool.fetch(SUPPRESSED, ([organization_id] * len(whom), *columns))
        return {(Channel(channel), recipient): ContactStatus(status) for channel, recipient, status in rows}

    async def known_events(self, organization_id: OrganizationId, ids: Sequence[str]) -> Mapping[str, KnownEvent]:
        """Which of these events were taken in before."""
        rows = await self._pool.fetch(event_rows.KNOWN, ([organization_id] * len(ids), list(ids)))
        return {id: KnownEvent(bytes(request_hash), answer.encode()) for _, id, request_hash, answer in rows}

    async def known(self, organization_id: OrganizationId, idempotency_keys: Sequence[str]) -> Mapping[str, Existing]:
        """What these keys of one organization stand for already. Keys that are new are left out."""
        rows = await self._pool.fetch(EXISTING, ([organization_id] * len(idempotency_keys), list(idempotency_keys)))
        return {key: Existing(id, bytes(hash), at_s, Channel(channel)) for _, key, id, hash, at_s, channel in rows}

    async def gate(
        self,
        ids: Sequence[NotificationId],
        closed: Collection[tuple[OrganizationId, Lane]],
        through: Mapping[tuple[OrganizationId, Lane], str] = NO_WAYS,
        unbound: Collection[str] = (),
        *,
        again: bool,
    ) -> Mapping[OrganizationId, Gated]:
        """Record the intent to send.

        ``again`` repeats a call whose answer was lost, for ids nobody else in this process holds.
        """
        names = [f"{organization_id}/{lane}" for organization_id, lane in closed]
        ways = {f"{organization_id}/{lane}": config_id for (organization_id, lane), config_id in through.items()}
        parted = any(":" in lane for _, lane in closed) or any(":" in lane for _, lane in through)
        statement = GATE_PARTED if parted else GATE_OPEN if closed else GATE
        params = {
            "claimer": self.incarnation,
            "ids": sorted(ids),
            "closed": names,
            "through": orjson.dumps(ways).decode(),
            "unbound": list(unbound),
        }
        term = self.term  # the lease may lapse and be taken anew before the answer is here
        with translated("ids at the gate"):
            async with self._pool.connection() as connection:
                if again:
                    await connection.execute(HAND_BACK, params)
                rows = await (await connection.execute(statement, params)).fetchall()
                left_out: list[tuple[str, str, str, str, float | None, str]] = []
                if len(rows) < len(ids):
                    passed = {row[0] for row in rows}
                    rest = [id for id in ids if id not in passed]
                    left_out = await (await connection.execute(LEFT_OUT, (rest,))).fetchall()
        answer: dict[OrganizationId, Gated] = {}
        deliveries: dict[OrganizationId, list[Delivery]] = {}
        given_up = await self._give_up([(row[0], f"contact_{row[-1]}") for row in rows if row[-1] is not None], answer)
        for id, organization_id, channel, recipient, payload, attempt, attempts_max, created_at, expires_at, *doubt, _ in rows:
            if id in given_up:
                continue
            delivery = Delivery(
                id,
                organization_id,
                Channel(channel),
                recipient,
                payload,
                attempt,
                attempts_max,
                created_at,
                expires_at,
                term,
                *doubt,
            )
            deliveries.setdefault(organization_id, []).append(delivery)
        for organization_id, batch in deliveries.items():
            known = answer.get(organization_id)
            answer[organization_id] = Gated(batch) if known is None else evolve(known, deliveries=batch)
        if left_out:
            _add_left_out(answer, left_out, frozenset(names), ways)
        return answer

    async def _give_up(
        self, suppressed: Sequence[tuple[NotificationId, str]], answer: dict[OrganizationId, Gated]
    ) -> Collection[NotificationId]:
        """Fail what passed the gate and is for contacts that may not be used; names it in the answer."""
        if not suppressed:
            return ()
        ids, codes = zip(*suppressed, strict=True)
        with translated("what is given up"):
            rows = await self._pool.fetch(GIVE_UP, (list(ids), list(codes), self.incarnation))
        by_organization: dict[OrganizationId, list[tuple[NotificationId, Channel, str]]] = {}
        for organization_id, id, channel, code in rows:
            by_organization.setdefault(organization_id, []).append((id, Channel(channel), code))
        for organization_id, theirs in by_organization.items():
            answer[organization_id] = Gated((), dropped=[id for id, _, _ in theirs], suppressed=theirs)
        return frozenset(ids)

    async def record(self, verdicts: Sequence[Verdict], *, again: bool) -> set[NotificationId]:
        """Write verdicts; returns the ids that were still ours. ``again`` repeats a call whose answer was lost."""
        delivered = sorted((v for v in verdicts if _is_plain(v)), key=_delivery_id)
        others = []
        if len(delivered) < len(verdicts):
            others = sorted((v for v in verdicts if not _is_plain(v)), key=_delivery_id)
        ours: set[NotificationId] = set()
        with translated("verdicts"):
            async with self._pool.connection() as connection:
                if delivered:
                    cursor = await connection.execute(
                        RECORD_DELIVERED,
                        (
                            [v.delivery.id for v in delivered],
                            [v.delivery.attempt for v in delivered],
                            [v.via.provider if v.via else None for v in delivered],
                            [v.via.config_id if v.via else None for v in delivered],
                            [v.outcome.provider_message_id for v in delivered],
                            self.incarnation,
                        ),
                    )
                    ours.update(row[0] for row in await cursor.fetchall())
                if others:
                    text = orjson.dumps([_verdict_row(v) for v in others]).decode()
                    cursor = await connection.execute(RECORD_OTHERS, (text, self.incarnation))
                    ours.update(row[0] for row in await cursor.fetchall())
                if again and len(ours) < len(verdicts):  # the first try may have done it
                    rest = [v for v in verdicts if v.delivery.id not in ours]
                    cursor = await connection.execute(
                        RECORDED,
                        (
                            [v.delivery.id for v in rest],
                            [v.status.value for v in rest],
                            [v.delivery.attempt - v.refund for v in rest],
                            [None if v.status is Status.DELIVERED else v.outcome.code for v in rest],
                        ),
                    )
                    ours.update(row[0] for row in await cursor.fetchall())
        return ours

    async def register(self, lease_s: float) -> None:
        """Make this incarnation known; nothing passes the gate before."""
        self.term += 1
        await self._pool.execute(REGISTER, (self.incarnation, lease_s))

    async def renew_lease(self, lease_s: float) -> bool:
        """Prolong this incarnation's lease. False when it had lapsed: others may have taken over what we hold."""
        return bool(await self._pool.fetch(RENEW, (lease_s, self.incarnation)))

    async def release_lease(self) -> None:
        """Give the lease up: what is still ``sending`` under it may be rescued at once."""
        await self._pool.execute(RELEASE, {"me": self.incarnation})

    async def expire(self, limit: int) -> Sequence[Expired]:
        """Give up queued notifications whose ``expires_at`` has passed, whether or not anybody could send them."""
        rows = await self._pool.fetch(EXPIRE, (limit,))
        return [Expired(organization_id, id, Channel(channel)) for organization_id, id, channel in rows]

    async def rescue(self, limit: int) -> Sequence[Rescued]:
        """Take back attempts of incarnations whose lease lapsed."""
        rows = await self._pool.fetch(RESCUE, {"limit": limit, "claimer": self.incarnation, **_RESCUES})
        await self._pool.execute(PRUNE)
        return [_rescued(*row) for row in rows]

    async def hand_back(
        self, organization_id: OrganizationId, not_begun: Mapping[NotificationId, int]
    ) -> Sequence[NotificationId]:
        """Undo attempts that passed the gate and certainly never began."""
        ids = sorted(not_begun)
        attempts = [not_begun[id] for id in ids]
        params = {"ids": ids, "attempts": attempts, "claimer": self.incarnation, "organization_id": organization_id}
        return [row[0] for row in await self._pool.fetch(UNBEGIN, params)]

    async def disown(self, organization_id: OrganizationId) -> Sequence[Rescued]:
        """Take back the attempts one organization's actor held when it crashed inside this incarnation."""
        params = {
            "limit": 100_000,
            "claimer": self.incarnation,
            "organization_id": organization_id,
            **_RESCUES,
        }
        return [_rescued(*row) for row in await self._pool.fetch(DISOWN, params)]

    async def sending(self, older_than_s: float, limit: int) -> Sequence[tuple[OrganizationId, NotificationId]]:
        """What has been ``sending`` under this incarnation for longer than this, longest first."""
        rows = await self._pool.fetch(SENDING, (self.incarnation, older_than_s, limit))
        return [(organization_id, id) for organization_id, id in rows]

    async def reclaim(self, ids: Sequence[NotificationId], older_than_s: float) -> Sequence[Rescued]:
        """Take back attempts of this incarnation that nobody in it holds, those that are still older than this."""
        params = {
            "ids": sorted(ids),
            "older_than_s": older_than_s,
            "limit": len(ids),
            "claimer": self.incarnation,
            **_RESCUES,
        }
        return [_rescued(*row) for row in await self._pool.fetch(RECLAIM, params)]

    async def queued(self, after: tuple[float, NotificationId] | None, older_than_s: float, limit: int) -> Page:
        """Walk the queued rows whose last change is older than this, oldest first; with 0, those that are not due yet as well."""
        since_s, last_id = after or (0.0, _FIRST_ID)
        statement = QUEUED if older_than_s > 0 else QUEUED_ALL
        rows = await self._pool.fetch(statement, (since_s, last_id, older_than_s, limit))
        after = None if len(rows) < limit else (rows[-1][3], rows[-1][1])
        return Page([(row[0], row[1], row[2] or 0.0) for row in rows], after, frozenset(row[1] for row in rows if row[4]))

    async def hold_shards(self, shards: Collection[int], lease_s: float, *, stays: bool) -> Holding:
        """Of these shards, renew what this incarnation owns and take what is free. Waits for half of ``lease_s`` at most."""
        return await shard_table.hold(self._pool, self.incarnation, shards, lease_s, stays=stays)

    async def release_shards(self, shards: Collection[int]) -> None:
        """Give up those of these shards that this incarnation owns."""
        await shard_table.release(self._pool, self.incarnation, shards)


def _rescued(organization_id: str, id: str, channel: str, dead: bool, due_in_s: float, bulk: bool) -> Rescued:
    return Rescued(OrganizationId(organization_id), NotificationId(id), Channel(channel), dead, due_in_s, bulk)


def _is_plain(verdict: Verdict) -> bool:
    """Whether it is a delivery of which there is nothing to tell but that."""
    return verdict.status is Status.DELIVERED and verdict.outcome.code != FOUND_AT_PROVIDER


def _delivery_id(verdict: Verdict) -> str:
    return verdict.delivery.id


def _verdict_row(v: Verdict) -> dict[str, object]:
    return {
        "id": v.delivery.id,
        "attempt": v.delivery.attempt,
        "status": v.status.value,
        "refund": int(v.refund),
        "doubles": int(v.possible_double),
        "retry_in_s": v.retry_in_s,
        "outcome": v.outcome.kind.value,
        "code": v.outcome.code,
        "dead": None if v.dead is None else v.dead.value,
        "provider": v.via.provider if v.via else None,
        "config_id": v.via.config_id if v.via else None,
        "message_id": v.outcome.provider_message_id,
        "contact": suppressed_as(v.outcome.code).value if v.outcome.kind is OutcomeClass.SUPPRESS else None,
        "since": v.outcome.since_unix_s,
    }


def _add_left_out(
    answer: dict[OrganizationId, Gated],
    left_out: Sequence[tuple[str, str, str, str, float | None, str]],
    closed: frozenset[str],
    ways: Mapping[str, str],
) -> None:
    """Sort what the gate left out into parked, deferred, dropped and elsewhere, per organization."""
    parked: dict[str, list[tuple[Lane, NotificationId]]] = {}
    deferred: dict[str, list[tuple[NotificationId, float]]] = {}
    dropped: dict[str, list[NotificationId]] = {}
    elsewhere: dict[str, list[NotificationId]] = {}
    for raw_id, organization_id, channel, status, due_in_s, audience in left_out:
        id, part = NotificationId(raw_id), f"{organization_id}/{channel}{audience}"
        lane = channel + audience if part in closed or part in ways else channel
        if status == Status.SENDING:
            elsewhere.setdefault(organization_id, []).append(id)
        elif status != Status.QUEUED:
            dropped.setdefault(organization_id, []).append(id)
        elif due_in_s is not None and due_in_s > DUE_SLACK_S:
            deferred.setdefault(organization_id, []).append((id, due_in_s))
        elif f"{organization_id}/{lane}" in closed:
            parked.setdefault(organization_id, []).append((lane, id))
        else:  # became queued between the two statements, or our lease lapsed: try again shortly
            deferred.setdefault(organization_id, []).append((id, 1.0))
    for name in parked.keys() | deferred.keys() | dropped.keys() | elsewhere.keys():
        organization_id_ = OrganizationId(name)
        passed = answer.get(organization_id_)
        answer[organization_id_] = Gated(
            passed.deliveries if passed else (),
            parked=parked.get(name, ()),
            deferred=deferred.get(name, ()),
            dropped=[*(passed.dropped if passed else ()), *dropped.get(name, ())],
            elsewhere=elsewhere.get(name, ()),
            suppressed=passed.suppressed if passed else (),
        )
