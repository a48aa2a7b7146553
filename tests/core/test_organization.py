"""The heart of one organization, as dialogues: an event in, commands out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.channel_state import MISCONFIGURED_PAUSE_S
from dispatcher.messages import (
    Alarm,
    Claim,
    Claimed,
    ClaimFailed,
    Command,
    Concluded,
    DrainBegan,
    DrainEnded,
    Event,
    Gate,
    Gated,
    LoadProviders,
    ProviderPolicy,
    ProvidersLoaded,
    Record,
    Send,
    Settle,
    Settled,
    Unpark,
    Unparked,
    Verdict,
    WakeIn,
    Withdraw,
    Woken,
)
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.organization import INTERRUPTED, Now, Organization
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.recent import RecentIds

EMAIL, SMS = Channel.EMAIL, Channel.SMS
MAIL = ProviderPolicy("m", 1, "mailer", EMAIL, None, 1, 32)
TEXT = ProviderPolicy("t", 1, "texter", SMS, None, 1, 32)
RETRY = RetryPolicy(base_s=2.0, cap_s=100.0)
BREAKER = BreakerPolicy(calls_min=3, open_base_s=10.0)
UNIX_S = 1_700_000_000.0
NO_OTHERS = frozenset({Channel.PUSH, Channel.WHATSAPP})
ONLY_MAIL = NO_OTHERS | {SMS}
BY_MAIL: dict[str, str] = {EMAIL: "m"}

OK = Outcome(OutcomeClass.DELIVERED, "accepted")
SOFT = Outcome(OutcomeClass.SOFT, "http_503")
HARD = Outcome(OutcomeClass.HARD, "http_400")


def nid(number: int) -> NotificationId:
    return NotificationId(f"n{number:02}")


def delivery(number: int, channel: Channel = EMAIL, *, attempt: int = 1, expires_in_s: float | None = None) -> Delivery:
    expires_at_s = None if expires_in_s is None else UNIX_S + expires_in_s
    return Delivery(nid(number), OrganizationId("acme"), channel, "person", {}, attempt, 3, UNIX_S - 1, expires_at_s)


class Dialogue:
    """One organization and its clock."""

    def __init__(self, in_flight_max: int = 8) -> None:
        self.core = Organization(in_flight_max, RETRY, BREAKER, RecentIds(300.0, 100), lambda: 0.5)
        self.now_s = 1000.0

    def hears(self, event: Event) -> list[Command]:
        return self.core.handle(event, Now(self.now_s, UNIX_S + self.now_s - 1000.0))

    def concluded(self, what: Delivery, outcome: Outcome, via: ProviderPolicy | None = None) -> list[Command]:
        return self.hears(Concluded(what, outcome, via or (MAIL if what.channel is EMAIL else TEXT), 0.1))


def ready(policies: Sequence[ProviderPolicy] = (MAIL,), in_flight_max: int = 8) -> Dialogue:
    """An organization that knows its providers, has nothing parked, and has found its queue empty."""
    dialogue = Dialogue(in_flight_max)
    dialogue.hears(Woken())
    dialogue.hears(ProvidersLoaded(policies))
    for policy in policies:
        dialogue.hears(Unparked(policy.channel, 0, 0))
    dialogue.hears(Claimed([], 0, None))
    if not dialogue.core.is_idle:
        dialogue.hears(Claimed([], 0, None))
    return dialogue


def sending(dialogue: Dialogue, *deliveries: Delivery) -> list[Command]:
    """Has these deliveries claimed and gated; returns what the last event led to."""
    dialogue.hears(Woken())
    dialogue.hears(Claimed([d.id for d in deliveries], 0, None))
    return dialogue.hears(Gated(deliveries))


def recorded(commands: Sequence[Command]) -> list[Verdict]:
    return [command.verdict for command in commands if isinstance(command, Record)]


# --- the common case ------------------------------------------------------------------------------------------------------


def test_the_life_of_one_notification() -> None:
    dialogue = Dialogue()

    assert dialogue.hears(Woken()) == [LoadProviders()]
    assert dialogue.hears(ProvidersLoaded([MAIL])) == [Unpark(EMAIL, 8), Claim(8)]
    assert dialogue.hears(Unparked(EMAIL, 0, 0)) == []
    assert dialogue.hears(Claimed([nid(1)], 0, None)) == [Gate([nid(1)], ONLY_MAIL, BY_MAIL)]
    assert dialogue.hears(Gated([delivery(1)])) == [Send("m", [delivery(1)])]
    assert dialogue.concluded(delivery(1), OK) == [Record(Verdict(delivery(1), OK, MAIL, Status.DELIVERED))]
    assert not dialogue.core.is_idle
    assert dialogue.hears(Settled([nid(1)])) == []
    assert dialogue.core.is_idle


def test_an_empty_queue_is_asked_once() -> None:
    dialogue = ready()

    assert dialogue.hears(Woken()) == [Claim(8)]
    assert dialogue.hears(Claimed([], 0, None)) == []
    assert dialogue.core.is_idle


def test_statistics_show_what_is_held() -> None:
    dialogue = ready()
    sending(dialogue, delivery(1), delivery(2))
    statistics = dialogue.core.statistics()

    assert (statistics.in_flight, statistics.claiming, statistics.hinted) == (2, False, False)
    assert statistics.breakers == {"m": "closed"}


# --- hints ----------------------------------------------------------------------------------------------------------------


def test_a_hint_during_the_load_is_kept() -> None:
    dialogue = Dialogue()
    dialogue.hears(Woken())

    assert dialogue.hears(Woken()) == []
    assert Claim(8) in dialogue.hears(ProvidersLoaded([MAIL]))


def test_a_hint_during_a_claim_leads_to_another_claim() -> None:
    dialogue = ready()
    dialogue.hears(Woken())

    assert dialogue.hears(Woken()) == []
    assert dialogue.hears(Claimed([], 0, None)) == [Claim(8)]
    assert dialogue.hears(Claimed([], 0, None)) == []


def test_a_backlog_leads_to_another_claim() -> None:
    dialogue = ready(in_flight_max=4)
    dialogue.hears(Woken())
    commands = dialogue.hears(Claimed([nid(1)], 7, None))

    assert commands == [Gate([nid(1)], ONLY_MAIL, BY_MAIL), Claim(3)]


def test_a_claim_finds_out_when_the_next_delayed_id_is_due() -> None:
    dialogue = ready()
    dialogue.hears(Woken())

    assert dialogue.hears(Claimed([], 0, 12.5)) == [WakeIn(12.5)]


def test_a_failed_claim_is_tried_again_later() -> None:
    dialogue = ready()
    dialogue.hears(Woken())

    assert dialogue.hears(ClaimFailed(1.5)) == [WakeIn(1.5)]
    assert dialogue.hears(Woken()) == [Claim(8)]


def test_a_retry_is_looked_for_when_it_is_due_counted_from_when_it_is_back() -> None:
    """Not from its verdict: a claim before the settlement would find nothing, and nobody would look again."""
    dialogue = ready()
    sending(dialogue, delivery(1))
    commands = dialogue.concluded(delivery(1), SOFT)

    assert [v.retry_in_s for v in recorded(commands)] == [1.0]
    assert len(commands) == 1
    assert dialogue.hears(Settled([nid(1)])) == [WakeIn(1.0)]


def test_an_interrupted_attempt_is_claimed_again_once_it_is_back() -> None:
    dialogue = ready()
    sending(dialogue, delivery(1))
    commands = dialogue.concluded(delivery(1), INTERRUPTED)

    assert [(v.status, v.refund, v.retry_in_s) for v in recorded(commands)] == [(Status.QUEUED, True, 0.0)]
    assert len(commands) == 1
    assert dialogue.hears(Settled([nid(1)])) == [Claim(8)]


def test_deferred_ids_are_looked_for_when_the_first_is_due() -> None:
    dialogue = ready()
    dialogue.hears(Woken())
    dialogue.hears(Claimed([nid(1), nid(2)], 0, None))
    deferred = [(nid(1), 9.0), (nid(2), 4.0)]

    assert dialogue.hears(Gated([], deferred=deferred)) == [Settle((), deferred, ())]
    assert dialogue.hears(Settled([nid(1), nid(2)])) == [WakeIn(4.0)]


# --- repeats --------------------------------------------------------------------------------------------------------------


def test_an_id_in_flight_is_not_gated_again_before_it_is_settled() -> None:
    dialogue = ready()
    sending(dialogue, delivery(1))
    dialogue.hears(Woken())

    assert dialogue.hears(Claimed([nid(1), nid(2), nid(2)], 0, None)) == [Gate([nid(2)], ONLY_MAIL, BY_MAIL)]


def test_an_id_that_turned_up_while_in_flight_is_looked_at_once_it_is_settled() -> None:
    """Its settlement may have put it back just before the claim took it: nobody else would work on it."""
    dialogue = ready()
    sending(dialogue, delivery(1))
    dialogue.concluded(delivery(1), INTERRUPTED)
    dialogue.hears(Woken())
    dialogue.hears(Claimed([nid(1)], 0, None))

    assert dialogue.hears(Settled([nid(1)])) == [Gate([nid(1)], ONLY_MAIL, BY_MAIL), Claim(7)]
    assert dialogue.core.in_flight == {nid(1)}


def test_what_was_delivered_lately_is_dropped_without_asking_the_gate() -> None:
    dialogue = ready()
    sending(dialogue, delivery(1))
    dialogue.concluded(delivery(1), OK)
    dialogue.hears(Settled([nid(1)]))
    dialogue.hears(Woken())

    assert dialogue.hears(Claimed([nid(1)], 0, None)) == [Settle((), (), [nid(1)])]
    assert dialogue.core.in_flight == {nid(1)}
    assert dialogue.hears(Settled([nid(1)])) == []
    assert dialogue.core.is_idle


def test_what_was_delivered_long_ago_goes_to_the_gate_again() -> None:
    dialogue = ready()
    sending(dialogue, delivery(1))
    dialogue.concluded(delivery(1), OK)
    dialogue.hears(Settled([nid(1)]))
    for _ in range(2):
        dialogue.now_s += 301.0
        dialogue.hears(Woken())
        dialogue.hears(Claimed([], 0, None))
    dialogue.hears(Woken())

    assert dialogue.hears(Claimed([nid(1)], 0, None)) == [Gate([nid(1)], ONLY_MAIL, BY_MAIL)]


def test_a_delivery_that_was_not_ours_to_conclude_is_not_remembered() -> None:
    """Somebody took it over and may have queued it again; dropping it would leave it for ever undecided."""
    dialogue = ready()
    sending(dialogue, delivery(1))
    dialogue.concluded(delivery(1), OK)
    dialogue.hears(Settled([nid(1)], lost=[nid(1)]))
    dialogue.hears(Woken())

    assert dialogue.hears(Claimed([nid(1)], 0, None)) == [Gate([nid(1)], ONLY_MAIL, BY_MAIL)]


def test_what_the_gate_dropped_is_settled_and_forgotten() -> None:
    dialogue = ready()
    dialogue.hears(Woken())
    dialogue.hears(Claimed([nid(1)], 0, None))

    assert dialogue.hears(Gated([], dropped=[nid(1)])) == [Settle((), (), [nid(1)])]
    assert dialogue.hears(Settled([nid(1)])) == []
    assert dialogue.core.is_idle


def test_what_somebody_else_is_sending_is_forgotten_and_not_settled() -> None:
    """Its place in the queue may be theirs: it ends with its lease, if they do not settle it before."""
    dialogue = ready()
    dialogue.hears(Woken())
    dialogue.hears(Claimed([nid(1), nid(2)], 0, None))

    assert dialogue.hears(Gated([], dropped=[nid(2)], elsewhere=[nid(1)])) == [Settle((), (), [nid(2)])]
    assert dialogue.core.in_flight == {nid(2)}
    assert dialogue.hears(Claimed([nid(1)], 0, None)) == [Gate([nid(1)], ONLY_MAIL, BY_MAIL)]


# --- the budget -----------------------------------------------------------------------------------------------------------


def test_no_more_is_claimed_than_may_be_held() -> None:
    dialogue = ready(in_flight_max=4)
    sending(dialogue, *(delivery(n) for n in range(4)))

    assert dialogue.hears(Woken()) == []
    dialogue.concluded(delivery(0), OK)
    assert dialogue.hears(Settled([nid(0)])) == [Claim(1)]


def test_small_change_is_saved_up_for_one_claim() -> None:
    """Room for an eighth of what may be held is not worth a claim; a quarter is."""
    dialogue = ready(in_flight_max=8)
    sending(dialogue, *(delivery(n) for n in range(8)))
    dialogue.hears(Woken())
    for number in range(2):
        dialogue.concluded(delivery(number), OK)

    assert dialogue.hears(Settled([nid(0)])) == []
    assert dialogue.hears(Settled([nid(1)])) == [Claim(2)]


def test_no_more_is_claimed_than_there_are_tokens() -> None:
    dialogue = ready([evolve(MAIL, rate_per_s=1.0, burst=3)])
    dialogue.now_s += 2.0

    assert dialogue.hears(Woken()) == [Claim(3)]


def test_without_a_token_it_waits_for_one() -> None:
    dialogue = ready([evolve(MAIL, rate_per_s=2.0, burst=3)])
    sending(dialogue, delivery(1))
    ((wake,), claim) = dialogue.hears(Woken()), dialogue.core.statistics().claiming

    assert isinstance(wake, WakeIn)
    assert wake.delay_s == pytest.approx(0.5)
    assert not claim
    dialogue.now_s += 0.5
    assert dialogue.hears(Woken()) == [Claim(1)]


def test_no_more_is_claimed_than_its_calls_can_take() -> None:
    dialogue = ready([evolve(MAIL, concurrency_max=2)])

    assert dialogue.hears(Woken()) == [Claim(4)]
    dialogue.hears(Claimed([nid(n) for n in range(4)], 3, None))
    assert dialogue.hears(Gated([delivery(n) for n in range(4)])) == [Send("m", [delivery(n) for n in range(4)])]
    assert dialogue.hears(Woken()) == []
    assert Claim(1) in dialogue.concluded(delivery(0), HARD)


def test_what_is_on_its_way_through_the_gate_counts() -> None:
    dialogue = ready([evolve(MAIL, concurrency_max=2)])
    dialogue.hears(Woken())

    assert dialogue.hears(Claimed([nid(1), nid(2), nid(3)], 3, None)) == [
        Gate([nid(1), nid(2), nid(3)], ONLY_MAIL, BY_MAIL),
        Claim(1),
    ]


def test_the_narrowest_open_channel_decides_because_any_mix_may_come() -> None:
    dialogue = ready([MAIL, evolve(TEXT, concurrency_max=1)])

    assert dialogue.hears(Woken()) == [Claim(2)]


def test_without_any_provider_nothing_is_claimed_until_one_is_configured() -> None:
    dialogue = ready([])

    assert dialogue.hears(Woken()) == []
    assert dialogue.core.is_idle
    assert Claim(8) in dialogue.hears(ProvidersLoaded([MAIL]))


# --- closed channels ------------------------------------------------------------------------------------------------------


def with_open_breaker(dialogue: Dialogue, channel: Channel = EMAIL) -> list[Command]:
    """Three soft failures; returns what the last led to."""
    three = [delivery(number, channel) for number in (91, 92, 93)]
    sending(dialogue, *three)
    commands = [command for d in three for command in dialogue.concluded(d, SOFT)]
    dialogue.hears(Settled([d.id for d in three]))
    return commands


def test_an_opening_breaker_is_an_alarm_and_calls_back_what_has_not_started() -> None:
    commands = with_open_breaker(ready())

    assert commands[-3:-1] == [Alarm("breaker_opened", EMAIL, "m"), Withdraw("m")]
    assert [v.status for v in recorded(commands)] == [Status.QUEUED] * 3


def test_nothing_is_claimed_while_the_only_channel_is_closed_and_it_is_looked_at_when_it_may_open() -> None:
    dialogue = ready()
    with_open_breaker(dialogue)
    ((wake,), claiming) = dialogue.hears(Woken()), dialogue.core.statistics().claiming

    assert isinstance(wake, WakeIn)
    assert wake.delay_s == pytest.approx(7.5)
    assert not claiming
    dialogue.now_s += 7.5
    assert dialogue.hears(Woken()) == [Claim(BREAKER.probes)]


def test_ids_of_a_closed_channel_are_parked_by_the_gate_while_another_channel_works() -> None:
    dialogue = ready([MAIL, TEXT])
    with_open_breaker(dialogue, SMS)
    dialogue.hears(Woken())
    commands = dialogue.hears(Claimed([nid(1), nid(2)], 0, None))
    assert Gate([nid(1), nid(2)], NO_OTHERS | {SMS}, BY_MAIL) in commands
    commands = dialogue.hears(Gated([delivery(1)], parked=[(SMS, nid(2))]))

    assert commands[:2] == [Send("m", [delivery(1)]), Settle([(SMS, nid(2))], (), ())]


def test_parked_ids_come_back_when_their_channel_opens_although_nobody_hints() -> None:
    dialogue = ready([MAIL, TEXT])
    with_open_breaker(dialogue, SMS)
    dialogue.hears(Woken())
    dialogue.hears(Claimed([nid(2)], 0, None))
    dialogue.hears(Gated([], parked=[(SMS, nid(2))]))
    (wake,) = dialogue.hears(Settled([nid(2)]))

    assert isinstance(wake, WakeIn)
    dialogue.now_s += wake.delay_s
    commands = dialogue.hears(Woken())
    assert Unpark(SMS, BREAKER.probes) in commands
    dialogue.hears(Claimed([], 0, None))
    assert dialogue.hears(Unparked(SMS, 1, 0)) == [Claim(BREAKER.probes)]


def test_parked_ids_come_back_when_a_call_that_ends_opens_their_channel() -> None:
    """The probe's success is the only event: no timer, no wake-up."""
    dialogue = ready([MAIL, TEXT])
    with_open_breaker(dialogue, SMS)
    dialogue.now_s += 7.5
    probes = [delivery(n, SMS) for n in range(BREAKER.probes)]
    sending(dialogue, *probes)
    dialogue.hears(Woken())
    dialogue.hears(Claimed([nid(50)], 0, None))
    dialogue.hears(Gated([], parked=[(SMS, nid(50))]))
    dialogue.hears(Settled([nid(50)]))
    ended = [dialogue.concluded(probe, OK) for probe in probes]

    assert any(isinstance(command, Unpark) for command in ended[-1])
    assert Alarm("breaker_closed", SMS, "t") in ended[-1]


