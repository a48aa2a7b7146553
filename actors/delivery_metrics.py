"""What becomes of messages, by provider, by channel and by organization: the numbers behind bounce, complaint and delivery rates.

Counts only ever grow, and rates are made of them by whoever scrapes. Invariant: the set of labels is bounded. Providers,
channels, outcomes and kinds of feedback are closed sets; codes and organizations are named first come, first served up to a
limit, and what comes later is counted together as ``other``, so that no counter ever falls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from attrs import define, field
from prometheus_client.metrics_core import Metric

from actors.histogram import Histogram, count_family, histogram_family
from dispatcher.feedback.feedback import FeedbackKind
from dispatcher.messages import Verdict
from dispatcher.model import OrganizationId
from dispatcher.outcome import OutcomeClass

OTHER = "other"
CODES_MAX = 500
"""Codes of providers, all providers together, that are counted by name."""


class Names:
    """The first ``names_max`` names are themselves, all others are ``other``."""

    __slots__ = ("_names", "_names_max")

    def __init__(self, names_max: int) -> None:
        self._names_max = names_max
        self._names: set[tuple[str, ...]] = set()

    def known(self, name: tuple[str, ...]) -> bool:
        """Whether a name is, or now becomes, one of the first."""
        if name in self._names:
            return True
        if len(self._names) >= self._names_max:
            return False
        self._names.add(name)
        return True


@define
class DeliveryMetrics:
    """Written by the ledger (``concluded``) and by whoever takes feedback in (``reported``)."""

    organizations_max: int = 100
    """Organizations counted by name; 0 for none."""
    outcomes: Counter[tuple[str, str, str]] = field(factory=Counter, init=False)  # provider, channel, outcome
    codes: Counter[tuple[str, str]] = field(factory=Counter, init=False)  # provider, code
    feedback: Counter[tuple[str, str, str]] = field(factory=Counter, init=False)  # provider, channel, kind
    organizations: Counter[tuple[str, str, str]] = field(factory=Counter, init=False)  # organization, channel, state
    to_provider: dict[tuple[str, str], Histogram] = field(factory=dict, init=False)
    to_confirmation: dict[tuple[str, str], Histogram] = field(factory=dict, init=False)
    _code_names: Names = field(factory=lambda: Names(CODES_MAX), init=False)
    _organization_names: Names = field(init=False)

    @_organization_names.default
    def _(self) -> Names:
        return Names(self.organizations_max)

    def concluded(self, verdict: Verdict, now_unix_s: float) -> None:
        """An attempt has ended at a provider. One that never began says nothing of it."""
        via, kind, delivery = verdict.via, verdict.outcome.kind, verdict.delivery
        if via is None or kind is OutcomeClass.INTERRUPTED:
            return
        channel = delivery.channel.value
        self.outcomes[via.provider, channel, kind.value] += 1
        if kind is OutcomeClass.DELIVERED:
            self._observe(self.to_provider, via.provider, channel, now_unix_s - delivery.created_at_s)
            self._count_organization(delivery.organization_id, channel, "sent")
            return
        self._count_code(via.provider, verdict.outcome.code)
        if verdict.dead is not None:
            self._count_organization(delivery.organization_id, channel, "failed")

    def reported(
        self,
        organization_id: OrganizationId,
        provider: str,
        channel: str,
        kind: FeedbackKind,
        code: str,
    ) -> None:
        """A provider has reported, for the first time, what became of a message."""
        self.feedback[provider, channel, kind.value] += 1
        self._count_organization(organization_id, channel, kind.value)
        if kind not in (FeedbackKind.SENT, FeedbackKind.DELIVERED, FeedbackKind.READ):
            self._count_code(provider, code)

    def confirmed(self, provider: str, channel: str, after_s: float) -> None:
        """A message has been delivered, so long after its provider took it on."""
        self._observe(self.to_confirmation, provider, channel, after_s)

    def families(self) -> Iterator[Metric]:
        """For a scrape."""
        outcome, kind = ("provider", "channel", "outcome"), ("provider", "channel", "kind")
        state, both = ("organization", "channel", "state"), ("provider", "channel")
        yield count_family("dispatcher_provider_outcomes", "Attempts at providers, by outcome.", outcome, self.outcomes)
        yield count_family("dispatcher_provider_errors", "Codes of refusals and failures.", ("provider", "code"), self.codes)
        yield count_family("dispatcher_feedback", "What providers reported later.", kind, self.feedback)
        yield count_family("dispatcher_organization_messages", "Messages, by what became of them.", state, self.organizations)
        yield histogram_family("dispatcher_to_provider_seconds", "From accepted to taken on.", both, self.to_provider)
        yield histogram_family("dispatcher_to_confirmation_seconds", "From taken on to delivered.", both, self.to_confirmation)

    def _count_code(self, provider: str, code: str) -> None:
        self.codes[provider, code if self._code_names.known((provider, code)) else OTHER] += 1

    def _count_organization(self, organization_id: OrganizationId, channel: str, state: str) -> None:
        if self.organizations_max:
            name = organization_id if self._organization_names.known((organization_id,)) else OTHER
            self.organizations[name, channel, state] += 1

    @staticmethod
    def _observe(histograms: dict[tuple[str, str], Histogram], provider: str, channel: str, duration_s: float) -> None:
        histogram = histograms.get((provider, channel))
        if histogram is None:
            histogram = histograms[provider, channel] = Histogram()
        histogram.observe(duration_s)
