"""What a channel remembers from one life to the next, and that no history of lives mints a token."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, nan

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from actors.memory_limits import MemoryLimits
from dispatcher.backoff import RetryPolicy
from dispatcher.breaker import BreakerPolicy, SavedBreaker, State
from dispatcher.channel_memory import Kept, Remembered, SavedChannel, from_kept, level_now, to_fields
from dispatcher.channel_state import MISCONFIGURED_PAUSE_S, ChannelState
from dispatcher.messages import ProviderPolicy
from dispatcher.model import Channel, OrganizationId
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.pace import SavedPace

POLICY = ProviderPolicy("c-1", 3, "mailer", Channel.EMAIL, 2.0, 10, 32)
BREAKER = BreakerPolicy(calls_min=4, open_base_s=10.0, probes=2)
RETRY = RetryPolicy()
ACME = OrganizationId("acme")


def conclude(state: ChannelState, id: str, kind: OutcomeClass, now_s: float, retry_after_s: float | None = None) -> None:
    state.conclude(id, Outcome(kind, "code", retry_after_s=retry_after_s), 0.1, now_s, lambda: 1.0 - 2**-53, RETRY)


def started(policy: ProviderPolicy = POLICY) -> ChannelState:
    return ChannelState.start(policy, BREAKER, 0.0)


def failed(n: int = 4) -> ChannelState:
    """A channel whose breaker has just opened for ten seconds, at 5.0."""
    state = started(evolve(POLICY, rate_per_s=None))
    for number in range(n):
        assert state.begin(str(number), 5.0)
        conclude(state, str(number), OutcomeClass.SOFT, 5.0)
    return state


def again(
    state: ChannelState, saved_at_s: float, age_s: float, *, clean: bool = True, policy: ProviderPolicy | None = None
) -> ChannelState:
    """The next life, which begins at 1000.0 of another clock."""
    saved = from_kept(Kept(2, age_s, to_fields(state.saved(saved_at_s), clean=clean)))
    return ChannelState.resumed(policy or state.policy, BREAKER, saved, 1000.0)


saved_channels = st.builds(
    SavedChannel,
    config_id=st.text(min_size=1, max_size=5),
    revision=st.integers(0, 2**40),
    level=st.none() | st.integers(0, 10**6).map(lambda n: n / 4),
    held_s=st.integers(0, 10**6).map(lambda n: n / 4),
    paused_s=st.integers(0, 10**6).map(lambda n: n / 4),
    asking=st.booleans(),
    breaker=st.builds(
        SavedBreaker,
        st.sampled_from(State),
        st.integers(0, 40),
        st.integers(0, 10**6).map(lambda n: n / 4),
        st.none() | st.integers(1, 64),
    ),
    pace=st.none() | st.builds(SavedPace, st.sampled_from([0.5, 20.25]), st.sampled_from([1.5, 40.75])),
    alarmed_window=st.integers(0, 2**45),
)


@given(saved_channels, st.booleans())
def test_what_is_written_is_what_is_read(saved: SavedChannel, clean: bool) -> None:
    assert from_kept(Kept(3, 1.5, to_fields(saved, clean=clean))) == Remembered(1.5, clean, saved)


@given(
    saved_channels,
    st.dictionaries(st.sampled_from(sorted(to_fields(started().saved(0.0), clean=True))), st.text(max_size=20) | st.just("nan")),
    st.sampled_from([0.0, -1e9, 1e12, nan, inf, -inf]),
)
def test_whatever_stands_in_the_hash_a_life_begins_and_never_with_more_than_its_burst(
    saved: SavedChannel, garbage: Mapping[str, str], age_s: float
) -> None:
    fields = {**to_fields(evolve(saved, config_id="c-1", revision=3), clean=True), **garbage}
    state = ChannelState.resumed(POLICY, BREAKER, from_kept(Kept(2, age_s, fields)), 1000.0)

    assert 0 <= state.room(1000.0) <= POLICY.burst
    assert (state.opens_in_s(1000.0) or 0.0) < inf


# --- tokens -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_s", "level"),
    [(0.0, 4.0), (1.0, 6.0), (100.0, 10.0), (-1.0, 1.0), (-300.0, 1.0), (nan, 4.0)],
)
def test_tokens_go_on_from_where_they_were_and_one_from_the_future_is_worth_one(age_s: float, level: float) -> None:
    saved = evolve(started().saved(0.0), level=4.0)

    assert level_now(Remembered(age_s, True, saved), "c-1", 2.0, 10) == level


@pytest.mark.parametrize(("age_s", "level"), [(0.0, 0.0), (0.25, 0.5), (100.0, 1.0), (-300.0, 0.0)])
def test_after_a_crash_only_time_counts_and_for_one_token_at_most(age_s: float, level: float) -> None:
    saved = evolve(started().saved(0.0), level=9.0)

    assert level_now(Remembered(age_s, False, saved), "c-1", 2.0, 10) == level
    assert level_now(Remembered(age_s, False, None), "c-1", 2.0, 10) == level


def test_who_finds_nothing_begins_with_one_token() -> None:
    assert level_now(None, "c-1", 2.0, 10) == 1.0
    assert level_now(Remembered(50.0, True, evolve(started().saved(0.0), config_id="c-2")), "c-1", 2.0, 10) == 1.0


def test_a_changed_revision_keeps_the_tokens_and_nothing_else() -> None:
    state = started()
    state.begin("a", 0.0)
    conclude(state, "a", OutcomeClass.MISCONFIGURED, 0.0)
    changed = again(state, 0.0, 0.0, policy=evolve(POLICY, revision=4, rate_per_s=4.0, burst=2))

    assert changed.room(1000.0) == 0
    assert changed.room(1000.25) == 1  # neither paused nor asking, but the token was spent
    assert changed.room(1100.0) == 2


def test_tokens_held_back_by_a_pause_have_not_flowed_in_meanwhile() -> None:
    state = started()
    state.begin("a", 0.0)
    conclude(state, "a", OutcomeClass.RATE_LIMITED, 0.0, 60.0)
    next_life = again(state, 0.0, 61.0)

    assert next_life.room(1000.0) <= 2
    assert again(state, 0.0, 30.0).room(1029.9) == 0


# --- pauses, breaker, pace ------------------------------------------------------------------------------------------------


def test_a_pause_goes_on_for_what_is_left_of_it() -> None:
    state = started(evolve(POLICY, rate_per_s=None))
    state.begin("a", 0.0)
    conclude(state, "a", OutcomeClass.RATE_LIMITED, 0.0, 60.0)
    next_life = again(state, 10.0, 20.0)

    assert next_life.room(1029.0) == 0
    assert next_life.room(1030.0) > 0


def test_a_refused_credential_still_rests_and_still_asks_with_one() -> None:
    state = started(evolve(POLICY, rate_per_s=None))
    state.begin("a", 0.0)
    conclude(state, "a", OutcomeClass.MISCONFIGURED, 0.0)
    next_life = again(state, 0.0, 10.0)

    assert next_life.room(1000.0) == 0
    assert next_life.room(1000.0 + MISCONFIGURED_PAUSE_S) == 1


@pytest.mark.parametrize("clean", [True, False])
def test_an_open_breaker_stays_open_until_its_time_and_then_probes(clean: bool) -> None:
    next_life = again(failed(), 7.0, 3.0, clean=clean)

    assert next_life.breaker_state == "open"
    assert next_life.opens_in_s(1000.0) == pytest.approx(5.0)
    assert next_life.room(1004.9) == 0
    assert next_life.room(1005.1) == BREAKER.probes


def test_an_open_breaker_from_the_future_waits_no_longer_than_it_had_to() -> None:
    next_life = again(failed(), 7.0, -300.0)

    assert next_life.room(1007.9) == 0
    assert next_life.room(1008.1) == BREAKER.probes


def test_the_next_trip_of_a_later_life_is_not_a_first_one() -> None:
    next_life = again(failed(), 5.0, 10.0)
    assert next_life.begin("probe", 1000.0)
    conclude(next_life, "probe", OutcomeClass.SOFT, 1000.0)

    assert next_life.opens_in_s(1000.0) == pytest.approx(20.0)


def test_probes_under_way_at_a_hard_end_are_nobodys_and_the_next_life_has_its_own() -> None:
    """A half-open breaker whose probes never came back is not wedged (scenario 28)."""
    state = failed()
    for number in range(BREAKER.probes):
        assert state.begin(f"probe-{number}", 20.0)
    assert state.room(20.0) == 0
    next_life = again(state, 20.0, 0.0, clean=False)

    assert next_life.room(1000.0) == BREAKER.probes


def test_a_ramp_goes_on_where_it_was() -> None:
    state = failed()
    for number in range(BREAKER.probes):
        state.begin(f"probe-{number}", 20.0)
    for number in range(BREAKER.probes):
        conclude(state, f"probe-{number}", OutcomeClass.DELIVERED, 20.0)
    for number in range(3):  # 1, then 2 of 2
        state.begin(f"ramp-{number}", 20.0)
        conclude(state, f"ramp-{number}", OutcomeClass.DELIVERED, 20.0)

    assert state.room(20.0) == 4
    assert again(state, 20.0, 1.0).room(1000.0) == 4


def test_another_revision_has_a_breaker_of_its_own() -> None:
    state = failed()

    assert again(state, 5.0, 0.0, policy=evolve(state.policy, revision=4)).breaker_state == "closed"
    assert again(state, 5.0, 0.0, policy=evolve(state.policy, config_id="c-2")).breaker_state == "closed"


def test_a_learned_pace_goes_on() -> None:
    state = started(evolve(POLICY, rate_per_s=None))
    for number in range(100):
        state.begin(str(number), 10 + number / 50)
        conclude(state, str(number), OutcomeClass.DELIVERED, 10 + number / 50)
    state.begin("refused", 12.0)
    conclude(state, "refused", OutcomeClass.RATE_LIMITED, 12.0)
    next_life = again(state, 12.0, 60.0)

    assert state.learned_per_s is not None
    assert next_life.learned_per_s == pytest.approx(state.learned_per_s, abs=0.001)
    assert next_life.room(1000.0) == 1


# --- any history of lives -------------------------------------------------------------------------------------------------


def most_in_any_window(sent: list[float], rate_per_s: float) -> float:
    """The largest excess over ``rate * window`` that any window between two sends shows."""
    worst, least = 0.0, inf
    for number, at_s in enumerate(sent):
        least = min(least, number - rate_per_s * at_s)
        worst = max(worst, number + 1 - rate_per_s * at_s - least)
    return worst


class Lives:
    """One channel over many lives. Its processes' monotonic clocks begin anywhere, and their wall clocks are never looked at."""

    def __init__(self, policy: ProviderPolicy) -> None:
        self.policy = policy
        self.limits = MemoryLimits()
        self.now_s = 1_000_000.0  # true time; the server's clock shows it, and ``server_off_s`` more
        self.server_off_s = 0.0
        self.sent: list[float] = []
        self.crashes = 0
        self.numbers = 0
        self.begin()

    def begin(self) -> None:
        kept = self.limits.take(ACME, Channel.EMAIL, self.server_ms)
        self.life = kept.life
        self.offset_s = 37.0 * (kept.life % 1000) - self.now_s
        self.state = ChannelState.resumed(self.policy, BREAKER, from_kept(kept), self.now_s + self.offset_s)

    @property
    def server_ms(self) -> int:
        return int((self.now_s + self.server_off_s) * 1000)

    def send(self, n: int) -> None:
        at_s = self.now_s + self.offset_s
        for _ in range(n):
            self.numbers += 1
            if self.state.begin(str(self.numbers), at_s):
                self.sent.append(self.now_s)
                conclude(self.state, str(self.numbers), OutcomeClass.HARD, at_s)

    def keep(self, *, clean: bool) -> None:
        fields = to_fields(self.state.saved(self.now_s + self.offset_s), clean=clean)
        self.limits.keep(ACME, Channel.EMAIL, self.life, fields, self.server_ms)

    def leave(self) -> None:
        self.keep(clean=True)
        self.begin()

    def crash(self) -> None:
        self.crashes += 1
        self.begin()


