"""A channel that may ask its provider sends again only what the provider says it does not have."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import cast

import pytest
import trio
import trio.testing
from attrs import evolve

from actors.callers import Callers
from actors.channel import ChannelActor
from actors.io.http import Deadlines, HttpPool, MaybeSent, NotSent, PoolLimits, open_http_pool
from actors.lease import Lease
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from actors.transports import Transports
from dispatcher.http_message import HttpRequest, HttpResponse
from dispatcher.messages import Concluded, ProviderPolicy
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import OnUnknown, OutcomeClass
from dispatcher.providers.registry import REGISTRY, Bound
from dispatcher_sandbox.behaviour import Outage
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox

ORG = OrganizationId("acme")
KEY = "SG." + "c" * 22 + "." + "c" * 43
ASK = ProviderPolicy("c-1", 1, "sendgrid", Channel.EMAIL, None, 1, 4, OnUnknown.ASK, None, 300.0)
ID = NotificationId("0192d3a4-7c1e-7f00-8000-000000000001")
FIRST = Delivery(
    ID, ORG, Channel.EMAIL, "reader@example.org", {"subject": "Hello", "text": "Good day"}, 1, 8, time.time(), term=1
)
AGAIN = evolve(FIRST, attempt=2, unknowns=1, unknown_for_s=400.0, unknown_last_s=400.0)


class Scripted:
    """A pool whose exchanges are answered by the test."""

    def __init__(self, *answers: Callable[[], HttpResponse]) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.deadlines: list[float] = []

    async def exchange(self, request: HttpRequest, deadlines: Deadlines) -> HttpResponse:
        await trio.lowlevel.checkpoint()
        self.asked.append(request.method)
        self.deadlines.append(deadlines.total_s)
        return self.answers.pop(0)()


class Sender:
    """Sends and nothing else: it can not be asked."""

    def __init__(self, bound: Bound) -> None:
        self.origin, self.limits, self.request, self.classify = bound.origin, bound.limits, bound.request, bound.classify


def bind(url: str = "http://127.0.0.1:8025") -> Bound:
    settings = {"from_email": "shop@example.org", "base_url": url}
    return REGISTRY["sendgrid"].bind(ProviderConfig("c-1", ORG, Channel.EMAIL, "sendgrid", settings, {"api_key": KEY}, 1), (url,))


async def attempt(
    pool: HttpPool | Scripted,
    bound: Bound,
    delivery: Delivery,
    policy: ProviderPolicy = ASK,
    call_s: float = 20.0,
    deadline_s: float | None = None,
    in_line_s: float = 0.0,
) -> Concluded:
    """Make one attempt; how it ended."""
    heard: list[Concluded] = []
    lease = Lease(MemoryStore(MemoryDatabase(time.time), "i"), Metrics(), lease_s=60, call_s=call_s, random=Random(1))
    await lease.register()
    actor = ChannelActor(
        policy,
        bound,
        transports=Transports(cast("HttpPool", pool)),
        deadlines=Deadlines(total_s=2.0),
        lease=lease,
        callers=(callers := Callers(1)),
        share=callers.share_of(ORG),
        tell=heard.append,
        unix_s=time.time,
        random_bytes=Random(2).randbytes,
        metrics=Metrics(),
    )
    actor.send([delivery], deadline_s)
    await trio.sleep(in_line_s)
    await actor.attempt(actor.take())
    (concluded,) = heard
    return concluded


def answer(status: int, body: bytes = b"") -> Callable[[], HttpResponse]:
    return lambda: HttpResponse(status, (), body)


def fails(error: Exception) -> Callable[[], HttpResponse]:
    def fail() -> HttpResponse:
        raise error

    return fail


NOTHING = answer(200, b'{"messages":[]}')


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@asynccontextmanager
async def real_pool() -> AsyncIterator[HttpPool]:
    async with open_http_pool(limits=PoolLimits(), tls_context=None) as pool:
        yield pool


async def test_what_the_provider_took_although_its_answer_was_lost_is_delivered_and_not_sent_again(sandbox: Sandbox) -> None:
    """One effect at a provider that honours no keys (scenario 5)."""
    sandbox.change(drop_after_accept=1.0)
    async with real_pool() as pool:
        lost = await attempt(pool, bind(sandbox.url), FIRST)
        sandbox.change(drop_after_accept=0.0)
        found = await attempt(pool, bind(sandbox.url), AGAIN)

    assert lost.outcome.kind is OutcomeClass.UNKNOWN
    assert (found.outcome.kind, found.outcome.code) == (OutcomeClass.DELIVERED, "found_at_provider")
    assert found.outcome.provider_message_id == f"{sandbox.ledger.recent[0].message_id}.sandbox-0"
    assert sandbox.ledger.effects(ID) == 1


async def test_what_the_provider_does_not_have_is_sent_in_the_same_attempt(sandbox: Sandbox) -> None:
    async with real_pool() as pool:
        concluded = await attempt(pool, bind(sandbox.url), AGAIN)

    assert (concluded.outcome.kind, concluded.outcome.code) == (OutcomeClass.DELIVERED, "accepted")
    assert (sandbox.ledger.searched, sandbox.ledger.effects(ID)) == (1, 1)


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({"outage": Outage.UNAVAILABLE}, "inquiry_http_503"),
        ({"email_activity": False}, "inquiry_http_403"),
        ({"error_mix": {429: 1.0}}, "inquiry_http_429"),
    ],
)
async def test_a_provider_that_can_not_tell_is_sent_nothing(sandbox: Sandbox, behaviour: dict[str, object], code: str) -> None:
    sandbox.change(**behaviour)
    async with real_pool() as pool:
        concluded = await attempt(pool, bind(sandbox.url), AGAIN)

    assert (concluded.outcome.kind, concluded.outcome.code) == (OutcomeClass.UNRESOLVED, code)
    assert sandbox.ledger.accepted == 0


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (fails(NotSent("connect", "refused")), "inquiry_refused"),
        (fails(MaybeSent("read", "timeout_read")), "inquiry_timeout_read"),
        (fails(MaybeSent("read", "closed", 200)), "inquiry_closed"),
        (fails(ValueError("canary")), "inquiry_failed"),
        (answer(200, b"<html>"), "inquiry_not_understood"),
    ],
)
async def test_a_question_that_fails_in_any_way_sends_nothing(
    failure: Callable[[], HttpResponse], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    pool = Scripted(failure)
    concluded = await attempt(pool, bind(), AGAIN)

    assert (concluded.outcome.kind, concluded.outcome.code) == (OutcomeClass.UNRESOLVED, code)
    assert pool.asked == [b"GET"]
    assert "canary" not in caplog.text


@pytest.mark.parametrize(("delivery", "policy"), [(FIRST, ASK), (AGAIN, evolve(ASK, on_unknown=OnUnknown.RESEND_ONCE))])
async def test_nobody_is_asked_about_what_is_known_or_where_the_policy_is_another(
    delivery: Delivery, policy: ProviderPolicy
) -> None:
    pool = Scripted(answer(202))
    concluded = await attempt(pool, bind(), delivery, policy)

    assert concluded.outcome.kind is OutcomeClass.DELIVERED
    assert pool.asked == [b"POST"]


async def test_a_provider_that_can_not_be_asked_is_sent_nothing_either() -> None:
    pool = Scripted()
    concluded = await attempt(pool, Sender(bind()), AGAIN)

    assert (concluded.outcome.kind, concluded.outcome.code) == (OutcomeClass.UNRESOLVED, "inquiry_impossible")
    assert pool.asked == []


async def test_the_question_of_a_probe_may_take_no_longer_than_the_probe() -> None:
    pool, usual = Scripted(NOTHING, answer(202)), Scripted(NOTHING, answer(202))
    await attempt(pool, bind(), AGAIN, deadline_s=0.5)
    await attempt(usual, bind(), AGAIN)

    assert (pool.deadlines, usual.deadlines) == ([0.5, 0.5], [2.0, 2.0])


async def test_a_lease_that_ran_out_while_it_was_asked_is_not_sent_under(autojump_clock: trio.testing.MockClock) -> None:
    class Slow(Scripted):
        async def exchange(self, request: HttpRequest, deadlines: Deadlines) -> HttpResponse:
            await trio.sleep(50)
            return await super().exchange(request, deadlines)

    pool = Slow(NOTHING, answer(202))
    concluded = await attempt(pool, bind(), AGAIN)

    assert concluded.outcome.kind is OutcomeClass.INTERRUPTED
    assert pool.asked == [b"GET"]


@pytest.mark.parametrize(("in_line_s", "kind"), [(10.0, OutcomeClass.DELIVERED), (30.0, OutcomeClass.INTERRUPTED)])
async def test_what_waited_in_line_until_its_key_may_be_forgotten_goes_back(
    autojump_clock: trio.testing.MockClock, in_line_s: float, kind: OutcomeClass
) -> None:
    """The gate looks at it again, and holds it."""
    pool = Scripted(answer(202))
    policy = evolve(ASK, on_unknown=OnUnknown.RESEND, key_retention_s=440.0)  # of which 418 s are relied on
    concluded = await attempt(pool, bind(), AGAIN, policy, in_line_s=in_line_s)

    assert concluded.outcome.kind is kind
    assert len(pool.asked) == (kind is OutcomeClass.DELIVERED)


async def test_without_a_lease_nobody_is_even_asked() -> None:
    pool = Scripted(NOTHING, answer(202))
    concluded = await attempt(pool, bind(), evolve(AGAIN, term=0))

    assert concluded.outcome.kind is OutcomeClass.INTERRUPTED
    assert pool.asked == []


@pytest.mark.parametrize("delivery", [FIRST, AGAIN])
async def test_what_expired_while_it_waited_in_line_is_neither_asked_about_nor_sent(delivery: Delivery) -> None:
    pool = Scripted(NOTHING, answer(202))
    late = await attempt(pool, bind(), evolve(delivery, expires_at_s=time.time() - 0.001))
    in_time = await attempt(Scripted(answer(202)), bind(), evolve(FIRST, expires_at_s=time.time() + 60))

    assert late.outcome.kind is OutcomeClass.INTERRUPTED
    assert pool.asked == []
    assert in_time.outcome.kind is OutcomeClass.DELIVERED
