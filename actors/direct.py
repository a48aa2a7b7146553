"""Deciding about notifications that are handed in for a user or about a topic, for the acceptor.

Whatever a request needs to know is read once, however many of its notifications need it. Invariant: a request without such
notifications costs nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actors.acceptor_answers import no_provider, no_template, suppressed
from actors.event_answers import explained
from actors.knowledge import Knowledge
from actors.metrics import Metrics
from actors.planned_rows import Rows
from actors.ports import Admission
from dispatcher.acceptance import AcceptLimits, Item, expired, is_decided_about, parse_item, too_far
from dispatcher.deciding import decide
from dispatcher.decisions import Code
from dispatcher.direct import CONTACTS, needs_of_items, refusal_of, unknown_topic, wish_of
from dispatcher.model import OrganizationId
from dispatcher.planned import Plan, Planned, Skipped, World
from dispatcher.problems import Problem, Refused
from dispatcher.setup import Setup


class DirectPlans:
    """The decisions about one request. Caps count what was planned before in it."""

    def __init__(self, world: World, rows: Rows, metrics: Metrics) -> None:
        self._world = world
        self._rows = rows
        self._metrics = metrics
        self._cap_times: dict[tuple[str, str], tuple[float, ...]] = {}

    @property
    def setup(self) -> Setup:
        """The organization's."""
        return self._world.setup

    def decided(self, item: Item) -> Planned | Skipped:
        """What becomes of it."""
        (fate,), used = decide(wish_of(item, self._world.setup), self._world, self._cap_times)
        assert isinstance(fate, Planned | Skipped)
        self._cap_times.update(used)
        return fate

    def prepare(self, item: Item, key: str | None) -> Admission | Problem:
        """The row to insert, or why there is none."""
        now_unix_s = self._world.now_unix_s
        problem = expired(item, now_unix_s) or too_far(item, now_unix_s) or unknown_topic(item, self._world.setup)
        if problem is not None:
            return problem
        fate = self.decided(item)
        self._metrics.planned[fate.code.value if isinstance(fate, Skipped) else "planned"] += 1
        if isinstance(fate, Skipped):
            return self._problem(item, fate)
        return self._rows.admission(
            self._world.organization_id,
            fate,
            now_unix_s,
            key=key,
            correlation_id=item.correlation_id,
            request_hash=item.request_hash,
        )

    def _problem(self, item: Item, skipped: Skipped) -> Problem:
        code = skipped.code
        if code in CONTACTS:
            return suppressed(CONTACTS[code])
        if code is Code.PROVIDER_NONE:
            return no_provider(item.channel, self._world.lanes)
        if code is Code.TEMPLATE_NONE:
            return no_template(item.channel)
        return skipped.problem or refusal_of(code)


class DirectDesk:
    """Of all organizations."""

    def __init__(self, knowledge: Knowledge, rows: Rows, metrics: Metrics) -> None:
        self._knowledge = knowledge
        self._rows = rows
        self._metrics = metrics

    async def plans(
        self, organization_id: OrganizationId, items: Sequence[Item | Problem], now_unix_s: float
    ) -> DirectPlans | None:
        """What decides about these; None when there is nothing to decide about any of them."""
        theirs = [item for item in items if isinstance(item, Item) and is_decided_about(item)]
        return await self._plans(organization_id, theirs, now_unix_s) if theirs else None

    async def explain(
        self, organization_id: OrganizationId, row: Any, limits: AcceptLimits, now_unix_s: float, *, with_payload: bool
    ) -> dict[str, Any]:
        """What would become of a notification if it were handed in now. Keeps nothing. Raises Refused."""
        item = parse_item(row, limits)
        if isinstance(item, Problem):
            raise Refused(item)
        plans = await self._plans(organization_id, [item], now_unix_s)
        problem = expired(item, now_unix_s) or too_far(item, now_unix_s) or unknown_topic(item, plans.setup)
        plan = Plan([plans.decided(item)], (), problem=problem)
        shown = explained(plan, with_payload=with_payload)
        return {"notification": shown["notifications"][0], **({"refused": shown["refused"]} if problem is not None else {})}

    async def _plans(self, organization_id: OrganizationId, items: list[Item], now_unix_s: float) -> DirectPlans:
        setup = await self._knowledge.setup(organization_id)
        world = await self._knowledge.world(organization_id, setup, needs_of_items(items), now_unix_s)
        return DirectPlans(world, self._rows, self._metrics)
