"""Answers that never came, from the request to the provider and back: everything real, in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from attrs import evolve

from dispatcher.providers.sendgrid import SENDGRID
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Running, dispatching


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def running(database_url: str, redis_url: str, sandbox: Sandbox) -> AsyncIterator[Running]:
    async with dispatching(database_url, redis_url, [sandbox]) as running:
        yield running


async def test_what_is_held_is_sent_again_only_after_a_person_has_said_so(running: Running, sandbox: Sandbox) -> None:
    """The first mail was taken, so the second is a double; but one that somebody has decided on."""
    acme = await running.customer("acme")
    await acme.add_provider(sandbox.url, on_unknown="hold")
    async with acme.listen() as feed:
        id = await acme.send("drop@sandbox.test")
        failed = await feed.until(type="notification.failed", id=id)
        held = await acme.get(f"notifications/{id}")
        before = sandbox.ledger.effects(id)
        (letter,) = (await acme.get("dead-letters?reason=unknown"))["items"]
        await acme.call("POST", f"dead-letters/{id}/requeue")
        await feed.until(type="notification.delivered", id=id)
    found = await acme.get(f"notifications/{id}")

    assert (failed["reason"], failed["code"]) == ("unknown", "unknown_held")
    assert [(entry["event"], entry.get("attempt"), entry.get("code")) for entry in held["timeline"]][1:] == [
        ("unknown", 1, held["timeline"][1]["code"]),
        ("failed", 1, "unknown_held"),
    ]
    assert (held["status"], held["attempts"], held["unknowns"], before) == ("failed", 1, 1, 1)
    assert letter["notification_id"] == id
    assert (found["status"], found["unknowns"], sandbox.ledger.effects(id)) == ("delivered", 1, 2)
    assert (await running.metrics())['dispatcher_dead_letters_total{channel="email",reason="unknown"}'] == 1


@pytest.mark.parametrize(("retention_s", "status", "effects"), [(3600, "delivered", 1), (0.001, "failed", 1)])
async def test_a_key_is_relied_on_as_long_as_it_is_honoured_and_no_longer(
    running: Running, sandbox: Sandbox, retention_s: float, status: str, effects: int
) -> None:
    """Several lost answers in a row are one effect; past the retention nothing is sent by itself (scenarios 5 and 6)."""
    sandbox.change(honour_idempotency_keys=True)
    acme = await running.customer("acme")
    await acme.add_provider(sandbox.url, key_retention_s=retention_s)
    async with acme.listen() as feed:
        id = await acme.send("drop-3@sandbox.test")
        await feed.until(type=f"notification.{status}", id=id)
    found = await acme.get(f"notifications/{id}")

    assert found["unknowns"] == (3 if status == "delivered" else 1)
    assert found["reason"] == (None if status == "delivered" else "key_retention_passed")
    assert sandbox.ledger.effects(id) == effects


async def test_by_default_one_more_attempt_is_made_and_a_second_unknown_is_held(running: Running, sandbox: Sandbox) -> None:
    """One marked double at most, at a provider that honours no keys (scenario 5)."""
    acme = await running.customer("acme")
    await acme.add_provider(sandbox.url)
    async with acme.listen() as feed:
        id = await acme.send("drop-9@sandbox.test")
        failed = await feed.until(type="notification.failed", id=id)
    found = await acme.get(f"notifications/{id}")

    assert (failed["reason"], failed["code"]) == ("unknown", "unknown_held")
    assert (found["attempts"], found["unknowns"], sandbox.ledger.effects(id)) == (2, 2, 2)


async def test_who_asks_first_finds_what_was_sent_and_sends_it_once(
    running: Running, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.hot.REGISTRY", {"sendgrid": evolve(SENDGRID, inquiry_lag_s=0.1)})  # nobody waits for five minutes
    acme = await running.customer("acme")
    await acme.add_provider(sandbox.url, on_unknown="ask")
    async with acme.listen() as feed:
        id = await acme.send("drop@sandbox.test")
        await feed.until(type="notification.delivered", id=id)
    found = await acme.get(f"notifications/{id}")
    events = [(entry["event"], entry.get("attempt"), entry.get("code")) for entry in found["timeline"]]

    assert events[2:] == [("delivered", 2, "found_at_provider")]
    assert (found["unknowns"], found["reason"], sandbox.ledger.effects(id)) == (1, None, 1)
    assert found["provider_message_id"] == f"{sandbox.ledger.recent[0].message_id}.sandbox-0"
