"""The records everything else speaks of. Frozen; identifiers are strings so that the hot path never builds UUID objects."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NewType

from attrs import field, frozen

OrganizationId = NewType("OrganizationId", str)
"""1 to 64 characters of ``a-z 0-9 - _``, starting with a letter or digit: it stands in URLs, keys and topics."""
NotificationId = NewType("NotificationId", str)
"""A UUIDv7 in its canonical 36-character form."""


class Channel(StrEnum):
    """How a person is reached."""

    EMAIL = "email"
    SMS = "sms"
    PUSH = "push"
    WHATSAPP = "whatsapp"


Lane = str
"""What waits together for the same provider configurations: a channel by its value, or one audience of it, as ``push:apple``."""


class Status(StrEnum):
    """Where a notification stands. ``DELIVERED``, ``FAILED`` and ``CANCELED`` are final."""

    SCHEDULED = "scheduled"
    """It waits for its time, and may be canceled until then."""
    QUEUED = "queued"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELED = "canceled"


class DeadLetterReason(StrEnum):
    """Why a notification will not be tried again: a closed set."""

    HARD = "hard"
    """The provider refused this message for good."""
    SUPPRESSED = "suppressed"
    """The provider refused this recipient for good."""
    EXHAUSTED = "exhausted"
    """Every allowed attempt failed softly."""
    EXPIRED = "expired"
    """``expires_at`` passed before it could be sent."""
    POISON = "poison"
    """Its attempts kept dying with the process that made them."""
    UNKNOWN = "unknown"
    """It may have been sent, nobody knows, and its channel leaves it to a person what to do."""


@frozen
class Delivery:
    """One notification that passed the gate: the intent to send it is on record, this attempt is ours.

    ``payload`` is the rendered content, by channel; for email ``{"subject", "text"?, "html"?}``.
    ``attempt`` counts from 1. ``created_at_s`` and ``expires_at_s`` are Unix seconds; what has waited for its time counts as
    created then. ``term`` is the term of the lease under which the attempt is ours.

    ``unknowns`` counts earlier attempts whose effect is not known. Of those that nobody has decided about since,
    ``unknown_for_s`` is how long ago the first passed the gate, ``unknown_last_s`` how long ago the last was given up; None
    without any. Both are measured at this attempt's gate, by the store's clock.
    """

    id: NotificationId
    organization_id: OrganizationId
    channel: Channel
    recipient: str = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    attempt: int
    attempts_max: int
    created_at_s: float
    expires_at_s: float | None = None
    term: int = 0
    unknowns: int = 0
    unknown_for_s: float | None = None
    unknown_last_s: float | None = None
    config_id: str | None = None
    """Through which configuration, as the gate has put it on record; None where the gate was told none."""


@frozen
class ProviderConfig:
    """One organization's configuration of one provider, credentials decrypted. Lives only in the organization's actor.

    ``revision`` changes with every update of the row.
    """

    id: str
    organization_id: OrganizationId
    channel: Channel
    provider: str
    settings: Mapping[str, Any]
    credentials: Mapping[str, str] = field(repr=False)
    revision: int
    priority: int = 0


@frozen
class Template:
    """One stored version of a template: one name, channel and locale of one organization.

    ``subject`` and ``html_template`` are for email only. ``variables`` declares the names a template may use:
    ``{name: {"required": bool, "default": any, "description": str}}``; ``schema`` is a JSON Schema instead of that. ``parts``
    has what channels need beside the texts: ``title`` and ``data`` of a push, ``whatsapp``, and the ``layout`` it is wrapped in.
    """

    id: str
    organization_id: OrganizationId
    name: str
    channel: Channel
    locale: str
    version: int
    subject: str | None
    body_template: str
    html_template: str | None
    variables: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Any] = field(factory=dict)
    schema: Mapping[str, Any] | None = None
