"""SendGrid's own client gets on with our simulation of it, and what it sends is what we send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from typing import Any

import orjson
import pytest
import trio
from python_http_client.exceptions import (  # type: ignore[import-untyped]
    BadRequestsError,
    ForbiddenError,
    ServiceUnavailableError,
    UnauthorizedError,
)
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import Content, CustomArg, Email, Mail, MailSettings, Personalization, SandBoxMode, Substitution, To

from dispatcher.http_message import HttpRequest
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.providers.provider import Moment
from dispatcher.providers.sendgrid import BoundSendGrid, bind
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from dispatcher_sandbox.sendgrid.letters import letters_of

KEY = "SG.tests.tests"
ORG = OrganizationId("acme")
MOMENT = Moment(0.0, Random(1).randbytes)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


def id_of(number: int) -> str:
    return f"0192d3a4-7c1e-7f00-8000-{number:012d}"


def personalization(number: int, to: str, subject: str, **substitutions: str) -> Personalization:
    block = Personalization()
    block.add_to(To(to))
    block.subject = subject
    block.add_custom_arg(CustomArg("organization_id", ORG))
    block.add_custom_arg(CustomArg("notification_id", id_of(number)))
    for tag, value in substitutions.items():
        block.add_substitution(Substitution(f"-{tag}-", value))
    return block


def mail(*blocks: Personalization, text: str = "See you there.", **settings: Any) -> Mail:
    document = Mail()
    document.from_email = Email("tickets@example.org")
    for block in reversed(blocks):  # it writes them down last first
        document.add_personalization(block)
    document.add_content(Content("text/plain", text))
    for name, value in settings.items():
        setattr(document, name, value)
    return document


async def send(sandbox: Sandbox, document: Mail, key: str = KEY) -> Any:
    client = SendGridAPIClient(key, host=sandbox.url)
    return await trio.to_thread.run_sync(client.send, document)


async def test_its_client_sends_one_mail(sandbox: Sandbox) -> None:
    answer = await send(sandbox, mail(personalization(1, "ann@example.com", "Seat")))

    assert (answer.status_code, answer.body) == (202, b"")
    assert answer.headers["X-Message-Id"] == sandbox.ledger.recent[-1].message_id
    assert sandbox.ledger.effects(id_of(1)) == 1


async def test_its_client_sends_several_with_substitutions(sandbox: Sandbox) -> None:
    blocks = (personalization(1, "ann@example.com", "A", who="Ann"), personalization(2, "ben@example.com", "B", who="Ben"))
    await send(sandbox, mail(*blocks, text="Dear -who-"))

    assert [letter.content["text/plain"] for letter in letters_of(sandbox.ledger.recent[-1].body)] == ["Dear Ann", "Dear Ben"]
    assert sandbox.ledger.messages == 2


async def test_its_client_sees_sandbox_mode(sandbox: Sandbox) -> None:
    settings = MailSettings()
    settings.sandbox_mode = SandBoxMode(True)
    answer = await send(sandbox, mail(personalization(1, "ann@example.com", "Seat"), mail_settings=settings))

    assert (answer.status_code, sandbox.ledger.accepted) == (200, 0)


@pytest.mark.parametrize(
    ("recipient", "error"),
    [
        ("bounce@sandbox.test", BadRequestsError),
        ("unauthorized@sandbox.test", UnauthorizedError),
        ("forbidden@sandbox.test", ForbiddenError),
        ("always-soft@sandbox.test", ServiceUnavailableError),
    ],
)
async def test_its_client_raises_the_errors_it_knows(sandbox: Sandbox, recipient: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await send(sandbox, mail(personalization(1, recipient, "Seat")))


async def test_its_client_reads_which_of_several_was_refused(sandbox: Sandbox) -> None:
    with pytest.raises(BadRequestsError) as raised:
        await send(sandbox, mail(personalization(1, "ann@example.com", "A"), personalization(2, "bounce@sandbox.test", "B")))

    assert [each["field"] for each in raised.value.to_dict["errors"]] == ["personalizations.1.to.0.email"]
    assert sandbox.ledger.accepted == 0


def bound() -> BoundSendGrid:
    settings = {"from_email": "tickets@example.org", "batch_max": 10}
    return bind(ProviderConfig("1", ORG, Channel.EMAIL, "sendgrid", settings, {"api_key": KEY}, 1))


def delivery(number: int, to: str, subject: str, text: str) -> Delivery:
    return Delivery(NotificationId(id_of(number)), ORG, Channel.EMAIL, to, {"subject": subject, "text": text}, 1, 8, 0.0)


def ours(request: HttpRequest) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(request.body)
    return document


def test_what_we_send_is_what_its_client_sends() -> None:
    theirs = mail(personalization(1, "ann@example.com", "Seat")).get()
    alone = ours(bound().request(delivery(1, "ann@example.com", "Seat", "See you there."), MOMENT))
    theirs["subject"] = theirs["personalizations"][0].pop("subject")  # ours stands in the root when there is one mail

    assert alone == theirs


def test_what_we_send_together_is_what_its_client_sends_together() -> None:
    deliveries = (delivery(1, "ann@example.com", "A", "Dear Ann"), delivery(2, "ben@example.com", "B", "Dear Ben"))
    parts = [part for each in deliveries if (part := bound().part(each, MOMENT)) is not None]
    together = ours(bound().batch_request(parts, MOMENT))
    tag = together["content"][0]["value"]
    blocks = (
        personalization(1, "ann@example.com", "A", **{tag[1:-1]: "Dear Ann"}),
        personalization(2, "ben@example.com", "B", **{tag[1:-1]: "Dear Ben"}),
    )

    assert together == mail(*blocks, text=tag).get()
