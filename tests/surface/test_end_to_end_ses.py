"""SES through a real dispatcher against the sandbox's: one by one, in batches, and with what goes wrong with some of a batch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from canary import CONTENT, MARK, RECIPIENT, Watch, logged, monitored
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from dispatcher_sandbox.ses import Mail, mails_of
from dispatcher_sandbox.ses.events import TOPIC_ARN
from dispatcher_sandbox.ses.signature import SECRET
from running import Customer, Running, dispatching, mail, until

KEY_ID = "AKIASANDBOXSANDBOX00"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def running(database_url: str, redis_url: str, sandbox: Sandbox) -> AsyncIterator[Running]:
    async with dispatching(database_url, redis_url, [sandbox], organization_in_flight_max="256") as running:
        yield running


def configuration(sandbox: Sandbox, secret: str = SECRET, **settings: Any) -> dict[str, Any]:
    """A configuration of SES to hand in."""
    return {
        "provider": "ses",
        "channel": "email",
        "credentials": {"access_key_id": KEY_ID, "secret_access_key": secret},
        "settings": {"region": "eu-central-1", "from_email": "tickets@hall.example", "base_url": sandbox.url, **settings},
    }


async def customer(running: Running, sandbox: Sandbox, **settings: Any) -> Customer:
    acme = await running.customer("acme")
    await acme.post("providers", configuration(sandbox, **settings))
    return acme


def item(recipient: str, number: int) -> dict[str, Any]:
    """A mail with words of its own; every third has no HTML."""
    html = {"html": f"<p>{{{{{number}}}}} &amp; more</p>"} if number % 3 else {}
    return mail(recipient, content={"subject": f'Seat "{number}" & <co>', "text": f"Dear {number} {{{{text}}}}", **html})


def words(recipient: str, number: int) -> Mail:
    content = item(recipient, number)["content"]
    return Mail((recipient,), content["subject"], content["text"], content.get("html", ""))


async def handed_in(acme: Customer, recipients: list[str]) -> dict[str, str]:
    """Hand all of them in at once; the ids by recipient."""
    items = [item(recipient, number) for number, recipient in enumerate(recipients)]
    answer = await acme.post("notifications", {"items": items})
    return {recipient: accepted["id"] for recipient, accepted in zip(recipients, answer["items"], strict=True)}


async def test_a_mail_is_signed_accepted_and_correlated(running: Running, sandbox: Sandbox) -> None:
    acme = await customer(running, sandbox, configuration_set="reports")
    async with acme.listen() as feed:
        ids = await handed_in(acme, ["ada@example.org"])
        (id,) = ids.values()
        ended = await feed.outcomes([id])
    found = await acme.get(f"notifications/{id}")

    assert ended == {id: "notification.delivered"}
    assert (found["provider"], found["provider_message_id"]) == ("ses", sandbox.ledger.recent[-1].message_id)
    assert mails_of(sandbox.ledger.recent[-1].body) == [words("ada@example.org", 0)]
    assert sandbox.ledger.effects(id) == 1
    assert dict(sandbox.ledger.organizations.items()) == {"acme": 1}


async def test_a_batch_takes_few_requests_and_everybody_gets_their_own_words_and_end(running: Running, sandbox: Sandbox) -> None:
    """Refused and delayed entries of a request that was a success end as they would alone; nobody is sent to twice."""
    recipients = [f"reader{number}@example.org" for number in range(120)]
    recipients[7], recipients[50], recipients[80] = "bounce@sandbox.test", "soft-1@sandbox.test", "rate-limited@sandbox.test"
    acme = await customer(running, sandbox, batch_max=50)
    async with acme.listen() as feed:
        ids = await handed_in(acme, recipients)
        ended = await feed.outcomes(ids.values())
    bad = ids.pop("bounce@sandbox.test")
    failed, soft = await acme.get(f"notifications/{bad}"), await acme.get(f"notifications/{ids['soft-1@sandbox.test']}")
    sent = [
        read for accepted in sandbox.ledger.recent for read in mails_of(accepted.body) if read.recipients[0].startswith("reader")
    ]

    assert ended.pop(bad) == "notification.failed"
    assert set(ended.values()) == {"notification.delivered"}
    assert (failed["reason"], failed["timeline"][-1]["code"]) == ("bad_request", "bad_request")
    assert soft["attempts"] == 2
    assert all(sandbox.ledger.effects(id) == 1 for id in ids.values())
    assert sandbox.ledger.effects(bad) == 0
    assert sandbox.ledger.requests <= 12
    assert sorted(sent) == sorted(words(to, number) for number, to in enumerate(recipients) if to.startswith("reader"))


async def test_a_batch_whose_answer_is_lost_leaves_a_doubt_for_each(running: Running, sandbox: Sandbox) -> None:
    sandbox.change(drop_after_accept=1.0)
    acme = await customer(running, sandbox, batch_max=50, on_unknown="hold")
    async with acme.listen() as feed:
        ids = await handed_in(acme, [f"reader{number}@example.org" for number in range(20)])
        ended = await feed.outcomes(ids.values())
    letters = await acme.get("dead-letters?page_size=50")

    assert set(ended.values()) == {"notification.failed"}
    assert [letter["reason"] for letter in letters["items"]] == ["unknown"] * 20
    assert all(sandbox.ledger.effects(id) == 1 for id in ids.values())


async def test_nothing_of_a_mail_or_a_credential_is_left_anywhere(
    database_url: str, redis_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    watch, secret = Watch(), f"secret-{MARK}-secret"
    with logged(watch), monitored(watch, redis_url):
        async with (
            open_sandbox() as sandbox,
            dispatching(database_url, redis_url, [sandbox]) as running,
        ):
            sandbox.change(aws_keys={KEY_ID: secret})
            acme = await running.customer("acme")
            wanted = configuration(sandbox, secret, batch_max=10, sns_topic_arn=TOPIC_ARN)
            added = watch.answer(await acme.call("POST", "providers", wanted))
            hook = f"{running.url}/v1/orgs/acme/providers/{added.json()['id']}/webhook"
            sandbox.hook("ses", hook, origin=sandbox.url)
            await until(lambda: sandbox.ledger.webhooks["confirmed"] == 1)
            watch.answer(await acme.call("POST", "providers", configuration(sandbox, f"{secret} ", from_name=f"{MARK}\n")))
            content = {"subject": CONTENT, "text": CONTENT, "html": CONTENT}
            names = ("bounce", "soft", "forbidden-1", "drop", "too-large", "hard-bounce")
            tricks = [f"{name}+{MARK}@sandbox.test" for name in names]
            items = [mail(recipient, content=content) for recipient in (RECIPIENT, *tricks)]
            async with acme.listen() as feed:
                answer = watch.answer(await acme.call("POST", "notifications", {"items": items}))
                ended = await feed.outcomes([accepted["id"] for accepted in answer.json()["items"]])
                await feed.until(type="contact.changed", status="bounced")
                watch.events(feed.heard)
            watch.answer(await acme.call("GET", "dead-letters"))
            watch.answer(await acme.call("GET", "providers"))
            watch.saw("the metrics", (await running.client.get(f"{running.url}/metrics")).content)
            watch.postgres(database_url)
            watch.redis(redis_url)
            assert MARK.encode() in orjson.dumps([accepted.body.decode() for accepted in sandbox.ledger.recent])
    for name, text in zip(("standard output", "standard error"), capfd.readouterr(), strict=True):
        watch.saw(name, text)

    assert "notification.delivered" in ended.values()
    assert "notification.failed" in ended.values()
    assert set(watch.found()) <= {"Postgres contacts.recipient"}  # where it belongs


async def test_a_configuration_can_be_tried_out(running: Running, sandbox: Sandbox) -> None:
    acme = await running.customer("acme")
    good = (await acme.post("providers", configuration(sandbox)))["id"]
    bad = (await acme.post("providers", configuration(sandbox, "not-the-right-secret")))["id"]
    ready, refused = await acme.post(f"providers/{good}/test"), await acme.post(f"providers/{bad}/test")
    sandbox.change(ses_production=False)
    confined = await acme.post(f"providers/{good}/test")

    assert (ready["ok"], ready["code"]) == (True, "ready")
    assert (refused["ok"], refused["code"]) == (False, "credentials_refused")
    assert (confined["ok"], confined["code"]) == (False, "account_in_sandbox")
    assert sandbox.ledger.accepted == 0


async def hooked(running: Running, sandbox: Sandbox, **secrets: str) -> Customer:
    """A customer whose SES reports to the dispatcher, once the subscription is confirmed."""
    acme = await running.customer("acme")
    settings = configuration(sandbox, batch_max=50, sns_topic_arn=TOPIC_ARN)
    id = (await acme.post("providers", settings))["id"]
    sandbox.hook("ses", f"{running.url}/v1/orgs/acme/providers/{id}/webhook", origin=sandbox.url, **secrets)
    await until(lambda: sandbox.ledger.webhooks["confirmed"] == 1)
    return acme


@pytest.mark.parametrize("secrets", [{"signature_version": "1"}, {"signature_version": "2", "form": "notifications"}])
async def test_reports_are_believed_joined_and_close_an_address(
    running: Running, sandbox: Sandbox, secrets: dict[str, str]
) -> None:
    """By tag, and without tags by the id of each entry of a batch."""
    acme = await hooked(running, sandbox, **secrets)
    recipients = ["hard-bounce@sandbox.test", "complaint@sandbox.test", "ada@example.org"]
    async with acme.listen() as feed:
        ids = await handed_in(acme, recipients)
        for recipient, state in zip(recipients, ("bounced", "complained", "delivered"), strict=True):
            await feed.until(type="notification.confirmed", id=ids[recipient], state=state)
        await feed.until(type="contact.changed", status="bounced")
    again = await acme.call("POST", "notifications", mail("hard-bounce@sandbox.test"))

    assert (again.status_code, again.json()["code"]) == (422, "recipient_suppressed")


async def test_doubled_shuffled_late_and_early_reports_end_in_what_happened(running: Running, sandbox: Sandbox) -> None:
    acme = await hooked(running, sandbox)
    sandbox.change(
        fate_mix={"bounced": 0.3, "complained": 0.2, "read": 0.2},
        webhook_duplicate_share=0.5,
        webhook_shuffle=True,
        webhook_delay_s=0.2,
        webhook_late_share=0.2,
        webhook_late_s=0.3,
        webhook_early_s=0.2,
    )
    async with acme.listen() as feed:
        ids = await handed_in(acme, [f"guest{number}@example.com" for number in range(25)])
        await feed.outcomes(ids.values())
    counts = sandbox.ledger.webhooks
    # The confirmation of the subscription was a call as well.
    await until(lambda: counts["acknowledged"] == 1 + counts["events"] + counts["duplicates"])
    states = {id: (await acme.get(f"notifications/{id}"))["confirmation"]["state"] for id in ids.values()}

    assert states == {id: sandbox.ledger.fates[id] for id in ids.values()}
    assert counts["failed"] == counts["retried"] == 0


async def test_a_report_of_another_topic_is_refused_and_nothing_is_fetched_for_it(running: Running, sandbox: Sandbox) -> None:
    acme = await running.customer("acme")
    id = (await acme.post("providers", configuration(sandbox, sns_topic_arn=f"{TOPIC_ARN}-other")))["id"]
    sandbox.change(webhook_attempts_max=1)
    sandbox.hook("ses", f"{running.url}/v1/orgs/acme/providers/{id}/webhook", origin=sandbox.url)
    await until(lambda: sandbox.ledger.webhooks["failed"] == 1)

    assert sandbox.ledger.requests == 0


async def test_an_origin_that_is_not_allowed_any_more_vouches_for_no_certificate(
    database_url: str, redis_url: str, sandbox: Sandbox
) -> None:
    """The same configuration before and after whoever runs the dispatcher has taken the sandbox off the list."""
    sandbox.change(webhook_attempts_max=1)
    async with dispatching(database_url, redis_url, [sandbox]) as running:
        acme = await running.customer("acme")
        id = (await acme.post("providers", configuration(sandbox, sns_topic_arn=TOPIC_ARN)))["id"]
        sandbox.hook("ses", f"{running.url}/v1/orgs/acme/providers/{id}/webhook", origin=sandbox.url)
        await until(lambda: sandbox.ledger.webhooks["acknowledged"] == 1)
    async with dispatching(database_url, redis_url) as running:
        sandbox.hook("ses", f"{running.url}/v1/orgs/acme/providers/{id}/webhook", origin=sandbox.url)
        await until(lambda: sandbox.ledger.webhooks["failed"] == 1)

    assert sandbox.ledger.webhooks["confirmed"] == 1
