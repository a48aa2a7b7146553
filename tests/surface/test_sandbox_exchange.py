"""The rules of an exchange, at times of our choosing and without a socket."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_sandbox.behaviour import Behaviour, Outage
from dispatcher_sandbox.exchange import Exchange, Reply
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.simulators import SIMULATORS
from sandbox_mails import NOTIFICATION, mail, send

NOW_S = 1_800_000_000.25


def exchange(seed: int = 0, **settings: Any) -> Exchange:
    return Exchange(SIMULATORS, Ledger(), Behaviour(**settings), seed)


def status_of(reply: Reply) -> int | None:
    return None if reply.answer is None else reply.answer.status


def header(reply: Reply, name: str) -> str | None:
    assert reply.answer is not None
    lines = dict(line.split(": ", 1) for line in reply.answer.headers.decode().splitlines())
    return lines.get(name)


def statuses(box: Exchange, count: int) -> list[int | None]:
    return [status_of(box.handle(send(mail(notification_id=f"n{number}")), NOW_S)) for number in range(count)]


def test_an_accepted_mail_is_one_effect_under_its_notification() -> None:
    box = exchange()
    reply = box.handle(send(mail()), NOW_S)

    assert status_of(reply) == 202
    assert (reply.delay_s, reply.silent) == (0, False)
    assert box.ledger.effects(NOTIFICATION) == 1
    assert box.ledger.recent[0].message_id == header(reply, "X-Message-Id")


def test_the_same_seed_gives_the_same_replies() -> None:
    settings: dict[str, Any] = {"error_mix": {503: 0.3}, "drop_after_accept": 0.3}

    assert statuses(exchange(seed=7, **settings), 50) == statuses(exchange(seed=7, **settings), 50)
    assert statuses(exchange(seed=7, **settings), 50) != statuses(exchange(seed=8, **settings), 50)


def test_a_behaviour_with_a_seed_starts_the_random_numbers_anew() -> None:
    settings: dict[str, Any] = {"error_mix": {503: 0.5}, "seed": 3}
    box = exchange(**settings)
    first = statuses(box, 30)
    box.behaviour = Behaviour(**settings)

    assert statuses(box, 30) == first


def test_an_error_mix_refuses_its_share_and_accepts_none_of_it() -> None:
    box = exchange(error_mix={503: 0.25, 500: 0.25})
    seen = statuses(box, 2000)

    assert 400 < seen.count(503) < 600
    assert 400 < seen.count(500) < 600
    assert box.ledger.accepted == seen.count(202)
    assert dict(box.ledger.refused) == {503: seen.count(503), 500: seen.count(500)}


def test_a_dropped_request_has_taken_effect() -> None:
    box = exchange(drop_after_accept=1.0)
    reply = box.handle(send(mail()), NOW_S)

    assert reply == Reply(None)
    assert box.ledger.effects(NOTIFICATION) == 1
    assert box.ledger.dropped == 1


def test_latency_delays_every_answer_and_no_effect() -> None:
    box = exchange(latency_s=1.5)
    good, bad = box.handle(send(mail()), NOW_S), box.handle(send(mail(subject="")), NOW_S)

    assert (status_of(good), good.delay_s) == (202, 1.5)
    assert (status_of(bad), bad.delay_s) == (400, 1.5)
    assert box.ledger.effects(NOTIFICATION) == 1


def test_a_slow_share_is_answered_later_by_its_own_time() -> None:
    reply = exchange(slow_share=1.0, slow_s=8, latency_s=1).handle(send(mail()), NOW_S)

    assert (status_of(reply), reply.delay_s) == (202, 9)


@pytest.mark.parametrize(
    ("outage", "status", "silent"), [(Outage.UNAVAILABLE, 503, False), (Outage.CLOSE, None, False), (Outage.SILENT, None, True)]
)
def test_an_outage_accepts_nothing_and_comes_before_every_other_rule(outage: Outage, status: int | None, silent: bool) -> None:
    box = exchange(outage=outage, rate_limit_per_s=1)
    for request in (send(mail()), send(b"nonsense"), send(mail(), authorization="")):
        reply = box.handle(request, NOW_S)
        assert (status_of(reply), reply.silent) == (status, silent)

    assert box.ledger.accepted == 0
    assert box.ledger.requests == 3
    assert box.ledger.refused[503] + box.ledger.unanswered == 3


def test_an_outage_ends_with_the_next_behaviour() -> None:
    box = exchange(outage=True)
    box.behaviour = Behaviour()

    assert status_of(box.handle(send(mail()), NOW_S)) == 202


def test_past_its_rate_an_account_is_told_when_to_come_back() -> None:
    box = exchange(rate_limit_per_s=2)
    replies = [box.handle(send(mail()), NOW_S) for _ in range(3)]

    assert [status_of(reply) for reply in replies] == [202, 202, 429]
    assert [header(reply, "X-RateLimit-Remaining") for reply in replies] == ["1", "0", "0"]
    assert {header(reply, "X-RateLimit-Limit") for reply in replies} == {"2"}
    assert {header(reply, "X-RateLimit-Reset") for reply in replies} == {"1800000001"}
    assert box.ledger.accepted == 2
    assert status_of(box.handle(send(mail()), NOW_S + 1)) == 202
    assert status_of(box.handle(send(mail(), authorization="Bearer SG.other.key"), NOW_S)) == 202


def test_a_refused_mail_counts_against_the_rate_too() -> None:
    box = exchange(rate_limit_per_s=1)

    assert status_of(box.handle(send(mail(subject="")), NOW_S)) == 400
    assert status_of(box.handle(send(mail()), NOW_S)) == 429


def test_the_rate_headers_can_be_left_out() -> None:
    box = exchange(rate_limit_per_s=1, rate_limit_headers=False)
    replies = [box.handle(send(mail()), NOW_S) for _ in range(2)]

    assert [status_of(reply) for reply in replies] == [202, 429]
    assert [header(reply, "X-RateLimit-Reset") for reply in replies] == [None, None]


@pytest.mark.parametrize(("settings", "limit"), [({}, "10000"), ({"rate_limit_per_s": 50}, "50")])
def test_a_chance_429_says_that_nothing_remains_until_the_next_second(settings: dict[str, Any], limit: str) -> None:
    reply = exchange(error_mix={429: 1.0}, **settings).handle(send(mail()), NOW_S)

    assert status_of(reply) == 429
    assert header(reply, "X-RateLimit-Limit") == limit
    assert header(reply, "X-RateLimit-Remaining") == "0"
    assert header(reply, "X-RateLimit-Reset") == "1800000001"


def test_without_a_rate_limit_no_rate_headers_are_sent() -> None:
    assert header(exchange().handle(send(mail()), NOW_S), "X-RateLimit-Limit") is None


def test_a_repeated_key_sends_again_where_keys_are_not_honoured() -> None:
    box = exchange()
    for _ in range(2):
        box.handle(send(mail(), key="k"), NOW_S)

    assert box.ledger.effects(NOTIFICATION) == 2
    assert box.ledger.idempotency_keys["k"] == 2


def test_an_honoured_key_replays_the_first_answer_without_a_second_effect() -> None:
    box = exchange(honour_idempotency_keys=True)
    first, again = (box.handle(send(mail(), key="k"), NOW_S) for _ in range(2))

    assert again == first
    assert box.ledger.effects(NOTIFICATION) == 1
    assert box.ledger.replayed == 1


def test_an_honoured_key_with_another_body_is_refused() -> None:
    box = exchange(honour_idempotency_keys=True)
    box.handle(send(mail(), key="k"), NOW_S)
    reply = box.handle(send(mail(subject="Other"), key="k"), NOW_S)

    assert status_of(reply) == 422
    assert box.ledger.accepted == 1


def test_an_honoured_key_is_forgotten_after_its_retention() -> None:
    box = exchange(honour_idempotency_keys=True, idempotency_retention_s=60)
    for now_s in (NOW_S, NOW_S + 60, NOW_S + 61):
        box.handle(send(mail(), key="k"), now_s)

    assert box.ledger.effects(NOTIFICATION) == 2


def test_a_refusal_is_not_remembered_for_its_key() -> None:
    box = exchange(honour_idempotency_keys=True, error_mix={503: 1.0})
    box.handle(send(mail(), key="k"), NOW_S)
    box.behaviour = Behaviour(honour_idempotency_keys=True)

    assert status_of(box.handle(send(mail(), key="k"), NOW_S)) == 202
    assert box.ledger.effects(NOTIFICATION) == 1


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), max_size=60),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.integers(0, 2**32),
)
def test_honoured_keys_take_effect_at_most_once_whatever_else_goes_wrong(
    attempts: list[tuple[int, float]], errors: float, drops: float, seed: int
) -> None:
    box = exchange(seed, honour_idempotency_keys=True, error_mix={503: errors}, drop_after_accept=drops)
    answered = set()
    for number, later_s in attempts:
        reply = box.handle(send(mail(notification_id=f"n{number}"), key=f"k{number}"), NOW_S + later_s)
        if status_of(reply) == 202:
            answered.add(f"n{number}")

    assert box.ledger.notifications.at_least(2) == {}
    assert answered <= set(box.ledger.notifications.at_least(1))


def outcomes(box: Exchange, address: str, count: int, **details: Any) -> list[tuple[int | None, bool]]:
    replies = [box.handle(send(mail(address, **details)), NOW_S) for _ in range(count)]
    return [(status_of(reply), reply.silent) for reply in replies]


@pytest.mark.parametrize(
    ("address", "expected", "effects"),
    [
        ("delivered@sandbox.test", [202, 202, 202, 202], 4),
        ("bounce@sandbox.test", [400, 400, 400, 400], 0),
        ("soft@sandbox.test", [503, 503, 202, 202], 2),
        ("soft-1+abc@sandbox.test", [503, 202, 202, 202], 3),
        ("always-soft@sandbox.test", [503, 503, 503, 503], 0),
        ("rate-limited@sandbox.test", [429, 202, 202, 202], 3),
        ("unauthorized@sandbox.test", [401, 401, 401, 401], 0),
        ("credits@sandbox.test", [401, 401, 401, 401], 0),
        ("forbidden@sandbox.test", [403, 403, 403, 403], 0),
        ("too-large@sandbox.test", [413, 413, 413, 413], 0),
        ("status@sandbox.test", [500, 500, 500, 500], 0),
        ("status-418@sandbox.test", [418, 418, 418, 418], 0),
        ("drop@sandbox.test", [None, 202, 202, 202], 4),
        ("drop-3@sandbox.test", [None, None, None, 202], 4),
        ("always-drop@sandbox.test", [None, None, None, None], 4),
        ("close@sandbox.test", [None, 202, 202, 202], 3),
    ],
)
def test_a_magic_recipient_does_what_its_row_says(address: str, expected: list[int | None], effects: int) -> None:
    box = exchange(error_mix={500: 0.5})

    assert outcomes(box, address, 4) == [(status, False) for status in expected]
    assert box.ledger.effects(NOTIFICATION) == effects


def test_a_silent_recipient_is_accepted_only_when_tried_again() -> None:
    box = exchange()

    assert outcomes(box, "silent@sandbox.test", 2) == [(None, True), (202, False)]
    assert box.ledger.unanswered == 1


def test_a_slow_recipient_is_answered_late() -> None:
    assert exchange(latency_s=1).handle(send(mail("slow-7@sandbox.test")), NOW_S).delay_s == 8


def test_each_notification_is_counted_by_itself() -> None:
    box = exchange()

    assert outcomes(box, "soft-1@sandbox.test", 2, notification_id="a") == [(503, False), (202, False)]
    assert outcomes(box, "soft-1@sandbox.test", 2, notification_id="b") == [(503, False), (202, False)]


def test_without_a_notification_the_key_then_the_address_is_counted() -> None:
    box = exchange()
    document = mail("soft-1@sandbox.test", notification_id=None)

    assert [status_of(box.handle(send(document, key=key), NOW_S)) for key in ("k", "l", "k")] == [503, 503, 202]
    assert [status_of(box.handle(send(document), NOW_S)) for _ in range(2)] == [503, 202]


def test_a_dropped_message_tried_again_under_an_honoured_key_is_sent_once() -> None:
    box = exchange(honour_idempotency_keys=True)
    replies = [box.handle(send(mail("drop@sandbox.test"), key="k"), NOW_S) for _ in range(2)]

    assert [status_of(reply) for reply in replies] == [None, 202]
    assert box.ledger.effects(NOTIFICATION) == 1


def test_magic_can_be_switched_off() -> None:
    assert status_of(exchange(magic_recipients=False).handle(send(mail("bounce@sandbox.test")), NOW_S)) == 202


def test_the_first_magic_recipient_of_a_request_decides() -> None:
    document = mail()
    document["personalizations"][0]["cc"] = [{"email": "status-418@sandbox.test"}, {"email": "bounce@sandbox.test"}]

    assert status_of(exchange().handle(send(document), NOW_S)) == 418


def test_sandbox_mode_validates_and_sends_nothing() -> None:
    box = exchange(honour_idempotency_keys=True)
    reply = box.handle(send(mail(mail_settings={"sandbox_mode": {"enable": True}}), key="k"), NOW_S)

    assert (status_of(reply), box.ledger.validated, box.ledger.accepted) == (200, 1, 0)
    assert status_of(box.handle(send(mail(), key="k"), NOW_S)) == 202


def test_a_path_of_no_provider_is_not_found_and_not_counted() -> None:
    box = exchange()

    assert status_of(box.handle(Request(b"GET", b"/", {}, b""), NOW_S)) == 404
    assert box.ledger.requests == 0


def test_a_batch_id_is_neither_an_effect_nor_a_refusal() -> None:
    box = exchange()
    request = send(b"")
    request.target = b"/v3/mail/batch"

    assert status_of(box.handle(request, NOW_S)) == 201
    assert (box.ledger.accepted, box.ledger.refused.total()) == (0, 0)


def test_every_request_ends_up_in_exactly_one_column_of_the_summary() -> None:
    box = exchange(honour_idempotency_keys=True, error_mix={503: 0.2}, drop_after_accept=0.2)
    addresses = ["somebody@example.com", "close@sandbox.test", "bounce@sandbox.test", "nobody", "soft@sandbox.test"]
    for number in range(400):
        box.handle(send(mail(addresses[number % 5], notification_id=f"n{number % 40}"), key=f"k{number % 40}"), NOW_S)
    summary = orjson.loads(orjson.dumps(box.ledger.summary()))

    assert summary["requests"] == 400
    assert summary["accepted"] + summary["replayed"] + summary["unanswered"] + sum(summary["refused"].values()) == 400
    assert summary["notifications"]["repeats"] == 0