def test_parked_ids_are_called_back_in_portions_each_claimed_before_the_next() -> None:
    dialogue = Dialogue(in_flight_max=4)
    dialogue.hears(Woken())
    dialogue.hears(ProvidersLoaded([MAIL]))
    dialogue.hears(Claimed([], 0, None))

    assert dialogue.hears(Unparked(EMAIL, 4, 6)) == [Claim(4)]
    assert dialogue.hears(Claimed([nid(n) for n in range(4)], 0, None)) == [
        Gate([nid(n) for n in range(4)], ONLY_MAIL, BY_MAIL),
        Unpark(EMAIL, 4),
    ]


def test_what_is_parked_while_an_unpark_is_asked_is_not_forgotten_when_its_older_answer_comes_later() -> None:
    dialogue = Dialogue()
    dialogue.hears(Woken())
    dialogue.hears(ProvidersLoaded([MAIL]))  # asks for parked ids
    dialogue.hears(Claimed([nid(1)], 0, None))
    dialogue.hears(Gated([], parked=[(EMAIL, nid(1))]))
    dialogue.hears(Settled([nid(1)]))

    assert Unpark(EMAIL, 8) in dialogue.hears(Unparked(EMAIL, 0, 0))
    assert Unpark(EMAIL, 8) not in dialogue.hears(Unparked(EMAIL, 0, 0))


