"""Topics, gaps, overflow and reconnects."""

from __future__ import annotations

import random
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
import trio.testing
from redis import exceptions

from actors.io.redis import Message, Reconnected, Redis, Subscriber, open_redis, open_subscriber
from dispatcher.errors import Overloaded, QueueUnavailable
from house import Tls
from redis_peers import Conversation, Peer, own_valkey, scripted_peer, tls_front

GAP = Reconnected("connection")
OVERFLOW = Reconnected("overflow")


def subscriber(url: str, *, buffer_max: int = 100, topics_max: int = 1_000) -> AbstractAsyncContextManager[Subscriber]:
    return open_subscriber(
        url, connect_deadline_s=10, command_deadline_s=10, random=random.Random(7), buffer_max=buffer_max, topics_max=topics_max
    )


def publisher(url: str) -> AbstractAsyncContextManager[Redis]:
    return open_redis(url, connect_deadline_s=10, command_deadline_s=10, random=random.Random(7))


async def test_what_is_published_to_a_topic_is_received_in_order(redis_url: str) -> None:
    async with subscriber(redis_url) as sub, publisher(redis_url) as pub:
        await sub.subscribe("a", "b")
        await pub.execute_many([("PUBLISH", "a", b"\x00"), ("PUBLISH", "c", "2"), ("PUBLISH", "b", "3")])

        assert [await sub.receive(), await sub.receive()] == [Message("a", b"\x00"), Message("b", b"3")]


async def test_once_subscribe_returns_nothing_published_is_missed(redis_url: str) -> None:
    async with subscriber(redis_url) as sub, publisher(redis_url) as pub:
        for i in range(20):
            await sub.subscribe(f"topic:{i}")
            assert await pub.execute("PUBLISH", f"topic:{i}", i) == 1
            assert await sub.receive() == Message(f"topic:{i}", b"%d" % i)


async def test_after_unsubscribe_nothing_more_arrives(redis_url: str) -> None:
    async with subscriber(redis_url) as sub, publisher(redis_url) as pub:
        await sub.subscribe("a", "b")
        await sub.unsubscribe("a", "never subscribed")
        await pub.execute_many([("PUBLISH", "a", "1"), ("PUBLISH", "b", "2")])

        assert await sub.receive() == Message("b", b"2")
        assert await numsub(pub, "a") == 0


async def numsub(pub: Redis, topic: str) -> int:
    return int((await pub.execute("PUBSUB", "NUMSUB", topic))[1])


async def test_each_subscription_is_undone_on_its_own(redis_url: str) -> None:
    async with subscriber(redis_url) as sub, publisher(redis_url) as pub:
        await sub.subscribe("a")
        await sub.subscribe("a", "a")
        await sub.unsubscribe("a")
        await pub.execute("PUBLISH", "a", "1")
        assert await sub.receive() == Message("a", b"1")

        await sub.unsubscribe("a")
        await sub.subscribe("b")
        assert await numsub(pub, "a") == 0
        assert sub.statistics().topics == 1


async def test_unsubscribe_takes_effect_although_its_caller_is_cancelled(redis_url: str) -> None:
    async with subscriber(redis_url) as sub, publisher(redis_url) as pub:
        await sub.subscribe("a")
        with trio.CancelScope() as scope:
            scope.cancel()
            await sub.unsubscribe("a")
        assert scope.cancelled_caught
        await sub.subscribe("b")
        assert await numsub(pub, "a") == 0


async def test_subscribing_to_nothing_is_nothing(redis_url: str) -> None:
    async with subscriber(redis_url) as sub:
        await sub.subscribe()
        assert sub.statistics().topics == 0


async def test_tls_carries_messages_too(redis_url: str, tls: Tls) -> None:
    path = Path(redis_url.removeprefix("unix://").split("?")[0])
    async with tls_front(path, tls.server_context()) as port, publisher(redis_url) as pub:
        async with subscriber(f"rediss://localhost:{port}?ssl_ca_certs={tls.ca_file}") as sub:
            await sub.subscribe("a")
            await pub.execute("PUBLISH", "a", b"x" * 200_000)
            assert await sub.receive() == Message("a", b"x" * 200_000)


