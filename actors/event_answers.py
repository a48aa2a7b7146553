"""What producers of events are told, and what is kept of it: the answer to one event, byte for byte the same when it is repeated.

Invariant: an answer names rules, templates' channels, ids and codes of the set-up, and nobody: it is kept longer than people are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import orjson
from attrs import frozen

from actors.acceptor_answers import existing_of, rfc3339
from actors.ports import Admission, Inserted
from dispatcher.contacts import ContactStatus
from dispatcher.decisions import Code, Decision, Step, step_of
from dispatcher.model import OrganizationId
from dispatcher.planned import Gathered, Plan, Planned, Skipped
from dispatcher.problems import Problem

LISTED_MAX: Final = 100
"""Notifications, and skips, that an answer lists; the counts are of all."""

CONFLICT: Final = Problem(
    422, "event_id_reused", "The event can not be taken in", "This id was used before by another event.", "/id"
)
UNSTORABLE: Final = Problem(
    422, "not_storable", "The event can not be stored", "A text holds a character that can not be stored.", ""
)


@frozen
class EventAnswer:
    """Makes the answer to one event out of its plan, and of what was left out when it was inserted."""

    organization_id: OrganizationId
    event_id: str
    plan: Plan
    admissions: Sequence[tuple[Planned, Admission]]

    def __call__(self, inserted: Inserted) -> bytes:
        """JSON. What was left out stands among the skips, with why."""
        return self._made(inserted) if inserted or inserted.suppressed or inserted.capped else self._whole

    @cached_property
    def _whole(self) -> bytes:
        """The answer when nothing is left out. It is both kept and given."""
        return self._made(Inserted())

    def _made(self, inserted: Inserted) -> bytes:
        plan = self.plan
        if not plan.rules:
            assert plan.reason is not None
            return orjson.dumps({"id": self.event_id, "matched": False, "reason": plan.reason.value})
        notifications: list[dict[str, Any]] = []
        skips = [_skip(skip.rule, skip.channel, skip.code.value) for skip in plan.skipped if step_of(skip.code) is not Step.RULE]
        for planned, admission in self.admissions:
            status = inserted.suppressed.get(admission.id)
            if status is not None:
                skips.append(_skip(planned.rule, planned.channel, _contact_code(status)))
                continue
            if admission.id in inserted.capped:
                skips.append(_skip(planned.rule, planned.channel, Code.CAP_REACHED.value))
                continue
            existing = existing_of(admission, inserted)
            notifications.append(_notification(planned, admission.id if existing is None else existing.id))
        document: dict[str, Any] = {
            "id": self.event_id,
            "matched": True,
            "rules": list(plan.rules),
            "notifications": len(notifications),
            "skipped": len(skips),
            "items": notifications[:LISTED_MAX],
            "skips": skips[:LISTED_MAX],
        }
        gathered = plan.gathered[:LISTED_MAX]
        if gathered:
            document["digests"] = [
                {"rule": each.rule, "channel": each.channel.value, "due_at": rfc3339(each.due_at_s)} for each in gathered
            ]
        return orjson.dumps(document)


def explained(plan: Plan, *, with_payload: bool) -> dict[str, Any]:
    """A plan as a dry run shows it: every chain, and what would come of it."""
    fates = []
    for fate in plan.fates:
        shown: dict[str, Any] = {"decisions": chain_document(fate.chain), "channel": fate.channel, "rule": fate.rule}
        if fate.user_id is not None:
            shown["user_id"] = fate.user_id
        if isinstance(fate, Planned):
            shown["outcome"] = "send" if fate.send_at_s is None else "schedule"
            shown["send_at"] = None if fate.send_at_s is None else rfc3339(fate.send_at_s)
            shown["expires_at"] = None if fate.expires_at_s is None else rfc3339(fate.expires_at_s)
            shown |= {"recipient": fate.recipient, "locale": fate.locale, "lane": fate.lane.value, "topic": fate.topic}
            if with_payload:
                shown["payload"] = fate.payload
        elif isinstance(fate, Gathered):
            shown["outcome"] = "digest"
            shown["due_at"] = rfc3339(fate.due_at_s)
        elif isinstance(fate, Skipped):
            shown["outcome"] = "skip"
            shown["code"] = fate.code.value
        fates.append(shown)
    document: dict[str, Any] = {"matched": bool(plan.rules), "rules": list(plan.rules), "notifications": fates}
    if plan.reason is not None:
        document["reason"] = plan.reason.value
    if plan.problem is not None:
        document["refused"] = plan.problem.document()
    return document


def chain_document(chain: Sequence[Decision]) -> list[Mapping[str, Any]]:
    """A chain as it is kept and shown."""
    return [decision.document() for decision in chain]


def _notification(planned: Planned, id: str) -> dict[str, Any]:
    shown = {"id": id, "rule": planned.rule, "channel": planned.channel.value, "status": "queued"}
    if planned.send_at_s is not None:
        shown |= {"status": "scheduled", "send_at": rfc3339(planned.send_at_s)}
    return shown


def _skip(rule: str | None, channel: Any, code: str) -> dict[str, Any]:
    return {"rule": rule, "channel": channel, "code": code}


def _contact_code(status: ContactStatus) -> str:
    return f"contact_{status.value}"
