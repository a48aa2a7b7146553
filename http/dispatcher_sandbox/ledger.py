"""What a sandbox accepted: the independent witness that tests ask how often each message really took effect.

Counts are exact for ever; the names behind them are kept for the latest ``names_max`` of each kind, and ``forgotten`` says how
many older ones were let go. A name that returns after being forgotten counts as new, so ``repeats`` is then a lower bound.
Nothing here is a decision: the exchange writes, everybody reads.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from attrs import field, frozen


@frozen
class TallyStatistics:
    """A tally in numbers."""

    total: int
    """Everything counted, under whichever name."""
    names: int
    """Distinct names now held."""
    repeats: int
    """How often a name was counted that had been counted before: effects beyond the first."""
    forgotten: int
    """Names let go because ``names_max`` was reached."""

    def document(self) -> dict[str, int]:
        """As a JSON document."""
        return {"total": self.total, "names": self.names, "repeats": self.repeats, "forgotten": self.forgotten}


class Tally:
    """How often each name was counted. Bounded: past ``names_max`` the name that was first counted longest ago is forgotten."""

    __slots__ = ("_counts", "_forgotten", "_names_max", "_repeats", "_total")

    def __init__(self, names_max: int) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._names_max = names_max
        self._total = 0
        self._repeats = 0
        self._forgotten = 0

    def add(self, name: str) -> int:
        """Count one; returns how often ``name`` has been counted now."""
        counts = self._counts
        self._total += 1
        count = counts.get(name, 0) + 1
        counts[name] = count
        if count > 1:
            self._repeats += 1
        elif len(counts) > self._names_max:
            counts.popitem(last=False)
            self._forgotten += 1
        return count

    def __getitem__(self, name: str) -> int:
        """How often ``name`` was counted: 0 when never, or when forgotten."""
        return self._counts.get(name, 0)

    def __len__(self) -> int:
        return len(self._counts)

    def items(self) -> Iterator[tuple[str, int]]:
        """Every held name with its count, oldest first."""
        return iter(self._counts.items())

    def at_least(self, count_min: int) -> dict[str, int]:
        """The held names counted at least ``count_min`` times."""
        if count_min <= 1:
            return dict(self._counts)
        return {name: count for name, count in self._counts.items() if count >= count_min}

    def statistics(self) -> TallyStatistics:
        """A snapshot of the numbers."""
        return TallyStatistics(self._total, len(self._counts), self._repeats, self._forgotten)


class Correlation(NamedTuple):
    """Whom one message of a request belongs to, as the sender said in the provider's correlation field."""

    notification_id: str | None
    organization_id: str | None


@frozen
class Accepted:
    """One accepted request, kept for looking at. ``body`` is what was sent: recipients and content, never shown by repr."""

    provider: str
    message_id: str
    at_s: float
    idempotency_key: str | None
    correlations: tuple[Correlation, ...]
    body: bytes = field(repr=False)


class Sent(NamedTuple):
    """One message that took effect, as a provider's records show it."""

    message_id: str
    at_s: float


class Remembered(NamedTuple):
    """The answer to replay for an honoured idempotency key, and what it was given for."""

    message_id: str
    fingerprint: int
    at_s: float


_WEBHOOKS = ("events", "duplicates", "lost", "sent", "acknowledged", "retried", "failed", "confirmed")