async def test_after_a_reconnect_all_topics_are_back_and_the_gap_is_announced_once(redis_url: str) -> None:
    async with subscriber(redis_url) as sub, publisher(redis_url) as pub:
        await sub.subscribe("a", "b", "c")
        await sub.unsubscribe("c")
        await pub.execute("CLIENT", "KILL", "TYPE", "pubsub")

        assert await sub.receive() == GAP
        for topic in ("a", "c", "b"):
            await pub.execute("PUBLISH", topic, "again")
        assert [await sub.receive(), await sub.receive()] == [Message("a", b"again"), Message("b", b"again")]
        assert sub.statistics().link.connections_total == 2


async def test_a_restarted_server_is_subscribed_to_again(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as server:
        async with subscriber(server.url) as sub:
            await sub.subscribe("a")
            server.kill()
            server.start()

            assert await sub.receive() == GAP
            async with publisher(server.url) as pub:
                assert await pub.execute("PUBLISH", "a", "1") == 1
                assert await sub.receive() == Message("a", b"1")


async def test_a_topic_the_server_forbids_is_its_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with own_valkey(tmp_path) as server:
        async with publisher(server.url) as operator:
            await operator.execute("ACL", "SETUSER", "listener", "on", ">hidden", "&mine:*", "+@all")
        async with subscriber(f"unix://listener:hidden@{server.path}") as sub, publisher(server.url) as pub:
            with pytest.raises(exceptions.NoPermissionError):
                await sub.subscribe("mine:1", "theirs:1", "theirs:2")
            await sub.subscribe("mine:2")
            await pub.execute_many([("PUBLISH", "mine:1", "1"), ("PUBLISH", "mine:2", "2")])

            assert await sub.receive() == Message("mine:2", b"2")
            assert sub.statistics().topics == 1


async def test_while_the_server_is_away_subscribe_fails_and_leaves_nothing_behind(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with subscriber(f"unix://{tmp_path}/nobody.sock") as sub:
        with pytest.raises(QueueUnavailable):
            await sub.subscribe("a")
        assert sub.statistics().topics == 0
        assert sub.statistics().link.down_reason == "ConnectionError"


async def test_more_topics_than_the_bound_are_refused(redis_url: str) -> None:
    async with subscriber(redis_url, topics_max=2) as sub:
        await sub.subscribe("a", "b")
        await sub.subscribe("b")
        with pytest.raises(Overloaded):
            await sub.subscribe("c")
        await sub.unsubscribe("a")
        await sub.subscribe("c")


async def heard(conversation: Conversation) -> list[bytes]:
    """The next SUBSCRIBE or UNSUBSCRIBE, confirmed; pings on the way are answered."""
    while (command := await conversation.command()) == [b"PING"]:
        await conversation.say(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
    await confirm(conversation, command)
    return command


async def confirm(conversation: Conversation, command: list[bytes]) -> None:
    kind, *topics = command
    for topic in topics:
        await conversation.say(b"*3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n:1\r\n" % (len(kind), kind.lower(), len(topic), topic))


def message(topic: bytes, payload: bytes) -> bytes:
    return b"*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(topic), topic, len(payload), payload)


async def subscribed(peer: Peer, sub: Subscriber, *topics: str) -> Conversation:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sub.subscribe, *topics)
        conversation = await peer.welcome()
        await heard(conversation)
    return conversation


async def test_a_full_buffer_drops_what_is_newer_and_marks_the_gap_once(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url, buffer_max=2) as sub:
        conversation = await subscribed(peer, sub, "a")
        await conversation.say(*(message(b"a", b"%d" % i) for i in range(5)))
        await trio.testing.wait_all_tasks_blocked()
        assert (sub.statistics().buffered, sub.statistics().dropped_total) == (3, 3)
        assert [await sub.receive() for _ in range(3)] == [Message("a", b"0"), Message("a", b"1"), OVERFLOW]

        await conversation.say(message(b"a", b"5"))
        assert await sub.receive() == Message("a", b"5")


async def test_a_gap_behind_a_gap_is_one(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url) as sub:
        conversation = await subscribed(peer, sub, "a")
        for _ in range(3):
            await conversation.stream.aclose()
            conversation = await peer.welcome()
            assert await heard(conversation) == [b"SUBSCRIBE", b"a"]
        await conversation.say(message(b"a", b"1"))

        assert [await sub.receive(), await sub.receive()] == [GAP, Message("a", b"1")]


async def test_without_topics_a_reconnect_is_no_gap(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url) as sub:
        conversation = await subscribed(peer, sub, "a")
        await sub.unsubscribe("a")
        assert await heard(conversation) == [b"UNSUBSCRIBE", b"a"]
        await conversation.stream.aclose()
        conversation = await peer.welcome()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sub.subscribe, "b")
            assert await heard(conversation) == [b"SUBSCRIBE", b"b"]
        await conversation.say(message(b"b", b"1"))

        assert await sub.receive() == Message("b", b"1")


async def test_messages_among_confirmations_are_told_apart(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url) as sub, trio.open_nursery() as nursery:
        conversation = await subscribed(peer, sub, "a")
        nursery.start_soon(sub.subscribe, "b", "c")
        assert await conversation.command() == [b"SUBSCRIBE", b"b", b"c"]
        await conversation.say(message(b"a", b"1"))
        await confirm(conversation, [b"SUBSCRIBE", b"b"])
        await conversation.say(message(b"b", b"2"))
        await confirm(conversation, [b"SUBSCRIBE", b"c"])

        assert [await sub.receive(), await sub.receive()] == [Message("a", b"1"), Message("b", b"2")]


async def test_a_subscribe_that_is_cancelled_is_taken_back(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url) as sub:
        conversation = await subscribed(peer, sub, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sub.subscribe, "b")
            command = await conversation.command()
            nursery.cancel_scope.cancel()
        assert sub.statistics().topics == 1
        await confirm(conversation, command)
        await conversation.say(message(b"b", b"late"), message(b"a", b"1"))

        assert await heard(conversation) == [b"UNSUBSCRIBE", b"b"]
        assert await sub.receive() == Message("a", b"1")


async def test_a_subscribe_that_is_cancelled_leaves_anothers_subscription_alone(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url) as sub:
        conversation = await subscribed(peer, sub, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sub.subscribe, "a")
            await conversation.command()
            nursery.cancel_scope.cancel()
        await confirm(conversation, [b"SUBSCRIBE", b"a"])
        await conversation.say(message(b"a", b"1"))

        assert await sub.receive() == Message("a", b"1")


async def test_a_cancelled_receive_loses_no_message(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url) as sub:
        conversation = await subscribed(peer, sub, "a")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sub.receive)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await conversation.say(message(b"a", b"1"))
        assert await sub.receive() == Message("a", b"1")
        await conversation.say(message(b"a", b"2"))
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await sub.receive()
        assert scope.cancelled_caught
        assert await sub.receive() == Message("a", b"2")


