"""The accept path: what producers hand in becomes durable here, before they are told so.

Check and render each item (``dispatcher.acceptance``, templates from the organization's hot cache), then one insert for all
requests of the moment, then the ids to the pusher. The answer goes out after the commit and never waits for Redis. A repeated
idempotency key replays the first answer; with another content it is refused; while the first is still on its way it is told to
come back.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from math import floor
from random import Random
from typing import Any

import orjson
import trio
from attrs import evolve

from actors import announcements
from actors.acceptor_answers import (
    IN_PROGRESS,
    REUSED,
    UNSTORABLE,
    Answer,
    Prepared,
    batch_document,
    batch_key,
    diversion,
    existing_of,
    is_busy,
    key_problem,
    no_provider,
    no_template,
    recalled,
    rfc3339,
    suppressed,
)
from actors.acceptor_answers import (
    AcceptRequest as _Request,
)
from actors.batcher import Batcher, BatcherStatistics
from actors.cache import HotCache
from actors.diversion import Statuses, chosen_way, ways_of
from actors.headroom import Waits
from actors.in_turns import in_turns
from actors.metrics import Metrics
from actors.ports import Admission, Arrival, BatchAnswer, Diverted, Existing, Inserted, Queue, Store
from actors.pusher import Pusher
from actors.supervision import describe
from dispatcher.acceptance import AcceptLimits, HandedIn, Item, expired, parse_in_steps, too_large
from dispatcher.audience import serves
from dispatcher.errors import DispatcherError, KeyTaken, Overloaded, StoreInDoubt, StoreRefused, StoreUnavailable
from dispatcher.headroom import BACKLOG_FULL
from dispatcher.ids import uuid7
from dispatcher.model import Channel, Lane, NotificationId, OrganizationId
from dispatcher.problems import Problem, Refused, escape_pointer
from dispatcher.templates import CompiledTemplate, MissingVariable, TemplateError

logger = logging.getLogger(__name__)

TURN_S = 0.005
"""How long one batch may render before the other tasks get a turn. A single item may take longer, within its steps."""

LoadTemplate = Callable[[OrganizationId, str, Channel, str | None], Awaitable[CompiledTemplate | None]]
LoadLanes = Callable[[OrganizationId], Awaitable[frozenset[Lane]]]
StoredAnswer = Callable[[OrganizationId, str], Awaitable[tuple[bytes, bytes] | None]]


class Acceptor:
    """Accepts requests of all organizations. ``cache_of`` gives an organization's hot cache, ``wake`` starts it.

    ``load_template`` and ``load_lanes`` fill the cache: a compiled template or None, the lanes with a usable provider.
    """

    def __init__(
        self,
        store: Store,
        queue: Queue,
        metrics: Metrics,
        *,
        limits: AcceptLimits,
        attempts_max: int,
        rows_max: int,
        pending_max: int,
        tick_s: float,
        cache_of: Callable[[OrganizationId], HotCache[Any]],
        load_template: LoadTemplate,
        load_lanes: LoadLanes,
        stored_answer: StoredAnswer,
        wake: Callable[[OrganizationId], None],
        unix_s: Callable[[], float],
        random: Random,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._limits = limits
        self._attempts_max = attempts_max
        self._cache_of = cache_of
        self._load_template = load_template
        self._load_lanes = load_lanes
        self._stored_answer = stored_answer
        self.pusher = Pusher(queue, metrics, wake=wake, random=random)
        self._unix_s = unix_s
        self._random = random
        self.waits = Waits()
        self._under_way: set[tuple[OrganizationId, str]] = set()  # keys of requests that have no answer yet
        self._inserts: Batcher[_Request] = Batcher(
            "accepting", self._flush, rows_max=rows_max, tick_s=tick_s, pending_max=pending_max, weigh=_weight, workers=2
        )

    async def run(self) -> None:
        """Insert until :meth:`close`."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.pusher.run)
            await self._inserts.run()
            self.pusher.close()

    def close(self) -> None:
        """No further requests will come."""
        self._inserts.close()

    def statistics(self) -> BatcherStatistics:
        """The line in front of Postgres."""
        return self._inserts.statistics()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for its insert."""
        line = self._inserts.statistics()
        return not (line.pending or line.flushing)

    async def accept(self, organization_id: OrganizationId, body: bytes, idempotency_key: str | None) -> Answer:
        """Accept one notification or a batch; the answer is true: what it calls accepted is on disk.

        Raises Refused for a request that can not be accepted as a whole, or when too much waits already; StoreUnavailable
        when Postgres is away (with a key, the request may be repeated without risk).
        """
        now_unix_s = floor(self._unix_s() * 1000) / 1000  # finer fractions would not be the same on their way back from Postgres
        handed = await in_turns(parse_in_steps(body, self._limits))
        keys = self._keys_of(organization_id, handed, idempotency_key)
        busy = keys & self._under_way
        if busy:
            if not handed.is_batch or (organization_id, batch_key(idempotency_key)) in busy:
                raise Refused(IN_PROGRESS)
            items = [IN_PROGRESS if is_busy(organization_id, item, busy) else item for item in handed.items]
            handed = evolve(handed, items=items)
            keys -= busy
        self._under_way |= keys
        try:
            if handed.is_batch:
                return await self._accept_batch(organization_id, handed, idempotency_key, now_unix_s)
            return await self._accept_one(organization_id, handed.items[0], idempotency_key, now_unix_s)
        finally:
            self._under_way -= keys

    # --- one and many -----------------------------------------------------------------------------------------------------

    async def _accept_one(
        self, organization_id: OrganizationId, item: Item | Problem, header_key: str | None, now_unix_s: float
    ) -> Answer:
        if isinstance(item, Problem):
            raise Refused(item)
        if header_key is not None and item.idempotency_key not in (None, header_key):
            raise Refused(key_problem("idempotency_key_ambiguous", "The Idempotency-Key header and the field name two keys."))
        key = header_key or item.idempotency_key
        cache = self._cache_of(organization_id)
        item, diverted = chosen_way(item, await self._obstacles(organization_id, [item]))
        (prepared,) = await self._recall(
            organization_id, [(item, key)], [await self._prepare(cache, organization_id, item, key, now_unix_s, diverted)]
        )
        if isinstance(prepared, Problem):
            raise Refused(prepared)
        existing: Existing | None
        if isinstance(prepared, Existing):
            existing = prepared
        else:
            request = await self._insert(_Request(organization_id, (prepared,), None))
            if prepared.id in request.refused:
                raise Refused(UNSTORABLE)
            existing = existing_of(prepared, request.existing)
            if existing is None and prepared.id in request.existing.suppressed:
                self._metrics.accepted["suppressed"] += 1
                raise Refused(suppressed(request.existing.suppressed[prepared.id]))
        headers = {}
        if existing is not None:
            if existing.request_hash != item.request_hash:
                self._metrics.accepted["conflict"] += 1
                raise Refused(REUSED)
            id, created_at_s, channel = existing.id, existing.created_at_unix_s, existing.channel
            diverted = diverted if channel is item.channel else None  # contacts have changed since: it went another way
            headers["Idempotent-Replayed"] = "true"
        else:
            assert isinstance(prepared, Admission)
            id, created_at_s, channel = prepared.id, now_unix_s, item.channel
        self._metrics.accepted["accepted" if existing is None else "duplicate"] += 1
        document = {"id": id, "status": "queued", "channel": channel.value, "created_at": rfc3339(created_at_s)}
        document |= diversion(diverted)
        headers["Location"] = f"/v1/orgs/{organization_id}/notifications/{id}"
        return Answer(202, orjson.dumps(document), headers)

    async def _accept_batch(
        self, organization_id: OrganizationId, handed: HandedIn, header_key: str | None, now_unix_s: float
    ) -> Answer:
        if header_key is not None:
            replay = await self._replay(organization_id, header_key, handed.request_hash)
            if replay is not None:
                return replay
        prepared: list[Prepared] = []
        keyed: list[tuple[Item | Problem, str | None]] = []
        cache = self._cache_of(organization_id)  # once: a passing one, for an organization that may not run, serves all items
        pause_at_s = trio.current_time() + TURN_S
        obstacles = await self._obstacles(organization_id, handed.items)
        for index, item in enumerate(handed.items):
            if trio.current_time() >= pause_at_s:
                await trio.lowlevel.checkpoint()
                pause_at_s = trio.current_time() + TURN_S
            key = None
            if isinstance(item, Item):
                item, diverted = chosen_way(item, obstacles)
                key = item.idempotency_key or (None if header_key is None else f"{header_key} {index}")
                prepared.append(await self._prepare(cache, organization_id, item, key, now_unix_s, diverted))
            else:
                prepared.append(item)
            keyed.append((item, key))
        prepared = await self._recall(organization_id, keyed, prepared)
        request = _Request(organization_id, [p for p in prepared if isinstance(p, Admission)], None)
        if header_key is not None:
            request.batch_answer = BatchAnswer(
                organization_id,
                header_key,
                handed.request_hash,
                lambda existing: orjson.dumps(batch_document(prepared, existing, request.refused)),
            )
        if request.admissions or request.batch_answer is not None:
            await self._insert(request)
        if request.taken and header_key is not None:
            replay = await self._replay(organization_id, header_key, handed.request_hash)
            if replay is None:
                raise StoreUnavailable("the answer under this key is gone; the request may be repeated")
            return replay
        document = batch_document(prepared, request.existing, request.refused)
        for verdict in ("accepted", "duplicates", "rejected"):
            self._metrics.accepted[verdict.removesuffix("s")] += document[verdict]
        return Answer(202, orjson.dumps(document))

    async def _replay(self, organization_id: OrganizationId, header_key: str, request_hash: bytes) -> Answer | None:
        """The first answer to a batch under this key, if there was one. Raises Refused when that was another batch."""
        stored = await self._stored_answer(organization_id, header_key)
        if stored is None:
            return None
        if stored[0] != request_hash:
            raise Refused(key_problem("idempotency_key_reused", "This key was used before with another batch."))
        return Answer(202, stored[1], {"Idempotent-Replayed": "true"})

    async def _recall(
        self, organization_id: OrganizationId, keyed: Sequence[tuple[Item | Problem, str | None]], prepared: Sequence[Prepared]
    ) -> list[Prepared]:
        """Put what a key already stands for in place of a refusal: a replay is a replay even when its template is gone by now."""
        keys = [key for (_, key), one in zip(keyed, prepared, strict=True) if key is not None and isinstance(one, Problem)]
        return recalled(await self._store.known(organization_id, keys), keyed, prepared) if keys else list(prepared)

    # --- one item ---------------------------------------------------------------------------------------------------------

    async def _obstacles(self, organization_id: OrganizationId, items: Iterable[Item | Problem]) -> Statuses:
        """Why recipients of items that have fallbacks may not be used. Without any, nobody is asked."""
        whom = [(way.channel, way.recipient) for item in items for way in ways_of(item)]
        return await self._store.suppressed(organization_id, whom) if whom else {}

    async def _prepare(
        self,
        cache: HotCache[Any],
        organization_id: OrganizationId,
        item: Item,
        key: str | None,
        now_unix_s: float,
        diverted: Diverted | None = None,
    ) -> Admission | Problem:
        """Render an item into the row to insert, or say why it can not be."""
        problem = expired(item, now_unix_s)
        if problem is not None:
            return problem
        lanes = cache.peek("lanes")
        if lanes is None:
            lanes = await cache.get("lanes", lambda: self._load_lanes(organization_id))
        if not serves(lanes, item.channel, item.recipient):
            return no_provider(item.channel, lanes)
        template_id = locale = None
        payload: Mapping[str, Any]
        if item.template is None:
            assert item.content is not None
            payload = item.content
        else:
            name = (item.template, item.channel, item.locale)
            found = cache.peek(name)
            if found is None:
                found = await cache.get(name, lambda: self._find_template(organization_id, *name))
            if found is _NO_TEMPLATE:
                return no_template(item.channel)
            template: CompiledTemplate = found
            try:
                rendered = template.render_payload(item.variables)
            except TemplateError as error:
                missing = f"/{escape_pointer(error.name)}" if isinstance(error, MissingVariable) and error.name else ""
                return error.problem("/variables" + missing)
            template_id, locale = template.template_id, template.locale
            size_bytes = sum(map(len, rendered.values()))
            if size_bytes > self._limits.item_bytes_max:
                return too_large(size_bytes, self._limits)
            payload = rendered
        id = NotificationId(uuid7(round(now_unix_s * 1000), self._random.getrandbits(74)))
        row = {
            "id": id,
            "organization_id": organization_id,
            "channel": item.channel.value,
            "attempts_max": self._attempts_max,
            "created_at": now_unix_s,
            "expires_at": item.expires_at_s,
            "user_id": item.user_id,
            "recipient": item.recipient,
            "payload": payload,
            "template_id": template_id,
            "locale": locale,
            "idempotency_key": key,
            "request_hash": item.request_hash.hex(),
        }
        if item.ignores_suppression:
            row["ignores_suppression"] = True
        return Admission(organization_id, id, key, item.request_hash, row, diverted)

    async def _find_template(
        self, organization_id: OrganizationId, name: str, channel: Channel, locale: str | None
    ) -> CompiledTemplate | object:
        found = await self._load_template(organization_id, name, channel, locale)
        return _NO_TEMPLATE if found is None else found

    def _keys_of(
        self, organization_id: OrganizationId, handed: HandedIn, header_key: str | None
    ) -> set[tuple[OrganizationId, str]]:
        keys = {
            (organization_id, item.idempotency_key)
            for item in handed.items
            if isinstance(item, Item) and item.idempotency_key is not None
        }
        if header_key is not None:
            # A batch and a single notification may carry the same header without meaning the same.
            keys.add((organization_id, batch_key(header_key) if handed.is_batch else header_key))
        return keys

    # --- into Postgres ----------------------------------------------------------------------------------------------------

    async def _insert(self, request: _Request) -> _Request:
        try:
            self._inserts.put(request)
        except Overloaded:
            self._metrics.events["turned_away_backlog_full"] += 1
            raise Refused(BACKLOG_FULL) from None
        await request.done.wait()
        if request.error is not None:
            raise request.error
        return request

    async def _flush(self, batch: list[_Request]) -> None:
        try:
            with self.waits.insert(batch[0].handed_in_s):
                await self._insert_all(batch)
        except Exception as error:
            if not isinstance(error, DispatcherError):
                logger.error("accepting a batch of %d requests failed: %s", len(batch), describe(error))
                error = StoreUnavailable("accepting failed unexpectedly; the log says where")
            for request in batch:
                if not request.done.is_set():
                    request.error = error
                    request.done.set()
        self._push([request for request in batch if not request.taken])

    async def _insert_all(self, batch: Sequence[_Request]) -> None:
        """Insert the rows of all these requests in one transaction; if Postgres refuses one of them, find it by halves."""
        try:
            existing = await self._store.insert(
                [admission for request in batch for admission in request.admissions],
                [request.batch_answer for request in batch if request.batch_answer is not None],
            )
        except StoreRefused as refusal:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._insert_all(batch[:middle])
                await self._insert_all(batch[middle:])
            elif isinstance(refusal, KeyTaken):
                batch[0].taken = True
                batch[0].done.set()
            else:
                await self._insert_by_halves(batch[0])
            return
        for request in batch:
            request.existing = existing
            request.done.set()

    async def _insert_by_halves(self, request: _Request) -> None:
        existing = Inserted()
        parts = [request.admissions]
        while parts:
            part = parts.pop()
            try:
                existing.add(await self._store.insert(part, ()))
            except StoreRefused:
                if len(part) == 1:
                    request.refused.add(part[0].id)
                else:
                    parts.extend((part[len(part) // 2 :], part[: len(part) // 2]))
        if request.batch_answer is not None:
            answer = request.batch_answer.answer(existing)
            try:
                await self._store.insert((), [request.batch_answer._replace(answer=lambda _: answer)])
            except KeyTaken:
                request.taken = True
        request.existing = existing
        request.done.set()

    def _push(self, requests: Iterable[_Request]) -> None:
        """Tell Redis and the organizations' actors, without waiting for either."""
        arrivals: dict[OrganizationId, tuple[list[NotificationId], list[bytes]]] = {}
        for request in requests:
            if request.error is not None:
                # Perhaps they are on disk and only the answer was lost. If not, the gate knows nothing of them and drops them.
                if isinstance(request.error, StoreInDoubt):
                    arrivals.setdefault(request.organization_id, ([], []))[0].extend(a.id for a in request.admissions)
                continue
            for admission in request.admissions:
                if admission.id in request.refused or admission.id in request.existing.suppressed:
                    continue
                if existing_of(admission, request.existing) is not None:
                    continue
                ids, notices = arrivals.setdefault(request.organization_id, ([], []))
                ids.append(admission.id)
                row = admission.row
                notices.append(announcements.created(admission.id, Channel(row["channel"]), row["created_at"]))
        if arrivals:
            self.pusher.put([Arrival(name, ids, notices) for name, (ids, notices) in arrivals.items()])


_NO_TEMPLATE = object()


def _weight(request: _Request) -> int:
    return max(1, len(request.admissions))
