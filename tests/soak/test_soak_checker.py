"""The checker has teeth: each thing that must not be is reported when it is there, and nothing is when it is not."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import psycopg
import pytest
import redis
import trio
from attrs import evolve

from dispatcher_sandbox.sandbox import open_sandbox
from soak import checker
from soak.verdict import FAULTS, LATE_S, Accepted, Evidence, Findings, Reach, Row, Step, alone, judge, missed

PLAIN, KEYED, UNTOLD = "plain", "keyed", "untold"


def row(id: str, status: str = "delivered", **fields: int | float | str | None) -> Row:
    return attrs.evolve(Row(id, "acme", status, 1, 8, 0, 0.5), **fields)  # type: ignore[arg-type]


def life(id: str, *statuses: str) -> list[Step]:
    """The steps of a life in which nothing unusual happens."""
    steps, before, attempts = [], None, 0
    for after in statuses:
        steps.append(Step(id, before, after, attempts, attempts + (after == "sending"), 0, 0))
        before, attempts = after, attempts + (after == "sending")
    return steps


def sound() -> Evidence:
    """One at a provider that ignores keys, one at a provider that honours them, one whose producer got no answer."""
    ids = (PLAIN, KEYED, UNTOLD)
    return Evidence(
        accepted=[Accepted(PLAIN, "acme", None, 1.0), Accepted(KEYED, "acme", "order-1", 1.0)],
        rows={id: row(id) for id in ids},
        effects={"ignores": {PLAIN: 1, UNTOLD: 1}, "honours": {KEYED: 1}},
        honours={"ignores": False, "honours": True},
        steps=[step for id in ids for step in life(id, "queued", "sending", "delivered")],
        leftovers={},
    )


def found(evidence: Evidence) -> set[str]:
    """Which faults it reports."""
    findings = judge(evidence)
    assert findings.sound is not any(findings.faults.values())
    return {name for name, examples in findings.faults.items() if examples}


def with_row(**rows: Row) -> Evidence:
    evidence = sound()
    return evolve(evidence, rows={**evidence.rows, **rows})


def with_steps(*more: Step) -> Evidence:
    evidence = sound()
    return evolve(evidence, steps=[*evidence.steps, *more])


def with_effects(provider: str, id: str, count: int, **rows: Row) -> Evidence:
    evidence = with_row(**rows)
    return evolve(evidence, effects={**evidence.effects, provider: {**evidence.effects[provider], id: count}})


def test_a_run_without_fault_is_sound() -> None:
    findings = judge(sound())

    assert findings.sound
    assert set(findings.faults) == set(FAULTS)
    assert (findings.accepted, findings.with_key, findings.unanswered, findings.delivered) == (2, 1, 1, 3)
    assert findings.steps == 9


def without(id: str) -> Evidence:
    evidence = sound()
    effects = {name: {other: n for other, n in seen.items() if other != id} for name, seen in evidence.effects.items()}
    return evolve(evidence, rows={other: kept for other, kept in evidence.rows.items() if other != id}, effects=effects)


@pytest.mark.parametrize(
    "evidence",
    [
        without(PLAIN),
        with_row(plain=row(PLAIN, "queued", unknowns=1)),
        with_row(plain=row(PLAIN, "sending", unknowns=1)),
        with_row(plain=row(PLAIN, organization="other")),
        with_row(extra=row("extra")),  # delivered, and nobody has seen it
        with_row(extra=row("extra", "failed")),  # given up, and no dead letter says why
    ],
    ids=["no row", "queued", "sending", "of somebody else", "never sent", "no dead letter"],
)
def test_what_was_accepted_and_did_not_come_to_a_true_end_is_lost(evidence: Evidence) -> None:
    assert found(evidence) == {"lost"}


def test_a_failure_with_a_dead_letter_is_an_end() -> None:
    findings = judge(with_row(extra=row("extra", "failed", dead="hard")))

    assert findings.sound
    assert findings.failed == {"hard": 1}


def test_two_effects_where_keys_are_honoured_are_a_fault_even_if_marked() -> None:
    assert found(with_effects("honours", KEYED, 2, keyed=row(KEYED, unknowns=1))) == {"doubled with key"}


def test_a_double_elsewhere_is_counted_and_must_be_marked() -> None:
    marked = judge(with_effects("ignores", PLAIN, 2, plain=row(PLAIN, unknowns=1)))
    assert marked.sound
    assert (marked.doubled_without_key, marked.doubles_marked) == (1, 1)

    half = judge(with_effects("ignores", PLAIN, 3, plain=row(PLAIN, unknowns=1)))
    assert (half.doubled_without_key, half.doubles_marked) == (2, 1)
    assert found(with_effects("ignores", PLAIN, 2)) == {"unmarked effects"}


def test_an_effect_of_what_failed_must_be_marked_too() -> None:
    """It was sent and called failed: that is true only of an attempt whose answer never came."""
    assert found(with_row(plain=row(PLAIN, "failed", dead="exhausted"))) == {"unmarked effects"}
    assert found(with_row(plain=row(PLAIN, "failed", dead="exhausted", unknowns=1))) == set()


def test_an_effect_nobody_stored_is_reported() -> None:
    assert found(with_effects("ignores", "stranger", 1)) == {"sent without a row"}


@pytest.mark.parametrize(
    "step",
    [
        Step(PLAIN, "delivered", "queued", 1, 1, 0, 0),
        Step(PLAIN, "delivered", "sending", 1, 2, 0, 0),
        Step(PLAIN, "delivered", "failed", 1, 1, 0, 0),
        Step(PLAIN, "delivered", "delivered", 1, 2, 0, 0),
        Step(PLAIN, "delivered", None, 1, 0, 0, 0),
        Step(PLAIN, "queued", "sending", 1, 2, 0, 0),  # it was delivered
        *life("new", "sending"),
        *(evolve(step, before="queued") for step in life("new", "queued")),
    ],
    ids=str,
)
def test_a_final_row_that_lives_again_is_illegal(step: Step) -> None:
    assert found(with_steps(step)) == {"illegal transitions"}


@pytest.mark.parametrize(
    "last",
    [
        Step("new", "sending", "delivered", 1, 2, 0, 0),
        Step("new", "sending", "queued", 1, 2, 0, 0),
        Step("new", "sending", "queued", 1, 1, 0, 2),
        Step("new", "sending", "queued", 1, 1, 1, 0),
        Step("new", "sending", "queued", 0, -1, 0, 0),
        Step("new", "sending", "held", 1, 1, 0, 0),
        Step("new", "sending", "sending", 1, 2, 0, 0),
    ],
    ids=str,
)
def test_counts_that_move_as_they_must_not_are_illegal(last: Step) -> None:
    assert found(with_steps(*life("new", "queued", "sending"), last)) == {"illegal transitions"}


def test_what_rescues_refusals_and_refunds_do_is_legal() -> None:
    again = [Step("new", "sending", "queued", 1, 1, 0, 1), Step("new", "queued", "sending", 1, 2, 1, 1)]
    handed_back = [Step("new", "sending", "queued", 2, 1, 1, 1), Step("new", "queued", "queued", 1, 1, 1, 1)]
    expired = [Step("new", "queued", "failed", 1, 1, 1, 1)]

    assert found(with_steps(*life("new", "queued", "sending"), *again, *handed_back, *expired)) == set()


def test_more_attempts_than_may_be_are_illegal() -> None:
    assert found(with_row(plain=row(PLAIN, attempts=9))) == {"illegal transitions"}


def test_what_redis_still_holds_is_reported() -> None:
    assert found(evolve(sound(), leftovers={"notifications:inflight:acme": [PLAIN]})) == {"left in Redis"}


def test_a_key_answered_with_two_notifications_is_reported() -> None:
    evidence = sound()
    twice = [*evidence.accepted, Accepted(UNTOLD, "acme", "order-1", 2.0)]
    elsewhere = [*evidence.accepted, Accepted(UNTOLD, "other", "order-1", 2.0)]

    assert found(evolve(evidence, accepted=twice)) == {"one key, two notifications"}
    assert "one key, two notifications" not in found(evolve(evidence, accepted=elsewhere))


def test_a_ledger_that_forgot_proves_nothing() -> None:
    assert found(evolve(sound(), forgotten=1)) == {"forgotten by the ledger"}


def test_what_took_too_long_is_counted() -> None:
    findings: Findings = judge(with_row(plain=row(PLAIN, took_s=LATE_S + 1)))

    assert findings.sound
    assert findings.late == 1


REACHED = Reach(
    doubled_without_key=4,
    doubles_explained=4,
    kills_s=[100.0, 150.0, 200.0],
    recoveries_s=[0.5, None, 10.0],
    others=[(120.0, 130.0)],
    kills_min=3,
)
"""A run that reached everything, though only just."""


def test_what_is_reached_is_no_fault() -> None:
    assert missed(REACHED) == {}
    assert missed(evolve(REACHED, kills_min=0, kills_s=[], recoveries_s=[])) == {}


def test_more_doubles_than_faults_explain_are_a_fault() -> None:
    assert set(missed(evolve(REACHED, doubled_without_key=5))) == {"more doubles than explained"}


def test_fewer_kills_than_asked_for_are_said() -> None:
    assert missed(evolve(REACHED, kills_min=4)) == {"not enough kills": ["3 of 4"]}


def test_a_kill_that_stands_alone_must_be_recovered_from_soon() -> None:
    slow = evolve(REACHED, recoveries_s=[0.5, None, 10.1])

    assert missed(slow) == {"slow recovery": ["kill 3 took 10.1 s"]}
    assert missed(slow, judge_recovery=False) == {}


@pytest.mark.parametrize("other", [(180.0, 190.0), (205.0, 206.0), (210.0, 230.0), (100.0, 300.0)], ids=str)
def test_a_kill_beside_which_something_else_went_wrong_is_not_judged(other: tuple[float, float]) -> None:
    slow = evolve(REACHED, recoveries_s=[0.5, 0.5, 30.0], others=[other])

    assert 2 not in alone(slow)
    assert missed(slow) == {}


def test_kills_near_each_other_do_not_stand_alone() -> None:
    assert alone(REACHED) == [0, 1, 2]
    assert alone(evolve(REACHED, kills_s=[100.0, 192.0, 200.0])) == [0]


async def test_it_sees_what_really_happened(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Real rows under a real trigger, a real ledger and real keys, doctored: a row brought back to life, one that waits, and
    an id in Redis that nobody will ever claim."""
    checker.watch(database_url)
    ids = [f"01890000-0000-7000-8000-00000000000{number}" for number in range(3)]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO notifications (id, organization_id, channel, attempts_max, created_at, updated_at, recipient, payload)"
            " SELECT unnest(%s::uuid[]), 'acme', 'email', 8, now(), now(), 'x@example.org', '{}'",
            [ids],
        )
        connection.execute("UPDATE notifications SET status = 'sending', attempts = 1")
        connection.execute("UPDATE notifications SET status = 'delivered' WHERE id <> %s", [ids[2]])
        with connection.transaction(force_rollback=True):
            connection.execute("UPDATE notifications SET status = 'failed'")  # what is rolled back did not happen
        connection.execute("UPDATE notifications SET status = 'queued' WHERE id = %s", [ids[0]])
    with redis.Redis.from_url(redis_url) as client:
        client.zadd("notifications:inflight:acme", {ids[1]: 1})
        client.xadd("notifications:events:acme", {"e": "{}"})
    book = tmp_path / "accepted.jsonl"
    book.write_text("".join(json.dumps({"id": id, "organization": "acme", "key": None, "at": 1.0}) + "\n" for id in ids))

    async with open_sandbox() as sandbox:
        findings = judge(await gathered(book, database_url, redis_url, sandbox.url))

    assert findings.steps == 9
    assert [fault.split(":")[0] for fault in findings.faults["illegal transitions"]] == [ids[0]]
    assert {fault.split(":")[0] for fault in findings.faults["lost"]} == set(ids)  # two wait, and one nobody has seen
    assert findings.faults["left in Redis"] == [f"notifications:inflight:acme: {ids[1]}"]
    assert checker.unfinished(database_url) == 2


async def gathered(book: Path, database_url: str, redis_url: str, sandbox_url: str) -> Evidence:
    return await trio.to_thread.run_sync(checker.gather, book, database_url, redis_url, {"ignores": (sandbox_url, False)})
