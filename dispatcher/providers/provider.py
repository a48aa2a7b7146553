"""What a provider is: two pure functions, a request out of a notification and an outcome out of a response.

The socket, the deadline and the retry are somebody else's job. A provider is bound to one organization's configuration once, so
that everything constant is built once; a bound provider holds the credentials and shows nothing of them. Invariant: ``classify``
never raises, whatever came back, and nothing here repeats a recipient, a payload, a credential or a provider's own words.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

from attrs import field, frozen

from dispatcher.errors import DispatcherError
from dispatcher.feedback.feedback import FeedbackSource
from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, ProviderConfig
from dispatcher.origins import BaseUrl, parse_base_url
from dispatcher.outcome import OnUnknown, Outcome
from dispatcher.problems import Problem
from dispatcher.smtp_message import SmtpRequest, SmtpResponse

Request: TypeAlias = HttpRequest | SmtpRequest
"""What a provider may want written to a connection."""
Response: TypeAlias = HttpResponse | SmtpResponse
"""What may come back: an HttpResponse to an HttpRequest, an SmtpResponse to an SmtpRequest."""
OwnResponse: TypeAlias = Any
"""The Response to the kind of Request that this provider makes. It declares that one; which one, types can not say here."""

CONCURRENCY_MAX_DEFAULT = 32
"""Calls at once to one provider for one organization, unless its settings say otherwise."""

WEIGHT_DEFAULT = 100
"""A configuration's part of what those of its priority share, unless settings say otherwise."""

QUOTA_WINDOW_H_DEFAULT = 24
"""The window of a quota, unless settings say otherwise; also the longest there may be."""


class Unsendable(DispatcherError):
    """A stored notification can not be turned into a request of this provider. ``code`` says why; trying again would not help."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Unbindable(DispatcherError):
    """A stored configuration can not be used any more, for instance because its base URL is no longer allowed."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code} at {problem.pointer}")
        self.code = problem.code
        self.problem = problem


class Limits(NamedTuple):
    """How hard one organization may press one provider. ``rate_per_s`` is None when nothing but concurrency limits it.

    ``quota`` is what the account may send in ``quota_window_h`` hours; None means no such limit.
    """

    rate_per_s: float | None
    burst: int
    concurrency_max: int
    quota: int | None = None
    quota_window_h: int = QUOTA_WINDOW_H_DEFAULT


@frozen
class Moment:
    """What a request depends on beside its notification: the time, randomness, and a token that somebody fetched.

    ``random_bytes`` gives that many fresh unpredictable bytes. ``token`` is there for an ``Authorizing`` provider only.
    """

    unix_s: float
    random_bytes: Callable[[int], bytes] = field(repr=False)
    token: str | None = field(default=None, repr=False)


class Bound(Protocol):
    """A provider with one configuration.

    What else one may be able to do is a protocol of its own: ``inquiry.Askable``, ``batching.Batching``, ``tokens.Authorizing``,
    ``probing.Probing``. ``origin.scheme`` decides which transport carries its requests, see ``actors.transports``.
    """

    @property
    def origin(self) -> Origin:
        """Where its connections lead."""

    @property
    def limits(self) -> Limits:
        """How hard it may be pressed."""

    def request(self, delivery: Delivery, moment: Moment) -> Request:
        """The request that sends one notification. Raises Unsendable when there is none."""

    def classify(self, response: OwnResponse, now_unix_s: float) -> Outcome:
        """What a response means. Never raises. The time is for hints that name an instant."""


class SettingsProblems(Protocol):
    """Checks settings. ``origins_extra`` are origins that a base URL may name beside the provider's own hosts."""

    def __call__(self, settings: Mapping[str, Any], origins_extra: Collection[str] = ()) -> list[Problem]: ...


class Bind(Protocol):
    """Binds a stored configuration. Raises Unbindable when it can not be used."""

    def __call__(self, config: ProviderConfig, origins_extra: Collection[str] = ()) -> Bound: ...


@frozen
class Provider:
    """One provider: what its configuration must look like, and how to bind it.

    ``key_retention_s`` is how long it honours an idempotency key (None: not at all). ``inquiry_lag_s`` is how long its records
    may lag behind its sending; None when it can not be asked, otherwise what it binds is an ``inquiry.Askable``. ``explanations``
    say in words, by the code of an outcome, what happened and what to do about it. ``feedback`` reads what the provider reports
    later, None when it reports nothing. ``audience`` is whom it can reach on its channel (see ``dispatcher.audience``), empty
    when that is everybody.
    """

    name: str
    channels: frozenset[Channel]
    settings_problems: SettingsProblems
    credentials_problems: Callable[[Mapping[str, Any]], list[Problem]]
    bind: Bind
    key_retention_s: float | None = None
    inquiry_lag_s: float | None = None
    explanations: Mapping[str, str] = MappingProxyType({})
    feedback: FeedbackSource | None = None
    audience: str = ""


