"""A provider as a model: what it took, what reached the recipient, and the ways in which a call to it can end."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from math import inf

from attrs import define, field

from dispatcher.outcome import FOUND_AT_PROVIDER, Outcome, OutcomeClass


class Reply(Enum):
    """How a provider meets one call."""

    OK = "ok"
    HARD = "hard"
    SOFT = "soft"
    RATE_LIMITED = "rate_limited"
    MISCONFIGURED = "misconfigured"
    ACCEPTED_IN_SILENCE = "accepted_in_silence"
    """It takes the message, and its answer is lost."""
    SILENCE = "silence"
    """The request is lost on the way, but nobody can tell."""


_REFUSALS = {
    Reply.HARD: Outcome(OutcomeClass.HARD, "http_400"),
    Reply.SOFT: Outcome(OutcomeClass.SOFT, "http_503"),
    Reply.RATE_LIMITED: Outcome(OutcomeClass.RATE_LIMITED, "http_429", retry_after_s=3.0),
    Reply.MISCONFIGURED: Outcome(OutcomeClass.MISCONFIGURED, "http_401"),
    Reply.SILENCE: Outcome(OutcomeClass.UNKNOWN, "timeout_read"),
}


@define
class Provider:
    """A provider. ``accepted`` counts by key what it took responsibility for, ``effects`` what reached the recipient.

    It honours a key for ``retention_s``, and its records show what it took ``lag_s`` later.
    """

    honours_keys: bool
    retention_s: float = inf
    lag_s: float = 0.0
    accepted: Counter[str] = field(factory=Counter)
    effects: Counter[str] = field(factory=Counter)
    _first_s: dict[str, float] = field(factory=dict)

    def call(self, key: str, reply: Reply, now_s: float = 0.0) -> Outcome:
        """One call. Who honours keys repeats its first answer, as long as it remembers."""
        replays = self.honours_keys and key in self.accepted and now_s < self._first_s[key] + self.retention_s
        if reply in (Reply.OK, Reply.ACCEPTED_IN_SILENCE) or (replays and reply is Reply.HARD):
            self.accepted[key] += 1
            if not replays:
                self.effects[key] += 1
                self._first_s[key] = now_s
            if reply is Reply.ACCEPTED_IN_SILENCE:
                return Outcome(OutcomeClass.UNKNOWN, "timeout_read")
            return Outcome(OutcomeClass.DELIVERED, "accepted")
        return _REFUSALS[reply]

    def ask(self, key: str, reply: Reply, now_s: float) -> Outcome | None:
        """A question about what it took. None when its records show nothing; anything but an answer leaves everything open."""
        if reply not in (Reply.OK, Reply.ACCEPTED_IN_SILENCE):
            return Outcome(OutcomeClass.UNRESOLVED, "inquiry_http_503")
        if key in self.accepted and self._first_s[key] + self.lag_s <= now_s:
            return Outcome(OutcomeClass.DELIVERED, FOUND_AT_PROVIDER)
        return None
