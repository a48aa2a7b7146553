"""Providers whose requests carry a token that has to be fetched first, and fetched again before it ends.

What a provider can sign by itself (a JWT) it makes inside ``request``, out of the moment; this is for tokens that somebody else
hands out. The token is kept by the actors, one a configuration, and renewed ahead of its end.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from attrs import field, frozen

from dispatcher.http_message import HttpRequest, HttpResponse
from dispatcher.outcome import Outcome
from dispatcher.providers.provider import Moment


@frozen
class Token:
    """A token and when it ends."""

    text: str = field(repr=False)
    expires_at_unix_s: float


@runtime_checkable
class Authorizing(Protocol):
    """A bound provider whose ``request`` needs ``moment.token``."""

    def token_request(self, moment: Moment) -> HttpRequest:
        """The request that fetches a token."""

    def token_of(self, response: HttpResponse, now_unix_s: float) -> Token | Outcome:
        """The token, or what its refusal means for the notifications that wait for it. Never raises."""

    def is_stale(self, outcome: Outcome) -> bool:
        """Whether an outcome says that the token was not accepted, so that one attempt with a fresh one is worth making."""