def invalid(pointer: str, detail: str, code: str = "setting_invalid") -> Problem:
    """A field of a configuration that has a wrong value."""
    return Problem(422, code, "The provider configuration can not be used", detail, pointer)


def missing(pointer: str, detail: str) -> Problem:
    """A field of a configuration that must be there."""
    return invalid(pointer, detail, "setting_missing")


def unknown_fields(given: Mapping[str, Any], known: Collection[str], where: str) -> list[Problem]:
    """A problem if there are fields that mean nothing. Their names are not repeated: one may be a misplaced secret."""
    count = sum(name not in known for name in given)
    if not count:
        return []
    names = ", ".join(sorted(known))
    return [invalid(where, f"{count} unknown field{'s' if count > 1 else ''}; known are {names}", "setting_unknown")]


COMMON_SETTINGS = frozenset(
    {"rate_per_s", "burst", "concurrency_max", "quota", "quota_window_h", "base_url", "weight", "failover", "failover_on_unknown"}
)
"""Settings that every provider has."""


def common_problems(settings: Mapping[str, Any], origins: Collection[str]) -> list[Problem]:
    """What is wrong with the settings that every provider has. ``origins`` are all that a base URL may name."""
    problems = []
    rate_per_s, burst, base_url = settings.get("rate_per_s"), settings.get("burst"), settings.get("base_url")
    if rate_per_s is not None and not (_is_number(rate_per_s) and isfinite(rate_per_s) and 0 < rate_per_s <= 1_000_000):
        problems.append(invalid("/settings/rate_per_s", "must be a number above 0 and at most 1000000"))
    if burst is not None and not _is_count(burst, 1_000_000):
        problems.append(invalid("/settings/burst", "must be a whole number from 1 to 1000000"))
    elif burst is not None and rate_per_s is None:
        problems.append(invalid("/settings/burst", "means nothing without rate_per_s"))
    if settings.get("concurrency_max") is not None and not _is_count(settings["concurrency_max"], 1024):
        problems.append(invalid("/settings/concurrency_max", "must be a whole number from 1 to 1024"))
    if settings.get("quota") is not None and not _is_count(settings["quota"], 1_000_000_000):
        problems.append(invalid("/settings/quota", "must be a whole number from 1 to 1000000000"))
    quota_window_h = settings.get("quota_window_h")
    if quota_window_h is not None and not _is_count(quota_window_h, QUOTA_WINDOW_H_DEFAULT):
        problems.append(invalid("/settings/quota_window_h", "must be a whole number of hours from 1 to 24"))
    elif quota_window_h is not None and settings.get("quota") is None:
        problems.append(invalid("/settings/quota_window_h", "means nothing without quota"))
    if settings.get("weight") is not None and not _is_count(settings["weight"], 1000):
        problems.append(invalid("/settings/weight", "must be a whole number from 1 to 1000"))
    switches = [name for name in ("failover", "failover_on_unknown") if not isinstance(settings.get(name), bool | None)]
    problems.extend(invalid(f"/settings/{name}", "must be true or false") for name in switches)
    if settings.get("failover_on_unknown") is True and settings.get("on_unknown") in (OnUnknown.HOLD, OnUnknown.ASK):
        problems.append(invalid("/settings/failover_on_unknown", "means nothing with on_unknown " + settings["on_unknown"]))
    if base_url is not None:
        base = parse_base_url(base_url) if isinstance(base_url, str) else None
        if base is None:
            problems.append(invalid("/settings/base_url", "must be an http or https URL without user, query and fragment"))
        elif str(base.origin) not in origins:
            problems.append(invalid("/settings/base_url", "names a host that is not allowed here", "base_url_not_allowed"))
    return problems


def limits_of(settings: Mapping[str, Any]) -> Limits:
    """The limits in settings without problems. Without ``burst``, a second's worth may go at once."""
    rate_per_s = settings.get("rate_per_s")
    burst = settings.get("burst") or max(1, int(rate_per_s or 1))
    return Limits(
        None if rate_per_s is None else float(rate_per_s),
        burst,
        settings.get("concurrency_max") or CONCURRENCY_MAX_DEFAULT,
        settings.get("quota"),
        settings.get("quota_window_h") or QUOTA_WINDOW_H_DEFAULT,
    )


class Sharing(NamedTuple):
    """What a configuration takes of its channel's traffic, and leaves to others: fields of ``ProviderPolicy``."""

    weight: int
    failover: bool
    failover_on_unknown: bool


def sharing_of(settings: Mapping[str, Any]) -> Sharing:
    """The sharing in settings without problems."""
    weight, failover = settings.get("weight") or WEIGHT_DEFAULT, settings.get("failover") is not False
    return Sharing(weight, failover, settings.get("failover_on_unknown") is True)


def base_url_of(settings: Mapping[str, Any], default: BaseUrl) -> BaseUrl:
    """The base URL in settings without problems."""
    given = settings.get("base_url")
    base = None if given is None else parse_base_url(given)
    return default if base is None else base


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object, at_most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= at_most
