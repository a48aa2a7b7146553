"""Several configurations of one organization, as dialogues: planned before the gate, and followed behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.audience import audience_of
from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.channel_memory import record_names
from dispatcher.messages import (
    Alarm,
    Claimed,
    Command,
    Event,
    Gate,
    Gated,
    LeaseQuota,
    LoadProviders,
    ProviderPolicy,
    ProvidersLoaded,
    Record,
    Send,
    Unpark,
    Unparked,
    Verdict,
    Withdraw,
    Woken,
)
from dispatcher.messages import Concluded as Ended
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.organization import Now, Organization
from dispatcher.outcome import OnUnknown, Outcome, OutcomeClass
from dispatcher.recent import RecentIds

EMAIL, PUSH = Channel.EMAIL, Channel.PUSH
BEST = ProviderPolicy("best", 1, "mailer", EMAIL, None, 1, 64)
NEXT = evolve(BEST, config_id="next", provider="poster", priority=1)
EQUAL = evolve(BEST, config_id="equal", provider="poster")
APPLE = evolve(BEST, config_id="apple-1", channel=PUSH, audience="apple")
GOOGLE = evolve(BEST, config_id="google-1", channel=PUSH, audience="google")
ANYBODY = evolve(BEST, config_id="anybody-1", channel=PUSH)
APPLE_TOKEN, GOOGLE_TOKEN = "ab" * 32, "a:google-token"
BREAKER = BreakerPolicy(calls_min=2, failures_in_a_row=3, open_base_s=10.0, probes=2, ramp_calls_max=2)
UNIX_S = 1_700_000_000.0
OK, SOFT = Outcome(OutcomeClass.DELIVERED, "accepted"), Outcome(OutcomeClass.SOFT, "http_503")


def nid(number: int) -> NotificationId:
    return NotificationId(f"n{number:03}")


def delivery(number: int, config_id: str, *, doubt_s: float | None = None, recipient: str = "", **more: Any) -> Delivery:
    channel = PUSH if recipient else EMAIL
    to = recipient or "person"
    plain = Delivery(nid(number), OrganizationId("acme"), channel, to, {}, 1, 8, UNIX_S, config_id=config_id)
    doubted: dict[str, Any] = (
        {} if doubt_s is None else {"unknowns": 1, "unknown_for_s": doubt_s, "unknown_last_s": doubt_s, "attempt": 2}
    )
    return evolve(plain, **doubted, **more)


class Dialogue:
    """One organization that knows its configurations, has found its queue empty, and has nothing parked."""

    def __init__(self, *policies: ProviderPolicy, in_flight_max: int = 64) -> None:
        self.core = Organization(in_flight_max, RetryPolicy(), BREAKER, RecentIds(300.0, 1000), lambda: 0.5)
        self.now_s = 1000.0
        self.policies = {policy.config_id: policy for policy in policies}
        self.hears(Woken())
        self.hears(ProvidersLoaded(policies))
        for lane in list(self.core.routes.lanes):
            self.hears(Unparked(lane, 0, 0))
        self.hears(Claimed([], 0, None))

    def hears(self, event: Event) -> list[Command]:
        return self.core.handle(event, Now(self.now_s, UNIX_S + self.now_s - 1000.0))

    def gates(self, n: int, first: int = 0) -> list[Gate]:
        self.hears(Woken())
        commands = self.hears(Claimed([nid(first + number) for number in range(n)], 0, None))
        return [command for command in commands if isinstance(command, Gate)]

    def gated(self, *deliveries: Delivery) -> list[Command]:
        return self.hears(Gated(deliveries))

    def ends(self, what: Delivery, outcome: Outcome) -> list[Command]:
        assert what.config_id is not None
        return self.hears(Ended(what, outcome, self.policies[what.config_id], 0.1))

    def breaks_down(self, config_id: str) -> list[Command]:
        """Three attempts through it fail."""
        three = [delivery(900 + number, config_id) for number in range(3)]
        self.hears(Woken())
        self.hears(Claimed([each.id for each in three], 0, None))
        self.gated(*three)
        return [command for each in three for command in self.ends(each, SOFT)]


def verdicts(commands: Sequence[Command]) -> list[Verdict]:
    return [command.verdict for command in commands if isinstance(command, Record)]


# --- before the gate ------------------------------------------------------------------------------------------------------


def test_the_gate_is_told_through_whom() -> None:
    (gate,) = Dialogue(BEST, NEXT).gates(3)

    assert gate.through == {EMAIL: "best"}
    assert EMAIL not in gate.closed


def test_equals_get_a_part_of_each_claim() -> None:
    gates = Dialogue(BEST, EQUAL).gates(10)

    assert {gate.through[EMAIL]: len(gate.ids) for gate in gates} == {"best": 5, "equal": 5}
    assert sorted(id for gate in gates for id in gate.ids) == [nid(number) for number in range(10)]


@given(st.integers(1, 40), st.integers(1, 1000), st.integers(1, 1000), st.booleans())
def test_every_id_goes_to_the_gate_once_and_every_open_lane_has_a_way(n: int, one: int, other: int, split: bool) -> None:
    policies = [evolve(BEST, weight=one), evolve(EQUAL, weight=other), APPLE, evolve(APPLE, config_id="apple-2", weight=other)]
    dialogue = Dialogue(*policies, *([GOOGLE] if split else []), in_flight_max=256)
    gates = dialogue.gates(n)

    assert sorted(id for gate in gates for id in gate.ids) == [nid(number) for number in range(n)]
    for gate in gates:
        assert set(gate.through) == set(dialogue.core.routes.gated) - gate.closed


def test_once_the_better_one_is_down_it_is_told_and_everything_goes_to_the_next() -> None:
    dialogue = Dialogue(BEST, NEXT)
    commands = dialogue.breaks_down("best")

    assert Alarm("breaker_opened", EMAIL, "best") in commands
    assert Alarm("failed_over", EMAIL, "best", "next") in commands
    assert Withdraw("best") in commands
    (gate,) = dialogue.gates(5)
    assert gate.through == {EMAIL: "next"}


def test_traffic_comes_back_step_by_step_and_that_is_told() -> None:
    dialogue = Dialogue(BEST, NEXT)
    dialogue.breaks_down("best")
    dialogue.now_s += 20.0
    shares, told = [], []
    for turn in range(8):
        share: Counter[str] = Counter()
        for gate in dialogue.gates(10, first=turn * 10):
            share[gate.through[EMAIL]] += len(gate.ids)
            sent = [delivery(int(id[1:]), gate.through[EMAIL]) for id in gate.ids]
            dialogue.gated(*sent)
            told += [command for each in sent for command in dialogue.ends(each, OK) if isinstance(command, Alarm)]
        shares.append(share["best"])

    assert shares == [2, 1, 2, 10, 10, 10, 10, 10]
    assert [alarm.code for alarm in told] == ["breaker_closed", "failed_back"]


# --- behind the gate ------------------------------------------------------------------------------------------------------


def test_what_the_gate_says_counts_and_not_what_was_planned() -> None:
    dialogue = Dialogue(BEST, NEXT)
    dialogue.gates(1)
    one = delivery(0, "next")

    assert Send("next", [one]) in dialogue.gated(one)


def test_what_may_have_been_sent_waits_for_its_own_configuration_while_others_could_send_it() -> None:
    dialogue = Dialogue(BEST, NEXT)
    dialogue.breaks_down("best")
    one = delivery(0, "best", doubt_s=5.0)
    dialogue.gates(1)
    commands = dialogue.gated(one)
    (verdict,) = verdicts(commands)

    assert not any(isinstance(command, Send) for command in commands)
    assert (verdict.status, verdict.refund, verdict.outcome.code) == (Status.QUEUED, True, "provider_awaited")
    assert verdict.retry_in_s is not None
    assert verdict.retry_in_s >= 5.0  # until its breaker lets probes through: no loop


def test_what_may_have_been_sent_is_never_asked_about_more_than_every_other_second() -> None:
    dialogue = Dialogue(BEST, evolve(NEXT, concurrency_max=1), EQUAL)
    busy = [delivery(number, "next") for number in range(2)]
    dialogue.gates(2)
    dialogue.gated(*busy)
    dialogue.gates(1, first=10)
    (verdict,) = verdicts(dialogue.gated(delivery(10, "next", doubt_s=5.0)))

    assert verdict.retry_in_s is not None
    assert verdict.retry_in_s >= 2.0


def test_it_goes_on_through_its_own_configuration_when_that_is_back() -> None:
    dialogue = Dialogue(BEST, NEXT)
    dialogue.breaks_down("best")
    dialogue.now_s += 20.0
    one = delivery(0, "best", doubt_s=25.0)
    dialogue.gates(1)

    assert any(isinstance(command, Send) and command.config_id == "best" for command in dialogue.gated(one))


def test_a_standby_that_only_doubts_lead_to_has_its_quota_leased() -> None:
    dialogue = Dialogue(BEST, evolve(NEXT, quota=100))
    dialogue.gates(1)
    commands = dialogue.gated(delivery(0, "next", doubt_s=5.0))

    assert [command.policy.config_id for command in commands if isinstance(command, LeaseQuota)] == ["next"]


def test_what_waits_for_its_configuration_ends_at_its_time() -> None:
    dialogue = Dialogue(BEST, NEXT)
    dialogue.breaks_down("best")
    dialogue.gates(1)
    (verdict,) = verdicts(dialogue.gated(delivery(0, "best", doubt_s=5.0, expires_at_s=UNIX_S + 1.0)))

    assert verdict.dead is DeadLetterReason.EXPIRED


def test_the_policy_of_its_own_configuration_judges_it() -> None:
    dialogue = Dialogue(BEST, evolve(NEXT, on_unknown=OnUnknown.HOLD))
    dialogue.gates(1)
    (verdict,) = verdicts(dialogue.gated(delivery(0, "next", doubt_s=5.0)))

    assert (verdict.dead, verdict.outcome.code) == (DeadLetterReason.UNKNOWN, "unknown_held")


def test_what_may_have_been_sent_is_held_for_a_person_once_its_configuration_is_known_to_be_gone() -> None:
    dialogue = Dialogue(BEST, NEXT)
    lost = delivery(0, "removed", doubt_s=5.0)
    dialogue.gates(1)
    first = dialogue.gated(lost)
    dialogue.hears(ProvidersLoaded([BEST, NEXT]))
    dialogue.gates(1, first=1)
    (held,) = verdicts(dialogue.gated(evolve(lost, id=nid(1))))

    assert LoadProviders() in first  # it may be newer than what is known
    assert verdicts(first)[0].status is Status.QUEUED
    assert (held.dead, held.outcome.code, held.refund) == (DeadLetterReason.UNKNOWN, "provider_gone", True)


def test_a_configuration_that_is_found_after_all_is_used() -> None:
    dialogue = Dialogue(BEST)
    found = delivery(0, "next", doubt_s=5.0)
    dialogue.gates(1)
    dialogue.gated(found)
    dialogue.hears(ProvidersLoaded([BEST, NEXT]))
    dialogue.gates(1, first=1)

    assert Send("next", [evolve(found, id=nid(1))]) in dialogue.gated(evolve(found, id=nid(1)))


def test_the_gate_learns_whose_doubts_may_be_sent_by_others() -> None:
    (gate,) = Dialogue(evolve(BEST, failover_on_unknown=True), NEXT).gates(1)

    assert gate.unbound == {"best"}


# --- audiences ------------------------------------------------------------------------------------------------------------


def test_each_audience_is_a_lane_of_its_own_and_one_without_configuration_is_closed() -> None:
    (gate,) = Dialogue(APPLE, GOOGLE).gates(2)

    assert gate.through == {"push:apple": "apple-1", "push:google": "google-1"}
    assert gate.closed == {EMAIL, Channel.SMS, Channel.WHATSAPP, "push:web"}


def test_who_serves_everybody_takes_what_nobody_serves_especially() -> None:
    (gate,) = Dialogue(APPLE, evolve(ANYBODY, priority=1)).gates(2)

    assert gate.through == {"push:apple": "apple-1", "push:google": "anybody-1", "push:web": "anybody-1"}


def test_an_audience_that_has_to_wait_holds_up_no_other_and_is_not_called_back_in_vain() -> None:
    dialogue = Dialogue(APPLE, GOOGLE)
    dialogue.breaks_down("apple-1")
    (gate,) = dialogue.gates(2)
    assert "push:apple" in gate.closed
    commands = dialogue.hears(Gated([delivery(1, "google-1", recipient=GOOGLE_TOKEN)], parked=[("push:apple", nid(0))]))

    assert any(isinstance(command, Send) and command.config_id == "google-1" for command in commands)
    assert not any(isinstance(command, Unpark) and command.lane == "push:apple" for command in commands)


def test_what_was_parked_for_a_channel_is_called_back_although_its_audiences_are_told_apart_now() -> None:
    dialogue = Dialogue(ANYBODY)
    commands = dialogue.hears(ProvidersLoaded([evolve(APPLE), evolve(GOOGLE)]))
    dialogue.hears(ProvidersLoaded([ANYBODY]))

    assert {command.lane for command in commands if isinstance(command, Unpark)} == {"push", "push:apple", "push:google"}
    assert all(lane in dialogue.core.routes.lanes for lane in ("push", "push:apple", "push:google", "push:web"))
    assert dialogue.core.routes.gated[-2:] == (PUSH, Channel.WHATSAPP)


def test_a_fork_is_found_by_the_form_of_the_token() -> None:
    dialogue = Dialogue(APPLE, evolve(APPLE, config_id="apple-2"), GOOGLE)
    routes = dialogue.core.routes

    assert audience_of(PUSH, APPLE_TOKEN) == "apple"
    assert routes.fork_of(delivery(0, "apple-1", recipient=APPLE_TOKEN)) is routes.lanes["push:apple"]
    assert routes.fork_of(delivery(0, "google-1", recipient=GOOGLE_TOKEN)) is None


# --- names ----------------------------------------------------------------------------------------------------------------


def test_the_first_of_a_channel_keeps_its_limits_under_the_name_that_the_only_one_always_had() -> None:
    names = record_names([(EMAIL, "a"), (PUSH, "b"), (EMAIL, "c")])

    assert names == {"a": "email", "b": "push", "c": "email:c"}
