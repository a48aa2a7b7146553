"""SendGrid's email activity: a search in the ledger."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import orjson
import pytest

from dispatcher_sandbox.behaviour import Behaviour, Outage
from dispatcher_sandbox.exchange import Exchange, Reply
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.simulators import SIMULATORS
from sandbox_mails import AUTHORIZATION, NOTIFICATION, mail, send

NOW_S = 1_800_000_000.0


def exchange(**settings: Any) -> Exchange:
    return Exchange(SIMULATORS, Ledger(), Behaviour(**settings), 0)


def search(
    notification_id: str = NOTIFICATION,
    *,
    query: str | None = None,
    limit: str = "limit=1&",
    authorization: str = AUTHORIZATION,
    method: bytes = b"GET",
) -> Request:
    text = f"(unique_args['notification_id']=\"{notification_id}\")" if query is None else query
    target = f"/v3/messages?{limit}query={quote(text, safe='')}".encode()
    return Request(method, target, {b"authorization": authorization.encode()} if authorization else {}, b"")


def answered(reply: Reply) -> tuple[int, Any]:
    assert reply.answer is not None
    assert b"Content-Type: application/json\r\n" in reply.answer.headers
    return reply.answer.status, orjson.loads(reply.answer.body)


def test_what_took_effect_is_found_by_its_notification() -> None:
    box = exchange(drop_after_accept=1.0)  # its answer was lost, its effect was not
    box.handle(send(mail()), NOW_S)
    box.behaviour = Behaviour()
    status, document = answered(box.handle(search(), NOW_S + 1))

    assert status == 200
    assert document == {
        "messages": [
            {
                "msg_id": f"{box.ledger.recent[0].message_id}.sandbox-0",
                "status": "delivered",
                "opens_count": 0,
                "clicks_count": 0,
                "last_event_time": "2027-01-15T08:00:00Z",
            }
        ]
    }


def test_what_took_no_effect_is_not_found() -> None:
    box = exchange(error_mix={503: 1.0})
    box.handle(send(mail()), NOW_S)
    box.behaviour = Behaviour()

    assert answered(box.handle(search(), NOW_S)) == (200, {"messages": []})
    assert (box.ledger.searched, box.ledger.accepted) == (1, 0)


def test_no_more_are_listed_than_were_asked_for() -> None:
    box = exchange()
    for _ in range(3):
        box.handle(send(mail()), NOW_S)

    assert len(answered(box.handle(search(), NOW_S))[1]["messages"]) == 1
    assert len(answered(box.handle(search(limit=""), NOW_S))[1]["messages"]) == 3


def test_records_lag_behind_what_was_sent() -> None:
    box = exchange(activity_lag_s=60.0)
    box.handle(send(mail()), NOW_S)

    assert answered(box.handle(search(), NOW_S + 59))[1] == {"messages": []}
    assert len(answered(box.handle(search(), NOW_S + 60))[1]["messages"]) == 1


@pytest.mark.parametrize("authorization", ["", "Bearer ", "Bearer SG.", "Basic SG.key", "Bearer other"])
def test_a_search_needs_a_key_as_a_mail_does(authorization: str) -> None:
    box = exchange()
    status, document = answered(box.handle(search(authorization=authorization), NOW_S))

    assert status == 401
    assert document["errors"][0]["message"] == "The provided authorization grant is invalid, expired, or revoked"
    assert box.ledger.refused == {401: 1}


def test_without_the_add_on_it_is_forbidden() -> None:
    assert answered(exchange(email_activity=False).handle(search(), NOW_S))[0] == 403


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (search(query=""), "query"),
        (search(query="to_email"), "query"),
        (search(query="unique_args['notification_id']=\"\""), "query"),
        (search(limit="limit=0&"), "limit"),
        (search(limit="limit=1001&"), "limit"),
        (search(limit="limit=x&"), "limit"),
    ],
)
def test_what_is_not_understood_is_refused_at_its_field(request_: Request, field: str) -> None:
    status, document = answered(exchange().handle(request_, NOW_S))

    assert (status, document["errors"][0]["field"]) == (400, field)


def test_only_get_is_allowed() -> None:
    reply = exchange().handle(search(method=b"POST"), NOW_S)

    assert answered(reply)[0] == 405
    assert reply.answer is not None
    assert b"Allow: GET\r\n" in reply.answer.headers


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"outage": Outage.UNAVAILABLE}, 503),
        ({"outage": Outage.CLOSE}, None),
        ({"error_mix": {500: 1.0}}, 500),
        ({"drop_after_accept": 1.0}, None),
    ],
)
def test_a_search_shares_the_luck_of_mails(settings: dict[str, Any], status: int | None) -> None:
    box = exchange(**settings)
    reply = box.handle(search(), NOW_S)

    assert (None if reply.answer is None else reply.answer.status) == status
    assert box.ledger.searched == 0
    assert box.ledger.unanswered + box.ledger.refused.total() == 1


def test_a_search_counts_against_the_rate_of_its_key() -> None:
    box = exchange(rate_limit_per_s=1)
    statuses = [answered(box.handle(search(), NOW_S))[0] for _ in range(2)]

    assert statuses == [200, 429]
