"""What is done with one valid request: the decision where behaviour, magic recipient and chance meet. Pure."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.magic import Magic, Trick


class Act(Enum):
    """The ways to treat a request."""

    ACCEPT = auto()
    """Take effect and say so."""
    REFUSE = auto()
    """No effect; answer with a status."""
    DROP = auto()
    """Take effect, then close the connection without answering."""
    CLOSE = auto()
    """No effect; close the connection without answering."""
    SILENT = auto()
    """No effect; never answer."""


class Conduct(NamedTuple):
    """One decision. ``status`` and ``reason`` go with REFUSE; ``delay_s`` passes before the answer, or before closing."""

    act: Act
    delay_s: float = 0.0
    status: int = 0
    reason: str = ""


AT_ONCE = Conduct(Act.ACCEPT)


def conduct(behaviour: Behaviour, magic: Magic | None, sight: int, random01: float) -> Conduct:
    """Decide about a valid request.

    ``sight`` counts from 1 how often this message has been seen with this magic recipient; ``random01`` is in [0, 1).
    """
    latency_s = behaviour.latency_s
    if magic is not None:
        return _perform(magic, sight, latency_s)
    for status, share in behaviour.error_mix.items():
        if random01 < share:
            return Conduct(Act.REFUSE, latency_s, status)
        random01 -= share
    if behaviour.drop_after_accept:
        if random01 < behaviour.drop_after_accept:
            return Conduct(Act.DROP, latency_s)
        random01 -= behaviour.drop_after_accept
    if behaviour.slow_share and random01 < behaviour.slow_share:
        return Conduct(Act.ACCEPT, latency_s + behaviour.slow_s)
    return Conduct(Act.ACCEPT, latency_s) if latency_s else AT_ONCE


def _perform(magic: Magic, sight: int, latency_s: float) -> Conduct:
    if sight > magic.times:
        return Conduct(Act.ACCEPT, latency_s)
    match magic.trick:
        case Trick.DELIVER:
            return Conduct(Act.ACCEPT, latency_s)
        case Trick.SLOW:
            return Conduct(Act.ACCEPT, latency_s + magic.delay_s)
        case Trick.REFUSE:
            return Conduct(Act.REFUSE, latency_s, magic.status, magic.reason)
        case Trick.DROP:
            return Conduct(Act.DROP, latency_s)
        case Trick.CLOSE:
            return Conduct(Act.CLOSE, latency_s)
        case Trick.SILENT:
            return Conduct(Act.SILENT)