def test_an_unpark_that_could_not_be_asked_is_asked_again() -> None:
    dialogue = Dialogue()
    dialogue.hears(Woken())
    dialogue.hears(ProvidersLoaded([MAIL]))

    assert dialogue.hears(Unparked(EMAIL, 0, 1)) == [Unpark(EMAIL, 8)]


def test_a_delivery_whose_channel_has_closed_at_the_gate_goes_back_without_an_attempt() -> None:
    dialogue = ready([evolve(MAIL, rate_per_s=1.0, burst=1)])
    dialogue.now_s += 10.0
    commands = sending(dialogue, delivery(1), delivery(2))

    assert [v.refund for v in recorded(commands)] == [True]
    assert Send("m", [delivery(1)]) in commands


def test_a_429_pauses_the_channel_and_costs_no_attempt() -> None:
    dialogue = ready()
    sending(dialogue, delivery(1), delivery(2))
    commands = dialogue.concluded(delivery(1), Outcome(OutcomeClass.RATE_LIMITED, "http_429", retry_after_s=8.0))
    (verdict,) = recorded(commands)

    assert Withdraw("m") in commands
    assert verdict.refund
    assert verdict.retry_in_s is not None
    assert verdict.retry_in_s >= 8.0
    dialogue.concluded(delivery(2), INTERRUPTED)
    dialogue.hears(Settled([nid(1), nid(2)]))
    assert not any(isinstance(command, Claim) for command in dialogue.hears(Woken()))
    dialogue.now_s += 8.0
    assert dialogue.hears(Woken()) == [Claim(1)]  # it asks with one, and goes on at the pace that was learned


