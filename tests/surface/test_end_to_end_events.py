"""From an event to the mail in somebody's language, and to every question about it: everything real, in one process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, Running, dispatching, until

RULE = {
    "event": "ticketing.purchase.completed",
    "topic": "purchases",
    "recipients": [{"user": "data.buyer"}],
    "send": [{"channel": "email", "template": "purchase"}],
}
REMINDER = {
    "event": "ticketing.purchase.completed",
    "recipients": [{"user": "data.buyer"}],
    "send": [{"channel": "email", "template": "reminder"}],
    "at": {"date": "data.starts", "offset_s": -60},
}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def running(database_url: str, redis_url: str, sandbox: Sandbox) -> AsyncIterator[Running]:
    async with dispatching(database_url, redis_url, [sandbox]) as running:
        yield running


@pytest.fixture
async def acme(running: Running, sandbox: Sandbox) -> Customer:
    """A customer with a set-up, a provider and a user."""
    acme = await running.customer("acme")
    await acme.add_provider(sandbox.url)
    for name, locale, subject, text in (
        ("purchase", "en", "Your tickets", "Thank you, {{ name }}."),
        ("purchase", "pt", "Seus ingressos", "Obrigado, {{ name }}."),
        ("reminder", "en", "Soon", "It starts soon, {{ name }}."),
    ):
        template = {"name": name, "channel": "email", "locale": locale, "subject": subject, "body_template": text}
        await acme.post("templates", template)
    for path, document in (
        ("rules/purchase", RULE),
        ("rules/reminder", REMINDER),
        ("topics/purchases", {"title": "Purchases"}),
        ("users/ana", {"locale": "pt-BR", "time_zone": "America/Sao_Paulo", "contact_points": {"email": ["ana@example.org"]}}),
    ):
        stored = await acme.call("PUT", path, document)
        assert stored.status_code in (200, 201), stored.text
    return acme


def purchase(number: int, **data: Any) -> dict[str, Any]:
    starts = (datetime.now(UTC) + timedelta(seconds=61)).isoformat()
    return {"id": f"evt-{number}", "type": RULE["event"], "data": {"buyer": "ana", "name": "Ana", "starts": starts, **data}}


async def test_a_purchase_becomes_a_mail_in_the_buyers_language_and_a_reminder_when_it_is_due(
    acme: Customer, sandbox: Sandbox
) -> None:
    dry = await acme.post("events/explain?payload=true", purchase(1))
    async with acme.listen() as feed:
        answer = await acme.post("events", purchase(1))
        again = await acme.call("POST", "events", purchase(1, name="Eva"))
        ids = [item["id"] for item in answer["items"]]
        assert await feed.outcomes(ids) == dict.fromkeys(ids, "notification.delivered")

    assert [item["status"] for item in answer["items"]] == ["queued", "scheduled"]
    assert again.json()["code"] == "event_id_reused"
    bodies = [mail.body.decode() for mail in sandbox.ledger.recent]
    assert "Obrigado, Ana." in bodies[0]
    assert "It starts soon, Ana." in bodies[1]
    assert dry["notifications"][0]["payload"]["text"] == "Obrigado, Ana."
    told = await acme.get(f"notifications/{ids[0]}/explain")
    assert told["decisions"] == dry["notifications"][0]["decisions"]
    assert [step["code"] for step in told["since"]][-1] == "state_delivered"
    reminder = await acme.get(f"notifications/{ids[1]}/explain")
    assert [decision["code"] for decision in reminder["decisions"]][-4:] == [
        "time_relative", "cap_none", "rate_unlimited", "time_now",
    ]  # fmt: skip
    assert (await acme.get("events/evt-1"))["answer"] == answer


async def test_the_same_events_from_many_producers_at_once_are_taken_in_once(acme: Customer) -> None:
    await acme.call("DELETE", "rules/reminder")
    batch = {"items": [purchase(number, starts=None) for number in range(20)]}
    answers: list[dict[str, Any]] = []

    async def hand_in() -> None:
        answers.append(await acme.post("events", batch))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hand_in)
    answers.append(await acme.post("events", batch))

    assert sum(answer["accepted"] for answer in answers) == 20
    assert len(await acme.statuses()) == 20
    assert {item["status"] for item in answers[-1]["items"]} == {"duplicate"}


async def test_a_changed_rule_holds_for_the_next_event(acme: Customer) -> None:
    await acme.post("events", purchase(1))
    for name in ("purchase", "reminder"):
        assert (await acme.call("DELETE", f"rules/{name}")).status_code == 204

    async def is_unmatched() -> bool:
        number = len(seen) + 2
        seen.append((await acme.post("events", purchase(number)))["matched"])
        return not seen[-1]

    seen: list[bool] = []
    await until(is_unmatched)


async def test_nothing_of_an_event_is_written_anywhere_but_into_its_notification(
    acme: Customer, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    mark = "Zanzibar-7319"
    caplog.set_level(logging.DEBUG)
    await acme.post("events", purchase(1, name=mark))
    failed = await acme.call("POST", "events", purchase(2, name={"inner": mark}, buyer=mark))
    broken = await acme.call("POST", "events", {**purchase(3), "data": {"buyer": "ana", mark: mark}})
    answers = failed.text + broken.text + str(await acme.get("events/evt-1")) + str(await running.metrics())

    assert broken.status_code == 422
    assert mark not in answers
    assert mark not in caplog.text