histories = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "leave", "crash", "keep", "server back", "server on", "lost"]),
        st.integers(1, 12),
        st.sampled_from([0.0, 0.0, 0.1, 0.7, 3.0, 20.0]),
    ),
    max_size=60,
)


@given(histories, st.sampled_from([(0.2, 1), (2.0, 10), (7.5, 3)]))
def test_over_any_lives_no_window_holds_more_than_burst_and_rate_and_what_each_break_in_them_is_worth(
    history: list[tuple[str, int, float]], limit: tuple[float, int]
) -> None:
    """Clean lives mint nothing, a crash or a loss at most a token; a leap of the server's clock is time as far as anybody knows.

    No process's wall clock is ever asked, so none can mint anything (scenario 34).
    """
    rate_per_s, burst = limit
    lives = Lives(evolve(POLICY, rate_per_s=rate_per_s, burst=burst))
    slack = 0.0
    for what, n, passed_s in history:
        lives.now_s += passed_s
        if what == "send":
            lives.send(n)
        elif what == "leave":
            lives.leave()
        elif what == "crash":
            lives.crash()
            slack += 1
        elif what == "keep":
            lives.keep(clean=False)
        elif what == "lost":
            lives.limits = MemoryLimits()
            lives.crash()
            slack += 1
        elif what == "server back":
            lives.server_off_s -= 300.0
        else:
            lives.server_off_s += 300.0
            slack += burst
    assert most_in_any_window(lives.sent, rate_per_s) <= burst + slack + 0.01


