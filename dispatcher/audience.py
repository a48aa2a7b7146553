"""Whose token a recipient is: some channels reach people through several networks, and a configuration serves only some of them.

A push token belongs to one network for good, and nothing but its form says which: an APNs token is hexadecimal, a Web Push
subscription is a JSON object, anything else is FCM's. What waits together for the same configurations is a *lane*: a channel, or
one audience of it where the configurations of the channel tell audiences apart. Invariant: :func:`audience_of` and the gate's own
rule (``actors/store/statements.py``) give the same answer for every recipient; a conformance test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from dispatcher.model import Channel, Lane

APPLE, GOOGLE, WEB = "apple", "google", "web"
AUDIENCES: Mapping[Channel, tuple[str, ...]] = MappingProxyType({Channel.PUSH: (APPLE, GOOGLE, WEB)})
"""The audiences of each channel that has any. A configuration without one serves everybody on its channel."""
_HEX_TOKEN = re.compile(r"[0-9A-Fa-f]{64,}")


def audience_of(channel: Channel, recipient: str) -> str:
    """The audience a recipient belongs to; empty on a channel that has only one."""
    if channel is not Channel.PUSH:
        return ""
    if recipient.startswith("{"):
        return WEB
    return APPLE if _HEX_TOKEN.fullmatch(recipient) else GOOGLE


def lane(channel: Channel, audience: str) -> Lane:
    """The lane of one audience; of the whole channel when it is empty."""
    return f"{channel.value}:{audience}" if audience else channel.value


def lanes_of(channel: Channel) -> tuple[Lane, ...]:
    """Every lane a channel may ever have: itself, and each audience."""
    return channel.value, *(lane(channel, audience) for audience in AUDIENCES.get(channel, ()))


def serves(lanes: Collection[Lane], channel: Channel, recipient: str) -> bool:
    """Whether a recipient is somebody's who serves these lanes."""
    return channel.value in lanes or lane(channel, audience_of(channel, recipient)) in lanes


LANES: tuple[Lane, ...] = tuple(name for channel in Channel for name in lanes_of(channel))
"""All there are; ids may be parked for any of them."""
