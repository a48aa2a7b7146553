from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dispatcher_sandbox.ledger import Accepted, Correlation, Ledger, Remembered, Tally, TallyStatistics


def accepted(*correlations: Correlation, key: str | None = None, at_s: float = 0.0) -> Accepted:
    return Accepted("sendgrid", "id", at_s, key, correlations, b'{"to": "somebody@example.com"}')


@given(st.lists(st.sampled_from("abcdef"), max_size=60), st.integers(1, 6))
def test_a_tally_forgets_names_but_never_totals(names: list[str], names_max: int) -> None:
    tally = Tally(names_max)
    for name in names:
        tally.add(name)
    numbers = tally.statistics()

    assert numbers.total == len(names)
    assert numbers.names == len(tally) <= names_max
    assert numbers.repeats + numbers.names + numbers.forgotten == len(names)


@given(st.lists(st.sampled_from("abcdef"), max_size=60))
def test_a_tally_with_room_counts_exactly(names: list[str]) -> None:
    tally = Tally(6)
    for name in names:
        tally.add(name)

    assert dict(tally.items()) == {name: names.count(name) for name in names}
    assert tally.at_least(2) == {name: names.count(name) for name in names if names.count(name) > 1}
    assert tally["never"] == 0


def test_a_full_tally_forgets_the_name_counted_first_longest_ago() -> None:
    tally = Tally(2)
    for name in ("a", "b", "a", "c"):
        tally.add(name)

    assert tally.at_least(1) == {"b": 1, "c": 1}
    assert tally.statistics() == TallyStatistics(total=4, names=2, repeats=1, forgotten=1)


def test_an_accepted_request_counts_under_every_name_it_carries() -> None:
    ledger = Ledger()
    ledger.record(accepted(Correlation("n1", "acme"), Correlation("n2", "acme"), Correlation(None, None), key="k"))
    ledger.record(accepted(Correlation("n1", "acme"), key="k"))

    assert (ledger.accepted, ledger.messages) == (2, 4)
    assert ledger.notifications.at_least(1) == {"n1": 2, "n2": 1}
    assert ledger.organizations.at_least(1) == {"acme": 3}
    assert ledger.idempotency_keys.at_least(1) == {"k": 2}
    assert ledger.effects("n1") == 2
    assert ledger.effects("never") == 0


def test_only_the_latest_requests_are_kept_whole() -> None:
    ledger = Ledger(recent_max=2)
    for at_s in (1.0, 2.0, 3.0):
        ledger.record(accepted(at_s=at_s))

    assert [kept.at_s for kept in ledger.recent] == [2.0, 3.0]


def test_what_was_sent_is_not_shown_by_repr() -> None:
    assert "somebody" not in repr(accepted())


def test_a_remembered_answer_expires_and_makes_room() -> None:
    ledger = Ledger(names_max=2)
    ledger.remember("a", Remembered("1", 0, 10.0))

    assert ledger.remembered("a", since_s=10.0) == Remembered("1", 0, 10.0)
    assert ledger.remembered("a", since_s=10.1) is None

    ledger.remember("b", Remembered("2", 0, 10.0))
    ledger.remember("c", Remembered("3", 0, 10.0))

    assert ledger.remembered("a", since_s=0) is None
    assert ledger.remembered("c", since_s=0) == Remembered("3", 0, 10.0)


def test_a_cleared_ledger_is_a_new_one() -> None:
    ledger = Ledger()
    fresh = ledger.summary()
    ledger.record(accepted(Correlation("n1", "acme"), key="k"))
    ledger.remember("k", Remembered("1", 0, 10.0))
    ledger.sight("n1")
    ledger.refused[503] += 1
    changed = ledger.summary()
    ledger.clear()

    assert changed != fresh
    assert ledger.summary() == fresh
    assert ledger.remembered("k", 0) is None
    assert ledger.sight("n1") == 1
    assert not ledger.recent
