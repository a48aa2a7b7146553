"""Attempts that share a call: each is concluded exactly once, with an outcome of its own, whatever the provider answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from random import Random
from typing import cast

import orjson
import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from actors.batches import CALLS_MAX
from actors.callers import Callers
from actors.channel import ChannelActor
from actors.io.http import Deadlines, HttpPool, MaybeSent, NotSent
from actors.lease import Lease
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from actors.transports import Transports
from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.messages import Concluded, ProviderPolicy
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.batching import Part
from dispatcher.providers.provider import Limits, Moment, Unsendable

EPOCH_S = 1_700_000_000.0
ORG = OrganizationId("acme")
ORIGIN = Origin("http", "mailer.test", 80)
BATCH_MAX = 8
POLICY = ProviderPolicy("c-1", 1, "mailer", Channel.EMAIL, None, 1, 4, batch_max=BATCH_MAX)
CALL_S = 20.0

Reply = HttpResponse | Exception
Conduct = Callable[[list[int], int], Reply]
"""Answers a call that carries these numbers, the how-manieth call it is."""


def unix_s() -> float:
    return EPOCH_S + trio.current_time()


def delivery(number: int, key: object = "a") -> Delivery:
    id = NotificationId(f"0192d3a4-7c1e-7f00-8000-{number:012d}")
    return Delivery(id, ORG, Channel.EMAIL, "", {"key": key}, 1, 8, EPOCH_S, term=1)


def number_of(delivery: Delivery) -> int:
    return int(delivery.id[-12:])


def said(*outcomes: OutcomeClass | None, status: int = 207) -> HttpResponse:
    """An answer with an outcome for each part; None for those that nothing was done with."""
    return HttpResponse(status, (), orjson.dumps([None if kind is None else kind.value for kind in outcomes]))


class Mailer:
    """A provider that takes several. A key of None goes alone; the key ``unsendable`` can not be sent."""

    origin = ORIGIN
    limits = Limits(None, 1, 4)
    batch_max = BATCH_MAX

    def request(self, delivery: Delivery, moment: Moment) -> HttpRequest:
        if delivery.payload["key"] == "unsendable":
            raise Unsendable("no_good")
        return HttpRequest(ORIGIN, b"POST", b"/one", (), orjson.dumps([number_of(delivery)]))

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        return Outcome(OutcomeClass(orjson.loads(response.body)[0] or "hard"), "alone")

    def part(self, delivery: Delivery, moment: Moment) -> Part | None:
        key: Hashable = delivery.payload["key"]
        if key == "unsendable":
            raise Unsendable("no_good")
        return None if key is None else Part(delivery, key, b"")

    def batch_request(self, parts: Sequence[Part], moment: Moment) -> HttpRequest:
        if any(part.key == "broken" for part in parts):
            raise ValueError("canary")
        return HttpRequest(ORIGIN, b"POST", b"/many", (), orjson.dumps([number_of(part.delivery) for part in parts]))

    def classify_batch(self, response: HttpResponse, parts: Sequence[Part], now_unix_s: float) -> Sequence[Outcome | None]:
        kinds = orjson.loads(response.body)
        return [None if kind is None else Outcome(OutcomeClass(kind), "together") for kind in kinds]


class World:
    """A channel whose calls are answered by the test, with as many callers as it may have."""

    def __init__(self, conduct: Conduct, latency_s: float = 0.1) -> None:
        self.conduct = conduct
        self.latency_s = latency_s
        self.calls: list[list[int]] = []
        self.deadlines: list[float] = []
        self.began: list[float] = []
        self.heard: list[Concluded] = []
        self.metrics = Metrics()
        self.lease = Lease(MemoryStore(MemoryDatabase(unix_s), "i"), Metrics(), lease_s=6000, call_s=CALL_S, random=Random(1))
        self.callers = Callers(4)
        self.actor = ChannelActor(
            POLICY,
            Mailer(),
            transports=Transports(cast("HttpPool", self)),
            deadlines=Deadlines(total_s=CALL_S),
            lease=self.lease,
            callers=self.callers,
            share=self.callers.share_of(ORG),
            tell=self.heard.append,
            unix_s=unix_s,
            random_bytes=Random(2).randbytes,
            metrics=self.metrics,
        )

    async def exchange(self, request: HttpRequest, deadlines: Deadlines) -> HttpResponse:
        numbers = orjson.loads(request.body)
        self.calls.append(numbers)
        self.deadlines.append(deadlines.total_s)
        self.began.append(trio.current_time())
        await trio.sleep(self.latency_s)
        reply = self.conduct(numbers, len(self.calls))
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def run(self, deliveries: Sequence[Delivery], deadline_s: float | None = None) -> dict[int, Outcome]:
        """Send them, wait until nothing moves any more; what was concluded, by number. Nothing is concluded twice."""
        if not self.lease.holds:
            await self.lease.register()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.callers.run)
            self.actor.send(deliveries, deadline_s)
            await trio.sleep(500)
            nursery.cancel_scope.cancel()
        assert len({concluded.delivery.id for concluded in self.heard}) == len(self.heard)
        return {number_of(concluded.delivery): concluded.outcome for concluded in self.heard}

    def spoke(self) -> int:
        """How many calls the breaker has heard of."""
        return sum(concluded.speaks_for_call for concluded in self.heard)


def all_taken(numbers: list[int], _: int) -> HttpResponse:
    return said(*[OutcomeClass.DELIVERED] * len(numbers))


def refusing(*bad: int) -> Conduct:
    """Names those it refuses, and does nothing with the others in that call."""

    def conduct(numbers: list[int], _: int) -> HttpResponse:
        if not set(numbers) & set(bad):
            return all_taken(numbers, 0)
        return said(*[OutcomeClass.HARD if number in bad else None for number in numbers])

    return conduct


def refusing_wordlessly(*bad: int) -> Conduct:
    """Refuses a call that holds a bad one, and does not say which."""

    def conduct(numbers: list[int], _: int) -> HttpResponse:
        if not set(numbers) & set(bad):
            return all_taken(numbers, 0)
        return said(*[None] * len(numbers))

    return conduct


async def test_what_waits_and_fits_together_shares_a_call(autojump_clock: trio.testing.MockClock) -> None:
    world = World(all_taken)

    ended = await world.run([delivery(number) for number in range(20)])

    assert world.calls == [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    assert {outcome.kind for outcome in ended.values()} == {OutcomeClass.DELIVERED}
    assert len(ended) == 20


async def test_nothing_waits_for_company(autojump_clock: trio.testing.MockClock) -> None:
    world = World(all_taken)

    await world.run([delivery(1)])

    assert (world.calls, world.began) == ([[1]], [0.0])
    assert world.heard[0].outcome.code == "alone"


async def test_only_equal_keys_share_a_call_and_nobody_is_overtaken_within_a_key(autojump_clock: trio.testing.MockClock) -> None:
    world = World(all_taken)

    await world.run([delivery(number, "ab"[number % 2]) for number in range(6)] + [delivery(6, None), delivery(7, "unsendable")])

    assert sorted(world.calls) == [[0, 2, 4], [1, 3, 5], [6]]
    assert world.heard[-1].outcome.kind is OutcomeClass.DELIVERED
    (unsendable,) = [concluded.outcome for concluded in world.heard if number_of(concluded.delivery) == 7]
    assert (unsendable.kind, unsendable.code) == (OutcomeClass.HARD, "no_good")


async def test_an_attempt_that_may_be_a_double_goes_alone(autojump_clock: trio.testing.MockClock) -> None:
    world = World(all_taken)
    doubtful = evolve(delivery(1), unknown_for_s=5.0, unknown_last_s=5.0, unknowns=1)

    await world.run([delivery(0), doubtful, delivery(2)])

    assert sorted(world.calls) == [[0, 2], [1]]


async def test_one_bad_entry_does_not_fail_the_rest(autojump_clock: trio.testing.MockClock) -> None:
    world = World(refusing(3))

    ended = await world.run([delivery(number) for number in range(8)])

    assert world.calls == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 4, 5, 6, 7]]
    assert ended.pop(3).kind is OutcomeClass.HARD
    assert {outcome.kind for outcome in ended.values()} == {OutcomeClass.DELIVERED}


async def test_a_bad_entry_that_is_not_named_is_found_by_halving(autojump_clock: trio.testing.MockClock) -> None:
    world = World(refusing_wordlessly(3))

    ended = await world.run([delivery(number) for number in range(8)])

    assert world.calls == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [0, 1], [2, 3], [2], [3], [4, 5, 6, 7]]
    assert ended.pop(3) == Outcome(OutcomeClass.HARD, "alone")
    assert {outcome.kind for outcome in ended.values()} == {OutcomeClass.DELIVERED}


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (NotSent("connect", "refused"), OutcomeClass.SOFT),
        (MaybeSent("read", "timeout_read"), OutcomeClass.UNKNOWN),
        (ValueError("canary"), OutcomeClass.UNKNOWN),
        (HttpResponse(202, (), b"<html>"), OutcomeClass.UNKNOWN),
        (said(OutcomeClass.DELIVERED), OutcomeClass.UNKNOWN),
    ],
)
async def test_what_happens_to_the_call_happens_to_all_of_it(
    autojump_clock: trio.testing.MockClock, failure: Reply, kind: OutcomeClass, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(lambda _numbers, _call: failure)

    ended = await world.run([delivery(number) for number in range(5)])

    assert len(world.calls) == 1
    assert [outcome.kind for outcome in ended.values()] == [kind] * 5
    assert "canary" not in caplog.text


async def test_a_batch_that_can_not_be_written_down_as_http_is_tried_in_parts(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing was sent, and one of them may be why."""

    def conduct(numbers: list[int], _: int) -> Reply:
        return NotSent("protocol", "unwritable") if 2 in numbers else all_taken(numbers, 0)

    ended = await World(conduct).run([delivery(number) for number in range(4)])

    assert ended.pop(2) == Outcome(OutcomeClass.HARD, "unwritable")
    assert {outcome.kind for outcome in ended.values()} == {OutcomeClass.DELIVERED}


