"""What a channel's limits remember from one life of their owner to the next: over a sleep, a hand-over, a restart or a crash.

The record is kept in Redis, one hash a channel, stamped with the server's clock; what comes back is the record and its age by
that same clock, so the wall clocks of processes have no say. Within the record times are durations from the stamp. It is
believed as far as it is *of this life's configuration*: another configuration, or another revision of it, has breaker, pauses
and pace of its own; only the tokens are the same account's.

Invariant: no life begins with more tokens than ``min(level + age * rate, burst)``. Whoever reads a record takes it: until its
new owner writes on leaving, it says that its tokens are out. So a life that follows a crash begins with what flowed in since
the last writing, at most one token, and a life that finds nothing at all with one. A record from the future is worth at most
one token, one of no sense what its age is worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import NamedTuple

from attrs import frozen

from dispatcher.breaker import SavedBreaker, State
from dispatcher.model import Channel
from dispatcher.pace import SavedPace

_NUMBER_MAX = 1e12


@frozen
class SavedChannel:
    """The limits of one channel at one moment. Of ``level`` None: it has no rate. ``held_s``: so long no token flows in.

    ``alarmed_window`` names the quota's window whose end was told already.
    """

    config_id: str
    revision: int
    level: float | None
    held_s: float
    paused_s: float
    asking: bool
    breaker: SavedBreaker
    pace: SavedPace | None
    alarmed_window: int


@frozen
class Remembered:
    """What was found of an earlier life. ``clean``: it wrote on leaving; ``saved`` is None where there was nothing of sense."""

    age_s: float
    clean: bool
    saved: SavedChannel | None


class Kept(NamedTuple):
    """A record as the queue keeps it. ``life`` names the reading, a later one by a larger number: only the last may write.

    ``age_s`` is how long ago it was written, by the server's clock; ``fields`` are empty when nobody wrote yet.
    """

    life: int
    age_s: float
    fields: Mapping[str, str]


def record_names(configs: Iterable[tuple[Channel, str]]) -> dict[str, str]:
    """Under which name each configuration keeps its limits and its quota, by its id. ``configs`` come best first.

    The best of a channel has the channel's own name, as the only one always had; each further one has its id in it.
    """
    names: dict[str, str] = {}
    channels: set[Channel] = set()
    for channel, config_id in configs:
        names[config_id] = f"{channel.value}:{config_id}" if channel in channels else channel.value
        channels.add(channel)
    return names


def to_fields(saved: SavedChannel, *, clean: bool) -> dict[str, str]:
    """The fields of the hash: always all of them, so that one writing replaces the other. None is an empty text."""
    pace = saved.pace
    return {
        "config_id": saved.config_id,
        "revision": str(saved.revision),
        "level": _text(saved.level),
        "held_s": _text(saved.held_s),
        "paused_s": _text(saved.paused_s),
        "asking": "1" if saved.asking else "0",
        "breaker": saved.breaker.state.value,
        "trips": str(saved.breaker.trips),
        "reopens_in_s": _text(saved.breaker.reopens_in_s),
        "ramp": "" if saved.breaker.ramp is None else str(saved.breaker.ramp),
        "pace_per_s": "" if pace is None else _text(pace.rate_per_s),
        "refused_at_per_s": "" if pace is None else _text(pace.refused_at_per_s),
        "alarmed_window": str(saved.alarmed_window),
        "clean": "1" if clean else "0",
    }


def from_kept(kept: Kept) -> Remembered | None:
    """The record that was kept, None when there never was one. Never raises: whatever makes no sense is no record."""
    fields = kept.fields
    if not fields:
        return None
    try:
        pace_per_s, refused_at_per_s = _optional(fields["pace_per_s"]), _optional(fields["refused_at_per_s"])
        saved = SavedChannel(
            config_id=fields["config_id"],
            revision=int(fields["revision"]),
            level=_optional(fields["level"]),
            held_s=_number(fields["held_s"]),
            paused_s=_number(fields["paused_s"]),
            asking=fields["asking"] == "1",
            breaker=SavedBreaker(
                State(fields["breaker"]),
                int(fields["trips"]),
                _number(fields["reopens_in_s"]),
                int(fields["ramp"]) if fields["ramp"] else None,
            ),
            pace=None if pace_per_s is None or refused_at_per_s is None else SavedPace(pace_per_s, refused_at_per_s),
            alarmed_window=int(fields["alarmed_window"]),
        )
    except (KeyError, ValueError):
        return Remembered(kept.age_s, False, None)
    return Remembered(kept.age_s, fields.get("clean") == "1", saved)


def level_now(remembered: Remembered | None, config_id: str, rate_per_s: float, burst: int) -> float:
    """How many tokens a life may begin with, at a rate and burst that may have changed since."""
    if remembered is None:
        return 1.0
    age_s = remembered.age_s if isfinite(remembered.age_s) else 0.0
    earned = max(0.0, age_s) * rate_per_s
    saved = remembered.saved
    if saved is None or not remembered.clean:
        return min(1.0, earned)  # its owner may have spent everything
    if saved.config_id != config_id or saved.level is None:
        return 1.0  # another account, or one that had no rate: nothing is known of this one
    if age_s < 0:
        return min(max(saved.level, 0.0), 1.0)
    return min(max(saved.level, 0.0) + max(0.0, age_s - saved.held_s) * rate_per_s, float(burst))


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _number(text: str) -> float:
    """A number within reason. Raises ValueError for any other text."""
    value = float(text)
    if not 0.0 <= value <= _NUMBER_MAX:
        raise ValueError("out of range")
    return value


def _optional(text: str) -> float | None:
    return _number(text) if text else None
