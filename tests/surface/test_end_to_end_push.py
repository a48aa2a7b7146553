"""Push from the request to the device: through FCM with a real token service before it, and to browsers that decrypt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from dispatcher_sandbox.webpush import subscription
from push_accounts import VAPID_PRIVATE_KEY, VAPID_PUBLIC_KEY
from running import Customer, Running, dispatching

DEVICE = "cRx0000Device:APA91b" + "x" * 120


SETTINGS: list[dict[str, str]] = [{}, {"project_id": "missing-hall"}, {"project_id": "other-hall"}]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def running(database_url: str, redis_url: str, sandbox: Sandbox) -> AsyncIterator[Running]:
    async with dispatching(database_url, redis_url, [sandbox]) as running:
        yield running


@pytest.fixture
async def acme(running: Running) -> Customer:
    return await running.customer("acme")


def push(recipient: str, **fields: Any) -> dict[str, Any]:
    content = {"title": "Doors", "text": "They open at seven.", "data": {"seat": "B7"}}
    return {"channel": "push", "recipient": recipient, "content": content, **fields}


async def add_fcm(acme: Customer, sandbox: Sandbox, **settings: Any) -> str:
    key_file = (await acme.client.get(f"{sandbox.url}/_sandbox/fcm/service-account?project_id=hall")).json()
    document = {
        "provider": "fcm",
        "channel": "push",
        "credentials": {"service_account": key_file},
        "settings": {"base_url": sandbox.url, **settings},
    }
    return str((await acme.post("providers", document))["id"])


async def add_webpush(acme: Customer) -> str:
    document = {
        "provider": "webpush",
        "channel": "push",
        "credentials": {"vapid_private_key": VAPID_PRIVATE_KEY},
        "settings": {"subject": "mailto:ops@hall.example"},
    }
    return str((await acme.post("providers", document))["id"])


async def outcomes(acme: Customer, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """What became of these, in order."""
    async with acme.listen() as feed:
        answer = await acme.post("notifications", {"items": list(items)})
        ids = [item["id"] for item in answer["items"]]
        await feed.outcomes(ids)
    return [await acme.get(f"notifications/{id}") for id in ids]


def story(found: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(entry["event"], entry.get("code")) for entry in found["timeline"] if entry["event"] not in ("created", "failed")]


def browser(sandbox: Sandbox, name: str, server_key: str | None = VAPID_PUBLIC_KEY) -> str:
    return orjson.dumps(subscription(sandbox.url, name, server_key)).decode()


async def test_many_devices_are_reached_with_one_access_token(acme: Customer, sandbox: Sandbox) -> None:
    await add_fcm(acme, sandbox, priority="high", ttl_s=600)
    found = await outcomes(acme, *(push(f"{DEVICE}{number}") for number in range(30)))

    assert {item["status"] for item in found} == {"delivered"}
    assert found[0]["provider_message_id"].startswith("projects/sandbox/messages/0:")
    assert all(sandbox.ledger.effects(item["id"]) == 1 for item in found)
    assert sandbox.ledger.requests == 31, "30 messages and one token"
    message = orjson.loads(sandbox.ledger.recent[-1].body)["message"]
    assert message["notification"] == {"title": "Doors", "body": "They open at seven."}
    assert (message["data"]["seat"], message["android"]) == ("B7", {"ttl": "600s", "priority": "HIGH"})


async def test_devices_that_fail_do_so_each_in_its_way(acme: Customer, sandbox: Sandbox) -> None:
    await add_fcm(acme, sandbox)
    names = ("unregistered", "invalid", "sender", "argument", "soft-1", "device", "drop")
    found = await outcomes(acme, *(push(f"sandbox-{name}-a") for name in names))

    assert {name: story(item) for name, item in zip(names, found, strict=True)} == {
        "unregistered": [("suppress", "unregistered")],
        "invalid": [("suppress", "registration_invalid")],
        "sender": [("suppress", "sender_id_mismatch")],
        "argument": [("hard", "invalid_argument")],
        "soft-1": [("soft", "unavailable"), ("delivered", None)],
        "device": [("rate_limited", "device_quota_exceeded"), ("delivered", None)],
        "drop": [("unknown", "closed"), ("delivered", None)],
    }


async def test_an_access_token_that_is_withdrawn_is_replaced_without_costing_an_attempt(acme: Customer, sandbox: Sandbox) -> None:
    await add_fcm(acme, sandbox)
    (first,) = await outcomes(acme, push(DEVICE))
    (second,) = await outcomes(acme, push("sandbox-unauthorized-1-a"))

    assert story(first) == story(second) == [("delivered", None)]
    assert (second["attempts"], sandbox.ledger.refused[401]) == (1, 1)


async def test_a_key_that_google_does_not_know_pauses_the_channel(acme: Customer, sandbox: Sandbox) -> None:
    config = await add_fcm(acme, sandbox)
    key_file = (await acme.client.get(f"{sandbox.url}/_sandbox/fcm/service-account?project_id=hall")).json()
    credentials = {"service_account": {**key_file, "private_key_id": "deleted"}}
    await acme.call("PUT", f"providers/{config}", {"credentials": credentials, "settings": {"base_url": sandbox.url}})
    async with acme.listen() as feed:
        id = (await acme.post("notifications", push(DEVICE)))["id"]
        await feed.until(type="channel.misconfigured", channel="push")
        credentials = {"service_account": key_file}
        await acme.call("PUT", f"providers/{config}", {"credentials": credentials, "settings": {"base_url": sandbox.url}})
        await feed.until(type="notification.delivered", id=id)

    assert ("misconfigured", "token_grant_refused") in story(await acme.get(f"notifications/{id}"))
    assert (await acme.get(f"notifications/{id}"))["attempts"] == 1


async def test_a_key_file_that_leads_elsewhere_is_not_followed(acme: Customer, sandbox: Sandbox) -> None:
    """Neither to be told of what is behind the dispatcher, nor to hand an assertion to anybody."""
    async with open_sandbox() as elsewhere:
        key_file = (await acme.client.get(f"{elsewhere.url}/_sandbox/fcm/service-account")).json()
        document = {
            "provider": "fcm",
            "channel": "push",
            "credentials": {"service_account": key_file},
            "settings": {"base_url": sandbox.url},
        }
        id = (await acme.post("providers", document))["id"]
        await acme.call("POST", "notifications", push(DEVICE))
        tried = await acme.post(f"providers/{id}/test")

        assert (tried["ok"], tried["code"]) == (False, "base_url_not_allowed")
        assert "/credentials/service_account/token_uri" in tried["detail"]
        assert (elsewhere.ledger.requests, sandbox.ledger.requests) == (0, 0)


async def test_a_configuration_of_fcm_is_tried_out_without_sending(acme: Customer, sandbox: Sandbox) -> None:
    good, missing, foreign = [await add_fcm(acme, sandbox, **settings) for settings in SETTINGS]
    answers = [await acme.post(f"providers/{id}/test") for id in (good, missing, foreign)]

    assert [(answer["ok"], answer["code"]) for answer in answers] == [
        (True, "accepted"),
        (False, "project_not_found"),
        (False, "permission_denied"),
    ]
    assert sandbox.ledger.accepted == 0


async def test_web_push_is_tried_out_with_a_browser_of_ones_own(acme: Customer, sandbox: Sandbox) -> None:
    id = await add_webpush(acme)
    alone = await acme.post(f"providers/{id}/test")
    sent = await acme.post(f"providers/{id}/test", {"recipient": browser(sandbox, "firefox")})
    gone = await acme.post(f"providers/{id}/test", {"recipient": browser(sandbox, "sandbox-gone")})

    assert [(answer["ok"], answer["code"]) for answer in (alone, sent, gone)] == [
        (False, "not_probeable"),
        (True, "accepted"),
        (False, "subscription_gone"),
    ]


async def test_browsers_read_what_is_sent_to_them(acme: Customer, sandbox: Sandbox) -> None:
    await add_webpush(acme)
    found = await outcomes(acme, *(push(browser(sandbox, f"firefox{number}")) for number in range(10)))

    assert {item["status"] for item in found} == {"delivered"}
    assert all(sandbox.ledger.effects(item["id"]) == 1 for item in found)
    last = orjson.loads(sandbox.ledger.recent[-1].body)
    assert {**last, "notification_id": ""} == {
        "title": "Doors",
        "body": "They open at seven.",
        "data": {"seat": "B7"},
        "notification_id": "",
    }


async def test_devices_and_browsers_are_served_side_by_side(acme: Customer, sandbox: Sandbox) -> None:
    await add_fcm(acme, sandbox)
    await add_webpush(acme)
    found = await outcomes(acme, push(DEVICE), push(browser(sandbox, "firefox")), push(DEVICE))

    assert [(item["status"], item["provider"]) for item in found] == [
        ("delivered", "fcm"),
        ("delivered", "webpush"),
        ("delivered", "fcm"),
    ]


async def test_browsers_that_fail_do_so_each_in_its_way(acme: Customer, sandbox: Sandbox) -> None:
    await add_webpush(acme)
    names = ("gone", "expired", "bad", "too-large", "soft-1", "drop", "status-307")
    found = await outcomes(
        acme,
        *(push(browser(sandbox, f"sandbox-{name}-a")) for name in names),
        push(browser(sandbox, "somebody", "BBBB" + VAPID_PUBLIC_KEY[4:])),
        push(browser(sandbox, "somebody").replace(sandbox.url, "http://127.0.0.1:9")),
    )

    assert {name: story(item) for name, item in zip((*names, "key", "place"), found, strict=True)} == {
        "gone": [("suppress", "subscription_gone")],
        "expired": [("suppress", "subscription_unknown")],
        "bad": [("hard", "encryption_invalid")],
        "too-large": [("hard", "too_large")],
        "soft-1": [("soft", "http_503"), ("delivered", None)],
        "drop": [("unknown", "closed"), ("delivered", None)],
        "status-307": [("hard", "endpoint_moved")],
        "key": [("hard", "vapid_key_mismatch")],
        "place": [("hard", "endpoint_not_allowed")],
    }


async def test_a_browser_that_is_gone_is_known_however_its_subscription_is_written(acme: Customer, sandbox: Sandbox) -> None:
    await add_webpush(acme)
    gone = subscription(sandbox.url, "sandbox-gone-a", VAPID_PUBLIC_KEY)
    otherwise = orjson.dumps({**dict(reversed(gone.items())), "expirationTime": None}, option=orjson.OPT_INDENT_2).decode()
    (found,) = await outcomes(acme, push(orjson.dumps(gone).decode()))
    contact = await acme.post("contacts/find", {"channel": "push", "recipient": otherwise.replace("\n", " ")})

    assert story(found) == [("suppress", "subscription_gone")]
    assert contact["status"] == "invalid"


async def test_a_subscription_that_is_none_is_refused_when_it_is_handed_in(acme: Customer) -> None:
    await add_webpush(acme)
    answer: httpx.Response = await acme.call("POST", "notifications", push('{"endpoint":"https://web.push.apple.com/x"}'))

    assert (answer.status_code, answer.json()["pointer"]) == (422, "/recipient")