@pytest.mark.parametrize("how", ["leave", "crash"])
@pytest.mark.parametrize(("rate_per_s", "burst"), [(1.0, 20), (0.01, 5), (50.0, 10)])
def test_twenty_takeovers_in_a_minute_give_no_free_burst(how: str, rate_per_s: float, burst: int) -> None:
    """Handed over cleanly nothing is gained at all; each crash is worth what flowed in since, at most one token (scenario 40)."""
    lives = Lives(evolve(POLICY, rate_per_s=rate_per_s, burst=burst))
    for _ in range(20):
        for _ in range(30):
            lives.send(50)
            lives.now_s += 0.1
        getattr(lives, how)()
    slack = min(lives.crashes, rate_per_s * 60.0)

    assert most_in_any_window(lives.sent, rate_per_s) <= burst + slack + 0.01
    assert len(lives.sent) >= 0.6 * min(rate_per_s * 60.0, 1.0 / rate_per_s)


def test_a_life_that_was_taken_over_writes_nothing_the_next_one_would_believe() -> None:
    """A process that stands still and wakes up late leaves its old, full bucket behind for nobody."""
    lives = Lives(evolve(POLICY, rate_per_s=0.01, burst=10))
    late, late_life = lives.state, lives.life
    lives.crash()
    lives.limits.keep(ACME, Channel.EMAIL, late_life, to_fields(evolve(late.saved(0.0), level=10.0), clean=True), lives.server_ms)
    lives.crash()
    lives.send(10)

    assert lives.sent == []
