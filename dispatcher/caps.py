"""Frequency caps: how often somebody may be reached. A cap holds for every span of its length, also those still to come.

Times that count are those at which something was, or is planned to be, sent. Invariant: ``within`` says yes to a time only if no
span of ``window_s`` seconds, wherever it begins, then holds more than ``count_max`` of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

from dispatcher.model import Channel
from dispatcher.policy import Cap, Policy
from dispatcher.topics import Topic

TIMES_MAX: Final = 10_000
"""So many times of one person and cap are kept; whoever has that many, most of them planned, gets no further one."""


CapName = tuple[str, str, str]
"""Whose times are counted under what: organization, user and name of the cap."""


@frozen
class CapUse:
    """That somebody is to be reached at ``at_s`` (Unix seconds), which a cap counts: at most ``count_max`` in ``window_s``.

    Uses of one organization with the same ``once`` count once, and stand or fall together: one message on several devices.
    """

    user_id: str
    cap: str
    at_s: float
    count_max: int
    window_s: float
    once: str = ""

    @classmethod
    def of(cls, user_id: str, cap: Cap, at_s: float, once: str = "") -> CapUse:
        """What using that cap once means for this person."""
        return cls(user_id, cap.name, at_s, cap.count_max, cap.window_s, once)


def caps_for(policy: Policy, topic: Topic | None, channel: Channel) -> tuple[Cap, ...]:
    """The caps that count what is of this topic and goes by this channel, in the policy's order. A critical topic has none."""
    if topic is not None and topic.critical:
        return ()
    return tuple(
        cap
        for cap in policy.caps
        if cap.channel in (None, channel) and (cap.topic is None or (topic is not None and cap.topic == topic.name))
    )


def within(times_s: Sequence[float], at_s: float, cap: Cap | CapUse) -> bool:
    """Whether one more at ``at_s`` leaves every span of the cap's length with ``count_max`` at most. ``times_s`` ascend.

    A span is half open: of two exactly ``window_s`` apart, the second is in none of the first's.
    """
    if len(times_s) >= TIMES_MAX:
        return False
    nearby = list(times_s[bisect_right(times_s, at_s - cap.window_s) : bisect_left(times_s, at_s + cap.window_s)])
    insort(nearby, at_s)
    # The tightest spans begin with one of the times. Too many means that count_max + 1 in a row are less than a window apart.
    return all(later - earlier >= cap.window_s for earlier, later in zip(nearby, nearby[cap.count_max :], strict=False))


def counted(times_s: Sequence[float], at_s: float, cap: Cap | CapUse) -> tuple[float, ...]:
    """The times with this one among them, ascending, ready to be kept."""
    times = list(times_s)
    insort(times, at_s)
    return tuple(times)


def trimmed(times_s: Sequence[float], now_s: float, window_s: float) -> tuple[float, ...]:
    """The times without those that no decision from now on can need: nothing is sent before now."""
    return tuple(times_s[bisect_right(times_s, now_s - window_s) :])


def count_all(
    known: Mapping[CapName, tuple[float, ...]], wanted: Iterable[tuple[str, str, Sequence[CapUse]]], now_s: float
) -> tuple[dict[CapName, tuple[float, ...]], set[str]]:
    """Count what is wanted, each as (organization, id, uses), by when it is to be sent and then by id.

    Returns the times that have changed, and the ids of what is over a cap: that is counted by none.
    """
    times = dict(known)
    changed: dict[CapName, tuple[float, ...]] = {}
    over: set[str] = set()
    decided: dict[tuple[str, str], bool] = {}
    for organization_id, id, uses in sorted(wanted, key=lambda one: (min((use.at_s for use in one[2]), default=0.0), one[1])):
        names = [(organization_id, use.user_id, use.cap) for use in uses]
        once = (organization_id, uses[0].once if uses else "")
        before = decided.get(once) if once[1] else None
        is_within = all(within(times.get(name, ()), use.at_s, use) for name, use in zip(names, uses, strict=True))
        if before is not None or not is_within:
            if not (is_within if before is None else before):
                over.add(id)
            decided.setdefault(once, is_within)
            continue
        decided[once] = True
        for name, use in zip(names, uses, strict=True):
            times[name] = changed[name] = trimmed(counted(times.get(name, ()), use.at_s, use), now_s, use.window_s)
    return changed, over