def test_a_refused_credential_is_an_alarm_and_asks_again_with_one_attempt() -> None:
    dialogue = ready()
    sending(dialogue, delivery(1))
    commands = dialogue.concluded(delivery(1), Outcome(OutcomeClass.MISCONFIGURED, "http_401"))
    dialogue.hears(Settled([nid(1)]))

    assert Alarm("misconfigured", EMAIL, "m") in commands
    dialogue.now_s += MISCONFIGURED_PAUSE_S
    assert dialogue.hears(Woken()) == [Claim(1, look=(EMAIL,))]


# --- ends -----------------------------------------------------------------------------------------------------------------


def test_a_delivery_that_expired_on_the_way_is_not_sent() -> None:
    dialogue = ready()
    commands = sending(dialogue, delivery(1, expires_in_s=0.0), delivery(2, expires_in_s=1.0))

    assert [(v.delivery.id, v.dead) for v in recorded(commands)] == [(nid(1), DeadLetterReason.EXPIRED)]
    assert Send("m", [delivery(2, expires_in_s=1.0)]) in commands


@pytest.mark.parametrize(
    ("outcome", "attempt", "dead"),
    [(HARD, 1, DeadLetterReason.HARD), (SOFT, 3, DeadLetterReason.EXHAUSTED), (SOFT, 1, None), (OK, 3, None)],
)
def test_an_end_becomes_its_verdict(outcome: Outcome, attempt: int, dead: DeadLetterReason | None) -> None:
    dialogue = ready()
    sending(dialogue, delivery(1, attempt=attempt))
    (verdict,) = recorded(dialogue.concluded(delivery(1, attempt=attempt), outcome))

    assert (verdict.dead, verdict.via) == (dead, MAIL)


