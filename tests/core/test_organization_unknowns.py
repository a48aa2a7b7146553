"""One organization and its attempts with an unknown effect: judged after the gate, before anything begins."""

from __future__ import annotations

from attrs import evolve

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.messages import (
    Claimed,
    Command,
    Concluded,
    DrainBegan,
    Gated,
    ProviderPolicy,
    ProvidersLoaded,
    Record,
    Send,
    Settled,
    Unparked,
    Verdict,
    WakeIn,
    Woken,
)
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.organization import Now, Organization
from dispatcher.outcome import OnUnknown, Outcome, OutcomeClass
from dispatcher.recent import RecentIds
from dispatcher.retry_budget import RetryBudgets

EMAIL = Channel.EMAIL
UNIX_S = 1_700_000_000.0
HOLD = ProviderPolicy("m", 1, "mailer", EMAIL, None, 1, 32, OnUnknown.HOLD)
ID = NotificationId("n1")
FRESH = Delivery(ID, OrganizationId("acme"), EMAIL, "person", {}, 1, 3, UNIX_S)
UNKNOWN = evolve(FRESH, attempt=2, unknowns=1, unknown_for_s=5.0, unknown_last_s=5.0)


def ready(policy: ProviderPolicy, budgets: RetryBudgets | None = None) -> Organization:
    core = Organization(8, RetryPolicy(2.0, 100.0), BreakerPolicy(), RecentIds(300, 10), lambda: 0.5, budgets or RetryBudgets())
    for event in (Woken(), ProvidersLoaded([policy]), Unparked(EMAIL, 0, 0), Claimed([], 0, None), Claimed([], 0, None)):
        core.handle(event, Now(0.0, UNIX_S))
    return core


def gated(core: Organization, delivery: Delivery) -> list[Command]:
    core.handle(Woken(), Now(0.0, UNIX_S))
    core.handle(Claimed([delivery.id], 0, None), Now(0.0, UNIX_S))
    return core.handle(Gated([delivery]), Now(0.0, UNIX_S))


def verdict_of(commands: list[Command]) -> Verdict:
    (verdict,) = (command.verdict for command in commands if isinstance(command, Record))
    return verdict


def test_what_is_held_for_a_person_never_begins() -> None:
    core = ready(HOLD)
    commands = gated(core, UNKNOWN)
    verdict = verdict_of(commands)

    assert not any(isinstance(command, Send) for command in commands)
    assert (verdict.status, verdict.dead, verdict.refund) == (Status.FAILED, DeadLetterReason.UNKNOWN, True)
    core.handle(Settled([ID]), Now(0.0, UNIX_S))
    assert core.is_idle


def test_what_is_not_unresolved_begins_under_the_same_policy() -> None:
    assert gated(ready(HOLD), FRESH) == [Send(HOLD.config_id, [FRESH])]


def test_a_lost_answer_is_held_at_its_next_turn() -> None:
    """Whoever lost it: the policy is looked at where the notification comes by, not where the answer was missed."""
    core = ready(HOLD)
    gated(core, FRESH)
    lost = verdict_of(
        core.handle(Concluded(FRESH, Outcome(OutcomeClass.UNKNOWN, "timeout_read"), HOLD, 1.0), Now(1.0, UNIX_S + 1))
    )
    core.handle(Settled([ID]), Now(1.0, UNIX_S + 1))

    assert (lost.status, lost.possible_double) == (Status.QUEUED, True)
    assert verdict_of(gated(core, UNKNOWN)).outcome.code == "unknown_held"


def test_records_that_lag_are_waited_for_and_then_the_attempt_begins() -> None:
    core = ready(evolve(HOLD, on_unknown=OnUnknown.ASK, inquiry_lag_s=300.0))
    waiting = verdict_of(gated(core, UNKNOWN))

    assert (waiting.status, waiting.refund, waiting.retry_in_s) == (Status.QUEUED, True, 295.0)
    assert core.handle(Settled([ID]), Now(0.0, UNIX_S)) == [WakeIn(295.0)]
    old = evolve(UNKNOWN, unknown_for_s=305.0, unknown_last_s=305.0)
    assert gated(core, old) == [Send(HOLD.config_id, [old])]


def test_what_expired_has_expired_whatever_else_is_unknown_of_it() -> None:
    assert verdict_of(gated(ready(HOLD), evolve(UNKNOWN, expires_at_s=UNIX_S))).dead is DeadLetterReason.EXPIRED


def test_a_drain_holds_nothing_back_that_would_be_held_anyway() -> None:
    core = ready(HOLD)
    core.handle(Woken(), Now(0.0, UNIX_S))
    core.handle(Claimed([ID], 0, None), Now(0.0, UNIX_S))
    core.handle(DrainBegan(), Now(0.0, UNIX_S))

    assert verdict_of(core.handle(Gated([UNKNOWN]), Now(0.0, UNIX_S))).dead is DeadLetterReason.UNKNOWN


def test_a_retry_waits_for_the_budget_of_its_channel_or_its_provider_whichever_is_longer() -> None:
    budgets = RetryBudgets(0.2, 1.0)
    provider = budgets.of_provider("mailer", 0.0)
    for _ in range(50):
        provider.reserve(0.0, 1e6)
    core = ready(HOLD, budgets)
    gated(core, FRESH)
    soft = Outcome(OutcomeClass.SOFT, "http_503")
    verdict = verdict_of(core.handle(Concluded(FRESH, soft, HOLD, 0.1), Now(0.0, UNIX_S)))

    assert verdict.retry_in_s is not None
    assert 40.0 < verdict.retry_in_s <= 41.0


def test_a_budget_puts_off_and_ends_nothing() -> None:
    budgets = RetryBudgets(0.2, 1.0)
    for _ in range(50):
        budgets.of_provider("mailer", 0.0).reserve(0.0, 1e6)
    core = ready(HOLD, budgets)
    short = evolve(FRESH, expires_at_s=UNIX_S + 30)
    gated(core, short)
    verdict = verdict_of(core.handle(Concluded(short, Outcome(OutcomeClass.SOFT, "http_503"), HOLD, 0.1), Now(0.0, UNIX_S)))

    assert (verdict.status, verdict.retry_in_s) == (Status.QUEUED, 15.0)


def test_a_last_attempt_asks_no_budget() -> None:
    budgets = RetryBudgets(0.2, 1.0)
    core = ready(HOLD, budgets)
    for _ in range(30):
        last = evolve(FRESH, attempt=3)
        gated(core, last)
        core.handle(Concluded(last, Outcome(OutcomeClass.SOFT, "http_503"), HOLD, 0.1), Now(0.0, UNIX_S))
        core.handle(Settled([ID]), Now(0.0, UNIX_S))

    assert budgets.of_provider("mailer", 0.0).reserve(0.0, 1e6) == 0.0
