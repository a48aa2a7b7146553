"""Which channels a claim is for, when one of them has next to no room.

An id says nothing of its channel, so a claim for several channels may be no larger than the tightest of them allows. One channel
at a call a second would so hold up another that has no limit at all. It is left out: its ids are parked when they turn up, called
back by as many as it has room for, and only the claim that fetches those is as small as it has to be. Invariant: a claim is never
larger than the room of any channel in its mix, and a channel whose ids were called back is in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dispatcher.model import Lane

NARROW = 4
"""A channel that has room for less than this part of a claim is left out of it."""


def mix(rooms: Mapping[Lane, int], n_max: int, called_back: Collection[Lane]) -> Mapping[Lane, int]:
    """The channels a claim is for, with their rooms. ``rooms`` are those that have any, ``n_max`` bounds the claim by itself.

    ``called_back`` are channels whose ids stand in the queue, or are on their way there, because there is room for them.
    """
    if len(rooms) < 2:
        return rooms
    most = min(n_max, max(rooms.values()))
    narrow = [channel for channel, room in rooms.items() if room * NARROW < most]
    if not narrow or any(channel in called_back for channel in narrow):
        return rooms
    return {channel: room for channel, room in rooms.items() if channel not in narrow}