# --- configuration --------------------------------------------------------------------------------------------------------


def test_of_several_configurations_of_a_channel_the_best_priority_is_used() -> None:
    dialogue = ready([evolve(MAIL, concurrency_max=1), evolve(MAIL, config_id="second", priority=1)])

    assert dialogue.hears(Woken()) == [Claim(2)]


def test_the_same_configuration_again_changes_nothing() -> None:
    dialogue = ready()
    with_open_breaker(dialogue)

    assert not any(isinstance(c, Claim) for c in dialogue.hears(ProvidersLoaded([MAIL])))
    assert dialogue.core.statistics().breakers == {"m": "open"}


def test_whenever_configurations_are_read_it_asks_for_parked_ids() -> None:
    """Another process may have parked some and be gone."""
    dialogue = ready()

    assert dialogue.hears(ProvidersLoaded([MAIL])) == [Unpark(EMAIL, 8), Claim(8)]


def test_a_changed_configuration_starts_afresh_while_calls_under_way_end_on_the_old_one() -> None:
    dialogue = ready()
    with_open_breaker(dialogue)
    changed = evolve(MAIL, revision=2)
    commands = dialogue.hears(ProvidersLoaded([changed]))

    assert Claim(8) in commands
    assert dialogue.core.statistics().breakers == {"m": "closed"}


