from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, cast

import pytest
import trio
import trio.testing
from attrs import evolve

from actors.io.http import HttpPool, MaybeSent, NotSent, PoolLimits, open_http_pool
from actors.prober import PROBES_MAX, Prober, ProbeReport
from actors.transports import Transports
from dispatcher.errors import Overloaded
from dispatcher.http_message import HttpRequest, HttpResponse
from dispatcher.ids import uuid7
from dispatcher.model import Channel, OrganizationId, ProviderConfig
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.probing import Probed
from dispatcher.providers.registry import REGISTRY, Bound, Moment, Provider
from dispatcher.providers.tokens import Token
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox

ACME = OrganizationId("acme")
CONFIG = "019ab697-e802-7dcd-9756-b13b97123c0e"
GOOD = Probed(True, "ready", "All is well.")


class Scripted:
    """Stands in for the transports' pool: answers as told, and notes what it was asked for."""

    def __init__(self, answer: Callable[[HttpRequest], HttpResponse]) -> None:
        self.answer = answer
        self.asked: list[bytes] = []

    async def exchange(self, request: HttpRequest, deadlines: object) -> HttpResponse:
        await trio.lowlevel.checkpoint()
        self.asked.append(request.target)
        return self.answer(request)


class Probeable:
    """A bound provider that can be probed."""

    def __init__(self, bound: Bound) -> None:
        self.origin, self.limits, self.request, self.classify = bound.origin, bound.limits, bound.request, bound.classify

    def probe(self, moment: Moment) -> HttpRequest:
        return HttpRequest(self.origin, b"GET", b"/probe", (), (moment.token or "").encode())

    def probed(self, response: HttpResponse, now_unix_s: float) -> Probed:
        return GOOD if response.status == 200 else Probed(False, f"http_{response.status}", "It is not.")


class WithToken(Probeable):
    """One that needs a token first."""

    def token_request(self, moment: Moment) -> HttpRequest:
        return HttpRequest(self.origin, b"POST", b"/token", ())

    def token_of(self, response: HttpResponse, now_unix_s: float) -> Token | Outcome:
        if response.status == 200:
            return Token("t-1", now_unix_s + 60)
        return Outcome(OutcomeClass.MISCONFIGURED, "grant_refused")

    def is_stale(self, outcome: Outcome) -> bool:
        return False


def bind(url: str) -> Bound:
    settings = {"from_email": "shop@example.org", "base_url": url}
    config = ProviderConfig("c-1", ACME, Channel.EMAIL, "sendgrid", settings, {"api_key": "SG.a.b"}, 1)
    return REGISTRY["sendgrid"].bind(config, (url,))


def prober(pool: object, bound: object, provider: Provider | None = None) -> Prober:
    async def load(organization_id: OrganizationId, id: str) -> tuple[Provider, Channel, Bound] | None:
        await trio.lowlevel.checkpoint()
        return (provider or REGISTRY["sendgrid"], Channel.EMAIL, cast("Bound", bound)) if id == CONFIG else None

    return Prober(
        load,
        Transports(cast("HttpPool", pool)),
        new_id=lambda: uuid7(1, 2),
        random_bytes=Random(1).randbytes,
        unix_s=time.time,
    )


@asynccontextmanager
async def against_the_sandbox() -> AsyncIterator[tuple[Prober, Sandbox]]:
    async with open_sandbox() as sandbox, open_http_pool(limits=PoolLimits(), tls_context=None) as pool:
        yield prober(pool, bind(sandbox.url)), sandbox


async def probed(prober: Prober, recipient: str | None = None) -> Probed:
    report = await prober.probe(ACME, CONFIG, recipient)
    assert report is not None
    return report.probed


async def test_a_test_message_is_really_sent_and_only_once() -> None:
    async with against_the_sandbox() as (prober, sandbox):
        result = await probed(prober, "ann@example.com")

        assert result.good
        assert sandbox.ledger.messages == 1


@pytest.mark.parametrize(
    ("recipient", "code"),
    [("unauthorized@sandbox.test", "key_refused"), ("forbidden@sandbox.test", "forbidden"), ("soft@sandbox.test", "http_503")],
)
async def test_a_refusal_is_told_in_words_that_repeat_nobody(recipient: str, code: str) -> None:
    async with against_the_sandbox() as (prober, _):
        result = await probed(prober, recipient)

    assert (result.good, result.code) == (False, code)
    assert result.words.endswith(".")
    assert "sandbox.test" not in result.words