async def test_a_half_open_connection_is_noticed_while_nothing_is_published(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url) as sub:
        silent = await subscribed(peer, sub, "a")
        started_s = trio.current_time()
        await silent.closed_by_client()
        assert trio.current_time() - started_s <= 20
        fresh = await peer.welcome()
        assert await heard(fresh) == [b"SUBSCRIBE", b"a"]

        assert await sub.receive() == GAP


async def test_a_quiet_connection_that_answers_pings_is_kept(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url) as sub, trio.open_nursery() as nursery:
        nursery.start_soon(heard, await subscribed(peer, sub, "a"))
        await trio.sleep(600)

        assert sub.statistics().link.connections_total == 1
        nursery.cancel_scope.cancel()


async def test_topics_that_cannot_be_restored_are_an_outage_not_a_silence(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url) as sub:
        conversation = await subscribed(peer, sub, "a")
        await trio.sleep(6)
        await conversation.stream.aclose()
        conversation = await peer.welcome()
        await conversation.command()
        await conversation.say(b"-NOPERM this user has no permissions to access the 'a' channel\r\n")
        await conversation.closed_by_client()
        assert sub.statistics().buffered == 0
        conversation = await peer.welcome()
        assert await heard(conversation) == [b"SUBSCRIBE", b"a"]

        assert await sub.receive() == GAP


async def test_a_peer_that_confirms_what_nobody_asked_is_dropped(tmp_path: Path) -> None:
    async with scripted_peer(tmp_path) as peer, subscriber(peer.url) as sub:
        conversation = await subscribed(peer, sub, "a")
        await confirm(conversation, [b"SUBSCRIBE", b"b"])
        await conversation.closed_by_client()
        assert await heard(await peer.welcome()) == [b"SUBSCRIBE", b"a"]

        assert await sub.receive() == GAP