def test_an_attempt_under_way_survives_the_change_of_its_configuration() -> None:
    dialogue = ready()
    sending(dialogue, delivery(1))
    dialogue.hears(ProvidersLoaded([evolve(MAIL, revision=2)]))
    (verdict,) = recorded(dialogue.concluded(delivery(1), OK, MAIL))

    assert verdict.status is Status.DELIVERED
    assert verdict.via == MAIL


def test_a_removed_configuration_closes_its_channel() -> None:
    dialogue = ready([MAIL, TEXT])
    dialogue.hears(ProvidersLoaded([MAIL]))

    assert dialogue.hears(Claimed([nid(1)], 0, None)) == [Gate([nid(1)], ONLY_MAIL, BY_MAIL)]


def test_a_delivery_gated_while_its_configuration_was_removed_goes_back() -> None:
    dialogue = ready([MAIL, TEXT])
    dialogue.hears(Woken())
    dialogue.hears(Claimed([nid(1)], 0, None))
    dialogue.hears(ProvidersLoaded([MAIL]))
    commands = dialogue.hears(Gated([delivery(1, SMS)]))

    assert [(v.refund, v.via) for v in recorded(commands)] == [(True, None)]


# --- draining -------------------------------------------------------------------------------------------------------------


def test_draining_calls_back_what_has_not_started_and_claims_nothing_more() -> None:
    dialogue = ready([MAIL, TEXT])
    sending(dialogue, delivery(1))

    assert dialogue.hears(DrainBegan()) == [Withdraw("m"), Withdraw("t")]
    assert recorded(dialogue.concluded(delivery(1), INTERRUPTED))[0].refund
    assert dialogue.hears(Settled([nid(1)])) == []
    assert dialogue.hears(Woken()) == []
    assert not dialogue.core.in_flight