async def test_the_providers_own_words_for_a_code_come_first() -> None:
    provider = evolve(REGISTRY["sendgrid"], explanations={"key_refused": "Make another key."})
    result = await probed(
        prober(Scripted(lambda _: HttpResponse(401, (), b"")), bind("http://127.0.0.1:1"), provider), "a@b.example"
    )

    assert result == Probed(False, "key_refused", "Make another key.")


async def test_what_no_request_can_be_made_of_is_told_in_words_of_its_own() -> None:
    result = await probed(prober(Scripted(lambda _: HttpResponse(202, (), b"")), bind("http://127.0.0.1:1")), "\ud800@b.example")

    assert (result.good, result.code) == (False, "payload_not_unicode")
    assert "half of a character" in result.words


async def test_the_probe_of_a_provider_sends_nothing_to_anybody() -> None:
    pool = Scripted(lambda _: HttpResponse(200, (), b""))
    result = await probed(prober(pool, Probeable(bind("http://127.0.0.1:1"))))

    assert result == GOOD
    assert pool.asked == [b"/probe"]


async def test_a_token_is_fetched_first() -> None:
    pool = Scripted(lambda request: HttpResponse(200 if request.target == b"/token" or request.body == b"t-1" else 401, (), b""))
    result = await probed(prober(pool, WithToken(bind("http://127.0.0.1:1"))))

    assert result == GOOD
    assert pool.asked == [b"/token", b"/probe"]


async def test_a_refused_token_ends_the_probe_with_its_reason() -> None:
    pool = Scripted(lambda _: HttpResponse(400, (), b""))
    result = await probed(prober(pool, WithToken(bind("http://127.0.0.1:1"))))

    assert (result.good, result.code, pool.asked) == (False, "grant_refused", [b"/token"])


@pytest.mark.parametrize(
    ("error", "code"),
    [(NotSent("connect", "refused"), "refused"), (MaybeSent("read", "closed"), "closed"), (NotSent("pool", "odd"), "odd")],
)
async def test_a_failed_exchange_is_told_in_words(error: Exception, code: str) -> None:
    def fail(_: HttpRequest) -> HttpResponse:
        raise error

    result = await probed(prober(Scripted(fail), Probeable(bind("http://127.0.0.1:1"))))

    assert (result.good, result.code) == (False, code)
    assert result.words.endswith(".")


async def test_a_provider_that_can_only_be_tried_by_sending_says_so() -> None:
    bound = Probeable(bind("http://127.0.0.1:1"))
    cast("Any", bound).probe = None
    plain = type("Plain", (), {name: getattr(bound, name) for name in ("origin", "limits", "request", "classify")})()
    result = await probed(prober(Scripted(lambda _: HttpResponse(200, (), b"")), plain))

    assert (result.good, result.code) == (False, "not_probeable")


async def test_a_fault_of_the_provider_module_is_told_as_one_of_ours() -> None:
    def canary(_: HttpRequest) -> HttpResponse:
        raise ValueError("ann@example.com")

    result = await probed(prober(Scripted(canary), Probeable(bind("http://127.0.0.1:1"))))

    assert result.code == "probe_failed"
    assert "ann" not in result.words


async def test_a_configuration_that_is_not_there_is_none() -> None:
    assert await prober(Scripted(lambda _: HttpResponse(200, (), b"")), None).probe(ACME, "another", None) is None


async def test_probes_are_few_at_once_and_one_an_organization(autojump_clock: trio.testing.MockClock) -> None:
    class Slow(Scripted):
        async def exchange(self, request: HttpRequest, deadlines: object) -> HttpResponse:
            await trio.sleep(5)
            return await super().exchange(request, deadlines)

    one = prober(Slow(lambda _: HttpResponse(200, (), b"")), Probeable(bind("http://127.0.0.1:1")))
    ended: list[ProbeReport | None] = []

    async def probe(name: str) -> None:
        ended.append(await one.probe(OrganizationId(name), CONFIG, None))

    async with trio.open_nursery() as nursery:
        for number in range(PROBES_MAX):
            nursery.start_soon(probe, f"org-{number}")
        await trio.testing.wait_all_tasks_blocked()
        for name in ("org-0", "another"):
            with pytest.raises(Overloaded):
                await one.probe(OrganizationId(name), CONFIG, None)
    await probe("org-0")

    assert len(ended) == PROBES_MAX + 1
    assert {report.duration_s for report in ended if report is not None} == {5.0}
