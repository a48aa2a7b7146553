"""Trying a configuration out: one real request that sends nothing to anybody, and its answer in words."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from attrs import frozen

from dispatcher.providers.provider import Moment, OwnResponse, Request


@frozen
class Probed:
    """What a probe has shown. ``code`` is a short token as in an outcome; ``words`` say what is right or wrong, where, and what
    to do about it, without any of the provider's own words.
    """

    good: bool
    code: str
    words: str


@runtime_checkable
class Probing(Protocol):
    """A bound provider that can be tried out. A real probe: the provider itself judges address, credentials and account."""

    def probe(self, moment: Moment) -> Request:
        """The request to try with. It must have no effect on any recipient, and cost nothing."""

    def probed(self, response: OwnResponse, now_unix_s: float) -> Probed:
        """What the answer says. Never raises."""