class Ledger:
    """The book of one sandbox. Fields are written by the exchange only."""

    def __init__(self, names_max: int = 500_000, recent_max: int = 200) -> None:
        self._names_max = names_max
        self._recent_max = recent_max
        self.clear()

    def clear(self) -> None:
        """Forget everything, honoured keys and magic sightings included."""
        self._sent: OrderedDict[str, tuple[Sent, ...]] = OrderedDict()
        self.searched = 0
        """Questions about what was accepted that were answered."""
        self.requests = 0
        """Requests to a provider, whatever became of them."""
        self.accepted = 0
        """Requests that took effect. One request may carry several messages."""
        self.replayed = 0
        """Requests answered from an honoured idempotency key, without a new effect."""
        self.validated = 0
        """Valid requests that asked for validation only."""
        self.dropped = 0
        """Requests that took effect, or were replayed, and got no answer."""
        self.unanswered = 0
        """Requests without effect that got no answer either."""
        self.refused: Counter[int] = Counter()
        """Refused requests by status."""
        self.notifications = Tally(self._names_max)
        """Effects by notification id."""
        self.idempotency_keys = Tally(self._names_max)
        """Effects by idempotency key."""
        self.organizations = Tally(self._names_max)
        """Effects by organization id."""
        self.messages = 0
        """Messages that took effect, correlated or not."""
        self.recent: deque[Accepted] = deque(maxlen=self._recent_max)
        self.fates: OrderedDict[str, str] = OrderedDict()
        """What a provider last had to report of a notification."""
        self.webhooks: Counter[str] = Counter()
        """Events and duplicates that were to leave, lost ones; calls sent, acknowledged, retried, failed for good."""
        self._sights = Tally(self._names_max)
        self._remembered: OrderedDict[str, Remembered] = OrderedDict()

    def record(self, accepted: Accepted) -> None:
        """Write down one accepted request."""
        self.accepted += 1
        self.messages += len(accepted.correlations)
        if accepted.idempotency_key is not None:
            self.idempotency_keys.add(accepted.idempotency_key)
        for notification_id, organization_id in accepted.correlations:
            if notification_id is not None:
                self.notifications.add(notification_id)
                self._keep(notification_id, Sent(accepted.message_id, accepted.at_s))
            if organization_id is not None:
                self.organizations.add(organization_id)
        self.recent.append(accepted)

    def _keep(self, notification_id: str, sent: Sent) -> None:
        self._sent[notification_id] = (*self._sent.get(notification_id, ()), sent)
        if len(self._sent) > self._names_max:
            self._sent.popitem(last=False)

    def fate(self, notification_id: str | None, fate: str) -> None:
        """Note what becomes of a notification."""
        if notification_id is not None:
            self.fates[notification_id] = fate
            if len(self.fates) > self._names_max:
                self.fates.popitem(last=False)

    def sent(self, notification_id: str, until_s: float) -> tuple[Sent, ...]:
        """The messages of a notification that took effect until then, oldest first."""
        return tuple(sent for sent in self._sent.get(notification_id, ()) if sent.at_s <= until_s)

    def sight(self, name: str) -> int:
        """Count that a message with a magic recipient came by; returns how often it has, this time included."""
        return self._sights.add(name)

    def remember(self, key: str, remembered: Remembered) -> None:
        """Keep the answer given for an idempotency key."""
        self._remembered[key] = remembered
        self._remembered.move_to_end(key)
        if len(self._remembered) > self._names_max:
            self._remembered.popitem(last=False)

    def remembered(self, key: str, since_s: float) -> Remembered | None:
        """The answer given for ``key`` at ``since_s`` or later."""
        found = self._remembered.get(key)
        return found if found is not None and found.at_s >= since_s else None

    def effects(self, notification_id: str) -> int:
        """How often a notification took effect."""
        return self.notifications[notification_id]

    def summary(self) -> dict[str, Any]:
        """The counts as a JSON document."""
        return {
            "requests": self.requests,
            "accepted": self.accepted,
            "messages": self.messages,
            "replayed": self.replayed,
            "validated": self.validated,
            "searched": self.searched,
            "dropped": self.dropped,
            "unanswered": self.unanswered,
            "refused": {str(status): count for status, count in sorted(self.refused.items())},
            "notifications": self.notifications.statistics().document(),
            "idempotency_keys": self.idempotency_keys.statistics().document(),
            "organizations": self.organizations.statistics().document(),
            "fates": dict(sorted(Counter(self.fates.values()).items())),
            "webhooks": {name: self.webhooks[name] for name in _WEBHOOKS},
        }