async def test_a_fault_in_building_a_batch_is_no_fault_of_its_members(autojump_clock: trio.testing.MockClock) -> None:
    world = World(all_taken)

    ended = await world.run([delivery(number, "broken") for number in range(3)])

    assert sorted(world.calls) == [[0], [1], [2]]
    assert {outcome.kind for outcome in ended.values()} == {OutcomeClass.DELIVERED}


async def test_the_breaker_hears_of_a_call_once_and_of_what_most_of_it_came_to(autojump_clock: trio.testing.MockClock) -> None:
    world = World(lambda numbers, _: said(*[OutcomeClass.HARD] + [OutcomeClass.SOFT] * (len(numbers) - 1)))

    await world.run([delivery(number) for number in range(8)])

    (speaker,) = [concluded for concluded in world.heard if concluded.speaks_for_call]
    assert speaker.outcome.kind is OutcomeClass.SOFT
    assert world.metrics.call_duration["mailer"].buckets()[0][-1] == ("+Inf", 1)


async def test_what_is_withdrawn_while_a_call_is_under_way_is_not_sent_again(autojump_clock: trio.testing.MockClock) -> None:
    """A drain, an opened breaker or a new configuration: what a refused call has done nothing with comes back."""

    def conduct(numbers: list[int], _: int) -> Reply:
        world.actor.withdraw()
        return refusing(3)(numbers, 0)

    world = World(conduct)
    ended = await world.run([delivery(number) for number in range(8)])

    assert len(world.calls) == 1
    assert ended.pop(3).kind is OutcomeClass.HARD
    assert {outcome.kind for outcome in ended.values()} == {OutcomeClass.INTERRUPTED}


