"""Several mails in one request to the sandbox's SendGrid: all or none, and each recipient's own words."""

from __future__ import annotations

from typing import Any

import orjson

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.exchange import Exchange, Reply
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.sendgrid.letters import Letter, letters_of
from dispatcher_sandbox.simulators import SIMULATORS
from sandbox_mails import mail, send

NOW_S = 1_700_000_000.0


def exchange() -> Exchange:
    return Exchange(SIMULATORS, Ledger(), Behaviour(), 1)


def block(number: int, to: str, **fields: Any) -> dict[str, Any]:
    return {"to": [{"email": to}], "custom_args": {"notification_id": f"n-{number}", "organization_id": "acme"}, **fields}


def several(*recipients: str) -> dict[str, Any]:
    return mail(personalizations=[block(number, to) for number, to in enumerate(recipients)])


def refused_fields(reply: Reply) -> list[str]:
    assert reply.answer is not None
    assert reply.answer.status == 400
    return [error["field"] for error in orjson.loads(reply.answer.body)["errors"]]


def test_all_of_a_request_take_effect_under_one_message_id() -> None:
    box = exchange()
    box.handle(send(several("a@example.com", "b@example.com")), NOW_S)

    assert (box.ledger.accepted, box.ledger.messages) == (1, 2)
    assert [box.ledger.effects(f"n-{number}") for number in range(2)] == [1, 1]
    assert {len(box.ledger.sent(f"n-{number}", NOW_S)) for number in range(2)} == {1}


def test_one_wrong_address_refuses_the_whole_request_and_is_named() -> None:
    box = exchange()

    assert refused_fields(box.handle(send(several("a@example.com", "b@example.com", "nobody")), NOW_S)) == [
        "personalizations.2.to.0.email"
    ]
    assert box.ledger.messages == 0


def test_every_magic_bounce_of_a_request_is_named_whoever_stands_before_it() -> None:
    box = exchange()
    reply = box.handle(
        send(several("a@example.com", "soft@sandbox.test", "bounce@sandbox.test", "b@example.com", "bounce+2@sandbox.test")),
        NOW_S,
    )

    assert refused_fields(reply) == ["personalizations.2.to.0.email", "personalizations.4.to.0.email"]
    assert box.ledger.messages == 0


def test_a_magic_recipient_is_counted_by_its_own_notification() -> None:
    box = exchange()
    several_soft = send(several("a@example.com", "soft-1@sandbox.test"))
    statuses = [reply.answer.status for _ in range(2) if (reply := box.handle(several_soft, NOW_S)).answer is not None]
    alone = box.handle(send(mail("soft-1@sandbox.test", "n-0")), NOW_S)

    assert statuses == [503, 202]
    assert alone.answer is not None
    assert alone.answer.status == 503


def test_a_letter_is_what_its_recipient_reads() -> None:
    document = mail(
        subject="Seat -seat-",
        content=[{"type": "text/plain", "value": "-name-, -seat-"}, {"type": "text/html", "value": "<b>-seat-</b>"}],
        personalizations=[
            block(0, "a@example.com", substitutions={"-name-": "Ann", "-seat-": "A1"}),
            block(1, "b@example.com", subject="Yours: -seat-", substitutions={"-name-": "Ben", "-seat-": "B2"}),
        ],
    )
    body = send(document).body

    assert letters_of(body) == [
        Letter(("a@example.com",), "n-0", "Seat A1", {"text/plain": "Ann, A1", "text/html": "<b>A1</b>"}),
        Letter(("b@example.com",), "n-1", "Yours: B2", {"text/plain": "Ben, B2", "text/html": "<b>B2</b>"}),
    ]
