"""One token for all calls of a configuration: fetched once, renewed ahead, and nobody waits for it longer than for a call.

On a virtual clock; the provider is a script that counts what it is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from random import Random
from typing import cast

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.callers import Callers
from actors.channel import ChannelActor
from actors.io.http import Deadlines, HttpPool, MaybeSent, NotSent
from actors.lease import Lease
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from actors.tokens import AHEAD_S, RETRY_CAP_S, SPARE_S
from actors.transports import Transports
from dispatcher.fairness import Share
from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.messages import Concluded, ProviderPolicy
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.provider import Limits, Moment
from dispatcher.providers.tokens import Authorizing, Token

ORG = OrganizationId("acme")
ORIGIN = Origin("https", "push.example", 443)
POLICY = ProviderPolicy("c-1", 1, "example", Channel.PUSH, None, 1, 64)
BEGAN_UNIX_S = 1_700_000_000.0
LIFE_S = 3600.0


def unix_s() -> float:
    return BEGAN_UNIX_S + trio.current_time()


class Bound:
    """A provider that sends with a token and understands the script's answers."""

    origin = ORIGIN
    limits = Limits(None, 1, 64)

    def request(self, delivery: Delivery, moment: Moment) -> HttpRequest:
        assert moment.token is not None
        return HttpRequest(ORIGIN, b"POST", b"/send", ((b"authorization", moment.token.encode()),))

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        if response.status == 401:
            return Outcome(OutcomeClass.MISCONFIGURED, "token_refused")
        return Outcome(OutcomeClass.DELIVERED, "accepted")

    def token_request(self, moment: Moment) -> HttpRequest:
        return HttpRequest(ORIGIN, b"POST", b"/token", ())

    def token_of(self, response: HttpResponse, now_unix_s: float) -> Token | Outcome:
        if response.status == 200:
            return Token(response.body.decode(), now_unix_s + LIFE_S)
        if response.status == 400:
            return Outcome(OutcomeClass.MISCONFIGURED, "key_refused")
        return Outcome(OutcomeClass.SOFT, "token_http_503")

    def is_stale(self, outcome: Outcome) -> bool:
        return outcome.code == "token_refused"


@define
class Peer:
    """The other side. ``failing`` is how the next fetches end, ``refused`` are tokens that it does not accept."""

    takes_s: float = 1.0
    failing: list[int | Exception] = field(factory=list)
    refused: set[str] = field(factory=set)
    refuses_all: bool = False
    fetched: int = 0
    fetched_at_s: list[float] = field(factory=list)
    sent_with: list[str] = field(factory=list)

    async def exchange(self, request: HttpRequest, deadlines: Deadlines) -> HttpResponse:
        if request.target == b"/send":
            await trio.lowlevel.checkpoint()
            token = dict(request.headers)[b"authorization"].decode()
            self.sent_with.append(token)
            return HttpResponse(401 if self.refuses_all or token in self.refused else 200, (), b"")
        self.fetched += 1
        number = self.fetched
        self.fetched_at_s.append(trio.current_time())
        with trio.move_on_after(deadlines.total_s):
            await trio.sleep(self.takes_s)
            if self.failing:
                failure = self.failing.pop(0)
                if isinstance(failure, Exception):
                    raise failure
                return HttpResponse(failure, (), b"")
            return HttpResponse(200, (), b"token-%d" % number)
        raise MaybeSent("read", "timeout_read")


@define
class Heard:
    """What the organization was told."""

    all: list[Concluded] = field(factory=list)
    news: trio.Event = field(factory=trio.Event)

    def tell(self, concluded: Concluded) -> None:
        self.all.append(concluded)
        news, self.news = self.news, trio.Event()
        news.set()


@define
class World:
    """A channel with its provider."""

    peer: Peer
    actor: ChannelActor
    lease: Lease
    heard: Heard
    numbers: int = 0

    def delivery(self) -> Delivery:
        self.numbers += 1
        id = NotificationId(f"0192d3a4-7c1e-7f00-8000-{self.numbers:012d}")
        return Delivery(id, ORG, Channel.PUSH, "device", {"text": "Hello"}, 1, 8, unix_s(), term=1)

    async def attempt(self, n: int = 1) -> list[Outcome]:
        """How ``n`` attempts end that begin together."""
        before = len(self.heard.all)
        self.actor.send([self.delivery() for _ in range(n)])
        while len(self.heard.all) < before + n:
            await self.heard.news.wait()
        return [concluded.outcome for concluded in self.heard.all[before:]]


