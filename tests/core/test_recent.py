"""The memory of ids seen lately."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.recent import RecentIds


def test_an_id_is_remembered_for_one_period_and_forgotten_after_two() -> None:
    recent = RecentIds(ttl_s=100.0, generation_max=10)
    recent.add(["a"], 0.0)
    known = []
    for now_s in (99.0, 100.0, 199.0, 200.0):
        recent.turn(now_s)
        known.append("a" in recent)

    assert known == [True, True, True, False]


def test_it_forgets_although_nothing_is_added() -> None:
    recent = RecentIds(ttl_s=100.0, generation_max=10)
    recent.add(["a"], 0.0)
    recent.turn(1000.0)
    recent.turn(1001.0)

    assert "a" not in recent


def test_a_long_silence_forgets_everything_at_once() -> None:
    recent = RecentIds(ttl_s=100.0, generation_max=10)
    recent.add(["a"], 0.0)
    recent.add(["b"], 250.0)

    assert "a" not in recent
    assert "b" in recent


def test_discarded_ids_are_forgotten_at_once_whatever_their_age() -> None:
    recent = RecentIds(ttl_s=100.0, generation_max=10)
    recent.add(["old", "kept"], 0.0)
    recent.add(["young"], 150.0)
    recent.discard(["old", "young", "never seen"])

    assert [id in recent for id in ("old", "kept", "young")] == [False, True, False]


@given(st.lists(st.lists(st.integers(0, 1000), max_size=5), max_size=100))
def test_it_never_holds_more_than_two_generations(batches: list[list[int]]) -> None:
    recent = RecentIds(ttl_s=100.0, generation_max=10)
    for number, batch in enumerate(batches):
        recent.add([str(id) for id in batch], float(number))
        assert len(recent) <= 2 * (10 + 4)
        assert all(str(id) in recent for id in batch)