def test_what_comes_through_the_gate_while_draining_is_handed_back() -> None:
    dialogue = ready()
    dialogue.hears(Woken())
    dialogue.hears(DrainBegan())

    assert dialogue.hears(Claimed([nid(1)], 5, None)) == [Gate([nid(1)], ONLY_MAIL, BY_MAIL)]
    (record,) = dialogue.hears(Gated([delivery(1)]))
    assert isinstance(record, Record)
    assert (record.verdict.refund, record.verdict.retry_in_s) == (True, 0.0)


def test_after_a_drain_that_ended_it_claims_again_with_all_it_knew() -> None:
    dialogue = ready([MAIL, TEXT])
    sending(dialogue, delivery(1))
    dialogue.hears(DrainBegan())
    dialogue.concluded(delivery(1), OK)
    dialogue.hears(Settled([nid(1)]))

    assert dialogue.hears(Woken()) == []
    assert dialogue.hears(DrainEnded()) == [Claim(6)]
    assert dialogue.hears(Claimed([nid(1)], 0, None)) == [Settle((), (), [nid(1)])]  # it remembers what it delivered


def test_a_drain_that_ended_is_a_reason_to_look_for_work() -> None:
    dialogue = ready()
    dialogue.hears(DrainBegan())

    assert dialogue.hears(DrainEnded()) == [Claim(8)]


