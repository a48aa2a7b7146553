"""Mails that ride together through a real dispatcher: few requests, everybody's own words, everybody's own end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest

from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from dispatcher_sandbox.sendgrid.letters import Letter, letters_of
from dispatcher_sandbox.ses.signature import SECRET
from running import Customer, Running, dispatching, mail

COUNT = 200
BAD = 77


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def running(database_url: str, redis_url: str, sandbox: Sandbox) -> AsyncIterator[Running]:
    # A batch is what an organization has in flight and not begun: with the default of 64, none is longer.
    async with dispatching(database_url, redis_url, [sandbox], organization_in_flight_max="256") as running:
        yield running


def letters(sandbox: Sandbox) -> dict[str, Letter]:
    """What every recipient has read, each once."""
    found = [letter for accepted in sandbox.ledger.recent for letter in letters_of(accepted.body)]
    by_recipient = {letter.to[0]: letter for letter in found}
    assert len(by_recipient) == len(found)
    return by_recipient


async def send(customer: Customer, recipients: Iterable[str]) -> dict[str, str]:
    """Hand in a mail with words of its own for each, in one request; the ids by recipient."""
    to = list(recipients)
    items = [
        mail(recipient, content={"subject": f"Seat {number}", "text": f"Dear {number}", "html": f"<p>{number}</p>"})
        for number, recipient in enumerate(to)
    ]
    answer = await customer.post("notifications", {"items": items})
    return {recipient: item["id"] for recipient, item in zip(to, answer["items"], strict=True)}


async def test_two_hundred_mails_take_few_requests_and_one_bad_one_spoils_none(
    running: Running, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The bad one is told apart and ends as it would alone; the others arrive, each with the words meant for them."""
    acme = await running.customer("acme")
    recipients = [f"reader{number}@example.org" for number in range(COUNT)]
    recipients[BAD] = "bounce@sandbox.test"
    await acme.add_provider(sandbox.url, batch_max=100)
    async with acme.listen() as feed:
        ids = await send(acme, recipients)
        ended = await feed.outcomes(ids.values())
    bad = ids.pop(recipients[BAD])
    found = await acme.get(f"notifications/{bad}")
    one = await acme.get(f"notifications/{ids['reader3@example.org']}")
    read = letters(sandbox)

    assert ended.pop(bad) == "notification.failed"
    assert (found["reason"], found["timeline"][-1]["code"]) == ("recipient_refused", "recipient_refused")
    assert set(ended.values()) == {"notification.delivered"}
    assert all(sandbox.ledger.effects(id) == 1 for id in ids.values())
    assert sandbox.ledger.effects(bad) == 0
    assert sandbox.ledger.requests <= 6  # three, if all of them wait when the first caller comes
    assert read.keys() == ids.keys()
    for number, recipient in enumerate(recipients):
        if number != BAD:
            assert read[recipient] == Letter(
                (recipient,), ids[recipient], f"Seat {number}", {"text/plain": f"Dear {number}", "text/html": f"<p>{number}</p>"}
            )
    assert one["provider_message_id"] in {accepted.message_id for accepted in sandbox.ledger.recent}
    assert [word for word in ("reader", "bounce@", "Dear", "Seat", "SG.tests") if word in caplog.text] == []


async def test_a_batch_whose_answer_is_lost_leaves_a_doubt_for_each(running: Running, sandbox: Sandbox) -> None:
    acme = await running.customer("acme")
    recipients = [f"reader{number}@example.org" for number in range(20)]
    sandbox.change(drop_after_accept=1.0)
    await acme.add_provider(sandbox.url, batch_max=100, on_unknown="hold")
    async with acme.listen() as feed:
        ids = await send(acme, recipients)
        ended = await feed.outcomes(ids.values())
    letters_held = await acme.get("dead-letters?page_size=50")

    assert set(ended.values()) == {"notification.failed"}
    assert {item["reason"] for item in letters_held["items"]} == {"unknown"}
    assert len(letters_held["items"]) == 20
    assert all(sandbox.ledger.effects(id) == 1 for id in ids.values())


async def test_entries_of_a_bulk_request_to_ses_end_each_in_its_own_way(running: Running, sandbox: Sandbox) -> None:
    """The same calls, at a provider that answers for each entry: nothing has to be sent a second time."""
    acme = await running.customer("acme")
    document = {
        "provider": "ses",
        "channel": "email",
        "credentials": {"access_key_id": "AKIASANDBOXSANDBOX00", "secret_access_key": SECRET},
        "settings": {"region": "eu-central-1", "from_email": "tickets@example.org", "base_url": sandbox.url, "batch_max": 50},
    }
    await acme.post("providers", document)
    recipients = [f"reader{number}@example.org" for number in range(COUNT)]
    recipients[BAD] = "bounce@sandbox.test"
    async with acme.listen() as feed:
        ids = await send(acme, recipients)
        ended = await feed.outcomes(ids.values())
    bad = ids.pop(recipients[BAD])

    assert ended.pop(bad) == "notification.failed"
    assert set(ended.values()) == {"notification.delivered"}
    assert all(sandbox.ledger.effects(id) == 1 for id in ids.values())
    assert sandbox.ledger.requests <= 8  # four, if all of them wait when the first caller comes
