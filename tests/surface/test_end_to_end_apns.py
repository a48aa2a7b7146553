"""Pushes through APNs from the request to the device's answer: everything real, and nothing private left anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apple_keys import apple_credentials, p8
from canary import MARK, Watch, logged, monitored
from dispatcher_sandbox.apns import device_token
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, Running, dispatching

TOPIC = "org.example.tickets"
DEVICE = "ab" * 32


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def trust(sandbox: Sandbox, tmp_path: Path) -> dict[str, str]:
    """Settings with which a dispatcher may send to the sandbox's APNs."""
    file = tmp_path / "authority.pem"
    file.write_bytes(sandbox.ca_pem)
    return {"provider_urls_extra": sandbox.urls["apns"], "provider_ca_file": str(file)}


@pytest.fixture
async def running(database_url: str, redis_url: str, trust: dict[str, str]) -> AsyncIterator[Running]:
    async with dispatching(database_url, redis_url, **trust) as running:
        yield running


def configuration(sandbox: Sandbox, **settings: Any) -> dict[str, Any]:
    return {
        "provider": "apns",
        "channel": "push",
        "credentials": apple_credentials(),
        "settings": {"topic": TOPIC, "base_url": sandbox.urls["apns"], **settings},
    }


def push(device: str = DEVICE, **fields: Any) -> dict[str, Any]:
    content = {"title": "Doors", "text": "They open at seven.", "data": {"seat": "B7"}}
    return {"channel": "push", "recipient": device, "content": content, **fields}


async def outcomes(customer: Customer, *items: dict[str, Any]) -> list[str]:
    """Hand these in and wait for the end of each."""
    async with customer.listen() as feed:
        ids = [item["id"] for item in (await customer.post("notifications", {"items": items}))["items"]]
        ended = await feed.outcomes(ids)
    return [ended[id].removeprefix("notification.") for id in ids]


async def test_pushes_arrive_once_and_refused_ones_become_dead_letters(running: Running, sandbox: Sandbox) -> None:
    acme = await running.customer("acme")
    await acme.post("providers", configuration(sandbox))
    devices = [DEVICE] * 20 + [device_token(trick) for trick in ("soft", "stale", "unregistered", "bad")]
    ended = await outcomes(acme, *map(push, devices))
    letters = (await acme.get("dead-letters"))["items"]
    statuses = await acme.statuses()

    assert ended == ["delivered"] * 22 + ["failed"] * 2
    assert {letter["reason"] for letter in letters} == {"suppressed"}
    assert sandbox.ledger.accepted == 22
    assert sandbox.ledger.notifications.statistics().repeats == 0
    assert all(sandbox.ledger.effects(id) == (status == "delivered") for id, status in statuses.items())
    assert (await running.metrics())["dispatcher_h2_connections"] >= 1


async def test_connections_that_go_away_cost_nobody_a_push(running: Running, sandbox: Sandbox) -> None:
    sandbox.change(goaway_after=5, streams_until_accepted=None)
    acme = await running.customer("acme")
    await acme.post("providers", configuration(sandbox))
    ended = await outcomes(acme, *[push() for _ in range(40)])

    assert set(ended) == {"delivered"}
    assert sandbox.ledger.accepted == 40
    assert sandbox.ledger.notifications.statistics().repeats == 0


async def test_nothing_private_is_left_anywhere(
    database_url: str, redis_url: str, sandbox: Sandbox, trust: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    watch = Watch()
    watch.secrets.append(p8().splitlines()[1])
    with logged(watch), monitored(watch, redis_url):
        async with dispatching(database_url, redis_url, log_level="debug", **trust) as running:
            acme = await running.customer("acme")
            watch.secrets.append(acme.key.removeprefix("ndk_"))
            watch.answer(await acme.call("POST", "providers", configuration(sandbox, collapse_id="doors")))
            content = {"title": MARK, "text": MARK, "data": {MARK: MARK}}
            tricks = ("drop", "close", "bad", "delivered")
            devices = [device_token(f"{trick}-{MARK}") for trick in tricks]
            watch.secrets += devices
            ended = await outcomes(acme, *[push(device, content=content) for device in [*devices, DEVICE]])
            watch.saw("the metrics", (await running.client.get(f"{running.url}/metrics")).content)
    watch.postgres(database_url)
    watch.redis(redis_url)
    for name, text in zip(("standard output", "standard error"), capfd.readouterr(), strict=True):
        watch.saw(name, text)

    assert sorted(set(ended)) == ["delivered", "failed"]
    assert watch.found() == []
