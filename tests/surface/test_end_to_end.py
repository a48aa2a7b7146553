"""The life of notifications, from the request to the provider and back on the stream: everything real, in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher_sandbox.behaviour import Outage
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, Event, Running, dispatching, mail, provider, until


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
    """A customer with the sandbox as provider."""
    acme = await running.customer("acme")
    await acme.add_provider(sandbox.url)
    return acme


def ticket(**fields: Any) -> dict[str, Any]:
    """A notification by template."""
    return {"channel": "email", "recipient": "ada@example.org", "template": "ticket", "variables": {"seat": "B7"}, **fields}


async def add_template(customer: Customer, subject: str) -> str:
    document = {"name": "ticket", "channel": "email", "locale": "en", "subject": subject, "body_template": "Seat {{ seat }}"}
    id: str = (await customer.post("templates", document))["id"]
    return id


def authorization(customer: Customer) -> dict[str, str]:
    return {"authorization": f"Bearer {customer.key}"}


def position(event: Event) -> tuple[int, ...]:
    return tuple(int(part) for part in event["position"].split("-"))


def sent(sandbox: Sandbox) -> bytes:
    """The body of the mail that the provider took last."""
    return sandbox.ledger.recent[-1].body


# --- one notification ---------------------------------------------------------------------------------------


async def test_one_notification_lives_its_whole_life(acme: Customer, sandbox: Sandbox) -> None:
    async with acme.listen() as feed:
        response = await acme.call("POST", "notifications", mail("ada@example.org", user_id="u-1", idempotency_key="order-1"))
        accepted = response.json()
        id = accepted["id"]
        created, delivered = await feed.until(type="notification.created"), await feed.until(type="notification.delivered")
    found = (await acme.client.get(acme.url + response.headers["location"], headers=authorization(acme))).json()
    listed = await acme.get("notifications?status=delivered")

    assert response.status_code == 202
    assert accepted == {"id": id, "status": "queued", "channel": "email", "created_at": accepted["created_at"]}
    assert (created["id"], created["status"], created["channel"]) == (id, "queued", "email")
    assert (delivered["id"], delivered["status"], delivered["attempt"]) == (id, "delivered", 1)
    assert position(created) < position(delivered)
    assert {**found, "updated_at": ""} == {
        "id": id,
        "status": "delivered",
        "channel": "email",
        "recipient": "ada@example.org",
        "user_id": "u-1",
        "template_id": None,
        "template": None,
        "locale": None,
        "idempotency_key": "order-1",
        "attempts": 1,
        "attempts_max": 8,
        "unknowns": 0,
        "provider": "sendgrid",
        "provider_config_id": (await acme.get("providers"))["items"][0]["id"],
        "provider_message_id": sandbox.ledger.recent[-1].message_id,
        "reason": None,
        "next_retry_at": None,
        "send_at": None,
        "expires_at": None,
        "correlation_id": None,
        "created_at": accepted["created_at"],
        "updated_at": "",
        "confirmation": None,
        "payload": {"subject": "Doors", "text": "They open at seven."},
        "timeline": found["timeline"],
    }
    assert [entry["event"] for entry in found["timeline"]] == ["created", "delivered"]
    assert [item["id"] for item in listed["items"]] == [id]
    assert sandbox.ledger.effects(id) == 1
    assert sandbox.ledger.idempotency_keys[id] == 1
    assert dict(sandbox.ledger.organizations.items()) == {"acme": 1}


async def test_a_template_is_rendered_when_the_notification_is_accepted(acme: Customer, sandbox: Sandbox) -> None:
    template_id = await add_template(acme, "Your seat: {{ seat }}")
    async with acme.listen() as feed:
        id = (await acme.post("notifications", ticket()))["id"]
        await feed.until(type="notification.delivered", id=id)
    found = await acme.get(f"notifications/{id}")

    assert found["payload"] == {"subject": "Your seat: B7", "text": "Seat B7"}
    assert (found["template_id"], found["locale"]) == (template_id, "en")
    assert b'"Your seat: B7"' in sent(sandbox)


async def test_a_bad_item_of_a_batch_sinks_no_other(acme: Customer, sandbox: Sandbox) -> None:
    await add_template(acme, "Your seat: {{ seat }}")
    items: list[Any] = [
        mail("ada@example.org"),
        ticket(variables={}),
        mail("nobody"),
        ticket(template="other"),
        mail("ada@example.org", idempotency_key="k"),
        mail("bob@example.org", idempotency_key="k"),
        mail("ada@example.org", idempotency_key="k"),
        mail("ada@example.org", colour="red"),
        "ada@example.org",
        ticket(),
    ]
    async with acme.listen() as feed:
        answer = await acme.post("notifications", {"items": items})
        verdicts = answer["items"]
        ids = [item["id"] for item in verdicts if item["status"] == "accepted"]
        outcomes = await feed.outcomes(ids)

    assert [item["index"] for item in verdicts] == list(range(10))
    assert [item["status"] for item in verdicts] == [
        "accepted", "rejected", "rejected", "rejected", "accepted", "rejected", "duplicate", "rejected", "rejected", "accepted",
    ]  # fmt: skip
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (3, 1, 6)
    assert {
        item["index"]: (item["problem"]["code"], item["problem"].get("pointer")) for item in verdicts if "problem" in item
    } == {
        1: ("template_variable_missing", "/items/1/variables/seat"),
        2: ("field_invalid", "/items/2/recipient"),
        3: ("template_unknown", "/items/3/template"),
        5: ("idempotency_key_reused", "/items/5/idempotency_key"),
        7: ("field_unknown", "/items/7"),
        8: ("item_invalid", "/items/8"),
    }
    assert verdicts[6]["id"] == verdicts[4]["id"]
    assert set(outcomes.values()) == {"notification.delivered"}
    assert await acme.statuses() == dict.fromkeys(ids, "delivered")
    assert sandbox.ledger.accepted == 3


# --- attempts that fail -------------------------------------------------------------------------------------


async def test_a_hard_bounce_becomes_a_dead_letter_and_may_be_sent_again(acme: Customer, sandbox: Sandbox) -> None:
    async with acme.listen() as feed:
        id = await acme.send("bounce-1@sandbox.test")
        failed = await feed.until(type="notification.failed", id=id)
        letters = (await acme.get("dead-letters?reason=hard"))["items"]
        requeued = await acme.call("POST", f"dead-letters/{id}/requeue")
        delivered = await feed.until(type="notification.delivered", id=id)
    found = await acme.get(f"notifications/{id}")

    assert (failed["reason"], failed["code"], failed["attempt"]) == ("hard", "recipient_refused", 1)
    assert [(letter["notification_id"], letter["reason"], letter["code"], letter["provider"]) for letter in letters] == [
        (id, "hard", "recipient_refused", "sendgrid")
    ]
    assert (requeued.status_code, requeued.json()) == (202, {"id": id, "status": "queued"})
    assert delivered["attempt"] == 2
    assert feed.of(id) == ["created", "failed", "requeued", "delivered"]
    assert [entry["event"] for entry in found["timeline"]] == ["created", "hard", "requeued", "delivered"]
    assert (found["attempts"], found["attempts_max"], found["reason"]) == (2, 9, None)
    assert (await acme.get("dead-letters"))["items"] == []
    assert sandbox.ledger.effects(id) == 1


async def test_a_discarded_dead_letter_is_gone_and_its_notification_stays_failed(acme: Customer) -> None:
    async with acme.listen() as feed:
        id = await acme.send("bounce@sandbox.test")
        await feed.until(type="notification.failed", id=id)
    discarded, again = [await acme.call("DELETE", f"dead-letters/{id}") for _ in range(2)]
    requeue = await acme.call("POST", f"dead-letters/{id}/requeue")

    assert (discarded.status_code, discarded.content) == (204, b"")
    assert (again.status_code, requeue.status_code) == (404, 404)
    assert again.json()["code"] == "dead_letter_not_found"
    assert await acme.statuses() == {id: "failed"}
    assert (await acme.get("dead-letters"))["items"] == []


async def test_a_soft_failure_is_tried_again_and_the_timeline_tells(acme: Customer, sandbox: Sandbox) -> None:
    async with acme.listen() as feed:
        id = await acme.send("soft@sandbox.test")
        await feed.until(type="notification.delivered", id=id)
    timeline = (await acme.get(f"notifications/{id}"))["timeline"]

    assert feed.of(id) == ["created", "retrying", "retrying", "delivered"]
    assert [(entry["event"], entry.get("attempt"), entry.get("code")) for entry in timeline] == [
        ("created", None, None),
        ("soft", 1, "http_503"),
        ("soft", 2, "http_503"),
        ("delivered", 3, None),
    ]
    assert all(entry["next_retry_at"] >= entry["at"] for entry in timeline if entry["event"] == "soft")
    assert sandbox.ledger.refused == {503: 2}


async def test_attempts_that_are_used_up_are_a_dead_letter(acme: Customer) -> None:
    async with acme.listen() as feed:
        id = await acme.send("always-soft@sandbox.test")
        failed = await feed.until(type="notification.failed", id=id)
    found = await acme.get(f"notifications/{id}")

    assert (failed["reason"], failed["code"], failed["attempt"]) == ("exhausted", "http_503", 8)
    assert (found["attempts"], found["reason"]) == (8, "http_503")
    assert [letter["notification_id"] for letter in (await acme.get("dead-letters?reason=exhausted"))["items"]] == [id]


async def test_a_rate_limit_costs_no_attempt(acme: Customer) -> None:
    async with acme.listen() as feed:
        id = await acme.send("rate-limited@sandbox.test")
        await feed.until(type="notification.delivered", id=id)
    found = await acme.get(f"notifications/{id}")

    assert [entry["event"] for entry in found["timeline"]] == ["created", "rate_limited", "delivered"]
    assert found["attempts"] == 1


@pytest.mark.parametrize(("honoured", "effects"), [(True, 1), (False, 2)])
async def test_a_lost_answer_is_marked_as_a_possible_double(
    acme: Customer, sandbox: Sandbox, honoured: bool, effects: int
) -> None:
    """And is none at a provider that honours keys."""
    sandbox.change(honour_idempotency_keys=honoured)
    async with acme.listen() as feed:
        id = await acme.send("drop@sandbox.test")
        await feed.until(type="notification.delivered", id=id)
    found = await acme.get(f"notifications/{id}")

    assert [entry["event"] for entry in found["timeline"]] == ["created", "unknown", "delivered"]
    assert found["unknowns"] == 1
    assert sandbox.ledger.effects(id) == effects


# --- changes take effect ------------------------------------------------------------------------------------


async def test_without_a_provider_nothing_is_accepted_and_with_one_everything_is(running: Running, sandbox: Sandbox) -> None:
    acme = await running.customer("acme")
    before = await acme.call("POST", "notifications", mail("ada@example.org"))
    batch = await acme.post("notifications", {"items": [mail("ada@example.org")]})
    id = await acme.add_provider(sandbox.url)
    between = await acme.call("POST", "notifications", mail("ada@example.org"))
    await acme.call("DELETE", f"providers/{id}")
    after = await acme.call("POST", "notifications", mail("ada@example.org"))

    assert [answer.status_code for answer in (before, between, after)] == [422, 202, 422]
    assert before.json() == after.json()
    assert (before.json()["code"], before.json()["pointer"]) == ("provider_missing", "/channel")
    assert batch["items"][0]["problem"]["code"] == "provider_missing"


async def test_another_provider_is_used_from_the_next_notification_on(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    async with open_sandbox() as other, dispatching(database_url, redis_url, [sandbox, other]) as running:
        acme = await running.customer("acme")
        config = await acme.add_provider(sandbox.url)
        for each, elsewhere in [(other, sandbox), (sandbox, other)] * 5:
            answer = await acme.call("PUT", f"providers/{config}", {"settings": provider(each.url)["settings"]})
            elsewhere.ledger.clear()
            async with acme.listen() as feed:
                id = await acme.send("ada@example.org")
                await feed.until(type="notification.delivered", id=id)

            assert answer.status_code == 200
            assert each.ledger.effects(id) == 1
            assert elsewhere.ledger.requests == 0


async def test_a_refused_key_pauses_the_channel_until_a_better_one_comes(
    acme: Customer, running: Running, sandbox: Sandbox
) -> None:
    config = (await acme.get("providers"))["items"][0]["id"]
    await acme.call("PUT", f"providers/{config}", provider(sandbox.url, api_key="expired"))
    async with acme.listen() as feed:
        ids = await acme.send_all(["ada@example.org"] * 20)
        await feed.until(type="channel.misconfigured", channel="email")
        refused = sandbox.ledger.refused[401]
        await acme.call("PUT", f"providers/{config}", provider(sandbox.url, api_key="SG.better.key"))
        outcomes = await feed.outcomes(ids)

    assert refused >= 1
    assert set(outcomes.values()) == {"notification.delivered"}
    assert {item["attempts"] for item in (await acme.get("notifications"))["items"]} == {1}
    assert (await running.metrics())['dispatcher_alarms_total{channel="email",code="misconfigured"}'] >= 1


async def test_a_new_template_is_used_from_the_next_notification_on(acme: Customer) -> None:
    for number in range(5):
        await add_template(acme, f"Version {number}: {{{{ seat }}}}")
        id = (await acme.post("notifications", ticket()))["id"]

        assert (await acme.get(f"notifications/{id}"))["payload"]["subject"] == f"Version {number}: B7"


async def test_a_retired_template_is_unknown_from_the_next_notification_on(acme: Customer) -> None:
    template_id = await add_template(acme, "Your seat: {{ seat }}")
    before = await acme.call("POST", "notifications", ticket())
    await acme.call("DELETE", f"templates/{template_id}")
    after = await acme.call("POST", "notifications", ticket())

    assert before.status_code == 202
    assert (after.status_code, after.json()["code"], after.json()["pointer"]) == (422, "template_unknown", "/template")


async def test_a_change_reaches_every_process(database_url: str, redis_url: str, sandbox: Sandbox, acme: Customer) -> None:
    """Long before what they have cached runs out."""
    await add_template(acme, "Old: {{ seat }}")
    async with dispatching(database_url, redis_url, [sandbox]) as elsewhere:
        there = await elsewhere.customer("acme")
        for customer in (acme, there):
            await customer.post("notifications", ticket())
        await add_template(there, "New: {{ seat }}")

        async def is_new() -> bool:
            id = (await acme.post("notifications", ticket()))["id"]
            payload = (await acme.get(f"notifications/{id}"))["payload"]
            return bool(payload["subject"] == "New: B7")

        await until(is_new)
        config = (await there.get("providers"))["items"][0]["id"]
        await there.call("DELETE", f"providers/{config}")

        async def is_missing() -> bool:
            return (await acme.call("POST", "notifications", ticket())).status_code == 422

        await until(is_missing)


# --- an outage ----------------------------------------------------------------------------------------------


async def test_an_outage_opens_the_breaker_and_heals(acme: Customer, running: Running, sandbox: Sandbox) -> None:
    sandbox.change(outage=Outage.UNAVAILABLE)
    async with acme.listen() as feed:
        ids = await acme.send_all(f"reader.{number}@example.org" for number in range(60))
        await feed.until(type="channel.breaker_opened", channel="email")
        during = await running.metrics()
        sandbox.change(outage=Outage.NONE)
        await feed.until(type="channel.breaker_closed", channel="email")
        outcomes = await feed.outcomes(ids)
    after = await running.metrics()

    assert during["dispatcher_breakers_open"] == 1
    assert during['dispatcher_alarms_total{channel="email",code="breaker_opened"}'] >= 1
    assert set(outcomes.values()) == {"notification.delivered"}
    assert after["dispatcher_breakers_open"] == 0
    assert {sandbox.ledger.effects(id) for id in ids} == {1}


async def test_one_organizations_outage_delays_no_other(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    async with open_sandbox() as silent, dispatching(database_url, redis_url, [sandbox, silent]) as running:
        silent.change(outage=Outage.SILENT)
        acme, hall = await running.customer("acme"), await running.customer("hall")
        await acme.add_provider(silent.url)
        await hall.add_provider(sandbox.url)
        stuck = await acme.send_all(["ada@example.org"] * 200)
        async with hall.listen() as feed:
            ids = await hall.send_all(["ada@example.org"] * 50)
            outcomes = await feed.outcomes(ids)

        assert set(outcomes.values()) == {"notification.delivered"}
        assert not await acme.all_delivered(stuck[:1])
        silent.change(outage=Outage.NONE)


async def test_what_expires_while_it_waits_is_not_sent(database_url: str, redis_url: str, sandbox: Sandbox) -> None:
    async with dispatching(database_url, redis_url, [sandbox], attempts_max="1000") as running:
        acme = await running.customer("acme")
        await acme.add_provider(sandbox.url)
        async with acme.listen() as feed:
            soon = datetime.now(UTC) + timedelta(seconds=1.5)
            id = await acme.send("always-soft@sandbox.test", expires_at=soon.isoformat())
            failed = await feed.until(type="notification.failed", id=id)

    assert failed["reason"] == "expired"
    assert sandbox.ledger.effects(id) == 0
