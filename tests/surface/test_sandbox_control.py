from __future__ import annotations

from typing import Any

import orjson
import pytest

from dispatcher_sandbox.behaviour import Behaviour, Outage
from dispatcher_sandbox.control import Control
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.ledger import Accepted, Ledger
from dispatcher_sandbox.magic import TABLE
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.simulators import SIMULATORS
from sandbox_mails import NOTIFICATION, mail, send


@pytest.fixture
def exchange() -> Exchange:
    box = Exchange(SIMULATORS, Ledger(), Behaviour(latency_s=1), 0)
    for document in (mail(), mail(), mail(notification_id="other")):
        box.handle(send(document, key="k"), 5.0)
    return box


def ask(exchange: Exchange, method: str, target: str, body: Any = b"") -> tuple[int, Any]:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    control = Control(exchange, lambda: {"connections": 3}, {"http": "http://127.0.0.1:8025"}, b"authority")
    answer = control.answer(Request(method.encode(), target.encode(), {}, raw))
    return answer.status, orjson.loads(answer.body) if answer.body else None


def test_the_index_lists_every_resource(exchange: Exchange) -> None:
    status, document = ask(exchange, "GET", "/_sandbox/")

    assert status == 200
    assert "PUT /_sandbox/behaviour" in document["resources"]
    assert ask(exchange, "GET", "/_sandbox") == (status, document)


def test_health_and_statistics_answer(exchange: Exchange) -> None:
    assert ask(exchange, "GET", "/_sandbox/health") == (200, {"status": "ok"})
    assert ask(exchange, "GET", "/_sandbox/statistics") == (200, {"connections": 3})


def test_put_replaces_the_behaviour_and_patch_changes_it(exchange: Exchange) -> None:
    assert ask(exchange, "PATCH", "/_sandbox/behaviour", {"outage": True})[0] == 200
    assert exchange.behaviour == Behaviour(latency_s=1, outage=Outage.UNAVAILABLE)

    assert ask(exchange, "PUT", "/_sandbox/behaviour", {"slow_s": 2})[0] == 200
    assert exchange.behaviour == Behaviour(slow_s=2)

    assert ask(exchange, "GET", "/_sandbox/behaviour") == (200, orjson.loads(orjson.dumps(exchange.behaviour.document())))


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), ({"latency_s": -1}, 422), ({"no": 1}, 422), ([], 422)])
def test_a_wrong_behaviour_is_refused_and_changes_nothing(exchange: Exchange, body: Any, status: int) -> None:
    answer = ask(exchange, "PUT", "/_sandbox/behaviour", body)

    assert answer[0] == status
    assert answer[1]["error"]
    assert exchange.behaviour == Behaviour(latency_s=1)


def test_the_ledger_shows_effects_by_name(exchange: Exchange) -> None:
    assert ask(exchange, "GET", "/_sandbox/ledger") == (
        200,
        {"notifications": {NOTIFICATION: 2, "other": 1}, "idempotency_keys": {"k": 3}, "organizations": {"acme": 3}},
    )
    assert ask(exchange, "GET", "/_sandbox/ledger?min_effects=2")[1]["notifications"] == {NOTIFICATION: 2}
    assert ask(exchange, "GET", f"/_sandbox/ledger?notification_id={NOTIFICATION}") == (
        200,
        {"notification_id": NOTIFICATION, "effects": 2},
    )


def test_the_summary_has_the_counts(exchange: Exchange) -> None:
    status, document = ask(exchange, "GET", "/_sandbox/ledger/summary")

    assert status == 200
    assert document == exchange.ledger.summary()


def test_the_ledger_can_be_emptied(exchange: Exchange) -> None:
    assert ask(exchange, "DELETE", "/_sandbox/ledger") == (204, None)
    assert exchange.ledger.summary() == Ledger().summary()


def test_the_latest_messages_are_shown_newest_first(exchange: Exchange) -> None:
    status, document = ask(exchange, "GET", "/_sandbox/messages?count=2")

    assert status == 200
    assert [message["correlations"][0]["notification_id"] for message in document["messages"]] == ["other", NOTIFICATION]
    assert document["messages"][1]["content"] == mail()
    assert document["messages"][1]["idempotency_key"] == "k"


def test_a_message_that_is_not_json_is_shown_as_text(exchange: Exchange) -> None:
    exchange.ledger.record(Accepted("other", "id", 5.0, None, (), b"To=%2B1650"))

    assert ask(exchange, "GET", "/_sandbox/messages?count=1")[1]["messages"][0]["content"] == "To=%2B1650"


@pytest.mark.parametrize("target", ["messages?count=all", "messages?count=-1", "ledger?min_effects=x"])
def test_a_number_that_is_none_is_refused(exchange: Exchange, target: str) -> None:
    assert ask(exchange, "GET", f"/_sandbox/{target}")[0] == 422


def test_the_magic_recipients_explain_themselves(exchange: Exchange) -> None:
    status, document = ask(exchange, "GET", "/_sandbox/magic")

    assert status == 200
    assert document["soft@sandbox.test"] == TABLE["soft"].explanation


def test_what_does_not_exist_is_told_apart_from_what_may_not_be_done(exchange: Exchange) -> None:
    assert ask(exchange, "GET", "/_sandbox/ledgers")[0] == 404
    assert ask(exchange, "GET", "/_sandboxes")[0] == 404
    status, document = ask(exchange, "POST", "/_sandbox/behaviour")
    assert (status, document) == (405, {"error": "only GET, PATCH, PUT here"})
