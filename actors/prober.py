"""Tries a provider configuration out: a real request, now, and its answer in words.

Without a recipient the provider's own probe is made, which sends nothing to anybody. With one, a short test message goes to it,
as the provider's only message that is no notification: it is on no timeline, in no queue and is never repeated. Either goes
around the organization's limits and breaker, because a tripped breaker is the moment to ask what is wrong; so only
``PROBES_MAX`` are made at once by a process, and one at a time for an organization.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from attrs import frozen

from actors.io.http import Deadlines, MaybeSent, NotSent
from actors.supervision import describe
from actors.transports import Transports
from dispatcher.errors import Overloaded
from dispatcher.http_message import HttpResponse
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.explaining import explain, explain_failure
from dispatcher.providers.probing import Probed, Probing
from dispatcher.providers.provider import Bound, Moment, Provider, Unsendable
from dispatcher.providers.tokens import Authorizing

logger = logging.getLogger(__name__)

PROBES_MAX = 4
"""Probes of one process at once."""
DEADLINE_S = 20.0
"""For each exchange of a probe."""
RETRY_AFTER_S = 5.0
"""What is said to whoever finds no room."""

_NO_PROBE = Probed(
    False, "not_probeable", "This provider can only be tried by sending: name a recipient, and a test message goes to it."
)
_TEXT = "This is a test of a notification channel. If it has reached you, the channel works."
TEST_MESSAGES: dict[Channel, dict[str, Any]] = {
    Channel.EMAIL: {"subject": "Test of a notification channel", "text": _TEXT},
    Channel.SMS: {"text": _TEXT},
    Channel.PUSH: {"title": "Test", "text": _TEXT},
    Channel.WHATSAPP: {"text": _TEXT},
}
"""What a recipient is sent."""


@frozen
class ProbeReport:
    """How a probe ended; ``duration_s`` is how long the provider took, tokens included."""

    probed: Probed
    duration_s: float


class Prober:
    """Makes probes for the surface. ``load`` reads and binds one configuration, None when there is no such."""

    def __init__(
        self,
        load: Callable[[OrganizationId, str], Awaitable[tuple[Provider, Channel, Bound] | None]],
        transports: Transports,
        *,
        new_id: Callable[[], str],
        random_bytes: Callable[[int], bytes],
        unix_s: Callable[[], float],
    ) -> None:
        self._load = load
        self._transports = transports
        self._new_id = new_id
        self._random_bytes = random_bytes
        self._unix_s = unix_s
        self._deadlines = Deadlines(read_s=DEADLINE_S, total_s=DEADLINE_S)
        self._probing: set[OrganizationId] = set()

    async def probe(self, organization_id: OrganizationId, config_id: str, recipient: str | None) -> ProbeReport | None:
        """Try a configuration out; None when the organization has no such one.

        Raises Overloaded while too many probes are under way, ConfigError or Unbindable for a configuration that can not be
        used at all, and StoreUnavailable.
        """
        if organization_id in self._probing or len(self._probing) >= PROBES_MAX:
            raise Overloaded("the room for probes", RETRY_AFTER_S)
        self._probing.add(organization_id)
        try:
            found = await self._load(organization_id, config_id)
            if found is None:
                return None
            provider, channel, bound = found
            began_s = trio.current_time()
            probed = await self._probe(organization_id, provider, channel, bound, recipient)
            return ProbeReport(probed, trio.current_time() - began_s)
        finally:
            self._probing.discard(organization_id)

    async def _probe(
        self, organization_id: OrganizationId, provider: Provider, channel: Channel, bound: Bound, recipient: str | None
    ) -> Probed:
        try:
            token = None
            if isinstance(bound, Authorizing):
                answer = await self._transports.exchange(bound.token_request(self._moment()), self._deadlines)
                assert isinstance(answer, HttpResponse)
                fetched = bound.token_of(answer, self._unix_s())
                if isinstance(fetched, Outcome):
                    return Probed(False, fetched.code, explain(provider, fetched))
                token = fetched.text
            if recipient is not None:
                return await self._send(organization_id, provider, channel, bound, recipient, token)
            if not isinstance(bound, Probing):
                return _NO_PROBE
            response = await self._transports.exchange(bound.probe(self._moment(token)), self._deadlines)
            return bound.probed(response, self._unix_s())
        except Unsendable as error:
            return Probed(False, error.code, explain(provider, Outcome(OutcomeClass.HARD, error.code)))
        except (NotSent, MaybeSent) as error:
            return Probed(False, error.code, explain_failure(error.code))
        except Exception as error:  # a fault of ours in the provider's module: it must not look like one of the configuration
            logger.error("probing %s failed: %s", provider.name, describe(error))
            return Probed(False, "probe_failed", "The probe itself failed. This is a fault of the dispatcher: look at its log.")

    async def _send(
        self,
        organization_id: OrganizationId,
        provider: Provider,
        channel: Channel,
        bound: Bound,
        recipient: str,
        token: str | None,
    ) -> Probed:
        id = NotificationId(self._new_id())
        delivery = Delivery(id, organization_id, channel, recipient, TEST_MESSAGES[channel], 1, 1, self._unix_s())
        response = await self._transports.exchange(bound.request(delivery, self._moment(token)), self._deadlines)
        outcome = bound.classify(response, self._unix_s())
        return Probed(outcome.kind is OutcomeClass.DELIVERED, outcome.code, explain(provider, outcome))

    def _moment(self, token: str | None = None) -> Moment:
        return Moment(self._unix_s(), self._random_bytes, token)
