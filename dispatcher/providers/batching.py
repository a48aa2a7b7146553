"""Providers that take several messages in one request.

Whoever sends asks for the part of each notification and puts parts with equal keys into one request, at most ``batch_max`` of
them. Each keeps its own outcome. When a request is refused whole because of some of its parts, ``classify_batch`` says which,
and answers None for the others: nothing was done with those, and they are sent again without the bad ones.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from dispatcher.model import Delivery
from dispatcher.outcome import Outcome
from dispatcher.providers.provider import Moment, OwnResponse, Request


class Part(NamedTuple):
    """One notification's part of a request: ``content`` as it will stand in the body. Those of equal ``key`` may share one."""

    delivery: Delivery
    key: Hashable
    content: bytes

    def __repr__(self) -> str:
        return f"<part of {len(self.content)} bytes for {self.delivery.id}>"


@runtime_checkable
class Batching(Protocol):
    """A bound provider that can send several at once."""

    @property
    def batch_max(self) -> int:
        """How many parts one request may have; 1: this configuration does not want batches."""

    def part(self, delivery: Delivery, moment: Moment) -> Part | None:
        """The part of one notification; None when it must go alone. Raises Unsendable like ``request``."""

    def batch_request(self, parts: Sequence[Part], moment: Moment) -> Request:
        """One request for parts with equal keys, at least one and at most ``batch_max``."""

    def classify_batch(self, response: OwnResponse, parts: Sequence[Part], now_unix_s: float) -> Sequence[Outcome | None]:
        """What the answer means for each part, in order. Never raises, and never answers None for all of more than one part
        unless they are to be halved: then which one is bad could not be told.
        """
