"""How a sandbox misbehaves: one frozen record of settings, readable from a JSON document.

A request draws one number in [0, 1). The shares of a behaviour divide that interval in this order: the error mix, then dropped
after acceptance, then slow; what is left is answered as it should be. So shares never overlap, and add up to at most 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs
from attrs import field, frozen

from dispatcher_sandbox.fates import fate_mix


class Outage(StrEnum):
    """How a provider can be away. In none of these ways is anything accepted."""

    NONE = "none"
    """It is there."""
    UNAVAILABLE = "unavailable"
    """Every request is answered 503."""
    CLOSE = "close"
    """Every request is read, then the connection is closed without a word."""
    SILENT = "silent"
    """Every request is read, and no answer ever comes."""


def _number(low: float, high: float) -> Any:
    def check(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"{attribute.name} must be a number from {low:g} to {high:g}")

    return check


def _positive_or_none(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf")):
        raise ValueError(f"{attribute.name} must be a number above 0, or nothing for no limit")


def _flag(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{attribute.name} must be true or false")


def _integer_or_none(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{attribute.name} must be a whole number, or nothing")


def _count(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise ValueError(f"{attribute.name} must be a whole number from 1 to 1000000")


def _count_or_none(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _count(instance, attribute, value)


def _outage(value: object) -> Outage:
    if isinstance(value, bool):
        return Outage.UNAVAILABLE if value else Outage.NONE
    for outage in Outage:
        if value == outage:
            return outage
    raise ValueError(f"outage must be true, false or one of {', '.join(Outage)}")


def _mix(value: object) -> Mapping[int, float]:
    if not isinstance(value, Mapping):
        raise ValueError("error_mix must map statuses to shares, for example {503: 0.1}")
    mix: dict[int, float] = {}
    for status, share in value.items():
        try:
            number = int(status)
        except (TypeError, ValueError):
            number = 0
        if not 400 <= number <= 599:
            raise ValueError("error_mix must name statuses from 400 to 599")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ValueError("error_mix must give each status a share from 0 to 1")
        mix[number] = float(share)
    return mix


def _domains(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError("sender_domains must be a list of domain names")
    return tuple(name.lower() for name in value)


def _topics(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise ValueError("apns_topics must be a list of topics")
    return tuple(value)


def _public_keys(value: object) -> Mapping[str, str]:
    texts = (*value, *value.values()) if isinstance(value, Mapping) else (None,)
    if not isinstance(value, Mapping) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("apns_keys must map team ids, a dot and key ids to public keys in PEM")
    return dict(value)


def _keys(value: object) -> Mapping[str, str]:
    texts = (*value, *value.values()) if isinstance(value, Mapping) else (None,)
    if not isinstance(value, Mapping) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("aws_keys must map access key ids to their secrets")
    return dict(value)


@frozen
class Behaviour:
    """The settings of a sandbox. The default answers everything correctly and at once, as the real provider on a good day."""

    latency_s: float = field(default=0.0, validator=_number(0, 3600))
    """Added to every answer of a provider. An accepted message takes effect before it: the answer is what is late."""
    slow_share: float = field(default=0.0, validator=_number(0, 1))
    """Share of requests that take ``slow_s`` longer."""
    slow_s: float = field(default=10.0, validator=_number(0, 3600))
    error_mix: Mapping[int, float] = field(factory=dict, converter=_mix)
    """Status to share of requests that are refused with it; nothing of those is accepted."""
    drop_after_accept: float = field(default=0.0, validator=_number(0, 1))
    """Share of requests that take effect and are never answered: the connection closes."""
    rate_limit_per_s: float | None = field(default=None, validator=_positive_or_none)
    """Requests per second and account (API key), counted in windows of ``rate_window_s``; beyond it the answer is 429."""
    rate_window_s: float = field(default=1.0, validator=_number(0.001, 86_400))
    rate_limit_headers: bool = field(default=True, validator=_flag)
    """Whether ``X-RateLimit-*`` are sent; the real mail/send has been seen without them."""
    outage: Outage = field(default=Outage.NONE, converter=_outage)
    honour_idempotency_keys: bool = field(default=False, validator=_flag)
    """Whether a repeated ``idempotency-key`` replays the first answer instead of sending again. SendGrid itself does not."""
    idempotency_retention_s: float = field(default=86_400.0, validator=_number(0, 1e9))
    """How long an honoured key is remembered."""
    sender_domains: tuple[str, ...] = field(default=(), converter=_domains)
    """Domains a sender may use, others are refused with 403; empty accepts all."""
    email_activity: bool = field(default=True, validator=_flag)
    """Whether the account may search what was sent, an add-on; without it such a request is refused with 403."""
    activity_lag_s: float = field(default=0.0, validator=_number(0, 86_400))
    """How long a message that took effect is missing from that search."""
    fate_mix: Mapping[str, float] = field(factory=dict, converter=fate_mix)
    """Fate to share of accepted messages that meet with it, where a hook is set; the others are delivered."""
    webhook_delay_s: float = field(default=0.0, validator=_number(0, 86_400))
    """How long after a message took effect its events leave."""
    webhook_shuffle: bool = field(default=False, validator=_flag)
    """Whether events leave in any order, each at a moment of its own within ``webhook_delay_s``."""
    webhook_duplicate_share: float = field(default=0.0, validator=_number(0, 1))
    """Share of events that are sent twice."""
    webhook_late_share: float = field(default=0.0, validator=_number(0, 1))
    """Share of events that leave ``webhook_late_s`` later than the others."""
    webhook_late_s: float = field(default=5.0, validator=_number(0, 86_400))
    webhook_early_s: float = field(default=0.0, validator=_number(0, 3600))
    """How long the answer to a message is held back, so that its events overtake it."""
    webhook_events_max: int = field(default=1000, validator=_number(1, 1000))
    """Events in one callback, where the provider puts several into one."""
    webhook_attempts_max: int = field(default=8, validator=_number(1, 100))
    """Calls made before a callback that is not answered with a 2xx is given up."""
    streams_max: int = field(default=1000, validator=_count)
    """Streams at once on one HTTP/2 connection."""
    streams_until_accepted: int | None = field(default=1, validator=_count_or_none)
    """The same before the connection's first accepted request; nothing for no difference."""
    streams_after_refusal: int | None = field(default=None, validator=_count_or_none)
    """The same after a refused request, until one is accepted; nothing for no difference."""
    goaway_after: int | None = field(default=None, validator=_count_or_none)
    """Requests after which an HTTP/2 connection goes away; nothing for never."""
    apns_topics: tuple[str, ...] = field(default=(), converter=_topics)
    """Topics that keys may send to, others are refused; empty accepts all."""
    apns_keys: Mapping[str, str] = field(factory=dict, converter=_public_keys)
    """Public keys in PEM by team id, a dot and key id, with which provider tokens are verified; empty accepts any key."""
    aws_keys: Mapping[str, str] = field(factory=dict, converter=_keys, repr=False)
    """Secrets by access key id: nobody else may sign. Empty: anybody who signs with the documented secret."""
    ses_sending: bool = field(default=True, validator=_flag)
    """Whether sending is switched on for the account at SES."""
    ses_production: bool = field(default=True, validator=_flag)
    """Whether the account at SES may send to anybody; otherwise recipients must be at one of ``sender_domains`` too."""
    magic_recipients: bool = field(default=True, validator=_flag)
    seed: int | None = field(default=None, validator=_integer_or_none)
    """Setting a behaviour with a seed starts the random numbers anew."""

    def __attrs_post_init__(self) -> None:
        if sum(self.error_mix.values()) + self.drop_after_accept + self.slow_share > 1 + 1e-9:
            raise ValueError("the shares of error_mix, drop_after_accept and slow_share must not add up to more than 1")
        if sum(self.fate_mix.values()) > 1 + 1e-9:
            raise ValueError("the shares of fate_mix must not add up to more than 1")
        for name in ("webhook_events_max", "webhook_attempts_max"):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"{name} must be a whole number")
        if self.rate_limit_per_s is not None and self.rate_limit_per_s * self.rate_window_s < 1:
            raise ValueError("rate_limit_per_s × rate_window_s must be at least 1: widen the window")

    def document(self) -> dict[str, Any]:
        """As a JSON document."""
        return {**attrs.asdict(self), "error_mix": {str(status): share for status, share in self.error_mix.items()}}


_FIELDS = frozenset(attrs.fields_dict(Behaviour))


def changed(behaviour: Behaviour, document: object) -> Behaviour:
    """``behaviour`` with the settings of ``document`` put in place. Raises ValueError saying which setting is wrong."""
    if not isinstance(document, dict):
        raise ValueError("a behaviour must be a JSON object")
    unknown = sorted(set(document) - _FIELDS)
    if unknown:
        raise ValueError(f"no such setting: {', '.join(unknown)}; there are {', '.join(sorted(_FIELDS))}")
    return attrs.evolve(behaviour, **document)