@asynccontextmanager
async def world(peer: Peer, *, total_s: float = 20.0) -> AsyncIterator[World]:
    lease = Lease(MemoryStore(MemoryDatabase(unix_s), "i"), Metrics(), lease_s=1e9, call_s=total_s, random=Random(1))
    await lease.register()
    callers = Callers(64)
    heard = Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(callers.run)
        await wait_all_tasks_blocked()
        actor = ChannelActor(
            POLICY,
            Bound(),
            transports=Transports(cast("HttpPool", peer)),
            deadlines=Deadlines(total_s=total_s),
            lease=lease,
            callers=callers,
            share=Share(),
            tell=heard.tell,
            unix_s=unix_s,
            random_bytes=Random(2).randbytes,
            metrics=Metrics(),
        )
        yield World(peer, actor, lease, heard)
        nursery.cancel_scope.cancel()


def kinds(outcomes: list[Outcome]) -> set[tuple[OutcomeClass, str]]:
    return {(outcome.kind, outcome.code) for outcome in outcomes}


def test_the_double_is_what_a_provider_must_be() -> None:
    assert isinstance(Bound(), Authorizing)


async def test_all_who_need_a_token_at_once_wait_for_one_fetch(autojump_clock: MockClock) -> None:
    async with world(Peer()) as it:
        outcomes = await it.attempt(50)
        again = await it.attempt(50)

    assert kinds(outcomes + again) == {(OutcomeClass.DELIVERED, "accepted")}
    assert it.peer.fetched == 1
    assert set(it.peer.sent_with) == {"token-1"}


async def test_a_token_is_renewed_in_the_background_before_it_ends(autojump_clock: MockClock) -> None:
    async with world(Peer(takes_s=5.0)) as it:
        await it.attempt()
        await trio.sleep(LIFE_S - AHEAD_S)
        before_s = trio.current_time()
        outcomes = await it.attempt()
        took_s = trio.current_time() - before_s
        await trio.sleep(6.0)
        outcomes += await it.attempt()

    assert kinds(outcomes) == {(OutcomeClass.DELIVERED, "accepted")}
    assert took_s < 1.0, "nobody waits for a renewal"
    assert it.peer.sent_with == ["token-1", "token-1", "token-2"]


async def test_two_configurations_do_not_renew_at_the_same_moment(autojump_clock: MockClock) -> None:
    async with world(Peer(takes_s=0.0)) as it:
        for _ in range(4):
            renewed = it.peer.fetched
            began_s = trio.current_time()
            while it.peer.fetched == renewed and trio.current_time() < began_s + LIFE_S:
                await it.attempt()
                await trio.sleep(1.0)
        lives_s = [round(b - a) for a, b in zip(it.peer.fetched_at_s, it.peer.fetched_at_s[1:], strict=False)]

    assert len(set(lives_s)) > 1
    assert all(LIFE_S - 1.5 * AHEAD_S - 2 <= life_s <= LIFE_S - AHEAD_S + 2 for life_s in lives_s)


async def test_a_configuration_at_rest_fetches_nothing(autojump_clock: MockClock) -> None:
    async with world(Peer()) as it:
        await it.attempt()
        await trio.sleep(100 * LIFE_S)

        assert it.peer.fetched == 1


async def test_a_token_that_has_ended_is_not_sent(autojump_clock: MockClock) -> None:
    async with world(Peer()) as it:
        await it.attempt()
        await trio.sleep(LIFE_S - SPARE_S + 1)
        await it.attempt()

    assert it.peer.sent_with == ["token-1", "token-2"]


async def test_a_renewal_that_fails_is_tried_again_after_growing_pauses(
    autojump_clock: MockClock,
) -> None:
    async with world(Peer(takes_s=0.0)) as it:
        await it.attempt()
        await trio.sleep(LIFE_S - AHEAD_S)
        it.peer.failing = [503] * 1000
        outcomes = []
        until_s = trio.current_time() + AHEAD_S / 2
        while trio.current_time() < until_s:
            outcomes += await it.attempt()
            await trio.sleep(0.05)
        fetched = it.peer.fetched
        it.peer.failing = []
        await trio.sleep(RETRY_CAP_S)
        await it.attempt(2)
        await trio.sleep(1.0)
        await it.attempt()

    assert kinds(outcomes) == {(OutcomeClass.DELIVERED, "accepted")}
    assert 4 <= fetched <= 15
    pauses_s = [b - a for a, b in zip(it.peer.fetched_at_s[1:fetched], it.peer.fetched_at_s[2:fetched], strict=False)]
    assert pauses_s[-1] > 4 * pauses_s[0]
    assert it.peer.sent_with[-1] != "token-1"


