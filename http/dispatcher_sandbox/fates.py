"""What becomes of a message after it was accepted: a closed set, common to all simulated providers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Fate(StrEnum):
    """One message's later life. Which reports tell of it, and whether a provider knows it at all, is for its simulator."""

    DELIVERED = "delivered"
    """It arrives."""
    READ = "read"
    """It arrives and is opened."""
    DEFERRED = "deferred"
    """It arrives after the provider has tried for a while and said so."""
    SOFT_BOUNCED = "soft_bounced"
    """It does not arrive; the address is good, its mailbox full."""
    BOUNCED = "bounced"
    """It does not arrive: there is no such address or number."""
    BLOCKED = "blocked"
    """It does not arrive: somebody's policy is against it. The address is good."""
    DROPPED = "dropped"
    """The provider itself does not pass it on, because it has seen the address bounce before."""
    COMPLAINED = "complained"
    """It arrives, and the recipient calls it spam."""
    UNSUBSCRIBED = "unsubscribed"
    """It arrives, and the recipient wants no more."""
    INVALID = "invalid"
    """It does not arrive: the recipient's account or device is gone."""
    NOTHING = "nothing"
    """Nothing is ever heard of it."""


def fate_mix(value: object) -> Mapping[str, float]:
    """A checked map of fates to shares. Raises ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError('fate_mix must map fates to shares, for example {"bounced": 0.05}')
    mix: dict[str, float] = {}
    for name, share in value.items():
        if name not in Fate.__members__.values():
            raise ValueError(f"fate_mix must name fates: {', '.join(Fate)}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError("fate_mix must give each fate a share from 0 to 1")
        mix[str(name)] = float(share)
    return mix


def fate_of(mix: Mapping[str, float], random01: float) -> Fate:
    """The fate that a number in [0, 1) stands for; what the mix leaves over is delivered."""
    for name, share in mix.items():
        if random01 < share:
            return Fate(name)
        random01 -= share
    return Fate.DELIVERED
