"""What one channel may do now: rate, breaker, pauses and concurrency in one number."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy
from dispatcher.channel_state import MISCONFIGURED_PAUSE_S, PREFETCH, RATE_LIMITED_PAUSE_S, TURN_MIN_S, ChannelState
from dispatcher.config import DispatchConfig
from dispatcher.messages import ProviderPolicy
from dispatcher.model import Channel
from dispatcher.outcome import FOUND_AT_PROVIDER, Outcome, OutcomeClass

POLICY = ProviderPolicy("c", 1, "sendgrid", Channel.EMAIL, None, 1, 4)
LIMITED = evolve(POLICY, rate_per_s=2.0, burst=3)
BREAKER = BreakerPolicy(calls_min=4, open_base_s=10.0, open_cap_s=100.0, probes=2)
RETRY = RetryPolicy(hint_cap_s=60.0)
FULL = 4 * PREFETCH


def started(policy: ProviderPolicy = POLICY, now_s: float = 0.0) -> ChannelState:
    return ChannelState.start(policy, BREAKER, now_s)


def conclude(state: ChannelState, id: str, kind: OutcomeClass, now_s: float, retry_after_s: float | None = None) -> str | None:
    return state.conclude(id, Outcome(kind, "code", retry_after_s=retry_after_s), 0.1, now_s, lambda: 0.0, RETRY)


def begun(state: ChannelState, n: int, now_s: float) -> list[str]:
    ids = [f"{now_s}/{number}" for number in range(n)]
    assert all(state.begin(id, now_s) for id in ids)
    return ids


def test_a_fresh_channel_may_begin_what_keeps_its_calls_busy() -> None:
    state = started()

    assert state.room(0.0) == FULL
    begun(state, FULL, 0.0)
    assert state.room(0.0) == 0
    assert not state.begin("one more", 0.0)
    assert state.opens_in_s(0.0) is None  # an ending attempt will tell
    assert state.under_way == FULL


def test_an_ended_attempt_makes_room_for_another() -> None:
    state = started()
    ids = begun(state, FULL, 0.0)
    conclude(state, ids[0], OutcomeClass.HARD, 1.0)

    assert state.room(1.0) == 1


def test_a_channel_begins_with_one_token_and_never_with_a_burst() -> None:
    state = started(LIMITED)

    assert state.room(0.0) == 1
    assert state.room(100.0) == 3


def test_without_a_token_the_channel_is_closed_until_one_flows_in() -> None:
    state = started(LIMITED)
    begun(state, 1, 0.0)

    assert state.room(0.0) == 0
    assert state.opens_in_s(0.0) == pytest.approx(0.5)
    assert state.room(0.5) == 1


def test_an_interruption_gives_the_token_and_the_permit_back() -> None:
    state = started(LIMITED)
    (id,) = begun(state, 1, 0.0)
    code = conclude(state, id, OutcomeClass.INTERRUPTED, 0.0)

    assert code is None
    assert state.room(0.0) == 1
    assert state.under_way == 0


def test_an_attempt_of_an_earlier_configuration_says_nothing_about_this_one() -> None:
    state = started()

    assert conclude(state, "stranger", OutcomeClass.MISCONFIGURED, 0.0) is None
    assert state.room(0.0) == FULL


def test_failures_open_the_breaker_and_that_is_an_alarm_once() -> None:
    state = started()
    ids = begun(state, 6, 0.0)
    codes = [conclude(state, id, OutcomeClass.SOFT, 1.0) for id in ids]

    assert codes == [None, None, None, "breaker_opened", None, None]
    assert state.breaker_state == "open"
    assert state.room(1.0) == 0
    assert state.opens_in_s(1.0) == pytest.approx(5.0)


def test_after_its_time_an_open_breaker_lets_probes_through_and_closes_when_they_pass() -> None:
    state = started()
    for id in begun(state, 4, 0.0):
        conclude(state, id, OutcomeClass.SOFT, 0.0)
    room = state.room(10.0)
    probes = begun(state, 2, 10.0)
    while_probing = state.room(10.0)
    codes = [conclude(state, id, OutcomeClass.DELIVERED, 11.0) for id in probes]

    assert room == 2
    assert while_probing == 0
    assert codes == [None, "breaker_closed"]


def test_a_failed_probe_opens_it_again_with_an_alarm() -> None:
    state = started()
    for id in begun(state, 4, 0.0):
        conclude(state, id, OutcomeClass.SOFT, 0.0)
    (probe, _) = begun(state, 2, 10.0)

    assert conclude(state, probe, OutcomeClass.UNKNOWN, 11.0) == "breaker_opened"
    assert state.room(11.0) == 0


def test_an_interrupted_probe_leaves_room_for_another() -> None:
    state = started()
    for id in begun(state, 4, 0.0):
        conclude(state, id, OutcomeClass.SOFT, 0.0)
    (probe, _) = begun(state, 2, 10.0)
    conclude(state, probe, OutcomeClass.INTERRUPTED, 10.0)

    assert state.room(10.0) == 1


@pytest.mark.parametrize("kind", [OutcomeClass.HARD, OutcomeClass.SUPPRESS, OutcomeClass.RATE_LIMITED])
def test_what_is_not_the_providers_health_never_opens_the_breaker(kind: OutcomeClass) -> None:
    state = started()
    for second in range(20):
        for id in begun(state, 1, 100.0 * second):
            conclude(state, id, kind, 100.0 * second)

    assert state.breaker_state == "closed"


@pytest.mark.parametrize(
    ("hint_s", "pause_s"),
    [(None, RATE_LIMITED_PAUSE_S), (0.0, RATE_LIMITED_PAUSE_S), (0.1, RATE_LIMITED_PAUSE_S), (7.0, 7.0), (1e9, 60.0)],
)
def test_a_429_pauses_the_channel_for_as_long_as_the_provider_asked_within_reason(hint_s: float | None, pause_s: float) -> None:
    state = started()
    (id,) = begun(state, 1, 0.0)
    conclude(state, id, OutcomeClass.RATE_LIMITED, 1.0, hint_s)

    assert state.room(1.0 + pause_s - 0.01) == 0
    assert state.opens_in_s(1.0) == pytest.approx(pause_s)
    assert state.room(1.0 + pause_s) == 1  # and then it asks with one


def test_after_a_429_a_limited_channel_begins_again_without_a_burst() -> None:
    state = started(LIMITED)
    (id,) = begun(state, 1, 100.0)
    conclude(state, id, OutcomeClass.RATE_LIMITED, 100.0, 10.0)

    assert state.room(110.0) == 0
    assert state.room(110.5) == 1


def test_a_later_and_shorter_hint_does_not_shorten_a_pause() -> None:
    state = started()
    one, two = begun(state, 2, 0.0)
    conclude(state, one, OutcomeClass.RATE_LIMITED, 0.0, 30.0)
    conclude(state, two, OutcomeClass.RATE_LIMITED, 0.0, 1.0)

    assert state.room(29.0) == 0


def test_a_refused_credential_rests_and_then_asks_with_one_attempt_at_a_time() -> None:
    state = started()
    one, two = begun(state, 2, 0.0)
    codes = [conclude(state, id, OutcomeClass.MISCONFIGURED, 1.0) for id in (one, two)]
    later_s = 1.0 + MISCONFIGURED_PAUSE_S

    assert codes == ["misconfigured", None]
    assert state.room(later_s - 0.01) == 0
    assert state.room(later_s) == 1
    (asked,) = begun(state, 1, later_s)
    assert state.room(later_s) == 0
    assert state.opens_in_s(later_s) is None
    assert conclude(state, asked, OutcomeClass.MISCONFIGURED, later_s) == "misconfigured"
    assert state.room(later_s + MISCONFIGURED_PAUSE_S) == 1


def test_a_delivery_ends_the_asking() -> None:
    state = started()
    (id,) = begun(state, 1, 0.0)
    conclude(state, id, OutcomeClass.MISCONFIGURED, 0.0)
    (asked,) = begun(state, 1, MISCONFIGURED_PAUSE_S)
    conclude(state, asked, OutcomeClass.DELIVERED, MISCONFIGURED_PAUSE_S)

    assert state.room(MISCONFIGURED_PAUSE_S) == FULL


def test_it_covers_exactly_its_own_revision() -> None:
    state = started()

    assert state.covers(evolve(POLICY))
    assert not state.covers(evolve(POLICY, revision=2))


steps = st.lists(
    st.tuples(st.sampled_from(["begin", *OutcomeClass]), st.integers(0, 20), st.floats(0, 20)), min_size=1, max_size=60
)


@given(steps, st.sampled_from([POLICY, LIMITED]))
def test_whatever_happens_it_opens_again_by_itself_or_through_an_ending_attempt(
    history: list[tuple[str, int, float]], policy: ProviderPolicy
) -> None:
    """A closed channel either names a time at which it is worth a look, or has attempts under way."""
    state = started(policy)
    now_s, begun_ids, number = 0.0, [], 0
    for what, index, passed_s in history:
        now_s += passed_s
        room = state.room(now_s)
        if what == "begin":
            number += 1
            id = str(number)
            assert state.begin(id, now_s) == (room > 0)
            if room > 0:
                begun_ids.append(id)
        elif begun_ids:
            conclude(state, begun_ids.pop(index % len(begun_ids)), OutcomeClass(what), now_s, 5.0)
        assert 0 <= state.under_way == len(begun_ids) <= FULL
        if state.room(now_s) == 0:
            opens_in_s = state.opens_in_s(now_s)
            assert begun_ids or opens_in_s is not None
            assert opens_in_s is None or opens_in_s >= TURN_MIN_S
    for id in begun_ids:
        conclude(state, id, OutcomeClass.INTERRUPTED, now_s)
    for _ in range(10):
        if state.room(now_s) > 0:
            return
        wait_s = state.opens_in_s(now_s)
        assert wait_s is not None
        now_s += wait_s
    raise AssertionError("it never opened again")


def test_a_provider_that_answers_within_what_is_not_slow_closes_its_breaker() -> None:
    """With the defaults: what succeeds while the breaker is closed is not cut off, as an effect nobody knows of, as a probe."""
    state, now_s, call_s = ChannelState.start(POLICY, BreakerPolicy(), 0.0), 0.0, 12.0
    while state.breaker_state == "closed":
        (id,) = begun(state, 1, now_s)
        conclude(state, id, OutcomeClass.SOFT, now_s)
    now_s += 300.0
    for _ in range(BreakerPolicy().probes):
        (id,) = begun(state, 1, now_s)
        request_deadline_s = DispatchConfig().request_deadline_s
        deadline_s = min(request_deadline_s, state.deadline_s or request_deadline_s)
        took_s = min(call_s, deadline_s)
        kind = OutcomeClass.DELIVERED if call_s <= deadline_s else OutcomeClass.UNKNOWN
        now_s += took_s
        state.conclude(id, Outcome(kind, "code"), took_s, now_s, lambda: 0.0, RETRY)

    assert state.breaker_state == "closed"


def test_what_was_found_at_the_provider_proves_nothing_of_its_sending() -> None:
    """An inquiry is a call and costs a token and quota; but no breaker closes, and no refused credential is forgiven for it."""
    found = Outcome(OutcomeClass.DELIVERED, FOUND_AT_PROVIDER)
    broken, refused, counted = started(), started(), started(evolve(LIMITED, rate_per_s=0.001))
    for id in begun(broken, 4, 0.0):
        conclude(broken, id, OutcomeClass.UNKNOWN, 0.0)
    (id,) = begun(refused, 1, 0.0)
    conclude(refused, id, OutcomeClass.MISCONFIGURED, 0.0)
    states = (broken, refused, counted)
    rooms = [state.room(100.0) for state in states]
    for _ in range(BREAKER.probes):
        for state in states:
            if state.room(100.0):
                (id,) = begun(state, 1, 100.0)
                state.conclude(id, found, 0.1, 100.0, lambda: 0.0, RETRY)

    assert broken.breaker_state == "half_open"
    assert rooms == [BREAKER.probes, 1, 1]
    assert [state.room(100.0) for state in states] == [BREAKER.probes, 1, 0]


def test_where_a_call_carries_several_there_is_room_for_as_many_more() -> None:
    assert started(evolve(POLICY, batch_max=100)).room(0.0) == FULL * 100
    assert started(evolve(LIMITED, batch_max=100)).room(10.0) == LIMITED.burst


def test_the_breaker_hears_of_a_call_once_however_many_it_carried() -> None:
    """Else one refused request with many would be a provider that fails in a row; and the others give back what they held."""
    state = started(evolve(POLICY, batch_max=100))
    ids = begun(state, 100, 0.0)
    for number, id in enumerate(ids):
        outcome = Outcome(OutcomeClass.SOFT, "http_503")
        assert state.conclude(id, outcome, 0.1, 1.0, lambda: 0.0, RETRY, number == 99) is None

    assert state.breaker_state == "closed"
    assert state.room(1.0) == FULL * 100


def test_every_attempt_of_a_call_counts_for_quota_pace_and_pause() -> None:
    state = started(evolve(POLICY, batch_max=100))
    ids = begun(state, 2, 0.0)
    state.conclude(ids[0], Outcome(OutcomeClass.RATE_LIMITED, "http_429"), 0.1, 1.0, lambda: 0.0, RETRY, False)

    assert state.room(1.0) == 0
    assert state.opens_in_s(1.0) == RATE_LIMITED_PAUSE_S
