"""Everything an organization's core can hear (events, past tense) and ask for (commands, imperative).

Both are batches: one message speaks of many notifications, so that the cost of a decision is shared.
Durations are seconds; ``…_in_s`` counts from the moment the message was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen

from dispatcher.channel_memory import Remembered
from dispatcher.model import Channel, DeadLetterReason, Delivery, Lane, NotificationId, Status
from dispatcher.outcome import OnUnknown, Outcome
from dispatcher.quota import QuotaAnswer, QuotaAsk

# --- events ---------------------------------------------------------------------------------------------------------


@frozen
class Woken:
    """There may be work: a wake-up call, a sweep or a timer. Always only a hint."""


@frozen
class ProviderPolicy:
    """What the core needs to know of one provider configuration. ``rate_per_s`` None means no limit of ours.

    ``key_retention_s`` is how long the provider honours our idempotency key (None: it does not), ``inquiry_lag_s`` how old an
    attempt must be before the provider's records can be trusted to show it.
    """

    config_id: str
    revision: int
    provider: str
    channel: Channel
    rate_per_s: float | None
    burst: int
    concurrency_max: int
    on_unknown: OnUnknown = OnUnknown.RESEND_ONCE
    key_retention_s: float | None = None
    inquiry_lag_s: float = 0.0
    quota: int | None = None
    """Attempts the account may make in a window of ``quota_window_s``; None means no limit of ours."""
    quota_window_s: float = 86_400.0
    origin: str = ""
    """Where its connections lead. What is learned of a provider at one origin says nothing of another."""
    batch_max: int = 1
    """How many notifications one call may carry. Everything else here counts notifications, except ``concurrency_max``: calls."""
    priority: int = 0
    """Of several on a channel those of the lowest number are used, the next ones when these can not be."""
    weight: int = 100
    """Its part of what those of one priority share."""
    audience: str = ""
    """Whom it serves, see ``dispatcher.audience``; empty: everybody on its channel."""
    failover: bool = True
    """Whether what it would send may go to a higher priority number while it can not."""
    failover_on_unknown: bool = False
    """Whether what it may have sent already may be sent again by another."""


@frozen
class ProvidersLoaded:
    """The organization's provider configurations, best first. Follows :class:`LoadProviders`.

    ``remembered`` is what was found of earlier lives of configurations, by id, that the core does not know yet.
    """

    policies: Sequence[ProviderPolicy]
    remembered: Mapping[str, Remembered] = field(factory=dict)


@frozen
class Claimed:
    """Ids moved from the queue to in-flight for us.

    ``backlog`` is how many are left in the queue, ``due_in_s`` when the next delayed one is due (None: none is). ``parked`` are
    the lanes, of those asked about, that have parked ids.
    """

    ids: Sequence[NotificationId]
    backlog: int
    due_in_s: float | None
    parked: Sequence[Lane] = ()


@frozen
class ClaimFailed:
    """The queue could not be asked; nothing is known to be claimed (what was, comes back when its lease runs out)."""

    retry_in_s: float


@frozen
class Gated:
    """The gate's answer: each id given to :class:`Gate` is in exactly one of these.

    ``deferred`` are not due yet (with their remaining delay), ``dropped`` are finished or gone, ``elsewhere`` are being sent by
    someone else: their places in the queue are not ours to change. ``suppressed`` says of some that were dropped that they were
    given up here and now, because of what is known of their contacts, with a code.
    """

    deliveries: Sequence[Delivery]
    parked: Sequence[tuple[Lane, NotificationId]] = ()
    deferred: Sequence[tuple[NotificationId, float]] = ()
    dropped: Sequence[NotificationId] = ()
    elsewhere: Sequence[NotificationId] = ()
    suppressed: Sequence[tuple[NotificationId, Channel, str]] = ()


@frozen
class Concluded:
    """One attempt ended. ``via`` is the provider configuration used, ``duration_s`` how long the call took.

    Of several attempts that shared a call, one ``speaks_for_call``: the breaker hears of a call once.
    """

    delivery: Delivery
    outcome: Outcome
    via: ProviderPolicy
    duration_s: float
    speaks_for_call: bool = True


@frozen
class Settled:
    """The verdicts (or leftovers) of these ids are in Postgres and in Redis: their room is free again.

    ``lost`` are those among them whose attempt was no longer ours to conclude: our lease had lapsed, somebody else may have them.
    """

    ids: Sequence[NotificationId]
    lost: Sequence[NotificationId] = ()


@frozen
class Unparked:
    """``moved`` parked ids of a lane are back at the head of the queue, ``left`` are still parked."""

    lane: Lane
    moved: int
    left: int


@frozen
class QuotaLeased:
    """The answer to :class:`LeaseQuota` for the same policy. None when there was none: nothing is known to be granted."""

    policy: ProviderPolicy
    answer: QuotaAnswer | None


@frozen
class DrainBegan:
    """No more claims; hand back what has not started."""


@frozen
class DrainEnded:
    """It may claim again, with all it knows: nobody else had the organization meanwhile."""


Event = (
    Woken
    | ProvidersLoaded
    | Claimed
    | ClaimFailed
    | Gated
    | Concluded
    | Settled
    | Unparked
    | QuotaLeased
    | DrainBegan
    | DrainEnded
)

# --- commands -------------------------------------------------------------------------------------------------------


@frozen
class LoadProviders:
    """Load the provider configurations, then tell :class:`ProvidersLoaded`."""


@frozen
class Claim:
    """Claim up to ``n`` ids, then tell :class:`Claimed` or :class:`ClaimFailed`. ``look``: say which of these have parked ids."""

    n: int
    look: tuple[Lane, ...] = ()


@frozen
class Gate:
    """Record the intent to send these ids, except those of a lane in ``closed``; then tell :class:`Gated`.

    ``through`` says by lane which configuration they go to. What an earlier attempt may have sent stays with the configuration of
    that attempt, unless that is one of ``unbound``.
    """

    ids: Sequence[NotificationId]
    closed: frozenset[Lane]
    through: Mapping[Lane, str] = field(factory=dict)
    unbound: frozenset[str] = frozenset()


@frozen
class Send:
    """Start these attempts through one configuration; tell :class:`Concluded` for each.

    ``deadline_s`` is for each call, None means the usual one.
    """

    config_id: str
    deliveries: Sequence[Delivery]
    deadline_s: float | None = None


@frozen
class Withdraw:
    """Conclude as interrupted every attempt of the configuration that has not started."""

    config_id: str


@frozen
class Verdict:
    """What becomes of one notification after one attempt.

    ``refund`` gives the attempt back. ``retry_in_s`` is set when it is queued again after a wait, ``dead`` when it has failed.
    ``possible_double`` says the provider may have acted although we do not know. ``via`` is None when no provider was involved.
    """

    delivery: Delivery
    outcome: Outcome
    via: ProviderPolicy | None
    status: Status
    refund: bool = False
    possible_double: bool = False
    retry_in_s: float | None = None
    dead: DeadLetterReason | None = None


@frozen
class Record:
    """Write this verdict down, then settle it in Redis, announce it, and tell :class:`Settled`."""

    verdict: Verdict


@frozen
class Settle:
    """Settle ids that need no record: parked, deferred or dropped at the gate. Then tell :class:`Settled`."""

    parked: Sequence[tuple[Lane, NotificationId]]
    deferred: Sequence[tuple[NotificationId, float]]
    dropped: Sequence[NotificationId]


@frozen
class Unpark:
    """Move up to ``n`` parked ids of a lane back to the head of the queue, then tell :class:`Unparked`."""

    lane: Lane
    n: int


@frozen
class LeaseQuota:
    """Ask the counter of the channel's quota, then tell :class:`QuotaLeased`."""

    policy: ProviderPolicy
    ask: QuotaAsk


@frozen
class ReturnQuota:
    """Give unspent units back to the counter. Nobody needs to hear of it: what does not arrive is lost until the window ends."""

    config_id: str
    ask: QuotaAsk


@frozen
class Keep:
    """The limits of this configuration changed in a way that another life should know: keep them soon, many at once."""

    config_id: str


@frozen
class Alarm:
    """Something a person should know about one configuration: logged, counted and announced.

    ``code`` is one of ``breaker_opened``, ``breaker_closed``, ``misconfigured``, ``quota_used_up``, ``failed_over`` (others send
    what it would have sent, ``to`` being the first of them) and ``failed_back`` (it sends its part again).
    """

    code: str
    channel: Channel
    config_id: str
    to: str = ""


@frozen
class WakeIn:
    """Tell :class:`Woken` after this time. Of several only the earliest needs to be kept: a wake-up is a hint."""

    delay_s: float


Command = (
    LoadProviders | Claim | Gate | Send | Withdraw | Record | Settle | Unpark | LeaseQuota | ReturnQuota | Keep | Alarm | WakeIn
)
