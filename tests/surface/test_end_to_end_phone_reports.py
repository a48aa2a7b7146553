"""What Twilio and Meta report goes all the way: from the sandbox's signed calls to what may be sent to a number."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.meta.reports import ACCOUNT as BUSINESS
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from meta_world import CREDENTIALS, PHONE_NUMBER_ID
from running import Customer, Running, dispatching, until
from twilio_world import ACCOUNT

MAGIC = "+1500555"
TWILIO = {"account_sid": ACCOUNT, "auth_token": "hush"}
CONFIGS: dict[str, dict[str, Any]] = {
    "twilio_sms": {"channel": "sms", "credentials": TWILIO, "settings": {"from_number": "+15005550006"}},
    "twilio_whatsapp": {"channel": "whatsapp", "credentials": TWILIO, "settings": {"from_number": "+15005550006"}},
    "meta_whatsapp": {
        "channel": "whatsapp",
        "credentials": CREDENTIALS,
        "settings": {"phone_number_id": PHONE_NUMBER_ID, "business_account_id": BUSINESS},
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
    """A customer whose provider reports to the dispatcher."""
    acme = await running.customer("acme")
    config = CONFIGS[provider]
    settings = {**config["settings"], "base_url": sandbox.url}
    id = (await acme.post("providers", {"provider": provider, **config, "settings": settings}))["id"]
    url = f"{running.url}/v1/orgs/acme/providers/{id}/webhook"
    if provider == "meta_whatsapp":
        sandbox.hook("meta", url, None, **{name: CREDENTIALS[name] for name in ("app_secret", "verify_token")})
        await until(lambda: sandbox.ledger.webhooks["acknowledged"] == 1)  # the challenge
    else:
        changed = await acme.call("PUT", f"providers/{id}", {"settings": {**settings, "status_callback_url": url}})
        assert changed.status_code == 200, changed.text
    return acme


def message(provider: str, number: str) -> dict[str, Any]:
    return {"channel": CONFIGS[provider]["channel"], "recipient": number, "content": {"text": "Doors at 7"}}


@pytest.mark.parametrize("provider", sorted(CONFIGS))
async def test_what_becomes_of_a_message_is_known_in_the_end(running: Running, sandbox: Sandbox, provider: str) -> None:
    acme = await customer(running, sandbox, provider)
    states = {"4711": "delivered", "0012": "invalid", "0013": "refused", "0014": "refused"}
    if provider != "twilio_sms":
        states["0015"] = "read"
    async with acme.listen() as feed:
        for digits, state in states.items():
            id = (await acme.post("notifications", message(provider, MAGIC + digits)))["id"]
            await feed.until(type="notification.confirmed", id=id, state=state)
        refused = await acme.call("POST", "notifications", message(provider, MAGIC + "0012"))
    found = (await acme.get("contacts"))["items"]

    assert (refused.status_code, refused.json()["code"]) == (422, "recipient_suppressed")
    assert {each["recipient"]: each["status"] for each in found} == {
        MAGIC + "0012": "invalid",
        # Who wants no more marketing of a business, by Meta's button, still gets its tickets.
        **({} if provider == "meta_whatsapp" else {MAGIC + "0014": "unsubscribed"}),
    }
    assert sandbox.ledger.webhooks["failed"] == sandbox.ledger.webhooks["retried"] == 0


@pytest.mark.parametrize("provider", sorted(CONFIGS))
async def test_who_answers_stop_gets_nothing_more(running: Running, sandbox: Sandbox, provider: str) -> None:
    acme = await customer(running, sandbox, provider)
    async with acme.listen() as feed:
        await acme.post("notifications", message(provider, "+15551230000"))
        id = (await acme.post("notifications", message(provider, MAGIC + "0016")))["id"]
        await feed.until(type="contact.changed", status="unsubscribed")
        await feed.until(type="notification.confirmed", id=id, state="delivered")
        refused = await acme.call("POST", "notifications", message(provider, MAGIC + "0016"))
        in_spite = {**message(provider, MAGIC + "0016"), "ignore_suppression": True}
        other = (await acme.post("notifications", in_spite))["id"]
        ended = await feed.outcomes([other])

    assert (refused.status_code, refused.json()["code"]) == (422, "recipient_suppressed")
    # Twilio itself keeps to what it was told; with Meta it is the sender's business.
    assert ended[other] == ("notification.delivered" if provider == "meta_whatsapp" else "notification.failed")


async def test_a_repeated_report_of_a_phone_out_of_reach_is_counted_once(running: Running, sandbox: Sandbox) -> None:
    """Five times in a week and the number counts as bounced: without a time in the reports each repetition was one more."""
    acme = await customer(running, sandbox, "twilio_sms")
    sandbox.change(webhook_duplicate_share=1.0, webhook_delay_s=0.1)
    async with acme.listen() as feed:
        for _ in range(4):
            id = (await acme.post("notifications", message("twilio_sms", MAGIC + "0010")))["id"]
            await feed.until(type="notification.confirmed", id=id, state="soft_bounced")
        counts = sandbox.ledger.webhooks
        await until(lambda: sandbox.reports_pending == 0 and counts["acknowledged"] == 16)

        assert (await acme.get("contacts?status=bounced"))["items"] == []
        assert sandbox.report(id, Fate.DELIVERED)
        await feed.until(type="notification.confirmed", id=id, state="delivered")
