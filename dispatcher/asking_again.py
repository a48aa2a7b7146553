"""What is asked again when a scheduled notification is due: may it still be sent to this person, by this channel, now?

Its words were fixed when it was taken in. Preferences, quiet hours and contact points may have changed since, so they are asked
anew, of what is known then; whether the contact has bounced is asked by the gate, as for every notification. Caps are not: it was
counted when it was planned. Invariant: what is asked is decided by the notification's ``plan`` and present facts alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from dispatcher.decisions import Code, Decision, decided
from dispatcher.model import Channel
from dispatcher.people import QuietHours, User
from dispatcher.planned import Wish
from dispatcher.policy import Policy
from dispatcher.preferences import allowed
from dispatcher.problems import Problem
from dispatcher.rules import Window
from dispatcher.spans import document_of, read_span
from dispatcher.topics import Topic
from dispatcher.windows import first_moment


@frozen
class SendNow:
    """It may be sent."""

    decision: Decision


@frozen
class Later:
    """Not before this moment, in Unix seconds."""

    at_s: float
    decision: Decision


@frozen
class Cancel:
    """Not any more."""

    decision: Decision

    @property
    def code(self) -> Code:
        """Why not."""
        return self.decision.code


Again = SendNow | Later | Cancel


def remembered(wish: Wish, point_id: str | None) -> Mapping[str, Any]:
    """The ``plan`` of a notification that waits: names and numbers, nothing of its content."""
    window = wish.timing.window
    found = {
        "channel": wish.channel.value,
        "topic": None if wish.topic is None else wish.topic.name,
        "rule": wish.origin.detail.get("rule"),
        "user": wish.target.user_id is not None and wish.channel not in wish.target.addresses,
        "point": point_id,
        "zone": wish.target.time_zone,
        "window": None if window is None else document_of(window),
        "considerate": wish.is_considerate,
    }
    return {name: value for name, value in found.items() if value is not None and value is not False}


def ask_again(plan: Mapping[str, Any], user: User | None, topic: Topic | None, policy: Policy, now_unix_s: float) -> Again:
    """What becomes of a notification that is due. ``user`` None is nobody: erased since, or never one."""
    channel = Channel(plan["channel"])
    if topic is None and plan.get("topic") is not None:
        topic = Topic(plan["topic"])  # its definition is gone, what people said about it is not
    if plan.get("user"):
        if user is None:
            return Cancel(decided(Code.RECIPIENT_UNKNOWN))
        point = next((point for point in user.points if point.id == plan.get("point")), None)
        if point is None:
            return Cancel(decided(Code.RECIPIENT_NO_CONTACT_POINT))
        if point.expires_at_s is not None and point.expires_at_s <= now_unix_s:
            return Cancel(decided(Code.RECIPIENT_EXPIRED))
    preference = allowed(user, topic, channel)
    if preference is Code.PREFERENCE_DENIED:
        return Cancel(decided(preference, topic=None if topic is None else topic.name))
    if topic is not None and topic.critical:
        return SendNow(decided(Code.TIME_CRITICAL))
    quiet: QuietHours | None = None
    if plan.get("considerate"):
        quiet = (None if user is None else user.quiet_hours) or policy.quiet_hours
    zone = plan.get("zone") or (None if user is None else user.time_zone) or policy.time_zone
    at_s, code = first_moment(now_unix_s, zone, _window(plan), quiet)
    if code is Code.TIME_NOW:
        return SendNow(decided(Code.TIME_NOW))
    return Later(at_s, decided(code, at=at_s, zone=zone))


def _window(plan: Mapping[str, Any]) -> Window | None:
    faults: list[Problem] = []
    written = read_span(plan["window"], "", faults) if plan.get("window") is not None else None
    return None if written is None else Window(*written)