async def test_after_the_end_of_its_organization_no_further_call_begins(autojump_clock: trio.testing.MockClock) -> None:
    def conduct(numbers: list[int], _: int) -> Reply:
        assert world.actor.abandon() == []
        return refusing(3)(numbers, 0)

    world = World(conduct)
    ended = await world.run([delivery(number) for number in range(8)])

    assert len(world.calls) == 1
    assert Counter(outcome.kind for outcome in ended.values()) == {OutcomeClass.INTERRUPTED: 7, OutcomeClass.HARD: 1}


async def test_without_a_lease_no_call_begins_neither_the_first_nor_a_further_one(autojump_clock: trio.testing.MockClock) -> None:
    def conduct(numbers: list[int], _: int) -> Reply:
        world.lease.doubt(1.0)
        return refusing(3)(numbers, 0)

    world = World(conduct)
    ended = await world.run([delivery(number) for number in range(8)])
    world.actor.send([delivery(number) for number in range(10, 14)])
    await world.actor.attempt(world.actor.take())

    assert len(world.calls) == 1
    assert Counter(outcome.kind for outcome in ended.values()) == {OutcomeClass.INTERRUPTED: 7, OutcomeClass.HARD: 1}
    assert [concluded.outcome.kind for concluded in world.heard[-4:]] == [OutcomeClass.INTERRUPTED] * 4


