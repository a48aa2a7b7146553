"""An organization's policy: what holds for all that it sends, unless a person or a rule says otherwise.

It is a definition of the kind ``policy``. Invariant: what ``parse_policy`` lets through names a zone that exists, quiet hours
that end, caps that can be told apart, and a time to keep history that there are partitions for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from dispatcher.acceptance import together
from dispatcher.definitions import POLICY_NAME
from dispatcher.model import Channel
from dispatcher.people import QuietHours
from dispatcher.problems import Problem
from dispatcher.spans import always, read_span
from dispatcher.zones import ZONE_RULE, is_zone

KEPT_DAYS = (1, 7, 30, 90, 180, 365, 730, 3650)
"""How long history may be kept, in days: a closed set, because each is a family of partitions."""
KEPT_DAYS_DEFAULT = 365
CAPS_MAX: Final = 20
"""Each is looked at for every notification of a person."""
CAP_COUNT_MAX: Final = 1000
CAP_WINDOW_MIN_S: Final = 60
CAP_WINDOW_MAX_S: Final = 366 * 86_400


@frozen
class Cap:
    """A person gets at most ``count_max`` notifications in any ``window_s`` seconds; of one topic or channel, if it is named."""

    name: str
    count_max: int
    window_s: float
    topic: str | None = None
    channel: Channel | None = None


@frozen
class Policy:
    """``time_zone`` (IANA) and ``quiet_hours`` are for people who have none of their own; ``kept_days`` is one of KEPT_DAYS."""

    time_zone: str = "UTC"
    quiet_hours: QuietHours | None = None
    caps: tuple[Cap, ...] = ()
    kept_days: int = KEPT_DAYS_DEFAULT


_FIELDS: Final = frozenset({"time_zone", "quiet_hours", "caps", "kept_days"})
_CAP_FIELDS: Final = frozenset({"name", "count_max", "window_s", "topic", "channel"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TOPIC = re.compile(r"[!-~]{1,255}")


def parse_policy(name: str, body: Mapping[str, Any]) -> Policy | Problem:
    """The policy of a document, every field of which may be left out. All its faults are in the problem that comes back."""
    faults: list[Problem] = []
    if name != POLICY_NAME:
        faults.append(_fault("", f'an organization has one policy, of the name "{POLICY_NAME}"', "name_invalid"))
    if not body.keys() <= _FIELDS:
        faults.append(_fault("", f"has an unknown field; known are {', '.join(sorted(_FIELDS))}", "field_unknown"))
    time_zone = body.get("time_zone", "UTC")
    if not is_zone(time_zone):
        faults.append(_fault("/time_zone", ZONE_RULE))
    quiet_hours = None
    if body.get("quiet_hours") is not None:
        quiet_hours = read_quiet_hours(body["quiet_hours"], "/quiet_hours", faults)
    caps = _caps(body.get("caps", []), faults)
    kept_days = body.get("kept_days", KEPT_DAYS_DEFAULT)
    if type(kept_days) is not int or kept_days not in KEPT_DAYS:
        faults.append(_fault("/kept_days", f"must be one of {', '.join(map(str, KEPT_DAYS))}"))
    return together(faults) if faults else Policy(time_zone, quiet_hours, caps, kept_days)


def read_quiet_hours(value: Any, pointer: str, faults: list[Problem]) -> QuietHours | None:
    """Quiet hours of a document, of a policy or of a person; None with every fault of them added to ``faults``."""
    written = read_span(value, pointer, faults)
    if written is None:
        return None
    quiet_hours = QuietHours(*written)
    if always(quiet_hours):
        faults.append(_fault(pointer, "must leave some time of the week in which something may be sent"))
        return None
    return quiet_hours


def _caps(value: Any, faults: list[Problem]) -> tuple[Cap, ...]:
    if not isinstance(value, list) or len(value) > CAPS_MAX:
        faults.append(_fault("/caps", f"must be a list of at most {CAPS_MAX} caps"))
        return ()
    caps: list[Cap] = []
    for index, one in enumerate(value):
        found = len(faults)
        pointer = f"/caps/{index}"
        if not isinstance(one, dict):
            faults.append(_fault(pointer, "must be an object"))
            continue
        if not one.keys() <= _CAP_FIELDS:
            faults.append(_fault(pointer, f"has an unknown field; known are {', '.join(sorted(_CAP_FIELDS))}", "field_unknown"))
        cap_name, topic, channel = one.get("name"), one.get("topic"), one.get("channel")
        if not (isinstance(cap_name, str) and _NAME.fullmatch(cap_name)):
            faults.append(_fault(f"{pointer}/name", "must be 1 to 64 letters, digits and . _ -"))
        elif any(isinstance(other, dict) and other.get("name") == cap_name for other in value[:index]):
            faults.append(_fault(f"{pointer}/name", "must be another name than that of a cap before it"))
        if not _is_whole(one.get("count_max"), 1, CAP_COUNT_MAX):
            faults.append(_fault(f"{pointer}/count_max", f"must be a whole number from 1 to {CAP_COUNT_MAX}"))
        if not _is_whole(one.get("window_s"), CAP_WINDOW_MIN_S, CAP_WINDOW_MAX_S):
            limits = f"from {CAP_WINDOW_MIN_S} to {CAP_WINDOW_MAX_S}"
            faults.append(_fault(f"{pointer}/window_s", f"must be a whole number of seconds {limits}"))
        if topic is not None and not (isinstance(topic, str) and _TOPIC.fullmatch(topic)):
            faults.append(_fault(f"{pointer}/topic", "must be the name of a topic"))
        if channel is not None and channel not in _CHANNELS:
            faults.append(_fault(f"{pointer}/channel", f"must be one of {', '.join(Channel)}"))
        if len(faults) == found:
            caps.append(Cap(str(cap_name), one["count_max"], one["window_s"], topic, channel and Channel(channel)))
    return tuple(caps)


_CHANNELS: Final = tuple(channel.value for channel in Channel)


def _is_whole(value: Any, at_least: int, at_most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and at_least <= value <= at_most


def _fault(pointer: str, detail: str, code: str = "field_invalid") -> Problem:
    return Problem(422, code, "The definition can not be stored", detail, pointer)
