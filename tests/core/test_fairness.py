"""Who gets the next caller: those that used least, and the last callers are not for those that have many."""

from __future__ import annotations

from heapq import heappop, heappush

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.fairness import CALL_GUESS_S, CALL_MIN_S, DEBT_MAX_S, FEW, Share, Turns


@define(eq=False)
class Party:
    """A channel with calls to make that take ``took_s``: without end, or one."""

    name: str
    took_s: float = 0.1
    share: Share = field(factory=Share)
    endless: bool = True
    call_s: float = CALL_GUESS_S


class Process:
    """Callers without tasks: time goes from the end of one call to the end of the next."""

    def __init__(self, calls_max: int) -> None:
        self.calls_max = calls_max
        self.turns = Turns(calls_max)
        self.now_s = 0.0
        self.began: list[str] = []
        self.waits_s: dict[str, list[float]] = {}
        self._joined_s: dict[Party, float] = {}
        self._ends: list[tuple[float, int, Party, float]] = []
        self._ended = 0

    @property
    def free(self) -> int:
        return self.calls_max - len(self._ends)

    def join(self, *parties: Party) -> None:
        for party in parties:
            self._joined_s[party] = self.now_s
            self.turns.wait(party)

    def begin(self) -> None:
        """Give callers to whoever may have one."""
        while self.free and (party := self.turns.next(self.free)) is not None:
            assert isinstance(party, Party)
            charged_s = self.turns.begin(party)
            self.began.append(party.name)
            self.waits_s.setdefault(party.name, []).append(self.now_s - self._joined_s.pop(party))
            self._ended += 1
            heappush(self._ends, (self.now_s + party.took_s, self._ended, party, charged_s))
            if party.endless:
                self.join(party)

    def end_one(self) -> Party:
        self.now_s, _, party, charged_s = heappop(self._ends)
        self.turns.end(party, charged_s, party.took_s)
        return party

    def run(self, until_s: float) -> None:
        self.begin()
        while self._ends and self._ends[0][0] <= until_s:
            self.end_one()
            self.begin()
        self.now_s = until_s


def test_organizations_take_turns_and_so_do_the_channels_of_one() -> None:
    process = Process(100)
    both = Share()
    process.join(Party("a1", share=both), Party("a2", share=both), Party("b"))
    for _ in range(8):
        party = process.turns.next(100)
        assert isinstance(party, Party)
        process.turns.begin(party)
        process.began.append(party.name)
        process.turns.wait(party)

    assert process.began == ["a1", "b", "a2", "b", "a1", "b", "a2", "b"]


@pytest.mark.parametrize("channels", [1, 4])
def test_callers_are_shared_by_time_and_not_by_calls_and_more_channels_get_no_more(channels: int) -> None:
    process = Process(4)
    slow = Share()
    process.join(Party("quick", 0.1), *(Party("slow", 1.0, slow) for _ in range(channels)))
    process.run(400.0)

    assert process.began.count("quick") / process.began.count("slow") == pytest.approx(10, rel=0.1)


def test_who_was_quiet_has_saved_nothing_up_and_who_used_much_does_not_pay_for_ever() -> None:
    process = Process(2)
    busy, late = Party("busy", 1.0), Party("late", 1.0)
    process.join(busy)
    process.run(1000.0)
    process.join(late)
    process.began.clear()
    process.run(1000.0 + 2 * DEBT_MAX_S)

    assert abs(process.began.count("busy") - process.began.count("late")) <= DEBT_MAX_S + 1


def test_what_was_charged_too_little_is_charged_at_the_end() -> None:
    process = Process(8)
    hangs, other = Party("hangs", 20.0), Party("other", 0.2)
    process.join(hangs)
    process.begin()
    while process.free < 8:
        process.end_one()
    process.join(other)
    process.began.clear()
    process.begin()

    assert hangs.call_s > 10.0
    assert process.began[0] == "other"


def test_organizations_with_many_calls_leave_an_eighth_and_those_with_few_half_of_it() -> None:
    turns = Turns(64)
    none, few, many = Share(), Share(), Share()
    few.under_way, many.under_way = FEW - 1, FEW

    assert [free for free in range(64) if turns.may_begin(many, free)] == list(range(9, 64))
    assert [free for free in range(64) if turns.may_begin(few, free)] == list(range(5, 64))
    assert [free for free in range(64) if turns.may_begin(none, free)] == list(range(1, 64))