async def test_what_has_expired_or_is_anothers_stays_out_of_the_call(autojump_clock: trio.testing.MockClock) -> None:
    world = World(all_taken)
    expired = evolve(delivery(1), expires_at_s=EPOCH_S - 1)
    anothers = evolve(delivery(2), term=7)

    ended = await world.run([delivery(0), expired, anothers, delivery(3)])

    assert world.calls == [[0, 3]]
    assert (ended[1].kind, ended[2].kind) == (OutcomeClass.INTERRUPTED, OutcomeClass.INTERRUPTED)


async def test_a_batch_is_in_a_hurry_when_one_of_it_is(autojump_clock: trio.testing.MockClock) -> None:
    world = World(all_taken)
    await world.lease.register()
    world.actor.send([delivery(0)])
    world.actor.send([delivery(1)], 3.0)
    await world.actor.attempt(world.actor.take())

    assert (world.calls, world.deadlines) == ([[0, 1]], [3.0])


async def test_all_calls_of_a_batch_together_take_no_longer_than_one_attempt_may(autojump_clock: trio.testing.MockClock) -> None:
    """What there is no time for comes back, and goes alone then, so that it ends."""
    world = World(refusing_wordlessly(3), latency_s=7.0)
    deliveries = [delivery(number) for number in range(8)]

    first = await world.run(deliveries)

    assert world.calls == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3]]
    assert world.deadlines == [CALL_S, CALL_S - 7.0]
    assert {outcome.kind for outcome in first.values()} == {OutcomeClass.INTERRUPTED}

    world.heard.clear()
    second = await world.run(deliveries)

    assert sorted(world.calls[2:]) == [[number] for number in range(8)]
    assert second.pop(3).kind is OutcomeClass.HARD
    assert {outcome.kind for outcome in second.values()} == {OutcomeClass.DELIVERED}


KINDS = st.sampled_from([None, *OutcomeClass])


@given(st.data(), st.lists(st.sampled_from(["a", "b", None, "unsendable", "broken"]), max_size=40))
def test_every_attempt_is_concluded_exactly_once_whatever_comes_back(data: st.DataObject, keys: list[str | None]) -> None:
    seed = data.draw(st.integers(0, 2**32))

    def conduct(numbers: list[int], _: int) -> Reply:
        drawn = Random(f"{seed} {numbers}")
        if drawn.random() < 0.2:
            return drawn.choice([NotSent("connect", "refused"), NotSent("protocol", "bad"), MaybeSent("read", "x"), ValueError()])
        kinds = [None, None, None, *OutcomeClass] if drawn.random() < 0.7 else [None]
        return said(*[drawn.choice(kinds) for _ in numbers])

    async def main() -> None:
        world = World(conduct)
        ended = await world.run([delivery(number, key) for number, key in enumerate(keys)])

        assert sorted(ended) == list(range(len(keys)))
        carried = Counter(number for call in world.calls for number in call)
        assert all(carried[number] <= CALLS_MAX for number in carried)
        assert all(len(call) <= BATCH_MAX for call in world.calls)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
