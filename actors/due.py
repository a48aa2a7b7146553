"""What becomes of what has waited, when its time comes: asked again, or told of together.

The clock reads what is due and carries out what is decided here. Invariant: nothing is kept here and nothing is written; whoever
asks twice gets an answer of present facts twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import floor

from actors.knowledge import Knowledge
from actors.metrics import Metrics
from actors.planned_rows import Rows
from actors.ports import Admission
from actors.schedule_ports import Digest, Due, Ruling
from dispatcher.asking_again import Again, Later, SendNow, ask_again
from dispatcher.conditions import ExpressionError
from dispatcher.deciding import decide
from dispatcher.model import OrganizationId, Status
from dispatcher.planned import Planned, Skipped
from dispatcher.planning import Needs, digest_variables, digest_wish, topic_named

logger = logging.getLogger(__name__)


class DueDesk:
    """Decides about what is due, for the clock."""

    def __init__(self, knowledge: Knowledge, metrics: Metrics, rows: Rows, unix_s: Callable[[], float]) -> None:
        self._knowledge = knowledge
        self._metrics = metrics
        self._rows = rows
        self._unix_s = unix_s

    async def ask(self, due: Sequence[Due]) -> Sequence[Ruling]:
        """What becomes of each of these now. People are read once for each organization."""
        by_organization: dict[OrganizationId, list[Due]] = {}
        for one in due:
            by_organization.setdefault(one.organization_id, []).append(one)
        rulings: list[Ruling] = []
        for organization_id, theirs in by_organization.items():
            setup = await self._knowledge.setup(organization_id)
            users = await self._knowledge.users(organization_id, {one.user_id for one in theirs if one.user_id is not None})
            now_unix_s = self._unix_s()
            for one in theirs:
                user = None if one.user_id is None else users.get(one.user_id)
                again = ask_again(one.plan, user, topic_named(setup, one.topic), setup.policy, now_unix_s)
                rulings.append(_ruling(one, again))
        return rulings

    async def tell(self, digest: Digest) -> Admission | None:
        """The notification that tells of a digest that is due; None when there is nothing to tell any more, or nobody to tell."""
        organization_id = digest.organization_id
        setup = await self._knowledge.setup(organization_id)
        rule = setup.rules.get(digest.rule)
        send = None if rule is None else next((send for send in rule.sends if send.channel is digest.channel), None)
        if rule is None or send is None or not rule.enabled or not digest.items:
            self._metrics.planned["rule_none"] += 1
            return None
        now_unix_s = floor(self._unix_s() * 1000) / 1000
        needs = Needs(frozenset({digest.user_id}), frozenset({(send.template, send.channel)}), frozenset())
        world = await self._knowledge.world(organization_id, setup, needs, now_unix_s)
        try:
            variables = digest_variables(rule, send, [item.data for item in digest.items], digest.count)
        except ExpressionError as error:
            logger.error("organization %s: the digest of rule %s is not told: %s", organization_id, rule.name, error.code)
            return None
        wish = digest_wish(rule, send, digest.user_id, topic_named(setup, rule.topic), variables)
        (fate, *others), _ = decide(wish, world, {})
        if isinstance(fate, Skipped):
            self._metrics.planned[fate.code.value] += 1
            if fate.problem is not None:
                told = fate.problem.code
                logger.error("organization %s: the digest of rule %s is not told: %s", organization_id, rule.name, told)
            return None
        assert isinstance(fate, Planned)
        assert not others
        self._metrics.planned["planned"] += 1
        last = digest.items[-1]
        # Who cancels by one of several correlation ids means what it stands for, and not the others that are told of with it.
        correlation_ids = {item.correlation_id for item in digest.items}
        return self._rows.admission(
            organization_id,
            fate,
            now_unix_s,
            key=f"digest {digest.id}",
            event_id=last.event_id,
            correlation_id=last.correlation_id if len(correlation_ids) == 1 else None,
        )


def _ruling(due: Due, again: Again) -> Ruling:
    if isinstance(again, SendNow):
        return Ruling(due, Status.QUEUED, (again.decision,))
    if isinstance(again, Later):
        return Ruling(due, Status.SCHEDULED, (again.decision,), again.at_s)
    return Ruling(due, Status.CANCELED, (again.decision,))
