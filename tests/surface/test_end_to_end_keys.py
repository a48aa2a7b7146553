"""Handing the same in twice: one notification, one effect, the first answer again; and a refusal for something else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
import trio

from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from running import Customer, Running, dispatching, mail

Answers = list[httpx.Response]


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


async def accept(customer: Customer, document: Mapping[str, Any], key: str | None = None) -> httpx.Response:
    return await customer.call("POST", "notifications", document, {} if key is None else {"idempotency-key": key})


async def at_once(*calls: tuple[Customer, Mapping[str, Any], str | None]) -> Answers:
    """All of them at the same time; the answers in the order of the calls."""
    answers: dict[int, httpx.Response] = {}

    async def make(index: int, customer: Customer, document: Mapping[str, Any], key: str | None) -> None:
        answers[index] = await accept(customer, document, key)

    async with trio.open_nursery() as nursery:
        for index, call in enumerate(calls):
            nursery.start_soon(make, index, *call)
    return [answers[index] for index in range(len(calls))]


async def all_delivered_once(customer: Customer, sandbox: Sandbox, ids: list[str]) -> None:
    async with customer.listen(since="0") as feed:
        outcomes = await feed.outcomes(ids)

    assert set(outcomes.values()) == {"notification.delivered"}
    assert dict(sandbox.ledger.notifications.items()) == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("in_header", [True, False])
async def test_a_repeated_notification_gets_the_first_answer_again(acme: Customer, sandbox: Sandbox, in_header: bool) -> None:
    document, key = (
        (mail("ada@example.org"), "order-1") if in_header else (mail("ada@example.org", idempotency_key="order-1"), None)
    )
    first, second = await accept(acme, document, key), await accept(acme, document, key)
    await all_delivered_once(acme, sandbox, [first.json()["id"]])
    third = await accept(acme, dict(reversed(document.items())), key)

    assert [answer.status_code for answer in (first, second, third)] == [202, 202, 202]
    assert first.content == second.content == third.content
    assert first.headers["location"] == second.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == third.headers["idempotent-replayed"] == "true"
    assert list(await acme.statuses()) == [first.json()["id"]]
    assert sandbox.ledger.requests == 1


@pytest.mark.parametrize("in_header", [True, False])
async def test_a_key_with_another_content_is_refused(acme: Customer, sandbox: Sandbox, in_header: bool) -> None:
    key, fields = ("order-1", {}) if in_header else (None, {"idempotency_key": "order-1"})
    first = await accept(acme, mail("ada@example.org", **fields), key)
    other = await accept(acme, mail("eve@example.org", **fields), key)
    await all_delivered_once(acme, sandbox, [first.json()["id"]])

    assert other.status_code == 422
    assert (other.json()["code"], other.json()["pointer"]) == ("idempotency_key_reused", "/idempotency_key")
    assert "example.org" not in other.text
    assert len(await acme.statuses()) == 1


async def test_two_different_keys_for_one_notification_are_refused(acme: Customer) -> None:
    answer = await accept(acme, mail("ada@example.org", idempotency_key="this"), "that")

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_ambiguous")
    assert await acme.statuses() == {}


async def test_a_repeated_batch_gets_the_first_answer_byte_for_byte(acme: Customer, sandbox: Sandbox) -> None:
    document = {"items": [mail("ada@example.org"), mail("nobody"), mail("bob@example.org", idempotency_key="k")]}
    first, second = await accept(acme, document, "batch-1"), await accept(acme, document, "batch-1")
    changed = await accept(acme, {"items": [mail("eve@example.org")]}, "batch-1")
    ids = [item["id"] for item in first.json()["items"] if "id" in item]
    await all_delivered_once(acme, sandbox, ids)

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.content == second.content
    assert second.headers["idempotent-replayed"] == "true"
    assert [item["status"] for item in first.json()["items"]] == ["accepted", "rejected", "accepted"]
    assert (changed.status_code, changed.json()["code"]) == (422, "idempotency_key_reused")
    assert sorted(await acme.statuses()) == sorted(ids)


async def test_keys_of_items_hold_across_batches_and_singles(acme: Customer, sandbox: Sandbox) -> None:
    items = [mail(f"reader.{number}@example.org", idempotency_key=f"order-{number}") for number in range(20)]
    first = (await accept(acme, {"items": items})).json()
    again = (await accept(acme, {"items": [*reversed(items), mail("new@example.org", idempotency_key="new")]})).json()
    single = await accept(acme, items[7])
    ids = [item["id"] for item in first["items"]]
    await all_delivered_once(acme, sandbox, [*ids, again["items"][20]["id"]])

    assert (first["accepted"], again["accepted"], again["duplicates"]) == (20, 1, 20)
    assert [item["id"] for item in reversed(again["items"][:20])] == ids
    assert single.json()["id"] == ids[7]


async def test_of_requests_with_one_key_at_once_only_one_does_anything(acme: Customer, sandbox: Sandbox) -> None:
    """The others are told to come back, or get its answer."""
    answers = await at_once(*[(acme, mail("ada@example.org"), "order-1")] * 12)
    accepted = [answer for answer in answers if answer.status_code == 202]
    busy = [answer for answer in answers if answer.status_code == 409]
    await all_delivered_once(acme, sandbox, [accepted[0].json()["id"]])

    assert len(accepted) + len(busy) == 12
    assert len({answer.content for answer in accepted}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in accepted) == 1
    assert all(answer.json()["code"] == "request_in_progress" and answer.headers["retry-after"] == "1" for answer in busy)
    assert len(await acme.statuses()) == 1


async def test_two_processes_that_hear_the_same_at_once_accept_it_once(
    database_url: str, redis_url: str, sandbox: Sandbox, acme: Customer
) -> None:
    async with dispatching(database_url, redis_url, [sandbox]) as elsewhere:
        there = await elsewhere.customer("acme")
        for number in range(10):
            document = mail("ada@example.org", idempotency_key=f"order-{number}")
            answers = await at_once((acme, document, None), (there, document, None))

            assert [answer.status_code for answer in answers] == [202, 202]
            assert len({answer.content for answer in answers}) == 1
        batch = {"items": [mail(f"reader.{number}@example.org") for number in range(5)]}
        batches = await at_once((acme, batch, "batch"), (there, batch, "batch"))
        ids = [{item["id"] for item in answer.json()["items"]} for answer in batches]
        await all_delivered_once(acme, sandbox, list(await acme.statuses()))

    assert ids[0] == ids[1]
    assert len(await acme.statuses()) == 15


async def test_of_different_contents_under_one_key_at_once_one_is_accepted_and_the_others_refused(
    database_url: str, redis_url: str, sandbox: Sandbox, acme: Customer
) -> None:
    """In one process and in two; and whoever was refused stays refused (scenario 37)."""
    async with dispatching(database_url, redis_url, [sandbox]) as elsewhere:
        there = await elsewhere.customer("acme")
        accepted: list[str] = []
        for number in range(6):
            key = f"order-{number}"
            documents = [mail(f"reader.{each}@example.org") for each in range(6)]
            answers = await at_once(*[((acme, there)[each % 2], document, key) for each, document in enumerate(documents)])
            codes = [answer.json().get("code", "accepted") for answer in answers]
            assert codes.count("accepted") == 1
            assert set(codes) <= {"accepted", "idempotency_key_reused", "request_in_progress"}
            winner = codes.index("accepted")
            accepted.append(answers[winner].json()["id"])

            again = [await accept(there, document, key) for document in documents]
            assert [answer.status_code for answer in again] == [202 if each == winner else 422 for each in range(6)]
            assert again[winner].content == answers[winner].content
        await all_delivered_once(acme, sandbox, accepted)

    assert sorted(await acme.statuses()) == sorted(accepted)


async def test_one_key_means_two_things_to_two_organizations(acme: Customer, running: Running, sandbox: Sandbox) -> None:
    hall = await running.customer("hall")
    await hall.add_provider(sandbox.url)
    answers = await at_once((acme, mail("ada@example.org"), "order-1"), (hall, mail("bob@example.org"), "order-1"))

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] != answers[1].json()["id"]
