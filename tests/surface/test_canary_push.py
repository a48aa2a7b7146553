"""No device, subscription, message or key of push stands anywhere but where it is kept, whatever becomes of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from canary import CONTENT, MARK, Watch, logged, monitored
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from dispatcher_sandbox.webpush import subscription
from push_accounts import VAPID_PRIVATE_KEY
from running import Customer, dispatching

DEVICES = (
    f"cRx0000{MARK}:APA91b" + "x" * 120,
    *(f"sandbox-{name}-{MARK}" for name in ("unregistered", "invalid", "argument", "sender", "soft-1", "drop", "status-502")),
    f"no token {MARK}",
)
BROWSERS = (MARK, *(f"sandbox-{name}-{MARK}" for name in ("gone", "bad", "too-large", "soft-1", "drop", "status-307")))


def push(recipient: str, **content: Any) -> dict[str, Any]:
    return {"channel": "push", "recipient": recipient, "content": {"title": CONTENT, "text": CONTENT, **content}}


async def sent(acme: Customer, watch: Watch, recipients: list[str]) -> dict[str, str]:
    """Hand in good and unsendable notifications for all of these, and wait for what becomes of them."""
    contents: list[dict[str, Any]] = [{}, {"data": {MARK: CONTENT}}, {"data": {MARK: [CONTENT]}}, {"data": {"x": CONTENT * 300}}]
    items = [push(recipient, **content) for recipient in recipients for content in contents]
    async with acme.listen() as feed:
        answer = watch.answer(await acme.call("POST", "notifications", {"items": items})).json()
        outcomes = await feed.outcomes([item["id"] for item in answer["items"]])
        watch.events(feed.heard)
    return outcomes


async def configure(acme: Customer, watch: Watch, provider: str, credentials: Any, settings: Any) -> str:
    document = {"provider": provider, "channel": "push", "credentials": credentials, "settings": settings}
    return str(watch.answer(await acme.call("POST", "providers", document)).json()["id"])


async def refused(acme: Customer, watch: Watch, sandbox: Sandbox) -> None:
    """Configurations and recipients that are turned away, each with something to hide."""
    broken = f"-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----\n"
    for provider, credentials in (
        ("fcm", {"service_account": MARK}),
        ("fcm", {"service_account": {"private_key": broken, "token_uri": f"https://{MARK}.example/?", "project_id": f"{MARK}/"}}),
        ("webpush", {"vapid_private_key": broken}),
        ("webpush", {MARK: MARK}),
    ):
        document = {
            "provider": provider,
            "channel": "push",
            "credentials": credentials,
            "settings": {"subject": MARK, MARK: MARK},
        }
        answer = watch.answer(await acme.call("POST", "providers", document))
        assert answer.status_code == 422
    half = orjson.dumps({"endpoint": f"https://{MARK}.example/x", "keys": {"auth": MARK}}).decode()
    assert watch.answer(await acme.call("POST", "notifications", push(half))).status_code == 422


async def test_push_leaves_no_trace(database_url: str, redis_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    watch = Watch()
    watch.secrets += ["ya29.", VAPID_PRIVATE_KEY]
    with logged(watch), monitored(watch, redis_url):
        async with open_sandbox() as sandbox, dispatching(database_url, redis_url, [sandbox]) as running:
            acme = await running.customer("acme")
            key_file = (await acme.client.get(f"{sandbox.url}/_sandbox/fcm/service-account")).json()
            watch.secrets += key_file["private_key"].splitlines()[1:-1]
            browsers = [subscription(sandbox.url, name) for name in BROWSERS]
            watch.secrets += [keys for browser in browsers for keys in browser["keys"].values()]

            await refused(acme, watch, sandbox)
            config = await configure(acme, watch, "fcm", {"service_account": key_file}, {"base_url": sandbox.url})
            devices = await sent(acme, watch, list(DEVICES))
            watch.answer(await acme.call("DELETE", f"providers/{config}"))
            settings = {"subject": "mailto:ops@hall.example"}
            await configure(acme, watch, "webpush", {"vapid_private_key": VAPID_PRIVATE_KEY}, settings)
            recipients = [orjson.dumps(browser).decode() for browser in browsers]
            recipients.append(recipients[0].replace(sandbox.url, f"https://{MARK}.example"))
            read = await sent(acme, watch, recipients)
            taken = [accepted.body for accepted in sandbox.ledger.recent]

            for path in ("dead-letters", "providers"):
                watch.answer(await acme.call("GET", path))
            watch.saw("the metrics", (await running.client.get(f"{running.url}/metrics")).content)
            watch.postgres(database_url)
            watch.redis(redis_url)
    for name, text in zip(("standard output", "standard error"), capfd.readouterr(), strict=True):
        watch.saw(name, text)

    assert watch.found() == []
    assert set(devices.values()) == set(read.values()) == {"notification.delivered", "notification.failed"}
    assert all(MARK.encode() in body for body in taken), "the marked parts did go to the providers"
