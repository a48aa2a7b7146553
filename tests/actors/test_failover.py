"""Several configurations of a channel, with the real actors on virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import orjson
import trio
from attrs import evolve
from trio.testing import MockClock

from actor_world import ACME, MAIL, ORIGIN, ActorWorld, Bound
from actors.io.http import Deadlines, MaybeSent
from dispatcher.http_message import HttpRequest, HttpResponse
from dispatcher.messages import Event, Gated, ProviderPolicy
from dispatcher.model import Channel, Delivery, NotificationId
from dispatcher.outcome import OnUnknown

NEXT = evolve(MAIL, config_id="c-next", provider="poster", priority=1)
EQUAL = evolve(MAIL, config_id="c-equal", provider="poster")


class NamedBound(Bound):
    """Says through which configuration it sends."""

    def __init__(self, config_id: str) -> None:
        self._config_id = config_id.encode()

    def request(self, delivery: Delivery, moment: object) -> HttpRequest:
        return HttpRequest(ORIGIN, b"POST", f"/{delivery.id}".encode(), [(b"config", self._config_id)])


class TwoProviders:
    """Stands in the place of the HTTP pool. ``fate`` says what becomes of a call through a configuration: a status or 0."""

    def __init__(self, world: ActorWorld, *policies: ProviderPolicy) -> None:
        self.world = world
        self.fate: Callable[[str, NotificationId], int] = lambda _config_id, _id: 202
        self.made: list[tuple[str, NotificationId, float]] = []
        world.policies = list(policies)
        world.load = self.load  # type: ignore[method-assign]
        world.provider.exchange = self.exchange  # type: ignore[method-assign]

    async def load(self) -> Sequence[tuple[ProviderPolicy, Bound]]:
        await trio.lowlevel.checkpoint()
        return [(policy, NamedBound(policy.config_id)) for policy in self.world.policies]

    async def exchange(self, request: HttpRequest, _: Deadlines) -> HttpResponse:
        config_id, id = dict(request.headers)[b"config"].decode(), NotificationId(request.target.decode()[1:])
        row = self.world.row(id)
        assert (row.status, row.provider_config_id) == ("sending", config_id), "a call without its way on record"
        self.made.append((config_id, id, trio.current_time()))
        await trio.sleep(0.1)
        status = self.fate(config_id, id)
        if not status:
            raise MaybeSent("read", "reset")
        return HttpResponse(status, [], b"")

    def through(self, ids: Sequence[NotificationId]) -> dict[NotificationId, list[str]]:
        """Through whom each was tried, in order."""
        return {id: [config_id for config_id, called, _ in self.made if called == id] for id in ids}


def told(world: ActorWorld) -> list[dict[str, object]]:
    """What was announced about channels."""
    events = [orjson.loads(each) for each in world.queue.announced(ACME)]
    return [event for event in events if event["type"].startswith("channel.")]


async def test_everything_goes_through_the_next_while_the_better_one_is_down(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    providers = TwoProviders(world, MAIL, NEXT)
    providers.fate = lambda config_id, _id: 503 if config_id == MAIL.config_id else 202
    async with world.running():
        ids = await world.accept(40)
        await trio.sleep(60.0)

    assert world.statuses(ids) == {"delivered"}
    assert {world.row(id).provider_config_id for id in ids} == {NEXT.config_id}
    moved = [event for event in told(world) if event["type"] == "channel.failed_over"]
    assert [(event["provider_config_id"], event["to"]) for event in moved] == [(MAIL.config_id, NEXT.config_id)]
    assert world.metrics.alarms["failed_over", "email"] == 1


async def test_that_traffic_has_moved_is_not_told_again_by_each_new_life(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    providers = TwoProviders(world, MAIL, NEXT)
    providers.fate = lambda config_id, _id: 503 if config_id == MAIL.config_id else 202
    async with world.running():
        for _ in range(3):
            await world.accept(20)
            await trio.sleep(60.0)  # it falls asleep
        providers.fate = lambda _config_id, _id: 202
        await trio.sleep(300.0)
        for _ in range(20):
            await world.accept(20)
            await trio.sleep(5.0)
    moves = [event["type"] for event in told(world) if event["type"] in ("channel.failed_over", "channel.failed_back")]

    assert len(world.made) > 3
    assert moves == ["channel.failed_over", "channel.failed_back"]


async def test_what_may_have_been_sent_never_goes_through_another_not_even_after_a_kill(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    providers = TwoProviders(world, evolve(MAIL, on_unknown=OnUnknown.RESEND), NEXT)
    providers.fate = lambda config_id, _id: 0 if config_id == MAIL.config_id else 202
    async with world.running():
        ids = await world.accept(4)
        await trio.sleep(0.05)  # killed during the calls
    lost = {id for id, ways in providers.through(ids).items() if ways}
    world.policies = [evolve(NEXT, priority=0), evolve(MAIL, priority=1)]
    process = ActorWorld(queue=world.queue, database=world.database, incarnation="incarnation-2")
    after = TwoProviders(process, *world.policies)
    async with process.running():
        await trio.sleep(90.0)
        await process.store.rescue(100)
        process.organizations.wake(ACME)
        await trio.sleep(120.0)

    assert lost
    assert process.statuses(ids) == {"delivered"}
    for id in ids:
        assert set(after.through([id])[id]) == {MAIL.config_id if id in lost else NEXT.config_id}


async def test_what_waits_for_its_configuration_does_so_without_haste(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    providers = TwoProviders(world, MAIL, NEXT)
    providers.fate = lambda config_id, _id: 0 if config_id == MAIL.config_id else 202
    async with world.running():
        ids = await world.accept(12)
        await trio.sleep(300.0)
        claims = sum(actor.claims for actor in world.made)
        providers.fate = lambda _config_id, _id: 202
        await trio.sleep(600.0)

    doubted = [id for id in ids if MAIL.config_id in providers.through([id])[id]]
    assert doubted
    assert all(set(ways) == {MAIL.config_id} for ways in providers.through(doubted).values())
    assert world.statuses(ids) == {"delivered"}
    assert claims < 12 * 300 / 2


async def test_who_is_gone_leaves_what_it_may_have_sent_to_a_person(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    providers = TwoProviders(world, MAIL, NEXT)
    providers.fate = lambda config_id, _id: 0 if config_id == MAIL.config_id else 202
    async with world.running():
        (id,) = await world.accept(1)
        await trio.sleep(0.2)
        world.policies = [NEXT]
        world.organizations.changed(ACME)
        await trio.sleep(120.0)

    assert providers.through([id])[id] == [MAIL.config_id]
    assert (world.row(id).status, world.row(id).reason) == ("failed", "provider_gone")
    assert world.database.dead_letters[id].reason == "unknown"


async def test_who_may_fail_over_on_unknown_does(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    providers = TwoProviders(world, evolve(MAIL, failover_on_unknown=True), NEXT)
    providers.fate = lambda config_id, _id: 0 if config_id == MAIL.config_id else 202
    async with world.running():
        ids = await world.accept(12)
        await trio.sleep(120.0)

    assert world.statuses(ids) == {"delivered"}
    assert any(ways == [MAIL.config_id, NEXT.config_id] for ways in providers.through(ids).values())


async def test_equals_share_and_each_keeps_limits_of_its_own_over_lives(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    providers = TwoProviders(world, MAIL, EQUAL)
    providers.fate = lambda config_id, _id: 202 if config_id == MAIL.config_id else 503
    async with world.running():
        ids = await world.accept(40)
        await trio.sleep(8.0)
        await world.organizations.drain()
    process = ActorWorld(queue=world.queue, database=world.database, incarnation="incarnation-2")
    after = TwoProviders(process, MAIL, EQUAL)
    async with process.running():
        await process.accept(8)
        await trio.sleep(0.5)
        (actor,) = process.organizations.alive()
        states = {config_id: state.breaker_state for config_id, state in actor.core.routes.states.items()}
    first = {config_id for config_id, _, at_s in providers.made if at_s < 0.05}

    assert world.statuses(ids) == {"delivered"}
    assert first == {MAIL.config_id, EQUAL.config_id}
    assert states == {MAIL.config_id: "closed", EQUAL.config_id: "open"}
    assert {config_id for config_id, _, _ in after.made} == {MAIL.config_id}
    kept = await world.queue.take_channels(ACME, ["email", f"email:{EQUAL.config_id}"])
    assert [record.fields["config_id"] for record in kept.values()] == [MAIL.config_id, EQUAL.config_id]


async def test_each_has_a_quota_of_its_own_and_the_next_sends_what_is_beyond_it(autojump_clock: MockClock) -> None:
    world = ActorWorld()
    providers = TwoProviders(world, evolve(MAIL, quota=5), evolve(NEXT, quota=7))
    async with world.running():
        ids = await world.accept(20)
        await trio.sleep(30.0)

    assert Counter(config_id for config_id, _, _ in providers.made) == {MAIL.config_id: 5, NEXT.config_id: 7}
    assert sum(world.row(id).status == "delivered" for id in ids) == 12
    assert {event["provider_config_id"] for event in told(world) if event["type"] == "channel.quota_used_up"} == {
        MAIL.config_id,
        NEXT.config_id,
    }


async def test_parts_of_one_claim_that_go_different_ways_do_so_although_the_ledger_gets_them_at_once(
    autojump_clock: MockClock,
) -> None:
    world = ActorWorld()
    told: list[Event] = []
    ids = await world.store_rows(6)
    async with world.running():
        for part, way in ((ids[:2], "one"), (ids[2:4], "other"), (ids[4:], "one")):
            world.ledger.gate(ACME, part, frozenset(), told.append, {Channel.EMAIL: way})
        await trio.sleep(1.0)
    ways = {each.id: each.config_id for event in told if isinstance(event, Gated) for each in event.deliveries}

    assert [ways[id] for id in ids] == ["one", "one", "other", "other", "one", "one"]
    assert [world.row(id).provider_config_id for id in ids] == [ways[id] for id in ids]


async def test_an_audience_without_a_configuration_waits_quietly_until_there_is_one(autojump_clock: MockClock) -> None:
    google = evolve(MAIL, config_id="c-google", channel=Channel.PUSH, audience="google")
    web = evolve(google, config_id="c-web", audience="web")
    world = ActorWorld()
    TwoProviders(world, web)
    async with world.running():
        ids = await world.accept(6, channel=Channel.PUSH)  # an address that is no APNs token and no subscription
        await trio.sleep(600.0)
        waiting, claims = world.statuses(ids), sum(actor.claims for actor in world.made)
        world.policies = [web, google]
        world.organizations.changed(ACME)
        await trio.sleep(30.0)

    assert waiting == {"queued"}
    assert claims < 600 / 5
    assert world.statuses(ids) == {"delivered"}
    assert {world.row(id).provider_config_id for id in ids} == {"c-google"}
