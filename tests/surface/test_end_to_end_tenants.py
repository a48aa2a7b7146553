"""Two organizations in one dispatcher: neither sees, changes, or finds out about anything of the other."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from actors.store.api_keys import Scope
from dispatcher_http.listener import StreamEnded, listen
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, Running, dispatching, mail, provider

NOBODYS_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
TEMPLATE = {"name": "ticket", "channel": "email", "locale": "en", "subject": "Doors", "body_template": "At seven"}


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
    acme = await running.customer("acme")
    await acme.add_provider(sandbox.url)
    return acme


@pytest.fixture
async def hall(running: Running, sandbox: Sandbox) -> Customer:
    hall = await running.customer("hall")
    await hall.add_provider(sandbox.url)
    return hall


REQUESTS = [
    ("POST", "notifications", mail("ada@example.org")),
    ("GET", "notifications", None),
    ("GET", "notifications/{notification}", None),
    ("POST", "templates", TEMPLATE),
    ("GET", "templates", None),
    ("GET", "templates/{template}", None),
    ("POST", "templates/{template}/preview", {}),
    ("DELETE", "templates/{template}", None),
    ("POST", "providers", provider("https://api.sendgrid.com")),
    ("GET", "providers", None),
    ("GET", "providers/{provider}", None),
    ("PUT", "providers/{provider}", {"settings": {"from_email": "eve@example.org"}}),
    ("DELETE", "providers/{provider}", None),
    ("GET", "dead-letters", None),
    ("POST", "dead-letters/{letter}/requeue", None),
    ("DELETE", "dead-letters/{letter}", None),
]


async def belongings(customer: Customer) -> dict[str, str]:
    """One of everything that has an id."""
    async with customer.listen() as feed:
        letter = await customer.send("bounce@sandbox.test")
        await feed.until(type="notification.failed", id=letter)
    return {
        "notification": letter,
        "template": (await customer.post("templates", TEMPLATE))["id"],
        "provider": (await customer.get("providers"))["items"][0]["id"],
        "letter": letter,
    }


async def possessions(customer: Customer) -> list[object]:
    """Everything it can see of itself."""
    return [await customer.get(path) for path in ("notifications", "templates", "providers", "dead-letters")]


def told(response: httpx.Response) -> tuple[int, object, str | None]:
    return response.status_code, response.json(), response.headers.get("www-authenticate")


async def test_a_key_opens_no_other_organization_nor_tells_whether_it_exists(acme: Customer, hall: Customer) -> None:
    theirs = await belongings(hall)
    before = await possessions(hall)
    for method, path, document in REQUESTS:
        address = path.format(**theirs)
        existing, missing = [
            await Customer(acme.url, name, acme.key, acme.client).call(method, address, document) for name in ("hall", "nobody")
        ]

        assert (existing.status_code, existing.json()["code"]) == (404, "organization_not_found"), (method, path)
        assert told(existing) == told(missing), (method, path)

    assert await possessions(hall) == before


async def test_ids_of_another_organization_are_ids_of_nothing(acme: Customer, hall: Customer) -> None:
    theirs = await belongings(hall)
    before = await possessions(hall)
    for method, path, document in REQUESTS:
        if "{" in path:
            existing = await acme.call(method, path.format(**theirs), document)
            missing = await acme.call(method, path.format(**dict.fromkeys(theirs, NOBODYS_ID)), document)

            assert existing.status_code == 404, (method, path)
            assert told(existing) == told(missing), (method, path)

    assert await possessions(hall) == before


async def test_a_list_cannot_be_continued_from_anothers_place(acme: Customer, hall: Customer) -> None:
    theirs = await belongings(hall)
    id = await acme.send("ada@example.org")
    for kind in ("notifications", "dead-letters"):
        page = await acme.get(f"{kind}?after={theirs['notification']}")

        assert {item["id"] for item in page["items"]} <= {id}


async def test_the_stream_of_another_organization_stays_closed(acme: Customer, hall: Customer) -> None:
    refusals = []
    for name in ("hall", "nobody"):
        with pytest.raises(StreamEnded) as refused:
            async with listen(acme.url, name, acme.key):
                pass
        refusals.append(str(refused.value))

    assert refused.value.code == 404
    assert refusals[0] == refusals[1]


async def test_everybody_hears_only_of_themselves(acme: Customer, hall: Customer) -> None:
    async with acme.listen() as ours, hall.listen() as theirs:
        our_ids, their_ids = await acme.send_all(["ada@example.org"] * 20), await hall.send_all(["bob@example.org"] * 20)
        await ours.outcomes(our_ids)
        await theirs.outcomes(their_ids)

    assert {event["id"] for event in ours.heard} == set(our_ids)
    assert {event["id"] for event in theirs.heard} == set(their_ids)


async def test_templates_of_one_name_are_each_organizations_own(acme: Customer, hall: Customer) -> None:
    for customer, subject in ((acme, "From Acme"), (hall, "From the hall")):
        await customer.post("templates", {**TEMPLATE, "subject": subject})
    item = {"channel": "email", "recipient": "ada@example.org", "template": "ticket"}
    payloads = []
    for customer in (acme, hall):
        id = (await customer.post("notifications", item))["id"]
        payloads.append((await customer.get(f"notifications/{id}"))["payload"]["subject"])

    assert payloads == ["From Acme", "From the hall"]


async def test_the_provider_is_told_whose_notification_it_is(acme: Customer, hall: Customer, sandbox: Sandbox) -> None:
    async with acme.listen() as ours, hall.listen() as theirs:
        await ours.outcomes(await acme.send_all(["ada@example.org"] * 2))
        await theirs.outcomes(await hall.send_all(["bob@example.org"] * 3))

    assert dict(sandbox.ledger.organizations.items()) == {"acme": 2, "hall": 3}


async def test_a_key_without_a_scope_is_told_which(running: Running, acme: Customer) -> None:
    for scope, method, path, document in (
        (Scope.NOTIFICATIONS_WRITE, *REQUESTS[0]),
        (Scope.NOTIFICATIONS_READ, *REQUESTS[1]),
        (Scope.TEMPLATES_WRITE, *REQUESTS[3]),
        (Scope.PROVIDERS_READ, *REQUESTS[9]),
        (Scope.DEAD_LETTERS_READ, *REQUESTS[13]),
    ):
        others = [each for each in Scope if each is not scope]
        answer = await (await running.customer("acme", *others)).call(method, path, document)

        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
        assert scope.value in answer.json()["detail"]


async def test_without_a_key_or_with_a_wrong_one_nobody_is_let_in(acme: Customer) -> None:
    wrong = Customer(acme.url, "acme", "ndk_" + "A" * 43, acme.client)
    nonsense = Customer(acme.url, "acme", "please", acme.client)
    for customer in (wrong, nonsense):
        for method, path, document in REQUESTS:
            answer = await customer.call(
                method, path.format(**dict.fromkeys(("notification", "template", "provider", "letter"), NOBODYS_ID)), document
            )

            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        with pytest.raises(StreamEnded) as refused:
            async with customer.listen():
                pass
        assert refused.value.code == 401
