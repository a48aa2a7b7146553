"""What comes back: the sandbox reports like the real provider, the dispatcher takes it in, and the next accept knows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import frozen

from canary import MARK, Watch, logged, monitored
from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, Feed, Running, dispatching, mail, until


@frozen
class Hooked:
    """A customer whose provider, the sandbox, reports to the dispatcher."""

    running: Running
    sandbox: Sandbox
    customer: Customer
    config_id: str
    feed: Feed

    async def confirmed(self, id: str) -> Any:
        return (await self.customer.get(f"notifications/{id}"))["confirmation"]

    async def refused(self, recipient: str, **fields: Any) -> Any:
        document = {"channel": "email", "recipient": recipient, "content": {"subject": "Hi", "text": "There."}, **fields}
        response = await self.customer.call("POST", "notifications", document)
        assert response.status_code == 422, response.text
        return response.json()


async def hook(sandbox: Sandbox, running: Running, customer: Customer, api_key: str) -> str:
    """Add the sandbox as a provider that reports."""
    document = {
        "provider": "sendgrid",
        "channel": "email",
        "credentials": {"api_key": api_key},
        "settings": {"from_email": "tickets@hall.example", "base_url": sandbox.url},
    }
    id: str = (await customer.post("providers", document))["id"]
    url = f"{running.url}/v1/orgs/{customer.organization_id}/providers/{id}/webhook"
    shown = sandbox.hook("sendgrid", url, api_key)
    settings = {**document["settings"], "event_webhook_public_key": shown["public_key"]}  # type: ignore[dict-item]
    changed = await customer.call("PUT", f"providers/{id}", {"settings": settings})
    assert changed.status_code == 200, changed.text
    return id


@pytest.fixture
async def hooked(database_url: str, redis_url: str) -> AsyncIterator[Hooked]:
    async with open_hooked(database_url, redis_url) as world:
        yield world


@asynccontextmanager
async def open_hooked(database_url: str, redis_url: str) -> AsyncIterator[Hooked]:
    async with open_sandbox() as sandbox, dispatching(database_url, redis_url, [sandbox]) as running:
        customer = await running.customer("acme")
        config_id = await hook(sandbox, running, customer, "SG.acme.key")
        async with customer.listen() as feed:
            yield Hooked(running, sandbox, customer, config_id, feed)


async def test_a_bounce_closes_the_address_until_somebody_opens_it_again(hooked: Hooked) -> None:
    customer = hooked.customer
    id = await customer.send("Hard-Bounce@sandbox.test")
    await hooked.feed.until(type="contact.changed", status="bounced")
    await hooked.feed.until(type="notification.confirmed", id=id, state="bounced")

    assert (await hooked.confirmed(id))["state"] == "bounced"
    problem = await hooked.refused("hard-bounce@sandbox.test")
    assert (problem["code"], problem["pointer"]) == ("recipient_suppressed", "/recipient")
    assert "bounced" in problem["detail"]
    assert "sandbox.test" not in str(hooked.feed.heard)

    found = (await customer.get("contacts?status=bounced"))["items"]
    assert [(each["recipient"], each["code"], each["provider"]) for each in found] == [
        ("Hard-Bounce@sandbox.test", "address_invalid", "sendgrid")
    ]
    decided = await customer.post(
        "contacts", {"channel": "email", "recipient": "hard-bounce@sandbox.test", "status": "active", "note": "Fixed."}
    )
    assert (decided["status"], decided["note"]) == ("active", "Fixed.")
    again = await customer.send("hard-bounce@sandbox.test")
    await hooked.feed.until(type="notification.confirmed", id=again, state="bounced")


async def test_an_opt_out_diverts_to_the_fallback_and_a_complaint_can_not_be_ignored(hooked: Hooked) -> None:
    customer = hooked.customer
    await customer.send("unsubscribe+1@sandbox.test")
    await customer.send("complaint+1@sandbox.test")
    await hooked.feed.until(type="contact.changed", status="unsubscribed")
    await hooked.feed.until(type="contact.changed", status="complained")

    fallback = [
        {"channel": "email", "recipient": "complaint+1@sandbox.test", "content": {"subject": "Hi", "text": "A."}},
        {"channel": "email", "recipient": "other@example.com", "content": {"subject": "Hi", "text": "B."}},
    ]
    item = {"channel": "email", "recipient": "unsubscribe+1@sandbox.test", "content": {"subject": "Hi", "text": "There."}}
    answer = await customer.post("notifications", {**item, "fallback": fallback})
    assert answer["diverted"] == {"from": "email", "reason": "unsubscribed"}
    await hooked.feed.until(type="notification.delivered", id=answer["id"])
    assert (await customer.get(f"notifications/{answer['id']}"))["recipient"] == "other@example.com"

    batch = await customer.post(
        "notifications", {"items": [item, {**item, "fallback": fallback}, {**item, "fallback": fallback[:1]}]}
    )
    assert [each["status"] for each in batch["items"]] == ["rejected", "accepted", "rejected"]
    assert batch["items"][0]["problem"]["pointer"] == "/items/0/recipient"
    assert batch["items"][1]["diverted"] == {"from": "email", "reason": "unsubscribed"}

    in_spite = await customer.post("notifications", {**item, "ignore_suppression": True})
    await hooked.feed.until(type="notification.delivered", id=in_spite["id"])
    await hooked.refused("complaint+1@sandbox.test", ignore_suppression=True)


async def test_doubled_shuffled_and_early_reports_end_in_what_happened(hooked: Hooked) -> None:
    hooked.sandbox.change(
        fate_mix={"bounced": 0.2, "complained": 0.2, "read": 0.2},
        webhook_duplicate_share=0.5,
        webhook_shuffle=True,
        webhook_delay_s=0.3,
        webhook_early_s=0.2,
        webhook_events_max=3,
    )
    ids = await hooked.customer.send_all([f"guest{number}@example.com" for number in range(40)])
    await hooked.feed.outcomes(ids)
    counts = hooked.sandbox.ledger.webhooks
    await until(lambda: counts["events"] >= 80 and hooked.sandbox.reports_pending == 0)
    await until(lambda: counts["acknowledged"] == counts["sent"])

    states = {id: (await hooked.confirmed(id))["state"] for id in ids}
    assert states == {id: hooked.sandbox.ledger.fates[id] for id in ids}
    assert counts["failed"] == counts["retried"] == 0


async def test_a_late_complaint_stops_what_is_still_waiting(hooked: Hooked) -> None:
    customer = hooked.customer
    first = await customer.send("guest@example.com")
    await hooked.feed.until(type="notification.confirmed", id=first, state="delivered")
    hooked.sandbox.change(outage=True)
    waiting = await customer.send("guest@example.com")
    await hooked.feed.until(type="notification.retrying", id=waiting)
    assert hooked.sandbox.report(first, Fate.COMPLAINED)
    await hooked.feed.until(type="contact.changed", status="complained")
    hooked.sandbox.change(outage=False)

    failed = await hooked.feed.until(type="notification.failed", id=waiting)

    assert (failed["reason"], failed["code"]) == ("suppressed", "contact_complained")
    assert hooked.sandbox.ledger.effects(waiting) == 0
    assert [letter["reason"] for letter in (await customer.get("dead-letters"))["items"]] == ["suppressed"]


async def test_what_one_organizations_provider_reports_is_nothing_to_another(hooked: Hooked) -> None:
    other = await hooked.running.customer("other")
    await hook(hooked.sandbox, hooked.running, other, "SG.other.key")
    id = await hooked.customer.send("hard-bounce+x@sandbox.test")
    await hooked.feed.until(type="notification.confirmed", id=id, state="bounced")

    assert (await other.get("contacts"))["items"] == []
    theirs = await other.send("hard-bounce+x@sandbox.test")
    assert theirs != id
    # Signed with the other organization's key, about our notification.
    url = f"{hooked.running.url}/v1/orgs/acme/providers/{hooked.config_id}/webhook"
    hooked.sandbox.unhook("sendgrid")
    stolen = hooked.sandbox.hook("sendgrid", url, None)
    assert stolen["public_key"]
    before = hooked.sandbox.ledger.webhooks["acknowledged"]
    hooked.sandbox.change(webhook_attempts_max=1)
    assert hooked.sandbox.report(id, Fate.DELIVERED)
    await until(lambda: hooked.sandbox.ledger.webhooks["failed"] >= 1)
    assert hooked.sandbox.ledger.webhooks["acknowledged"] >= before
    assert (await hooked.confirmed(id))["state"] == "bounced"


async def test_who_has_no_signature_or_no_address_is_turned_away_alike(hooked: Hooked) -> None:
    client, url = hooked.running.client, hooked.running.url
    unsigned = await client.post(f"{url}/v1/orgs/acme/providers/{hooked.config_id}/webhook", content=b"[]")
    nowhere = [("acme", "0198c000-0000-7000-8000-0000000000c1"), ("acme", "x")]
    nowhere += [(org, hooked.config_id) for org in ("nobody", "acme%00", "%C3%A9")]
    unknown = [await client.post(f"{url}/v1/orgs/{org}/providers/{id}/webhook", content=b"[]") for org, id in nowhere]

    assert (unsigned.status_code, unsigned.json()["code"]) == (403, "signature_invalid")
    assert {(answer.status_code, answer.text) for answer in unknown} == {(404, unknown[0].text)}


async def test_nothing_of_a_report_is_left_where_it_should_not_be(
    database_url: str, redis_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    watch = Watch()
    with logged(watch), monitored(watch, redis_url):
        async with open_hooked(database_url, redis_url) as world:
            for name in ("hard-bounce", "complaint", "unsubscribe", "dropped", "read"):
                await world.customer.send(f"{name}+{MARK}@sandbox.test")
            await world.feed.until(type="contact.changed", status="complained")
            await until(lambda: world.sandbox.ledger.webhooks["acknowledged"] >= 1 and world.sandbox.reports_pending == 0)
            url = f"{world.running.url}/v1/orgs/acme/providers/{world.config_id}/webhook"
            for body in (f"[{MARK}", f'[{{"email":"{MARK}"}}]'):
                watch.answer(await world.running.client.post(url, content=body.encode(), headers={"x-secret": MARK}))
            watch.answer(await world.customer.call("POST", "notifications", mail(f"complaint+{MARK}@sandbox.test")))
            watch.events(world.feed.heard)
            watch.saw("the metrics", (await world.running.client.get(f"{world.running.url}/metrics")).content)
            watch.postgres(database_url)
            watch.redis(redis_url)
    for name, text in zip(("standard output", "standard error"), capfd.readouterr(), strict=True):
        watch.saw(name, text)

    assert watch.found() == []
