"""Texts and WhatsApp messages through a whole dispatcher: Twilio for both, Meta, and what becomes of what they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest

from canary import CONTENT, MARK, Watch, logged, monitored
from dispatcher_sandbox.ledger import Accepted
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from meta_world import PHONE_NUMBER_ID
from running import Customer, Running, dispatching
from twilio_world import ACCOUNT
from twilio_world import CONTENT as CONTENT_SID

MAGIC = "+1500555"
CALLBACK = "http://127.0.0.1:9/hooks/7"
TEMPLATE = {"name": "order_update", "language": "en_US", "parameters": ["Ann", "B7"]}
TOKEN = f"token-{MARK}"
TWILIO = {"account_sid": ACCOUNT, "auth_token": TOKEN}
CONTENT_SIDS = {"order_update": {"en_US": CONTENT_SID}}
CONFIGS: dict[str, dict[str, Any]] = {
    "twilio_sms": {
        "channel": "sms",
        "credentials": TWILIO,
        "settings": {"from_number": "+15005550006", "status_callback_url": CALLBACK, "rate_per_s": 500},
    },
    "twilio_whatsapp": {
        "channel": "whatsapp",
        "credentials": TWILIO,
        "settings": {"from_number": "+15005550006", "status_callback_url": CALLBACK, "content_sids": CONTENT_SIDS},
    },
    "meta_whatsapp": {
        "channel": "whatsapp",
        "credentials": {"access_token": TOKEN, "app_secret": f"secret-{MARK}"},
        "settings": {"phone_number_id": PHONE_NUMBER_ID},
    },
}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def running(database_url: str, redis_url: str, sandbox: Sandbox) -> AsyncIterator[Running]:
    async with dispatching(database_url, redis_url, [sandbox]) as running:
        yield running


async def customer(running: Running, sandbox: Sandbox, provider: str) -> Customer:
    """A customer of its own for each provider."""
    found = await running.customer(provider.replace("_", "-"))
    config = CONFIGS[provider]
    settings = {**config["settings"], "base_url": sandbox.url}
    await found.post("providers", {"provider": provider, **config, "settings": settings})
    return found


def message(provider: str, number: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"channel": CONFIGS[provider]["channel"], "recipient": number, "content": content}


async def ends(customer: Customer, *items: dict[str, Any]) -> list[tuple[str, str | None, int]]:
    """What became of these: status, reason and attempts of each."""
    async with customer.listen() as feed:
        answer = await customer.post("notifications", {"items": items})
        ids = [item["id"] for item in answer["items"]]
        await feed.outcomes(ids)
    found = [await customer.get(f"notifications/{id}") for id in ids]
    return [(one["status"], one["reason"], one["attempts"]) for one in found]


def read(accepted: Accepted) -> Any:
    if accepted.provider == "meta":
        return orjson.loads(accepted.body)
    return {name: values[0] for name, values in parse_qs(accepted.body.decode()).items()}


async def test_every_provider_of_numbers_delivers(running: Running, sandbox: Sandbox) -> None:
    for provider in CONFIGS:
        acme = await customer(running, sandbox, provider)
        config_id = (await acme.get("providers"))["items"][0]["id"]
        assert (await acme.post(f"providers/{config_id}/test", {}))["ok"]
        async with acme.listen() as feed:
            id = (await acme.post("notifications", message(provider, "+15551230000", {"text": "Doors at 7"})))["id"]
            await feed.until(type="notification.delivered", id=id)
        found = await acme.get(f"notifications/{id}")

        assert (found["provider"], found["provider_message_id"]) == (provider, sandbox.ledger.recent[-1].message_id)
        assert sandbox.ledger.effects(id) == 1
        assert sandbox.ledger.organizations[acme.organization_id] == 1


@pytest.mark.parametrize("provider", ["twilio_whatsapp", "meta_whatsapp"])
async def test_one_form_of_a_template_goes_through_either(running: Running, sandbox: Sandbox, provider: str) -> None:
    acme = await customer(running, sandbox, provider)
    wrong = await acme.call("POST", "notifications", message(provider, "+15551230000", {"template": {**TEMPLATE, "name": "?"}}))
    ended = await ends(
        acme,
        message(provider, "+15551230000", {"template": TEMPLATE}),
        message(provider, "+15551230000", {"template": {**TEMPLATE, "language": "de"}}),
    )
    sent = [read(accepted) for accepted in sandbox.ledger.recent]

    assert (wrong.status_code, wrong.json()["pointer"]) == (422, "/content/template/name")
    if provider == "meta_whatsapp":
        assert {one["template"]["language"]["code"] for one in sent} == {"de", "en_US"}
        assert ended == [("delivered", None, 1)] * 2
    else:
        assert [(one["ContentSid"], one["ContentVariables"]) for one in sent] == [(CONTENT_SID, '{"1": "Ann", "2": "B7"}')]
        assert ended == [("delivered", None, 1), ("failed", "template_without_content_sid", 1)]


@pytest.mark.parametrize("provider", sorted(CONFIGS))
async def test_what_a_number_is_refused_for_decides_what_follows(running: Running, sandbox: Sandbox, provider: str) -> None:
    acme = await customer(running, sandbox, provider)
    digits = ("0001", "0003", "0020", "0025", "0031")
    ended = await ends(acme, *(message(provider, MAGIC + four, {"text": "Doors at 7"}) for four in digits))
    meta = provider == "meta_whatsapp"

    assert dict(zip(digits, ended, strict=True)) == {
        "0001": ("failed", "undeliverable_131026" if meta else "number_invalid_21211", 1),
        "0003": ("failed", "country_restricted_130497" if meta else "region_disabled_21408", 1),
        "0020": ("delivered", None, 3),
        "0025": ("delivered", None, 2),
        "0031": ("failed", "window_closed_131047" if meta else "window_closed_63016", 1),
    }


@pytest.mark.parametrize("provider", sorted(CONFIGS))
async def test_no_number_and_no_secret_shows_anywhere(database_url: str, redis_url: str, provider: str) -> None:
    watch = Watch(secrets=["5551237890", "5005550001", "5005550024"])
    async with AsyncExitStack() as stack:
        stack.enter_context(logged(watch))
        stack.enter_context(monitored(watch, redis_url))
        sandbox = await stack.enter_async_context(open_sandbox())
        running = await stack.enter_async_context(dispatching(database_url, redis_url, [sandbox]))
        acme = await customer(running, sandbox, provider)
        numbers = ("+15551237890", MAGIC + "0001")
        async with acme.listen() as feed:
            items = [message(provider, number, {"text": CONTENT}) for number in numbers]
            answer = watch.answer(await acme.call("POST", "notifications", {"items": items}))
            await feed.outcomes(item["id"] for item in answer.json()["items"])
            watch.events(feed.heard)
            # One that waits for a person: its refusal is about the credentials.
            stuck = message(provider, MAGIC + "0024", {"text": CONTENT})
            watch.answer(await acme.call("POST", "notifications", stuck))
            await feed.until(type="notification.retrying")
        config = watch.answer(await acme.call("GET", "providers")).json()["items"][0]["id"]
        watch.answer(await acme.call("POST", f"providers/{config}/test", {"recipient": "+15551237890"}))
        webhook = f"{running.url}/v1/orgs/{acme.organization_id}/providers/{config}/webhook"
        watch.answer(await running.client.post(webhook, json={"From": "+15551237890", "Body": CONTENT}))
        bad = message(provider, "+15551237890", {"template": {"name": CONTENT}, "text": 5})
        watch.answer(await acme.call("POST", "notifications", bad))
        watch.saw("the metrics", (await running.client.get(f"{running.url}/metrics")).content)
        watch.postgres(database_url)
        watch.redis(redis_url)

    assert watch.found() == []
    assert len(sandbox.ledger.recent) == 2
