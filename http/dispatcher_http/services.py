"""What the surface needs of the rest, as one record: every route is a function of a request and of this.

The ports are structural, so that whoever fills them need not know the surface. All of them may raise
:class:`~dispatcher.problems.Refused`, :class:`~dispatcher.errors.Overloaded`, :class:`~dispatcher.errors.StoreUnavailable`
and :class:`~dispatcher.errors.QueueUnavailable`; each of these has its answer (see :mod:`dispatcher_http.problems`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from attrs import field, frozen
from prometheus_client import CollectorRegistry

from actors.feedback_ports import ContactChange
from actors.io.postgres import Pool
from actors.prober import ProbeReport
from actors.schedule_ports import CANCELED
from dispatcher.config import SurfaceConfig
from dispatcher.feedback.feedback import WebhookReply, WebhookRequest
from dispatcher.model import Channel, NotificationId, OrganizationId
from dispatcher.providers.registry import Provider
from dispatcher.unsubscribe import Links
from dispatcher.vault import EncryptionKeys


class Answer(Protocol):
    """A finished answer: ``body`` is JSON, ``headers`` come on top of its type and length."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


class Accept(Protocol):
    """Accept one notification or a batch, durably. ``body`` is what came over the wire, not even parsed."""

    async def __call__(self, organization_id: OrganizationId, body: bytes, idempotency_key: str | None) -> Answer: ...


class Explain(Protocol):
    """Says what would become of one notification now, with every decision; ``row`` is its JSON object."""

    async def __call__(self, organization_id: OrganizationId, row: Any, *, with_payload: bool) -> dict[str, Any]: ...


class Events(Protocol):
    """Takes in events, and says what would come of one."""

    async def accept(self, organization_id: OrganizationId, body: bytes) -> Answer:
        """Take in one event or a batch, durably. ``body`` is what came over the wire, not even parsed."""

    async def explain(self, organization_id: OrganizationId, row: Any, *, with_payload: bool) -> dict[str, Any]:
        """What would come of one event now, with every decision; ``row`` is its JSON object."""


class Admit(Protocol):
    """Raises Refused while nothing further may be accepted. Asked before anything else of a request is looked at."""

    def __call__(self) -> None: ...


def _admit_all() -> None:
    """There is room for everything."""


class TakeIn(Protocol):
    """Take in what a provider reports to one configuration: durable when it returns. Raises Refused for what is not authentic."""

    async def __call__(self, organization_id: OrganizationId, config_id: str, request: WebhookRequest) -> WebhookReply: ...


class Changed(Protocol):
    """Told after templates or provider configurations of an organization changed, before the change is confirmed."""

    async def __call__(self, organization_id: OrganizationId) -> None: ...


class Requeued(Protocol):
    """Told which notifications are queued again, after that is on record. A hint: what it loses, the sweep finds."""

    async def __call__(self, organization_id: OrganizationId, ids: Sequence[NotificationId]) -> None: ...


class RequeuedMany(Protocol):
    """The same for many at once, each with the seconds until it is due."""

    async def __call__(self, organization_id: OrganizationId, due: Sequence[tuple[NotificationId, float]]) -> None: ...


class Discarded(Protocol):
    """Told how many dead letters were dropped, after that is on record."""

    async def __call__(self, organization_id: OrganizationId, count: int) -> None: ...


class Canceled(Protocol):
    """Told what was canceled by hand, after that is on record. Never waits."""

    def __call__(
        self, organization_id: OrganizationId, canceled: Sequence[tuple[NotificationId, Channel]], reason: str = CANCELED
    ) -> None: ...


def _tell_nobody(
    organization_id: OrganizationId, canceled: Sequence[tuple[NotificationId, Channel]], reason: str = CANCELED
) -> None:
    """Nobody listens."""


class ContactsChanged(Protocol):
    """Told which contacts have another status, after that is on record."""

    async def __call__(self, changes: Sequence[ContactChange]) -> None: ...


class Listen(Protocol):
    """Open one listener on an organization's events, each a JSON text, from after the event ``since`` (None: from now).

    Entering raises Refused when ``since`` cannot be resumed from. The iterator buffers a bounded number of events and
    raises Overloaded once its reader has fallen further behind.
    """

    def __call__(
        self, organization_id: OrganizationId, since: str | None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


class Probe(Protocol):
    """Try a provider configuration out, with a test message if there is a recipient. None: the organization has no such one.

    Raises ConfigError or Unbindable for one that can not be used.
    """

    async def __call__(self, organization_id: OrganizationId, config_id: str, recipient: str | None) -> ProbeReport | None: ...


class Ready(Protocol):
    """Ask every server we depend on whether it answers: its name to yes or no."""

    async def __call__(self) -> Mapping[str, bool]: ...


@frozen
class Services:
    """Everything the routes use. ``encryption_keys`` None means that no provider can be configured."""

    accept: Accept
    explain: Explain
    events: Events
    take_in: TakeIn
    changed: Changed
    requeued: Requeued
    requeued_many: RequeuedMany
    discarded: Discarded
    contacts_changed: ContactsChanged
    listen: Listen
    probe: Probe
    ready: Ready
    pool: Pool
    config: SurfaceConfig
    providers: Mapping[str, Provider]
    provider_urls_extra: Sequence[str]
    """Origins that a provider's base URL may name beside the provider's own hosts."""
    registry: CollectorRegistry
    encryption_keys: EncryptionKeys | None = field(repr=False)
    attempts_max: int
    """How many further attempts a requeued dead letter gets."""
    new_id: Callable[[], str]
    """A fresh UUIDv7."""
    random_bytes: Callable[[int], bytes]
    """Unpredictable bytes, for the nonces of sealed credentials."""
    admit: Admit = _admit_all
    canceled: Canceled = _tell_nobody
    links: Links | None = None
    """What reads links to unsubscribe by; None where none are made."""
