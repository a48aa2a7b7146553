"""What goes wrong in a soak, and when: a function of a seed, so that a run which found something can be repeated.

Faults are dealt from decks. A deck holds every kind at least once and kills most often, so that a short run meets everything and
a long one nothing too rarely. What a fault really hits depends on the moment; the plan fixes kinds, pauses, targets and lengths.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import StrEnum
from itertools import count
from random import Random

from attrs import frozen


class Kind(StrEnum):
    """The value is what the table calls it."""

    KILL = "dispatcher SIGKILL"
    TERM = "dispatcher SIGTERM"
    TERM_TWICE = "dispatcher SIGTERM twice"
    STOP = "dispatcher SIGSTOP past its lease"
    VALKEY_EMPTY = "Valkey killed, back empty"
    VALKEY_KEPT = "Valkey killed, back with its data"
    VALKEY_OLDER = "Valkey killed, back with older data"
    VALKEY_STOP = "Valkey SIGSTOP"
    FLUSHALL = "Valkey FLUSHALL"
    SCRIPT_FLUSH = "Valkey SCRIPT FLUSH"
    POSTGRES_RESTART = "Postgres restarted at once"
    POSTGRES_TERMINATE = "Postgres backends terminated"
    POSTGRES_KILL = "Postgres backend SIGKILL"
    OUTAGE = "provider away"
    SWALLOW = "provider swallows answers"
    ERRORS = "provider answers 5xx"
    SLOW = "provider slow"


DECK: dict[Kind, int] = dict.fromkeys(Kind, 1) | {
    Kind.KILL: 16,
    Kind.TERM: 2,
    Kind.POSTGRES_TERMINATE: 2,
    Kind.OUTAGE: 2,
    Kind.SWALLOW: 2,
}
SLOW_TO_MEND = frozenset({Kind.STOP, Kind.VALKEY_KEPT, Kind.VALKEY_OLDER, Kind.VALKEY_STOP})
"""Come early in a deck, in the first one even earlier: what they break is mended after a lease or a grace, and a short run should
not end by waiting for that."""
GAP_MIN_S, GAP_MAX_S = 0.3, 3.0


@frozen
class Fault:
    """One card. Which of its numbers mean something depends on its kind."""

    number: int
    kind: Kind
    gap_s: float
    """Pause before it."""
    target: int
    """Chooses among whatever there is to choose from."""
    length: float
    """In [0, 1): how long it lasts, between the kind's shortest and longest."""
    share: float
    """In [0, 1): how much of it."""


def faults(seed: int, pace: float = 1.0, only: Collection[Kind] = ()) -> Iterator[Fault]:
    """The faults of a seed, without end. ``pace`` multiplies the pauses and nothing else; ``only`` leaves out all other kinds."""
    dice = Random(seed)
    number = 0
    for deck in count():
        for kind in deal(dice, soon=6 if deck == 0 else 3):
            if only and kind not in only:
                continue
            number += 1
            gap_s = GAP_MIN_S + (GAP_MAX_S - GAP_MIN_S) * dice.betavariate(1, 2)
            yield Fault(number, kind, gap_s * pace, dice.randrange(1 << 16), dice.random(), dice.random())


def deal(dice: Random, soon: int) -> list[Kind]:
    """One deck, shuffled, with what is slow to mend in its first third, sixth or whatever ``soon`` says."""
    deck = [kind for kind, cards in DECK.items() for _ in range(cards) if kind not in SLOW_TO_MEND]
    dice.shuffle(deck)
    for kind in sorted(SLOW_TO_MEND):
        deck.insert(dice.randrange(len(deck) // soon), kind)
    return deck