def must_claim(dialogue: Dialogue) -> bool:
    return dialogue.core.must_claim(Now(dialogue.now_s, UNIX_S))


def test_only_who_holds_nothing_and_could_begin_something_must_claim() -> None:
    dialogue = ready()
    free = must_claim(dialogue)
    sending(dialogue, delivery(1))
    holding = must_claim(dialogue)
    dialogue.concluded(delivery(1), OK)
    dialogue.hears(Settled([nid(1)]))
    free_again = must_claim(dialogue)
    dialogue.hears(DrainBegan())

    assert (free, holding, free_again, must_claim(dialogue)) == (True, False, True, False)


def test_who_knows_its_providers_must_claim_only_for_an_open_channel() -> None:
    none_yet, none_at_all, limited = Dialogue(), ready(()), ready([evolve(MAIL, rate_per_s=0.1)])
    sending(limited, delivery(1))
    limited.concluded(delivery(1), OK)
    limited.hears(Settled([nid(1)]))

    assert must_claim(none_yet)  # it has to ask for them first
    assert not must_claim(none_at_all)
    assert not must_claim(limited)
    limited.now_s += 11.0
    assert must_claim(limited)


# --- any dialogue ---------------------------------------------------------------------------------------------------------


@given(st.data())
def test_in_any_dialogue_what_is_claimed_is_held_until_settled_and_gated_once(data: st.DataObject) -> None:
    dialogue = Dialogue(in_flight_max=6)
    queue = [nid(number) for number in range(20)]
    asked: list[Command] = dialogue.hears(Woken())
    at_the_gate: set[NotificationId] = set()
    under_way: list[Delivery] = []
    for _ in range(data.draw(st.integers(1, 60))):
        event: Event
        if not asked or data.draw(st.booleans()):
            event = Woken()
            an_attempt_ends = data.draw(st.booleans())
            if an_attempt_ends and under_way:
                ended = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
                event = Concluded(ended, data.draw(st.sampled_from([OK, SOFT, HARD, INTERRUPTED])), MAIL, 0.1)
        else:
            command = asked.pop(data.draw(st.integers(0, len(asked) - 1)))
            match command:
                case LoadProviders():
                    event = ProvidersLoaded([MAIL])
                case Claim(n):
                    assert 0 < n <= 6 - len(dialogue.core.in_flight)
                    taken = data.draw(st.lists(st.sampled_from(queue), max_size=n))
                    event = Claimed(taken, data.draw(st.integers(0, 1)), None)
                case Gate(ids):
                    event = Gated([delivery(int(id[1:])) for id in ids])
                case Send(_, deliveries):
                    under_way.extend(deliveries)
                    continue
                case Record(verdict):
                    event = Settled([verdict.delivery.id])
                case Settle(_, _, dropped):
                    event = Settled(dropped)
                case Unpark(channel, _):
                    event = Unparked(channel, 0, 0)
                case _:
                    continue
        dialogue.now_s += data.draw(st.sampled_from([0.0, 0.5, 20.0]))
        if isinstance(event, Settled):
            at_the_gate.difference_update(event.ids)
        commands = dialogue.hears(event)
        for command in commands:
            if isinstance(command, Gate):
                assert not at_the_gate & set(command.ids)
                assert len(set(command.ids)) == len(command.ids)
                at_the_gate.update(command.ids)
        assert sum(isinstance(c, Claim) for c in [*asked, *commands]) <= 1
        assert at_the_gate <= dialogue.core.in_flight
        assert len(dialogue.core.in_flight) <= 6
        asked.extend(commands)
