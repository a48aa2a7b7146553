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

from actors.acceptor_answers import (
    CAPPED,
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
    standing,
    suppressed,
    waiting,
)
from actors.acceptor_answers import (
    AcceptRequest as _Request,
)
from actors.admitting import Admitting
from actors.batcher import BatcherStatistics
from actors.cache import HotCache
from actors.direct import DirectDesk
from actors.diversion import Statuses, chosen_way, ways_of
from actors.in_turns import in_turns
from actors.metrics import Metrics
from actors.ports import Admission, BatchAnswer, Diverted, Existing, Queue, Store
from dispatcher.acceptance import (
    AcceptLimits,
    HandedIn,
    Item,
    expired,
    is_decided_about,
    parse_in_steps,
    too_far,
    too_large,
    waits,
)
from dispatcher.audience import serves
from dispatcher.errors import StoreUnavailable
from dispatcher.ids import uuid7
from dispatcher.localization import NEUTRAL, Localization
from dispatcher.model import Channel, Lane, NotificationId, OrganizationId, Status
from dispatcher.problems import Problem, Refused, escape_pointer
from dispatcher.setup import Setup
from dispatcher.templates import CompiledTemplate, MissingVariable, TemplateError, payload_size

logger = logging.getLogger(__name__)

TURN_S = 0.005
"""How long one batch may render before the other tasks get a turn. A single item may take longer, within its steps."""

LoadTemplate = Callable[[OrganizationId, str, Channel, str | None], Awaitable[CompiledTemplate | None]]
LoadSetup = Callable[[OrganizationId], Awaitable[Setup]]
LoadLanes = Callable[[OrganizationId], Awaitable[frozenset[Lane]]]
StoredAnswer = Callable[[OrganizationId, str], Awaitable[tuple[bytes, bytes] | None]]


class Acceptor:
    """Accepts requests of all organizations. ``cache_of`` gives an organization's hot cache, ``wake`` starts it.

    ``load_template``, ``load_setup`` and ``load_lanes`` fill the cache: a compiled template or None, the set-up, the lanes with a
    usable provider.
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
        load_setup: LoadSetup,
        load_lanes: LoadLanes,
        stored_answer: StoredAnswer,
        direct: DirectDesk,
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
        self._load_setup = load_setup
        self._load_lanes = load_lanes
        self._stored_answer = stored_answer
        self._direct = direct
        self._unix_s = unix_s
        self._random = random
        self._under_way: set[tuple[OrganizationId, str]] = set()  # keys of requests that have no answer yet
        self.admitting = Admitting(
            store, queue, metrics, rows_max=rows_max, pending_max=pending_max, tick_s=tick_s, wake=wake, random=random
        )

    async def run(self) -> None:
        """Insert until :meth:`close`."""
        await self.admitting.run()

    def close(self) -> None:
        """No further requests will come."""
        self.admitting.close()

    def statistics(self) -> BatcherStatistics:
        """The line in front of Postgres."""
        return self.admitting.statistics()

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

    async def explain(self, organization_id: OrganizationId, row: Any, *, with_payload: bool) -> dict[str, Any]:
        """What would become of one notification if it were handed in now, with every decision. Raises Refused."""
        now_unix_s = floor(self._unix_s() * 1000) / 1000
        return await self._direct.explain(organization_id, row, self._limits, now_unix_s, with_payload=with_payload)

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
        made: Prepared
        if is_decided_about(item):
            plans = await self._direct.plans(organization_id, [item], now_unix_s)
            assert plans is not None
            made = plans.prepare(item, key)
        else:
            made = await self._prepare(cache, organization_id, item, key, now_unix_s, diverted)
        (prepared,) = await self._recall(organization_id, [(item, key)], [made])
        if isinstance(prepared, Problem):
            raise Refused(prepared)
        existing: Existing | None
        if isinstance(prepared, Existing):
            existing = prepared
        else:
            request = await self.admitting.insert(_Request(organization_id, (prepared,), None))
            if prepared.id in request.refused:
                raise Refused(UNSTORABLE)
            existing = existing_of(prepared, request.existing)
            if existing is None and prepared.id in request.existing.suppressed:
                self._metrics.accepted["suppressed"] += 1
                raise Refused(suppressed(request.existing.suppressed[prepared.id]))
            if prepared.id in request.existing.capped:
                raise Refused(CAPPED)
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
        document |= standing(prepared) if isinstance(prepared, Admission) else waiting(item, created_at_s)
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
        plans = await self._direct.plans(organization_id, handed.items, now_unix_s)
        for index, item in enumerate(handed.items):
            if trio.current_time() >= pause_at_s:
                await trio.lowlevel.checkpoint()
                pause_at_s = trio.current_time() + TURN_S
            key = None
            if isinstance(item, Item):
                item, diverted = chosen_way(item, obstacles)
                key = item.idempotency_key or (None if header_key is None else f"{header_key} {index}")
                if plans is not None and is_decided_about(item):
                    prepared.append(plans.prepare(item, key))
                else:
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
            await self.admitting.insert(request)
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

    async def _with_messages(self, cache: HotCache[Any], organization_id: OrganizationId, locale: str | None) -> Localization:
        """For a template that takes words from the organization's catalogues."""
        setup: Setup = cache.peek("setup") or await cache.get("setup", lambda: self._load_setup(organization_id))
        return setup.localization(locale)

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
        problem = expired(item, now_unix_s) or too_far(item, now_unix_s)
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
                localization = NEUTRAL if item.locale is None else Localization(item.locale)
                if template.keys:
                    localization = await self._with_messages(cache, organization_id, item.locale)
                rendered = template.render_payload(item.variables, localization)
            except TemplateError as error:
                if error.code == "template_message_missing":
                    return error.problem("/template")  # no variable would mend it
                missing = f"/{escape_pointer(error.name)}" if isinstance(error, MissingVariable) and error.name else ""
                return error.problem("/variables" + missing)
            template_id, locale = template.template_id, template.locale
            size_bytes = payload_size(rendered)
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
        is_later = waits(item, now_unix_s)
        is_planned = is_later or item.correlation_id is not None
        if is_planned:
            row["correlation_id"] = item.correlation_id
            if is_later:
                row |= {"status": Status.SCHEDULED.value, "send_at": item.send_at_s}
        return Admission(organization_id, id, key, item.request_hash, row, diverted, is_planned)

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


_NO_TEMPLATE = object()
