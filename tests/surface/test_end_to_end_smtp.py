"""Mail through a submission server, from the request to the mailbox: everything real, in one process."""

from __future__ import annotations

import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from canary import CONTENT, CREDENTIAL, MARK, RECIPIENT, Watch, logged, monitored
from dispatcher_sandbox.behaviour import Outage
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, Running, dispatching, mail


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def running(database_url: str, redis_url: str, sandbox: Sandbox, tmp_path: Path) -> AsyncIterator[Running]:
    async with dispatching(database_url, redis_url, **allowing(sandbox, tmp_path)) as running:
        yield running


@pytest.fixture
async def acme(running: Running) -> Customer:
    return await running.customer("acme")


def allowing(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    """The settings of a dispatcher that may talk to this sandbox, and trusts its certificates."""
    ca_file = folder / "sandbox.pem"
    ca_file.write_bytes(sandbox.ca_pem)
    return {"provider_urls_extra": f"{sandbox.urls['smtp']},{sandbox.urls['smtps']}", "provider_ca_file": str(ca_file)}


def server(sandbox: Sandbox, security: str = "starttls", password: str = "right", **settings: Any) -> dict[str, Any]:
    port = int(sandbox.urls["smtp" if security == "starttls" else "smtps"].rpartition(":")[2])
    return {
        "provider": "smtp",
        "channel": "email",
        "credentials": {"username": "hall", "password": password},
        "settings": {"host": "127.0.0.1", "port": port, "security": security, "from_email": "tickets@hall.example", **settings},
    }


async def outcomes(acme: Customer, *recipients: str) -> list[dict[str, Any]]:
    """What became of a mail to each, in order."""
    async with acme.listen() as feed:
        answer = await acme.post("notifications", {"items": [mail(recipient) for recipient in recipients]})
        ids = [item["id"] for item in answer["items"]]
        await feed.outcomes(ids)
    return [await acme.get(f"notifications/{id}") for id in ids]


def last(sandbox: Sandbox) -> EmailMessage:
    """The mail that the server took last."""
    found = email.message_from_bytes(sandbox.ledger.recent[-1].body, policy=email.policy.SMTP)
    assert isinstance(found, EmailMessage)
    return found


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_mail_arrives_and_keeps_the_servers_name_for_it(acme: Customer, sandbox: Sandbox, security: str) -> None:
    await acme.post("providers", server(sandbox, security, from_name="The Hall", reply_to="desk@hall.example"))

    (found,) = await outcomes(acme, "ada@example.org")

    assert (found["status"], found["provider"], found["attempts"]) == ("delivered", "smtp", 1)
    assert found["provider_message_id"] == sandbox.ledger.recent[-1].message_id
    assert sandbox.ledger.effects(found["id"]) == 1
    assert dict(sandbox.ledger.organizations.items()) == {"acme": 1}
    message = last(sandbox)
    assert (message["From"], message["To"]) == ("The Hall <tickets@hall.example>", "ada@example.org")
    assert (message["Message-ID"], message["Subject"]) == (f"<{found['id']}@hall.example>", "Doors")
    assert message.get_content().strip() == "They open at seven."


async def test_recipients_end_as_their_replies_say(acme: Customer, sandbox: Sandbox) -> None:
    await acme.post("providers", server(sandbox))

    found = await outcomes(acme, "bounce@sandbox.test", "soft@sandbox.test", "too-large@sandbox.test")

    ends = [(item["status"], item["reason"], item["attempts"]) for item in found]
    assert ends == [("failed", "no_such_recipient", 1), ("delivered", None, 3), ("failed", "too_large", 1)]
    assert [sandbox.ledger.effects(item["id"]) for item in found] == [0, 1, 0]


async def test_an_answer_lost_after_the_message_is_unknown_and_before_it_is_not(acme: Customer, sandbox: Sandbox) -> None:
    await acme.post("providers", server(sandbox))

    dropped, ordinary = await outcomes(acme, "drop@sandbox.test", "ada@example.org")

    assert (dropped["status"], dropped["unknowns"], sandbox.ledger.effects(dropped["id"])) == ("delivered", 1, 2)
    assert (ordinary["status"], ordinary["unknowns"], sandbox.ledger.effects(ordinary["id"])) == ("delivered", 0, 1)


async def test_an_outage_is_waited_out_without_a_double(acme: Customer, sandbox: Sandbox) -> None:
    await acme.post("providers", server(sandbox))
    sandbox.change(outage=Outage.CLOSE)
    async with acme.listen() as feed:
        id = (await acme.post("notifications", mail("ada@example.org")))["id"]
        await feed.until(type="notification.retrying", id=id)
        sandbox.change(outage=Outage.NONE)
        await feed.outcomes([id])
    found = await acme.get(f"notifications/{id}")

    assert (found["status"], found["unknowns"], sandbox.ledger.effects(id)) == ("delivered", 0, 1)


async def test_notifications_of_equal_words_share_transactions(acme: Customer, sandbox: Sandbox) -> None:
    await acme.post("providers", server(sandbox, batch_max=20, concurrency_max=1))
    recipients = [f"reader{number}@example.org" for number in range(40)]
    recipients[7], recipients[11] = "bounce@sandbox.test", "too-many@sandbox.test"

    found = await outcomes(acme, *recipients)

    statuses = [item["status"] for item in found]
    assert statuses == ["failed" if number == 7 else "delivered" for number in range(40)]
    assert [sandbox.ledger.effects(item["id"]) for item in found] == [0 if number == 7 else 1 for number in range(40)]
    assert sandbox.ledger.accepted < 20


@pytest.mark.parametrize(
    ("change", "good", "code"),
    [
        ({}, True, "sender_accepted"),
        ({"password": "wrong"}, False, "login_refused"),
        ({"password": "later"}, False, "login_deferred"),
    ],
)
async def test_a_configuration_is_tried_out(
    acme: Customer, sandbox: Sandbox, change: dict[str, Any], good: bool, code: str
) -> None:
    id = (await acme.post("providers", server(sandbox, **change)))["id"]

    report = await acme.post(f"providers/{id}/test", {})

    assert (report["ok"], report["code"]) == (good, code)
    assert sandbox.ledger.accepted == 0


async def test_without_the_authority_nothing_is_said_to_the_server(
    database_url: str, redis_url: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    settings = allowing(sandbox, tmp_path) | {"provider_ca_file": ""}
    async with dispatching(database_url, redis_url, **settings) as running:
        acme = await running.customer("acme")
        id = (await acme.post("providers", server(sandbox)))["id"]
        report = await acme.post(f"providers/{id}/test", {})

    assert (report["ok"], report["code"]) == (False, "certificate_invalid")


async def test_a_server_that_nobody_allowed_is_not_stored(acme: Customer, sandbox: Sandbox) -> None:
    document = server(sandbox)
    document["settings"]["port"] = 25

    response = await acme.call("POST", "providers", document)

    assert response.status_code == 422
    assert "host_not_allowed" in response.text


async def test_nothing_of_a_mail_is_left_anywhere(
    database_url: str, redis_url: str, sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    watch = Watch()
    async with AsyncExitStack() as stack:
        stack.enter_context(logged(watch))
        stack.enter_context(monitored(watch, redis_url))
        running = await stack.enter_async_context(dispatching(database_url, redis_url, **allowing(sandbox, tmp_path)))
        acme = await running.customer("acme")
        watch.secrets.append(acme.key.removeprefix("ndk_"))
        stored = watch.answer(await acme.call("POST", "providers", server(sandbox, password=CREDENTIAL)))
        watch.answer(await acme.call("POST", f"providers/{stored.json()['id']}/test", {}))
        recipients = [RECIPIENT, *(f"{trick}+{MARK}@sandbox.test" for trick in ("bounce", "too-large", "drop", "close", "soft"))]
        content = {"subject": CONTENT, "text": CONTENT, "html": CONTENT}
        items = [{"channel": "email", "recipient": recipient, "content": content} for recipient in recipients]
        async with acme.listen() as feed:
            accepted = watch.answer(await acme.call("POST", "notifications", {"items": items}))
            await feed.outcomes([item["id"] for item in accepted.json()["items"]])
            watch.events(feed.heard)
        watch.saw("the metrics", (await running.client.get(f"{running.url}/metrics")).content)
        watch.answer(await acme.call("GET", "dead-letters"))
        watch.postgres(database_url)
        watch.redis(redis_url)
    for name, text in zip(("standard output", "standard error"), capfd.readouterr(), strict=True):
        watch.saw(name, text)

    assert watch.found() == []
    assert MARK.encode() in sandbox.ledger.recent[0].body
