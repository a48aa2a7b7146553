"""The event desk: events become durable here, with everything that comes of them, before their producers are told so.

Read each event, ask which rules are for it, read the people, templates and contacts that they name for the whole request at once,
plan (``dispatcher.planning``), and insert events and notifications through the line that everything accepted goes through. A dry
run is the same without the last step. Invariant: an event is taken in once: the same again gets the first answer again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor
from random import Random
from typing import Any
from urllib.parse import quote

import orjson

from actors.acceptor_answers import IN_PROGRESS, AcceptRequest, Answer
from actors.admitting import Admitting
from actors.event_answers import CONFLICT, UNSTORABLE, EventAnswer, explained
from actors.in_turns import Turns, in_turns
from actors.knowledge import Knowledge
from actors.metrics import Metrics
from actors.planned_rows import Rows
from actors.ports import DigestEntry, EventAdmission, KnownEvent, Store
from dispatcher.acceptance import AcceptLimits
from dispatcher.event_documents import parse_event, parse_events_in_steps
from dispatcher.events import Event
from dispatcher.ids import uuid7
from dispatcher.model import OrganizationId
from dispatcher.planned import Plan, Skipped
from dispatcher.planning import BYTES_MAX, Match, match_in_steps, needs_of, plan_in_steps, too_many
from dispatcher.problems import Problem, Refused

TURN_S = 0.005
"""How long one request may plan before the other tasks get a turn."""
Verdict = EventAdmission | KnownEvent | Problem


class EventDesk:
    """Takes in the events of all organizations."""

    def __init__(
        self,
        store: Store,
        admitting: Admitting,
        knowledge: Knowledge,
        metrics: Metrics,
        *,
        limits: AcceptLimits,
        rows: Rows,
        unix_s: Callable[[], float],
        random: Random,
    ) -> None:
        self._store = store
        self._admitting = admitting
        self._knowledge = knowledge
        self._metrics = metrics
        self._limits = limits
        self._rows = rows
        self._unix_s = unix_s
        self._random = random
        self._under_way: set[tuple[OrganizationId, str]] = set()  # events that have no answer yet

    async def accept(self, organization_id: OrganizationId, body: bytes) -> Answer:
        """Take in one event or a batch; the answer is true: what it calls accepted is on disk.

        Raises Refused for a request that can not be taken in as a whole, or when too much waits already; StoreUnavailable when
        Postgres is away (the request may be repeated without risk).
        """
        now_unix_s = self._now()
        handed = await in_turns(parse_events_in_steps(body, self._limits))
        items = [self._unless_busy(organization_id, item) for item in handed.items]
        first: dict[str, Event] = {}
        for item in items:
            if isinstance(item, Event):
                first.setdefault(item.id, item)
        mine = {(organization_id, id) for id in first}
        self._under_way |= mine
        try:
            verdicts = await self._take_in(organization_id, list(first.values()), now_unix_s)
        finally:
            self._under_way -= mine
        seen: set[str] = set()
        answers: list[tuple[str, str, bytes] | Problem] = []
        for item in items:
            if isinstance(item, Problem):
                answers.append(item)
                continue
            is_first = item.id not in seen
            seen.add(item.id)
            answers.append(_answer_to(item, first[item.id], verdicts[item.id], is_first=is_first))
        self._count(answers)
        if handed.is_batch:
            return Answer(202, _batch(answers))
        (answer,) = answers
        if isinstance(answer, Problem):
            raise Refused(answer)
        id, status, document = answer
        headers = {"Location": f"/v1/orgs/{organization_id}/events/{quote(id, safe='')}"}
        return Answer(202, document, headers | ({"Idempotent-Replayed": "true"} if status == "duplicate" else {}))

    async def explain(self, organization_id: OrganizationId, row: Any, *, with_payload: bool) -> dict[str, Any]:
        """What would come of an event if it came now, with every chain of decisions. Keeps nothing. Raises Refused."""
        event = parse_event(row, self._limits)
        if isinstance(event, Problem):
            raise Refused(event)
        ((_, planned),) = await self.plans(organization_id, [event], self._now())
        return {"id": event.id, **explained(planned, with_payload=with_payload)}

    async def plans(
        self, organization_id: OrganizationId, events: Sequence[Event], now_unix_s: float
    ) -> list[tuple[Event, Plan]]:
        """What comes of each of these events, one after the other."""
        setup = await self._knowledge.setup(organization_id)
        turns = Turns(TURN_S)
        matches: list[Sequence[Match]] = [await turns.of(match_in_steps(event, setup)) for event in events]
        needs = needs_of([one for found in matches if not too_many(found) for one in found])
        world = await self._knowledge.world(organization_id, setup, needs, now_unix_s)
        plans: list[tuple[Event, Plan]] = []
        cap_times: dict[tuple[str, str], tuple[float, ...]] = {}
        bytes_left = BYTES_MAX
        turns = Turns(TURN_S)
        for event, found in zip(events, matches, strict=True):
            planned = await turns.of(plan_in_steps(event, found, world, cap_times, bytes_left))
            bytes_left -= planned.size_bytes
            cap_times.update(planned.cap_times)
            plans.append((event, planned))
        return plans

    # --- steps of taking in

    async def _take_in(
        self, organization_id: OrganizationId, events: Sequence[Event], now_unix_s: float
    ) -> dict[str, tuple[Verdict, bytes]]:
        """A verdict for each event, by its id, with the answer to it."""
        if not events:
            return {}
        verdicts: dict[str, tuple[Verdict, bytes]] = {}
        admitted: list[EventAdmission] = []
        refused: dict[str, Problem] = {}
        for event, planned in await self.plans(organization_id, events, now_unix_s):
            if planned.problem is not None:
                refused[event.id] = planned.problem
            else:
                admitted.append(self._admission(organization_id, event, planned, now_unix_s))
        if refused:  # what was taken in before is a replay, whatever has become of its templates since
            known = await self._store.known_events(organization_id, list(refused))
            verdicts |= {id: (known.get(id, problem), b"") for id, problem in refused.items()}
        if admitted:
            request = await self._admitting.insert(AcceptRequest(organization_id, (), None, admitted))
            for admission in admitted:
                before = request.existing.events.get((organization_id, admission.id))
                if admission.id in request.refused_events:
                    verdicts[admission.id] = UNSTORABLE, b""
                elif before is not None:
                    verdicts[admission.id] = before, b""
                else:
                    verdicts[admission.id] = admission, admission.answer(request.existing)
        return verdicts

    def _admission(self, organization_id: OrganizationId, event: Event, planned: Plan, now_unix_s: float) -> EventAdmission:
        pairs = [
            (
                each,
                self._rows.admission(
                    organization_id,
                    each,
                    now_unix_s,
                    key=Rows.key_of(event.id, each),
                    event_id=event.id,
                    correlation_id=event.correlation_id,
                    request_hash=event.request_hash,
                ),
            )
            for each in planned.planned
        ]
        digests = [
            DigestEntry(
                uuid7(round(now_unix_s * 1000), self._random.getrandbits(74)),
                each.rule,
                each.user_id,
                each.channel,
                each.key,
                each.due_at_s,
            )
            for each in planned.gathered
        ]
        for fate in planned.fates:
            self._metrics.planned[fate.code.value if isinstance(fate, Skipped) else "planned"] += 1
        return EventAdmission(
            organization_id,
            event.id,
            event.type,
            event.request_hash,
            event.correlation_id,
            now_unix_s,
            [admission for _, admission in pairs],
            digests,
            event.data,
            EventAnswer(organization_id, event.id, planned, pairs),
        )

    def _unless_busy(self, organization_id: OrganizationId, item: Event | Problem) -> Event | Problem:
        busy = isinstance(item, Event) and (organization_id, item.id) in self._under_way
        return IN_PROGRESS if busy else item

    def _count(self, answers: Sequence[tuple[str, str, bytes] | Problem]) -> None:
        for answer in answers:
            self._metrics.taken_in["refused" if isinstance(answer, Problem) else answer[1]] += 1

    def _now(self) -> float:
        return floor(self._unix_s() * 1000) / 1000  # finer fractions would not be the same on their way back from Postgres


def _answer_to(item: Event, first: Event, verdict: tuple[Verdict, bytes], *, is_first: bool) -> tuple[str, str, bytes] | Problem:
    """Id, status and answer for one of the events handed in, of which those with the same id have one verdict."""
    decided, answer = verdict
    if isinstance(decided, Problem):
        return decided
    if isinstance(decided, KnownEvent):
        return CONFLICT if decided.request_hash != item.request_hash else (item.id, "duplicate", decided.answer)
    if not is_first:
        return CONFLICT if first.request_hash != item.request_hash else (item.id, "duplicate", answer)
    return item.id, "accepted" if b'"matched":true' in answer[:300] else "unmatched", answer


def _batch(answers: Sequence[tuple[str, str, bytes] | Problem]) -> bytes:
    counts = {"accepted": 0, "duplicates": 0, "rejected": 0}
    items: list[dict[str, Any]] = []
    for index, answer in enumerate(answers):
        if isinstance(answer, Problem):
            counts["rejected"] += 1
            items.append({"index": index, "status": "rejected", "problem": answer.below(f"/items/{index}").document()})
            continue
        _, status, document = answer
        is_duplicate = status == "duplicate"
        counts["duplicates" if is_duplicate else "accepted"] += 1
        items.append({"index": index, "status": "duplicate" if is_duplicate else "accepted", "event": orjson.Fragment(document)})
    return orjson.dumps({**counts, "items": items})
