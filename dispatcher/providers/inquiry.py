"""What to do about an attempt whose answer was lost: the settings of a channel, and a provider that can be asked.

An askable provider has two more pure functions, a request that asks whether it knows a notification, and the meaning of its
answer. Invariant: ``found`` never raises, and says :class:`NotFound` only when the provider has said so in its own words;
whatever is not understood is :class:`CannotTell`, after which nothing is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple, Protocol, runtime_checkable

from attrs import frozen

from dispatcher.http_message import HttpRequest, HttpResponse
from dispatcher.model import Delivery
from dispatcher.outcome import OnUnknown
from dispatcher.problems import Problem
from dispatcher.providers.provider import Provider, invalid

UNKNOWN_SETTINGS = frozenset({"on_unknown", "key_retention_s"})
"""Settings about attempts with an unknown effect, of providers that are sent a key; where none is sent, the first only."""
KEY_RETENTION_S_MAX = 366 * 86_400


@frozen
class Found:
    """The provider has taken responsibility for the notification. ``message_id`` is its name for it, if it has told."""

    message_id: str | None


@frozen
class NotFound:
    """The provider says that it knows nothing of the notification."""


@frozen
class CannotTell:
    """No answer to be relied on. ``code`` says why, as in an outcome; ``retry_after_s`` is the provider's hint."""

    code: str
    retry_after_s: float | None = None


Answer = Found | NotFound | CannotTell


@runtime_checkable
class Askable(Protocol):
    """A bound provider that keeps records which can be asked for."""

    def inquiry(self, delivery: Delivery) -> HttpRequest:
        """The request that asks whether the provider has this notification. Must be safe to repeat."""

    def found(self, response: HttpResponse, now_unix_s: float) -> Answer:
        """What its answer means. Never raises."""


class UnknownPolicy(NamedTuple):
    """What one configuration does about unknown effects: fields of :class:`~dispatcher.messages.ProviderPolicy`."""

    on_unknown: OnUnknown
    key_retention_s: float | None
    inquiry_lag_s: float


def unknown_problems(settings: Mapping[str, Any], *, askable: bool) -> list[Problem]:
    """What is wrong with the settings about unknown effects."""
    problems = []
    on_unknown, retention_s = settings.get("on_unknown"), settings.get("key_retention_s")
    if on_unknown is not None:
        choices = [choice for choice in OnUnknown if askable or choice is not OnUnknown.ASK]
        if on_unknown == OnUnknown.ASK and not askable:
            problems.append(invalid("/settings/on_unknown", "this provider can not be asked what it has sent"))
        elif on_unknown not in choices:
            problems.append(invalid("/settings/on_unknown", "must be one of " + ", ".join(choices)))
    if retention_s is not None and not _is_retention(retention_s):
        problems.append(
            invalid("/settings/key_retention_s", f"must be a number of seconds above 0 and at most {KEY_RETENTION_S_MAX}")
        )
    return problems


def unknown_policy(settings: Mapping[str, Any], provider: Provider) -> UnknownPolicy:
    """The policy in settings without problems. Who sets nothing has a key relied on where one is honoured."""
    retention_s, given = settings.get("key_retention_s"), settings.get("on_unknown")
    if retention_s is None:
        retention_s = provider.key_retention_s
    default = OnUnknown.RESEND_ONCE if retention_s is None else OnUnknown.RESEND
    return UnknownPolicy(
        default if given is None else OnUnknown(given),
        None if retention_s is None else float(retention_s),
        provider.inquiry_lag_s or 0.0,
    )


def _is_retention(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and isfinite(value) and 0 < value <= KEY_RETENTION_S_MAX  # type: ignore[arg-type,operator]