@pytest.mark.parametrize(
    ("failure", "kind", "code"),
    [
        (400, OutcomeClass.MISCONFIGURED, "key_refused"),
        (503, OutcomeClass.SOFT, "token_http_503"),
        (NotSent("connect", "refused"), OutcomeClass.SOFT, "token_refused"),
        (MaybeSent("read", "timeout_read"), OutcomeClass.SOFT, "token_timeout_read"),
        (ValueError("canary"), OutcomeClass.SOFT, "token_not_fetched"),
    ],
)
async def test_without_a_token_nothing_is_sent_and_all_who_wait_hear_why(
    autojump_clock: MockClock, failure: int | Exception, kind: OutcomeClass, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(Peer(failing=[failure])) as it:
        outcomes = await it.attempt(10)

    assert kinds(outcomes) == {(kind, code)}
    assert (it.peer.fetched, it.peer.sent_with) == (1, [])
    assert "canary" not in caplog.text


async def test_who_comes_in_the_pause_after_a_failure_is_told_of_it(
    autojump_clock: MockClock,
) -> None:
    async with world(Peer(failing=[503])) as it:
        await it.attempt()
        in_the_pause = await it.attempt(20)
        fetched = it.peer.fetched
        await trio.sleep(2.0)
        afterwards = await it.attempt(20)

    assert (kinds(in_the_pause), fetched) == ({(OutcomeClass.SOFT, "token_http_503")}, 1)
    assert (kinds(afterwards), it.peer.fetched) == ({(OutcomeClass.DELIVERED, "accepted")}, 2)


async def test_a_token_that_is_not_accepted_is_replaced_within_the_same_attempt(autojump_clock: MockClock) -> None:
    async with world(Peer()) as it:
        await it.attempt()
        it.peer.refused = {"token-1"}
        outcomes = await it.attempt(10)

    assert kinds(outcomes) == {(OutcomeClass.DELIVERED, "accepted")}
    assert it.peer.fetched == 2, "one fresh token for all ten"


async def test_a_fresh_token_that_is_not_accepted_either_is_the_end_of_the_attempt(autojump_clock: MockClock) -> None:
    async with world(Peer(refuses_all=True)) as it:
        outcomes = await it.attempt()

    assert kinds(outcomes) == {(OutcomeClass.MISCONFIGURED, "token_refused")}
    assert it.peer.sent_with == ["token-1", "token-2"]


async def test_nobody_waits_longer_for_a_token_than_for_a_call(autojump_clock: MockClock) -> None:
    async with world(Peer(takes_s=inf), total_s=3.0) as it:
        outcomes = await it.attempt()
        took_s = trio.current_time()

    assert outcomes[0].kind is OutcomeClass.SOFT
    assert took_s < 3.5


async def test_a_hurried_call_waits_no_longer_than_it_may_and_leaves_the_fetch_to_others(autojump_clock: MockClock) -> None:
    async with world(Peer(takes_s=5.0)) as it:
        it.actor.send([it.delivery()], 1.0)
        it.actor.send([it.delivery()])
        await trio.sleep(10.0)

    first, second = [concluded.outcome for concluded in it.heard.all]
    assert (first.kind, first.code) == (OutcomeClass.SOFT, "token_timeout")
    assert it.heard.all[0].duration_s == pytest.approx(1.0)
    assert second.kind is OutcomeClass.DELIVERED
    assert it.peer.fetched == 1


async def test_whoever_is_cancelled_while_waiting_takes_the_fetch_from_nobody(autojump_clock: MockClock) -> None:
    async with world(Peer(takes_s=2.0)) as it:
        it.actor.send([it.delivery()])
        first = it.actor.take()
        with trio.move_on_after(1.0) as scope:
            await it.actor.attempt(first)
        outcomes = await it.attempt(5)

    assert scope.cancelled_caught
    assert kinds(outcomes) == {(OutcomeClass.DELIVERED, "accepted")}
    assert it.peer.fetched == 1


async def test_an_attempt_whose_time_has_passed_while_it_waited_is_not_made(autojump_clock: MockClock) -> None:
    async with world(Peer(takes_s=5.0)) as it:
        it.actor.send([evolve(it.delivery(), expires_at_s=unix_s() + 2.0)])
        await trio.sleep(6.0)

    assert [concluded.outcome.kind for concluded in it.heard.all] == [OutcomeClass.INTERRUPTED]
    assert it.peer.sent_with == []


async def test_an_attempt_whose_lease_has_lapsed_while_it_waited_is_not_made(autojump_clock: MockClock) -> None:
    async with world(Peer(takes_s=5.0)) as it:
        it.actor.send([it.delivery()])
        await trio.sleep(1.0)
        it.lease.start_until_s = 0.0
        await trio.sleep(6.0)

    assert [concluded.outcome.kind for concluded in it.heard.all] == [OutcomeClass.INTERRUPTED]


async def test_no_token_is_shown(autojump_clock: MockClock) -> None:
    async with world(Peer()) as it:
        await it.attempt()

        assert "token-1" not in repr(it.actor._tokens)
        assert "token-1" not in repr(Token("token-1", 0.0)) + repr(Moment(0.0, bytes, "token-1"))
