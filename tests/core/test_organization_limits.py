"""How an organization works with the limits of its channels: quota, narrow channels, parked ids, probes, hints. As dialogues."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from attrs import evolve

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.channel_memory import Remembered
from dispatcher.channel_state import RATE_LIMITED_PAUSE_S, TURN_MIN_S
from dispatcher.claim_mix import mix
from dispatcher.http_message import HttpResponse
from dispatcher.messages import (
    Alarm,
    Claim,
    Claimed,
    Command,
    Concluded,
    DrainBegan,
    Event,
    Gate,
    Gated,
    Keep,
    LeaseQuota,
    ProviderPolicy,
    ProvidersLoaded,
    QuotaLeased,
    Record,
    ReturnQuota,
    Send,
    Settled,
    Unpark,
    Unparked,
    WakeIn,
    Withdraw,
    Woken,
)
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId
from dispatcher.organization import INTERRUPTED, PARKED_LOOK_S, Now, Organization
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.hints import hint_s
from dispatcher.quota import QuotaAnswer
from dispatcher.recent import RecentIds

EMAIL, SMS = Channel.EMAIL, Channel.SMS
MAIL = ProviderPolicy("m", 1, "mailer", EMAIL, None, 1, 32)
TEXT = ProviderPolicy("t", 1, "texter", SMS, None, 1, 32)
METERED = evolve(MAIL, quota=100, quota_window_s=3600.0)
SLOW_RATE = evolve(MAIL, rate_per_s=1.0, burst=1)
RETRY = RetryPolicy(base_s=2.0, cap_s=100.0, hint_cap_s=3600.0)
BREAKER = BreakerPolicy(calls_min=3, open_base_s=10.0, probes=3, probe_deadline_s=4.0)
UNIX_S = 1_700_000_000.0
OK = Outcome(OutcomeClass.DELIVERED, "accepted")
SOFT = Outcome(OutcomeClass.SOFT, "http_503")
WINDOW = 9_000


def nid(number: int) -> NotificationId:
    return NotificationId(f"n{number:03}")


def delivery(number: int, channel: Channel = EMAIL) -> Delivery:
    return Delivery(nid(number), OrganizationId("acme"), channel, "person", {}, 1, 3, UNIX_S - 1, None)


class Dialogue:
    """One organization, its monotonic clock, and a wall clock that may be off."""

    def __init__(self, *policies: ProviderPolicy, in_flight_max: int = 64) -> None:
        self.core = Organization(in_flight_max, RETRY, BREAKER, RecentIds(300.0, 100), lambda: 0.5)
        self.now_s = 1000.0
        self.wall_off_s = 0.0
        self.hears(Woken())
        self.first = self.hears(ProvidersLoaded(policies))
        for policy in policies:
            self.hears(Unparked(policy.channel, 0, 0))
        self.hears(Claimed([], 0, None))
        if self.core.statistics().claiming:
            self.hears(Claimed([], 0, None))

    def hears(self, event: Event) -> list[Command]:
        return self.core.handle(event, Now(self.now_s, UNIX_S + self.now_s + self.wall_off_s))

    def concluded(self, what: Delivery, outcome: Outcome) -> list[Command]:
        return self.hears(Concluded(what, outcome, self.core.routes.lanes[what.channel].routes[0].state.policy, 0.1))

    def granted(self, n: int, used: int, ends_in_s: float = 3600.0, policy: ProviderPolicy = METERED) -> list[Command]:
        return self.hears(QuotaLeased(policy, QuotaAnswer(n, used, WINDOW, ends_in_s)))

    def sends(self, *deliveries: Delivery) -> list[Command]:
        self.hears(Woken())
        self.hears(Claimed([d.id for d in deliveries], 0, None))
        return self.hears(Gated(deliveries))


def claims(commands: list[Command]) -> list[Claim]:
    return [command for command in commands if isinstance(command, Claim)]


# --- quota --------------------------------------------------------------------------------------------------------------


def test_with_a_quota_nothing_is_claimed_before_units_are_leased_and_then_no_more_than_those() -> None:
    dialogue = Dialogue(METERED)
    (lease,) = [command for command in dialogue.first if isinstance(command, LeaseQuota)]

    assert (lease.policy, lease.ask.n) == (METERED, 2)
    assert not claims(dialogue.first)
    assert not dialogue.core.is_idle  # an answer is under way
    assert claims(dialogue.granted(2, 2)) == [Claim(2)]


def test_units_are_leased_ahead_of_need_and_one_lease_at_a_time() -> None:
    dialogue = Dialogue(METERED)
    dialogue.granted(2, 2)
    dialogue.hears(Claimed([nid(1)], 5, None))
    dialogue.hears(Gated([delivery(1)]))
    commands = dialogue.hears(Claimed([nid(2)], 5, None))
    asked = [command for command in commands if isinstance(command, LeaseQuota)]

    assert [(lease.ask.n, lease.ask.window, lease.ask.used) for lease in asked] == [(2, WINDOW, 2)]
    assert not any(isinstance(command, LeaseQuota) for command in dialogue.hears(Woken()))


def test_a_used_up_quota_closes_the_channel_until_its_window_ends_with_one_alarm() -> None:
    dialogue = Dialogue(METERED, TEXT)
    commands = dialogue.granted(0, 100, ends_in_s=600.0)
    commands += dialogue.hears(Woken())
    gate = dialogue.hears(Claimed([nid(1)], 0, None))

    assert commands.count(Alarm("quota_used_up", EMAIL, METERED.config_id)) == 1
    assert commands.count(Keep(MAIL.config_id)) == 1
    assert any(isinstance(c, WakeIn) and c.delay_s == pytest.approx(600.0) for c in commands)
    (gated,) = [command for command in gate if isinstance(command, Gate)]
    assert EMAIL in gated.closed
    assert SMS not in gated.closed
    dialogue.now_s += 600.0
    assert any(isinstance(command, LeaseQuota) for command in dialogue.hears(Woken()))


def test_an_unanswered_lease_is_asked_for_again() -> None:
    dialogue = Dialogue(METERED)

    assert any(isinstance(command, LeaseQuota) for command in dialogue.hears(QuotaLeased(METERED, None)))


def test_a_changed_configuration_gives_back_what_was_not_spent() -> None:
    dialogue = Dialogue(METERED)
    dialogue.granted(2, 2)
    commands = dialogue.hears(ProvidersLoaded([evolve(METERED, revision=2)]))
    returned = [command for command in commands if isinstance(command, ReturnQuota)]

    assert [(back.config_id, back.ask.n, back.ask.window) for back in returned] == [(METERED.config_id, -2, WINDOW)]


def test_units_that_arrive_for_a_configuration_that_is_gone_are_given_back() -> None:
    dialogue = Dialogue(METERED)
    dialogue.hears(ProvidersLoaded([MAIL]))
    commands = dialogue.granted(2, 2)

    assert [command.ask.n for command in commands if isinstance(command, ReturnQuota)] == [-2]


def test_on_leaving_all_that_is_unspent_is_given_back_and_leased_anew_if_it_stays() -> None:
    dialogue = Dialogue(METERED)
    dialogue.granted(2, 2)
    dialogue.hears(Claimed([], 0, None))

    assert [back.ask.n for back in dialogue.core.give_back(dialogue.now_s)] == [-2]
    assert dialogue.core.give_back(dialogue.now_s) == []
    assert any(isinstance(command, LeaseQuota) for command in dialogue.hears(Woken()))


def test_a_withdrawn_attempt_costs_no_unit() -> None:
    dialogue = Dialogue(METERED)
    dialogue.granted(2, 2)
    dialogue.hears(Claimed([nid(1), nid(2)], 0, None))
    dialogue.hears(Gated([delivery(1), delivery(2)]))
    dialogue.granted(0, 100)
    dialogue.concluded(delivery(1), INTERRUPTED)

    assert [back.ask.n for back in dialogue.core.give_back(dialogue.now_s)] == [-1]


# --- a narrow channel beside a wide one -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rooms", "n_max", "called_back", "channels"),
    [
        ({}, 64, (), set()),
        ({EMAIL: 1}, 64, (), {EMAIL}),
        ({EMAIL: 1, SMS: 48}, 64, (), {SMS}),
        ({EMAIL: 1, SMS: 48}, 64, (EMAIL,), {EMAIL, SMS}),
        ({EMAIL: 1, SMS: 48}, 64, (SMS,), {SMS}),
        ({EMAIL: 12, SMS: 48}, 64, (), {EMAIL, SMS}),
        ({EMAIL: 1, SMS: 48}, 4, (), {EMAIL, SMS}),
        ({EMAIL: 1, SMS: 2}, 64, (), {EMAIL, SMS}),
    ],
)
def test_a_channel_with_next_to_no_room_is_left_out_of_a_large_claim(
    rooms: dict[str, int], n_max: int, called_back: tuple[Channel, ...], channels: set[Channel]
) -> None:
    assert set(mix(rooms, n_max, called_back)) == channels


def test_ids_of_a_channel_that_was_left_out_are_parked_although_it_is_open() -> None:
    dialogue = Dialogue(SLOW_RATE, TEXT)
    commands = dialogue.hears(Woken())
    gate = dialogue.hears(Claimed([nid(1), nid(2)], 5, None))

    assert claims(commands) == [Claim(48)]
    assert [EMAIL in command.closed for command in gate if isinstance(command, Gate)] == [True]


def test_parked_ids_of_a_narrow_channel_come_by_as_many_as_there_is_room_for_and_their_claim_lets_them_through() -> None:
    dialogue = Dialogue(SLOW_RATE, TEXT)
    dialogue.hears(Woken())
    dialogue.hears(Claimed([nid(1), nid(2)], 0, None))
    dialogue.hears(Gated([delivery(2, SMS)], parked=[(EMAIL, nid(1))]))
    commands = dialogue.hears(Settled([nid(1)]))
    assert Unpark(EMAIL, 1) in commands
    commands = dialogue.hears(Unparked(EMAIL, 1, 0))
    assert claims(commands) == [Claim(1)]
    gate = dialogue.hears(Claimed([nid(1)], 0, None))

    assert [EMAIL in command.closed for command in gate if isinstance(command, Gate)] == [False]


def test_parked_ids_wait_while_a_claim_that_has_no_room_for_them_is_under_way() -> None:
    """It would take them and park them again."""
    dialogue = Dialogue(SLOW_RATE, TEXT)
    dialogue.hears(Woken())
    during = dialogue.hears(ProvidersLoaded([SLOW_RATE, TEXT]))
    after = dialogue.hears(Claimed([], 0, None))

    assert not any(isinstance(command, Unpark) and command.lane == EMAIL for command in during)
    assert Unpark(EMAIL, 1) in after


def test_one_channel_never_holds_all_that_may_be_held_while_there_is_another() -> None:
    """Sixteen of 64 stay free for channels whose calls are not slow (scenario 26)."""
    dialogue = Dialogue(MAIL, TEXT)
    for turn in range(8):
        ids = range(10 * turn, 10 * turn + 8)
        dialogue.hears(Woken())
        dialogue.hears(Claimed([nid(n) for n in ids], 1, None))
        gated = dialogue.core.routes.lanes[EMAIL].routes[0].state.under_way < 48
        dialogue.hears(Gated([delivery(n) for n in ids]) if gated else Gated([], parked=[(EMAIL, nid(n)) for n in ids]))
        if not gated:
            dialogue.hears(Settled([nid(n) for n in ids]))

    assert dialogue.core.routes.lanes[EMAIL].routes[0].state.under_way == 48
    commands = dialogue.hears(Claimed([nid(901)], 0, None))
    assert [set(command.closed) & {EMAIL, SMS} for command in commands if isinstance(command, Gate)] == [{EMAIL}]


# --- parked by somebody else ------------------------------------------------------------------------------------------------


def test_a_busy_organization_looks_for_ids_that_another_process_parked_now_and_then() -> None:
    dialogue = Dialogue(MAIL, TEXT)
    looks = []
    for _ in range(30):
        dialogue.now_s += 1.0
        (claim,) = claims(dialogue.hears(Woken()))
        looks.append(claim.look)
        dialogue.hears(Claimed([], 0, None))

    assert looks.count((EMAIL, SMS)) == int(30 / PARKED_LOOK_S)
    assert set(looks) == {(), (EMAIL, SMS)}


def test_found_parked_ids_are_called_back_at_once() -> None:
    dialogue = Dialogue(MAIL, TEXT)
    dialogue.hears(Woken())
    commands = dialogue.hears(Claimed([], 0, None, parked=(SMS,)))

    assert [command.lane for command in commands if isinstance(command, Unpark)] == [SMS]


# --- probes -------------------------------------------------------------------------------------------------------------


def half_open() -> Dialogue:
    """Its breaker has opened, and its time has passed."""
    dialogue = Dialogue(MAIL)
    three = [delivery(number) for number in (91, 92, 93)]
    dialogue.sends(*three)
    for one in three:
        dialogue.concluded(one, SOFT)
    dialogue.hears(Settled([one.id for one in three]))
    dialogue.now_s += 10.0
    return dialogue


def test_probes_have_a_shorter_deadline_than_other_calls() -> None:
    dialogue = half_open()
    commands = dialogue.sends(delivery(1))
    (probe,) = [command for command in commands if isinstance(command, Send)]
    (usual,) = [command for command in Dialogue(MAIL).sends(delivery(1)) if isinstance(command, Send)]

    assert (probe.deadline_s, usual.deadline_s) == (BREAKER.probe_deadline_s, None)


def test_a_probe_called_back_by_a_shutdown_gives_its_permit_back() -> None:
    """The breaker is not wedged: whoever stays, or comes next, has all its probes again (scenario 28)."""
    dialogue = half_open()
    probes = [delivery(number) for number in range(BREAKER.probes)]
    dialogue.sends(*probes)
    state = dialogue.core.routes.lanes[EMAIL].routes[0].state
    while_probing = state.room(dialogue.now_s)
    drain = dialogue.hears(DrainBegan())
    records = [command for probe in probes for command in dialogue.concluded(probe, INTERRUPTED) if isinstance(command, Record)]

    assert while_probing == 0
    assert Withdraw(MAIL.config_id) in drain
    assert all(record.verdict.refund for record in records)
    assert (state.breaker_state, state.room(dialogue.now_s)) == ("half_open", BREAKER.probes)
    assert state.saved(dialogue.now_s).breaker.reopens_in_s == 0.0


def test_a_remembered_open_breaker_lets_nothing_through_before_its_time_and_then_only_probes() -> None:
    saved = half_open().core.routes.lanes[EMAIL].routes[0].state.saved(1000.0)
    core = Organization(64, RETRY, BREAKER, RecentIds(300.0, 100), lambda: 0.5)
    core.handle(Woken(), Now(0.0, UNIX_S))
    commands = core.handle(ProvidersLoaded([MAIL], {MAIL.config_id: Remembered(2.0, False, saved)}), Now(0.0, UNIX_S))
    (wake,) = [command for command in commands if isinstance(command, WakeIn)]
    later = core.handle(Woken(), Now(wake.delay_s, UNIX_S))

    assert not claims(commands)
    assert 0.0 < wake.delay_s <= BREAKER.open_base_s - 2.0
    assert [command.n for command in later if isinstance(command, Unpark)] == [BREAKER.probes]


# --- what is worth keeping ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "kept"),
    [
        (OK, False),
        (SOFT, False),
        (Outcome(OutcomeClass.HARD, "http_400"), False),
        (Outcome(OutcomeClass.RATE_LIMITED, "http_429"), True),
        (Outcome(OutcomeClass.MISCONFIGURED, "http_401"), True),
    ],
)
def test_only_what_another_life_should_know_is_worth_a_writing(outcome: Outcome, kept: bool) -> None:
    dialogue = Dialogue(MAIL)
    dialogue.sends(delivery(1))

    assert (Keep(MAIL.config_id) in dialogue.concluded(delivery(1), outcome)) == kept


def test_an_opening_breaker_is_worth_a_writing() -> None:
    dialogue = Dialogue(MAIL)
    three = [delivery(number) for number in range(3)]
    dialogue.sends(*three)

    assert [Keep(MAIL.config_id) in dialogue.concluded(one, SOFT) for one in three] == [False, False, True]


# --- hints and clocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "pause_s"),
    [
        (b"3600", 3600.0),
        (b"999999999", RETRY.hint_cap_s),
        (b"20", 20.0),
        (b"0", RATE_LIMITED_PAUSE_S),
        (b"0.2", RATE_LIMITED_PAUSE_S),
        (b"-5", RATE_LIMITED_PAUSE_S),
        (b"soon", RATE_LIMITED_PAUSE_S),
        (b"\xff\xfe", RATE_LIMITED_PAUSE_S),
        (formatdate(UNIX_S + 90, usegmt=True).encode(), 90.0),
        (formatdate(UNIX_S + 10**7, usegmt=True).encode(), RETRY.hint_cap_s),
        (formatdate(UNIX_S - 90, usegmt=True).encode(), RATE_LIMITED_PAUSE_S),
        (formatdate(UNIX_S - 10**9, usegmt=True).encode(), RATE_LIMITED_PAUSE_S),
    ],
)
def test_a_429_is_respected_up_to_the_cap_and_no_hint_makes_the_pause_or_the_retry_shorter(header: bytes, pause_s: float) -> None:
    """Seconds, an HTTP date, one in the past, or nonsense (scenario 27)."""
    dialogue = Dialogue(MAIL)
    dialogue.sends(delivery(1))
    retry_after_s = hint_s(HttpResponse(429, ((b"retry-after", header),), b""), UNIX_S)
    commands = dialogue.concluded(delivery(1), Outcome(OutcomeClass.RATE_LIMITED, "http_429", None, retry_after_s))
    (verdict,) = [command.verdict for command in commands if isinstance(command, Record)]
    (unhinted,) = [command.verdict for command in _refused_without_a_hint() if isinstance(command, Record)]
    dialogue.hears(Settled([nid(1)]))
    state = dialogue.core.routes.lanes[EMAIL].routes[0].state

    assert state.room(dialogue.now_s + pause_s - 0.001) == 0
    assert state.room(dialogue.now_s + pause_s) > 0
    assert verdict.refund
    assert verdict.retry_in_s is not None
    assert unhinted.retry_in_s is not None
    assert verdict.retry_in_s >= unhinted.retry_in_s
    assert verdict.retry_in_s <= RETRY.hint_cap_s


def _refused_without_a_hint() -> list[Command]:
    dialogue = Dialogue(MAIL)
    dialogue.sends(delivery(1))
    return dialogue.concluded(delivery(1), Outcome(OutcomeClass.RATE_LIMITED, "http_429"))


@pytest.mark.parametrize("jump_s", [300.0, -300.0])
def test_a_wall_clock_that_jumps_mints_no_token_and_moves_no_pause(jump_s: float) -> None:
    """Rates, pauses and breakers know durations only (scenario 34)."""
    dialogue = Dialogue(evolve(MAIL, rate_per_s=0.1, burst=5))
    dialogue.sends(delivery(1))
    state = dialogue.core.routes.lanes[EMAIL].routes[0].state
    dialogue.wall_off_s = jump_s
    (wake,) = [command for command in dialogue.hears(Woken()) if isinstance(command, WakeIn)]
    dialogue.concluded(delivery(1), Outcome(OutcomeClass.RATE_LIMITED, "http_429", None, 30.0))
    dialogue.wall_off_s = -jump_s
    dialogue.hears(Settled([nid(1)]))
    (paused,) = [command for command in dialogue.hears(Woken()) if isinstance(command, WakeIn)]

    assert wake.delay_s == pytest.approx(10.0)
    assert paused.delay_s == pytest.approx(40.0)  # the pause, and then a token
    assert state.room(dialogue.now_s + 39.9) == 0
    assert state.saved(dialogue.now_s).paused_s == pytest.approx(30.0)


def test_when_many_breakers_close_at_once_each_returns_by_one_two_four_calls() -> None:
    """A hundred channels whose provider is back: no moment sees more calls begin than the ramps add up to (scenario 29)."""
    dialogues = [half_open() for _ in range(100)]
    permitted = []
    for dialogue in dialogues:
        state = dialogue.core.routes.lanes[EMAIL].routes[0].state
        now_s = dialogue.now_s
        steps = []
        while (room := state.room(now_s)) < 64:
            steps.append(room)
            ids = [f"{len(steps)}-{number}" for number in range(room)]
            assert all(state.begin(id, now_s) for id in ids)
            assert not state.begin("one more", now_s)
            for id in ids:
                state.conclude(id, OK, 0.1, now_s, lambda: 0.0, RETRY)
            now_s += TURN_MIN_S
        permitted.append(steps)

    assert permitted == [[BREAKER.probes, 1, 2, 4, 8, 16, 32]] * 100
