"""What the tree of a process stands on: in a simulation it stands on ports in memory, and else on servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import frozen

from actors.acceptor import LoadTemplate, StoredAnswer
from actors.archive import Archive
from actors.feedback_ports import FeedbackStore
from actors.knowledge import LoadSetup, LoadTemplateSet
from actors.people_ports import People
from actors.ports import Queue, Store
from actors.schedule_ports import ScheduleStore
from actors.webhook_configs import Load
from dispatcher.messages import ProviderPolicy
from dispatcher.model import OrganizationId
from dispatcher.providers.registry import Bound


@frozen
class Ports:
    """What the tree stands on. ``load_providers`` gives an organization's usable configurations, best first."""

    store: Store
    queue: Queue
    load_providers: Callable[[OrganizationId], Awaitable[Sequence[tuple[ProviderPolicy, Bound]]]]
    load_template: LoadTemplate
    load_setup: LoadSetup
    load_template_set: LoadTemplateSet
    people: People
    stored_answer: StoredAnswer
    feedback: FeedbackStore
    load_webhook: Load
    schedule: ScheduleStore
    tidy_people: Callable[[], Awaitable[None]] | None = None
    archive: Archive | None = None
    """None: nothing is moved into history."""