def test_sixteen_organizations_whose_providers_hang_leave_callers_for_the_others() -> None:
    """Nobody with nothing under way waits for one of them (scenario 30)."""
    process = Process(512)
    process.join(*(Party(f"hangs{number}", 20.0) for number in range(16)))
    process.begin()
    assert process.free == 64

    quiet = Party("quiet", 0.05, endless=False)
    for _ in range(100):  # one call after another, while all others hang
        process.join(quiet)
        process.begin()
        assert process.end_one() is quiet

    assert process.waits_s["quiet"] == [0.0] * 100
    assert process.now_s == pytest.approx(5.0)


def test_one_that_is_held_back_stands_in_its_old_place_when_it_may_go_on() -> None:
    turns = Turns(16)
    early, late, small = Party("early"), Party("late"), Party("small")
    early.share.under_way = late.share.under_way = FEW
    for party in (early, late, small):
        turns.wait(party)

    assert turns.next(2) is small
    assert turns.next(2) is None
    assert [turns.next(3), turns.next(3)] == [early, late]
    assert turns.waiting == 0


def test_one_that_is_held_back_may_go_on_when_its_own_calls_have_ended() -> None:
    turns = Turns(16)
    party = Party("a")
    charges = []
    for _ in range(FEW):
        turns.wait(party)
        assert turns.next(16) is party
        charges.append(turns.begin(party))
    turns.wait(party)
    assert turns.next(2) is None

    turns.end(party, charges.pop(), 0.1)

    assert turns.next(2) is party


@pytest.mark.parametrize("channels", [1, 5, 1000])
@pytest.mark.parametrize("calls_max", [2, 4, 16, 64])
def test_one_organization_that_takes_all_it_can_get_at_most_doubles_what_a_quiet_one_waits(calls_max: int, channels: int) -> None:
    """However many channels it comes by (scenario 30)."""
    process = Process(calls_max)
    flood, quiet = Share(), Share()
    process.join(*(Party("flood", 0.05, flood) for _ in range(channels)))
    process.begin()
    for number in range(1, 50):
        process.run(number * 0.073)
        process.join(Party("quiet", 0.05, quiet, endless=False))
        process.begin()
    process.run(5.0)
    dwells_s = [waited_s + 0.05 for waited_s in process.waits_s["quiet"]]

    assert len(dwells_s) == 49
    assert max(dwells_s) <= 2 * 0.05


@settings(max_examples=60)
@given(st.data())
def test_whoever_waits_is_served_whatever_arrives(data: st.DataObject) -> None:
    """With new organizations arriving for every caller that comes free, and the one who waits as deep in debt as one can be."""
    calls_max = data.draw(st.integers(1, 24))
    turns = Turns(calls_max)
    free = calls_max
    under_way: list[tuple[Party, float]] = []
    parties = [Party(str(number)) for number in range(data.draw(st.integers(1, 5)))]
    debtor = Party("debtor")
    turns.wait(debtor)
    assert turns.next(free) is debtor
    turns.end(debtor, turns.begin(debtor), 1000.0)
    for party in parties:
        turns.wait(party)
    turns.wait(debtor)
    durations = st.floats(0.0, 25.0)
    arrivals = data.draw(st.lists(st.tuples(st.integers(0, 2), durations, st.integers(0, 50)), min_size=1, max_size=30))

    begun = 0
    served_after: int | None = None
    # Every call moves the reckoning on by its part of CALL_MIN_S at least; when it has passed the debtor, only who stood there
    # before is still in front.
    bound = (DEBT_MAX_S / CALL_MIN_S) * calls_max + len(parties) + len(arrivals) + calls_max
    while served_after is None:
        new, took_s, which = arrivals[begun % len(arrivals)]
        for _ in range(new):
            turns.wait(Party("new"))
        while free and (next_one := turns.next(free)) is not None:
            assert isinstance(next_one, Party)
            begun += 1
            if next_one is debtor:
                served_after = begun
                break
            free -= 1
            under_way.append((next_one, turns.begin(next_one)))
            if next_one in parties:
                turns.wait(next_one)
        if under_way and served_after is None:
            ended, charged_s = under_way.pop(which % len(under_way))
            turns.end(ended, charged_s, took_s)
            free += 1
        assert begun <= bound

    assert served_after <= bound
