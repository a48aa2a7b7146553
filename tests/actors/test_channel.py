"""A channel concludes every attempt exactly once, whatever the provider does. Pool, sockets and sandbox are the real ones."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing

from actors.callers import Callers
from actors.channel import ChannelActor
from actors.io.http import Deadlines, PoolLimits, open_http_pool
from actors.lease import Lease
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from actors.transports import Transports
from dispatcher.fairness import Share
from dispatcher.http_message import HttpResponse
from dispatcher.messages import Concluded, ProviderPolicy
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.registry import REGISTRY, Bound, Moment, Request
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox

ORG = OrganizationId("acme")
KEY = "SG." + "c" * 22 + "." + "c" * 43
POLICY = ProviderPolicy("c-1", 1, "sendgrid", Channel.EMAIL, None, 1, 4)


class Heard:
    """What the organization was told, and a way to wait for it."""

    def __init__(self) -> None:
        self.all: list[Concluded] = []
        self._news = trio.Event()

    def tell(self, concluded: Concluded) -> None:
        self.all.append(concluded)
        self._news.set()

    async def count(self, n: int) -> list[Concluded]:
        with trio.fail_after(10):
            while len(self.all) < n:
                self._news = trio.Event()
                await self._news.wait()
        return self.all


class Faulty:
    """A provider with a fault of ours in it."""

    def __init__(self, good: Bound, fault: str) -> None:
        self._good = good
        self._fault = fault
        self.origin = good.origin
        self.limits = good.limits

    def request(self, delivery: Delivery, moment: Moment) -> Request:
        if self._fault == "request":
            raise ValueError("canary")
        return self._good.request(delivery, moment)

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        if self._fault == "classify":
            raise ValueError("canary")
        return self._good.classify(response, now_unix_s)


def delivery(number: int, recipient: str = "") -> Delivery:
    id = NotificationId(f"0192d3a4-7c1e-7f00-8000-{number:012d}")
    payload = {"subject": "Hello", "text": "Good day"}
    return Delivery(id, ORG, Channel.EMAIL, recipient or f"reader{number}@example.org", payload, 1, 8, time.time(), term=1)


def bind(url: str) -> Bound:
    settings = {"from_email": "shop@example.org", "base_url": url}
    return REGISTRY["sendgrid"].bind(ProviderConfig("c-1", ORG, Channel.EMAIL, "sendgrid", settings, {"api_key": KEY}, 1), (url,))


@asynccontextmanager
async def channel(bound: Bound, heard: Heard, *, leased: bool = True) -> AsyncIterator[ChannelActor]:
    """A channel with callers that run; its lease holds or has lapsed."""
    metrics = Metrics()
    lease = Lease(MemoryStore(MemoryDatabase(time.time), "i"), metrics, lease_s=60, call_s=20, random=Random(1))
    if leased:
        await lease.register()
    callers = Callers(8)
    async with open_http_pool(limits=PoolLimits(), tls_context=None) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(callers.run)
        yield ChannelActor(
            POLICY,
            bound,
            callers=callers,
            share=Share(),
            transports=Transports(pool),
            deadlines=Deadlines(read_s=2.0, total_s=2.0),
            lease=lease,
            tell=heard.tell,
            unix_s=time.time,
            random_bytes=Random(2).randbytes,
            metrics=metrics,
        )
        nursery.cancel_scope.cancel()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    ("recipient", "kind"),
    [
        ("reader@example.org", OutcomeClass.DELIVERED),
        ("bounce@sandbox.test", OutcomeClass.HARD),
        ("always-soft@sandbox.test", OutcomeClass.SOFT),
        ("rate-limited@sandbox.test", OutcomeClass.RATE_LIMITED),
        ("unauthorized@sandbox.test", OutcomeClass.MISCONFIGURED),
        ("drop@sandbox.test", OutcomeClass.UNKNOWN),
    ],
)
async def test_what_the_provider_does_becomes_an_outcome(sandbox: Sandbox, recipient: str, kind: OutcomeClass) -> None:
    heard = Heard()
    async with channel(bind(sandbox.url), heard) as actor:
        actor.send([delivery(1, recipient)])
        (concluded,) = await heard.count(1)

    assert concluded.outcome.kind is kind
    assert concluded.via is POLICY
    assert concluded.duration_s >= 0


async def test_nobody_at_home_is_soft_because_nothing_was_sent() -> None:
    heard = Heard()
    async with channel(bind("http://127.0.0.1:9"), heard) as actor:
        actor.send([delivery(1)])
        (concluded,) = await heard.count(1)

    assert concluded.outcome.kind is OutcomeClass.SOFT


async def test_every_attempt_is_concluded_once_and_no_more_run_at_once_than_configured(sandbox: Sandbox) -> None:
    heard = Heard()
    async with channel(bind(sandbox.url), heard) as actor:
        actor.send([delivery(number) for number in range(40)])
        await heard.count(40)

    assert len({concluded.delivery.id for concluded in heard.all}) == 40
    assert sandbox.statistics().connections_total <= POLICY.concurrency_max
    assert all(sandbox.ledger.effects(concluded.delivery.id) == 1 for concluded in heard.all)


async def test_what_has_not_begun_can_be_withdrawn(sandbox: Sandbox) -> None:
    heard = Heard()
    async with channel(bind(sandbox.url), heard) as actor:
        actor.send([delivery(number) for number in range(10)])
        actor.withdraw()
        await heard.count(10)

    kinds = [concluded.outcome.kind for concluded in heard.all]
    assert kinds.count(OutcomeClass.INTERRUPTED) == 10
    assert sandbox.ledger.summary()["accepted"] == 0


async def test_without_a_lease_no_call_begins(sandbox: Sandbox) -> None:
    heard = Heard()
    async with channel(bind(sandbox.url), heard, leased=False) as actor:
        actor.send([delivery(1)])
        (concluded,) = await heard.count(1)

    assert concluded.outcome.kind is OutcomeClass.INTERRUPTED
    assert sandbox.ledger.summary()["accepted"] == 0


@pytest.mark.parametrize(("fault", "kind"), [("request", OutcomeClass.HARD), ("classify", OutcomeClass.UNKNOWN)])
async def test_a_fault_of_ours_costs_one_notification_and_shows_nothing(
    sandbox: Sandbox, fault: str, kind: OutcomeClass, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    async with channel(Faulty(bind(sandbox.url), fault), heard) as actor:
        actor.send([delivery(1)])
        (concluded,) = await heard.count(1)

    assert concluded.outcome.kind is kind
    assert "ValueError" in caplog.text
    assert "canary" not in caplog.text
