from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.io import http_pool
from actors.io.http_connection import HttpConnection
from actors.io.http_dial import dial
from actors.io.http_pool import HttpPool, open_http_pool
from actors.io.http_terms import Deadlines, ExchangeFailed, MaybeSent, NotSent, PoolLimits
from actors.io.http_wire import ResponseReader
from dispatcher.errors import ConfigError
from dispatcher.http_message import HttpRequest, Origin
from house import Tls
from http_peer import OK, OK_AND_CLOSE, Peer, peers

ENDLESS = Deadlines(inf, inf, inf, inf, inf)
LARGE = b"x" * (16 << 20)
"""More than the kernel takes at once."""


async def answering(peer: Peer) -> None:
    await peer.answer_all()


async def silent(peer: Peer) -> None:
    await peer.gone()


class Unresolving(trio.abc.HostnameResolver):
    """Never answers."""

    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        await trio.sleep_forever()

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


@asynccontextmanager
async def pool_of(places: int, **limits: Any) -> AsyncIterator[HttpPool]:
    async with open_http_pool(limits=PoolLimits(connections_per_origin_max=places, **limits)) as pool:
        yield pool


def assert_at_rest(pool: HttpPool) -> None:
    """No place is in use, nobody waits, and what the books say is there is there."""
    statistics = pool.statistics()
    assert (statistics.in_use, statistics.waiting) == (0, 0)
    assert statistics.idle == statistics.connections == len(pool._connections)
    assert statistics.origins <= statistics.connections
    assert not pool._dialling


class TestReuse:
    @pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
    async def test_one_connection_serves_exchanges_that_follow_one_another(self, secure: bool, tls: Tls) -> None:
        context = tls.server_context() if secure else None
        async with peers(answering, tls=context) as server, open_http_pool(tls_context=tls.client_context()) as pool:
            for _ in range(3):
                response = await pool.exchange(server.post(), ENDLESS)
                assert response == (200, ((b"content-length", b"2"),), b"ok")

            assert pool.statistics().opened_total == 1
            assert pool.statistics().idle == 1
            assert_at_rest(pool)

    async def test_exchanges_side_by_side_have_a_connection_each(self) -> None:
        async def gather(peer: Peer) -> None:
            await peer.request()
            everybody.set() if peer.number == 3 else await everybody.wait()
            await peer.send(OK)
            await peer.answer_all()

        everybody = trio.Event()
        async with peers(gather) as server, open_http_pool() as pool:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(pool.exchange, server.post(), ENDLESS)
            assert pool.statistics().idle == 3

    async def test_a_peer_that_wants_to_close_is_let_go(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(OK_AND_CLOSE)
            await peer.gone()

        async with peers(script) as server, open_http_pool() as pool:
            for _ in range(2):
                assert (await pool.exchange(server.post(), ENDLESS)).body == b"ok"
                assert pool.statistics().connections == 0
            assert pool.statistics().opened_total == 2

    async def test_origins_do_not_share_connections(self) -> None:
        async with peers(answering) as one, peers(answering) as other, open_http_pool() as pool:
            for server in (one, other, one, other):
                await pool.exchange(server.post(), ENDLESS)
            assert (pool.statistics().opened_total, pool.statistics().origins) == (2, 2)

    async def test_the_request_names_its_host_and_the_caller_may_name_another(self) -> None:
        hosts: list[bytes] = []

        async def script(peer: Peer) -> None:
            while (received := await peer.request()) is not None:
                hosts.append(received.headers[b"host"])
                await peer.send(OK)

        async with peers(script) as server, open_http_pool() as pool:
            await pool.exchange(server.post(), ENDLESS)
            await pool.exchange(server.post(), ENDLESS, host=b"other.test")
            assert hosts == [b"127.0.0.1:%d" % server.origin.port, b"other.test"]


class TestStaleConnection:
    """A request is repeated only when the kernel took no byte of it."""

    async def test_closed_by_the_peer_while_idle_is_replaced_before_anything_is_sent(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer()
            if peer.number == 1:
                await peer.finish()
                closed.set()
            await peer.answer_all()

        closed = trio.Event()
        async with peers(script) as server, open_http_pool() as pool:
            await pool.exchange(server.post(), ENDLESS)
            await closed.wait()
            assert (await pool.exchange(server.post(), ENDLESS)).status == 200
            assert (pool.statistics().opened_total, pool.statistics().stale_total) == (2, 1)
            assert_at_rest(pool)

    async def test_that_spoke_unasked_is_replaced(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer()
            await answered.wait()
            await peer.send(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
            spoken.set()
            await peer.gone()

        answered, spoken = trio.Event(), trio.Event()
        async with peers(script) as server, open_http_pool() as pool:
            await pool.exchange(server.post(), ENDLESS)
            answered.set()
            await spoken.wait()
            await trio.lowlevel.wait_readable(next(iter(pool._connections))._fd)
            assert (await pool.exchange(server.post(), ENDLESS)).status == 200

    async def test_that_refuses_the_write_is_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer()
            if peer.number == 1:
                await answered.wait()
                peer.reset()
            else:
                await peer.answer_all()

        answered = trio.Event()
        async with peers(script) as server, open_http_pool() as pool:
            await pool.exchange(server.post(), ENDLESS)
            answered.set()
            await trio.lowlevel.wait_readable(next(iter(pool._connections))._fd)
            # The reset that arrives between the look and the write.
            monkeypatch.setattr(HttpConnection, "is_alive", lambda _: True)
            assert (await pool.exchange(server.post(), ENDLESS)).status == 200
            assert (pool.statistics().opened_total, pool.statistics().stale_total) == (2, 1)
            assert_at_rest(pool)

    async def test_is_not_a_fresh_one_that_refuses_the_write(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def resetting(peer: Peer) -> None:
            peer.reset()

        async def dial_and_hear(*args: Any) -> Any:
            sock, tls = await dial(*args)
            await trio.lowlevel.wait_readable(sock)
            return sock, tls

        monkeypatch.setattr(http_pool, "dial", dial_and_hear)
        async with peers(resetting) as server, open_http_pool() as pool:
            with pytest.raises(NotSent) as caught:
                await pool.exchange(server.post(), ENDLESS)
            assert (caught.value.phase, caught.value.code) == ("write", "reset")
            assert pool.statistics().opened_total == 1
            assert_at_rest(pool)

    async def test_that_took_the_request_and_closed_is_not_replaced(self) -> None:
        requests = 0

        async def script(peer: Peer) -> None:
            nonlocal requests
            await peer.answer()
            await peer.request()
            requests += 1

        async with peers(script) as server, open_http_pool() as pool:
            await pool.exchange(server.post(), ENDLESS)
            with pytest.raises(MaybeSent) as caught:
                await pool.exchange(server.post(), ENDLESS)
            assert (caught.value.phase, caught.value.code) == ("read", "closed")
            assert requests == server.accepted == 1
            assert_at_rest(pool)

    async def test_handed_over_is_replaced_in_the_same_place(self) -> None:
        async def script(peer: Peer) -> None:
            received = await peer.request()
            assert received is not None
            if peer.number == 1:
                await queued.wait()
                await peer.send(OK)
                await peer.finish()
                await peer.gone()
            else:
                await peer.send(OK)
                await peer.answer_all()

        queued = trio.Event()
        async with peers(script) as server, pool_of(1) as pool:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.exchange, server.post(), ENDLESS)
                await wait_all_tasks_blocked()
                nursery.start_soon(pool.exchange, server.post(), ENDLESS)
                await wait_all_tasks_blocked()
                assert pool.statistics().waiting == 1
                queued.set()
            assert pool.statistics().opened_total == 2
            assert_at_rest(pool)


class TestLimits:
    async def test_callers_beyond_the_limit_are_served_in_order_of_arrival(self) -> None:
        served: list[bytes] = []

        async def script(peer: Peer) -> None:
            while (received := await peer.request()) is not None:
                await released.wait()
                served.append(received.body)
                await peer.send(OK)

        released = trio.Event()
        async with peers(script) as server, pool_of(1) as pool:
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(pool.exchange, server.post(b"%d" % number), ENDLESS)
                    await wait_all_tasks_blocked()
                assert (pool.statistics().in_use, pool.statistics().waiting) == (1, 4)
                released.set()
            assert served == [b"0", b"1", b"2", b"3", b"4"]
            assert pool.statistics().opened_total == 1
            assert_at_rest(pool)

    async def test_a_failed_exchange_leaves_its_place_to_the_next(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            if peer.number > 1:
                await peer.send(OK)
                await peer.answer_all()
            else:
                await queued.wait()

        queued = trio.Event()
        async with peers(script) as server, pool_of(1) as pool:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(failing, pool.exchange(server.post(), ENDLESS), "closed")
                await wait_all_tasks_blocked()
                nursery.start_soon(pool.exchange, server.post(), ENDLESS)
                await wait_all_tasks_blocked()
                queued.set()
            assert_at_rest(pool)

    async def test_a_full_pool_closes_an_idle_connection_for_another_origin(self) -> None:
        async with peers(answering) as one, peers(answering) as other:
            async with open_http_pool(limits=PoolLimits(connections_max=1)) as pool:
                for server in (one, other, one):
                    await pool.exchange(server.post(), ENDLESS)
                    assert pool.statistics().connections == 1
                assert pool.statistics().expired_total == 2

    async def test_a_full_pool_passes_places_between_origins(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await released.wait()
            await peer.send(OK)
            await peer.answer_all()

        released = trio.Event()
        async with peers(script) as one, peers(answering) as other:
            async with open_http_pool(limits=PoolLimits(connections_max=1)) as pool:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pool.exchange, one.post(), ENDLESS)
                    await wait_all_tasks_blocked()
                    nursery.start_soon(pool.exchange, other.post(), ENDLESS)
                    await wait_all_tasks_blocked()
                    assert pool.statistics().waiting == 1
                    released.set()
                assert_at_rest(pool)

    async def test_a_full_queue_refuses_at_once(self) -> None:
        async with peers(silent) as server, pool_of(1, waiting_max=0) as pool:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.exchange, server.post(), ENDLESS)
                await wait_all_tasks_blocked()
                with pytest.raises(NotSent) as caught:
                    await pool.exchange(server.post(), ENDLESS)
                nursery.cancel_scope.cancel()
            assert (caught.value.phase, caught.value.code) == ("pool", "pool_full")
            assert_at_rest(pool)

    async def test_idle_connections_are_closed_after_their_time_and_the_watch_goes_to_sleep(
        self, autojump_clock: MockClock
    ) -> None:
        async with peers(answering) as server, open_http_pool(limits=PoolLimits(idle_s=7)) as pool:
            await pool.exchange(server.post(), ENDLESS)
            await trio.sleep(6)
            assert pool.statistics().idle == 1
            await pool.exchange(server.post(), ENDLESS)
            await trio.sleep(6.9)
            assert pool.statistics().idle == 1
            await trio.sleep(0.2)
            assert pool.statistics().connections == 0
            assert pool.statistics().expired_total == 1
            assert pool.watch.wakes_at_s == inf

    @pytest.mark.parametrize(
        ("answer", "limits", "code"),
        [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n" + b"x" * 101, {"body_bytes_max": 100}, "body_too_large"),
            (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300, {"header_bytes_max": 256}, "headers_too_large"),
        ],
    )
    async def test_an_oversize_response_is_refused_and_its_connection_closed(
        self, answer: bytes, limits: dict[str, int], code: str
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(answer)
            await peer.gone()

        async with peers(script) as server, pool_of(1, **limits) as pool:
            with pytest.raises(MaybeSent) as caught:
                await pool.exchange(server.post(), ENDLESS)
            assert (caught.value.phase, caught.value.code) == ("limit", code)
            assert pool.statistics().connections == 0


class TestDeadlines:
    """Every phase has its own, the total goes over all of them, and the error names the phase."""

    @pytest.mark.parametrize(
        "deadlines", [Deadlines(inf, inf, inf, 3, inf), Deadlines(inf, inf, inf, 9, 3)], ids=["own", "total"]
    )
    async def test_in_reading(self, autojump_clock: MockClock, deadlines: Deadlines) -> None:
        async with peers(silent) as server, open_http_pool() as pool:
            problem = await overdue(pool, server.post(), deadlines, after_s=3)
            assert isinstance(problem, MaybeSent)
            assert (problem.phase, problem.code) == ("read", "timeout_read")
            assert_at_rest(pool)

    @pytest.mark.parametrize(
        "deadlines", [Deadlines(inf, inf, 3, inf, inf), Deadlines(inf, inf, 9, inf, 3)], ids=["own", "total"]
    )
    async def test_in_writing(self, autojump_clock: MockClock, deadlines: Deadlines) -> None:
        async def deaf(peer: Peer) -> None:
            await left.wait()

        left = trio.Event()
        async with peers(deaf) as server, open_http_pool() as pool:
            problem = await overdue(pool, server.post(LARGE), deadlines, after_s=3)
            assert isinstance(problem, MaybeSent)
            assert (problem.phase, problem.code) == ("write", "timeout_write")
            assert_at_rest(pool)
            left.set()

    @pytest.mark.parametrize(
        "deadlines", [Deadlines(inf, 3, inf, inf, inf), Deadlines(inf, 9, inf, inf, 3)], ids=["own", "total"]
    )
    @pytest.mark.parametrize(("phase", "scheme"), [("tls", "https"), ("resolve", "http")])
    async def test_in_connecting(self, autojump_clock: MockClock, deadlines: Deadlines, phase: str, scheme: str) -> None:
        async with peers(silent) as server, open_http_pool() as pool:
            origin = server.origin._replace(scheme=scheme)
            if phase == "resolve":
                trio.socket.set_custom_hostname_resolver(Unresolving())
                origin = origin._replace(host="slow.test")
            problem = await overdue(pool, HttpRequest(origin, b"GET", b"/", ()), deadlines, after_s=3)
            assert isinstance(problem, NotSent)
            assert (problem.phase, problem.code) == (phase, f"timeout_{phase}")
            assert_at_rest(pool)

    @pytest.mark.parametrize(
        "deadlines", [Deadlines(3, inf, inf, inf, inf), Deadlines(9, inf, inf, inf, 3)], ids=["own", "total"]
    )
    async def test_in_waiting_for_a_place(self, autojump_clock: MockClock, deadlines: Deadlines) -> None:
        async with peers(silent) as server, pool_of(1) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(pool.exchange, server.post(), ENDLESS)
            await wait_all_tasks_blocked()
            problem = await overdue(pool, server.post(), deadlines, after_s=3)
            assert isinstance(problem, NotSent)
            assert (problem.phase, problem.code) == ("pool", "timeout_pool")
            assert (pool.statistics().in_use, pool.statistics().waiting) == (1, 0)
            nursery.cancel_scope.cancel()

    async def test_of_no_time_at_all_takes_what_is_there_and_waits_for_nothing(self) -> None:
        async with peers(silent) as server, pool_of(1) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(pool.exchange, server.post(), ENDLESS)
            await wait_all_tasks_blocked()
            with pytest.raises(NotSent) as caught:
                await pool.exchange(server.post(), Deadlines(pool_s=0))
            assert caught.value.code == "timeout_pool"
            nursery.cancel_scope.cancel()

    async def test_a_dribbling_peer_does_not_postpone_it(self, autojump_clock: MockClock) -> None:
        async def dribble(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await peer.send(b"x")
                await trio.sleep(1)

        async with peers(dribble) as server, open_http_pool() as pool:
            problem = await overdue(pool, server.post(), Deadlines(total_s=10), after_s=10)
            assert (problem.phase, problem.code) == ("read", "timeout_read")
            assert isinstance(problem, MaybeSent)
            assert problem.status == 200

    async def test_each_exchange_ends_at_its_own(self, autojump_clock: MockClock) -> None:
        async with peers(silent) as server, open_http_pool() as pool, trio.open_nursery() as nursery:
            for after_s in (5, 1, 8, 3, 2):
                nursery.start_soon(overdue, pool, server.post(), Deadlines(total_s=after_s, read_s=inf), after_s)

    async def test_one_that_was_kept_is_over(self, autojump_clock: MockClock) -> None:
        async with peers(answering) as server, open_http_pool() as pool:
            await pool.exchange(server.post(), Deadlines(total_s=20))
            await trio.sleep(30)
            assert (await pool.exchange(server.post(), Deadlines(total_s=20))).status == 200
            assert pool.statistics().opened_total == 1

    async def test_one_that_was_kept_does_not_end_the_next_exchange(self, autojump_clock: MockClock) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer()
            await peer.request()
            await trio.sleep(30)
            await peer.send(OK)
            await peer.gone()

        async with peers(script) as server, open_http_pool() as pool:
            await pool.exchange(server.post(), Deadlines(total_s=20))
            assert (await pool.exchange(server.post(), Deadlines(total_s=40, read_s=40))).status == 200


class TestCancellation:
    """Wherever it lands, the place is free again, the connection closed, and the pool usable."""

    async def test_before_it_begins_sends_nothing(self) -> None:
        async with peers(answering) as server, open_http_pool() as pool:
            await pool.exchange(server.post(), ENDLESS)
            with trio.CancelScope() as scope:
                scope.cancel()
                await pool.exchange(server.post(), ENDLESS)
            assert scope.cancelled_caught
            assert pool.statistics().idle == 1
            assert_at_rest(pool)

    async def test_in_waiting_for_a_place(self, autojump_clock: MockClock) -> None:
        async with peers(silent) as server, pool_of(1) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(pool.exchange, server.post(), ENDLESS)
            await wait_all_tasks_blocked()
            await cancelled_after(1, pool.exchange(server.post(), ENDLESS))
            assert (pool.statistics().in_use, pool.statistics().waiting) == (1, 0)
            nursery.cancel_scope.cancel()

    async def test_right_after_the_place_was_handed_over(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await queued.wait()
            await peer.send(OK)
            await peer.answer_all()

        queued = trio.Event()
        async with peers(script) as server, pool_of(1) as pool:
            async with trio.open_nursery() as nursery:
                second = trio.CancelScope()

                async def first_then_cancel_second() -> None:
                    await pool.exchange(server.post(), ENDLESS)
                    second.cancel()  # in the same breath in which the place went to it

                async def be_second() -> None:
                    with second:
                        await pool.exchange(server.post(), ENDLESS)

                nursery.start_soon(first_then_cancel_second)
                await wait_all_tasks_blocked()
                nursery.start_soon(be_second)
                await wait_all_tasks_blocked()
                queued.set()
            assert second.cancelled_caught
            assert_at_rest(pool)
            assert (await pool.exchange(server.post(), ENDLESS)).status == 200

    async def test_in_resolving(self, autojump_clock: MockClock) -> None:
        trio.socket.set_custom_hostname_resolver(Unresolving())
        async with open_http_pool() as pool:
            await cancelled_after(1, pool.exchange(HttpRequest(Origin("http", "slow.test", 80), b"GET", b"/", ()), ENDLESS))
            assert_at_rest(pool)

    @pytest.mark.parametrize("scheme", ["http", "https"], ids=["reading", "shaking hands"])
    async def test_while_the_peer_is_silent(self, autojump_clock: MockClock, scheme: str) -> None:
        async def notice(peer: Peer) -> None:
            await peer.gone()
            left.set()

        left = trio.Event()
        async with peers(notice) as server, open_http_pool() as pool:
            origin = server.origin._replace(scheme=scheme)
            await cancelled_after(1, pool.exchange(HttpRequest(origin, b"GET", b"/", ()), ENDLESS))
            assert_at_rest(pool)
            assert pool.statistics().connections == 0
            await left.wait()

    async def test_in_the_middle_of_the_response(self, autojump_clock: MockClock) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(OK if peer.number > 1 else OK[:-1])
            await peer.gone()

        async with peers(script) as server, pool_of(1) as pool:
            await cancelled_after(1, pool.exchange(server.post(), ENDLESS))
            assert_at_rest(pool)
            assert (await pool.exchange(server.post(), ENDLESS)).body == b"ok"
            assert pool.statistics().opened_total == 2

    async def test_in_writing(self, autojump_clock: MockClock) -> None:
        async def deaf(peer: Peer) -> None:
            await left.wait()

        left = trio.Event()
        async with peers(deaf) as server, open_http_pool() as pool:
            await cancelled_after(1, pool.exchange(server.post(LARGE), ENDLESS))
            assert_at_rest(pool)
            left.set()

    async def test_hands_the_place_to_the_next(self) -> None:
        async def script(peer: Peer) -> None:
            if peer.number > 1:
                await peer.answer_all()
            await peer.gone()

        async with peers(script) as server, pool_of(1) as pool, trio.open_nursery() as nursery:
            first = trio.CancelScope()

            async def be_first() -> None:
                with first:
                    await pool.exchange(server.post(), ENDLESS)

            nursery.start_soon(be_first)
            await wait_all_tasks_blocked()
            nursery.start_soon(pool.exchange, server.post(), ENDLESS)
            await wait_all_tasks_blocked()
            first.cancel()


class TestClosing:
    async def test_idle_connections_are_closed_with_the_block(self) -> None:
        async def notice(peer: Peer) -> None:
            await peer.answer_all()
            left.set()

        left = trio.Event()
        async with peers(notice) as server:
            async with open_http_pool() as pool:
                await pool.exchange(server.post(), ENDLESS)
            await left.wait()
            assert pool.statistics().connections == 0

    async def test_exchanges_under_way_fail_and_say_whether_they_were_sent(self) -> None:
        trio.socket.set_custom_hostname_resolver(Unresolving())
        problems: dict[str, ExchangeFailed] = {}

        async def fail(name: str, request: HttpRequest) -> None:
            with pytest.raises(ExchangeFailed) as caught:
                await pool.exchange(request, ENDLESS)
            problems[name] = caught.value

        async with peers(silent) as server, trio.open_nursery() as nursery:
            async with pool_of(1) as pool:
                nursery.start_soon(fail, "sent", server.post())
                nursery.start_soon(fail, "dialling", HttpRequest(Origin("http", "slow.test", 80), b"GET", b"/", ()))
                await wait_all_tasks_blocked()
                nursery.start_soon(fail, "queued", server.post())
                await wait_all_tasks_blocked()
        assert {name: (type(problem), problem.code) for name, problem in problems.items()} == {
            "sent": (MaybeSent, "pool_closed"),
            "dialling": (NotSent, "pool_closed"),
            "queued": (NotSent, "pool_closed"),
        }
        assert_at_rest(pool)

    async def test_a_connection_that_opens_in_the_same_breath_is_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def notice(peer: Peer) -> None:
            await peer.gone()
            left.set()

        async def dial_and_close(*args: Any) -> Any:
            sock, tls = await dial(*args)
            pool.close()
            return sock, tls

        left = trio.Event()
        monkeypatch.setattr(http_pool, "dial", dial_and_close)
        async with peers(notice) as server, open_http_pool() as pool:
            with pytest.raises(NotSent) as caught:
                await pool.exchange(server.post(), ENDLESS)
            assert caught.value.code == "pool_closed"
            await left.wait()
            assert_at_rest(pool)

    async def test_an_answer_that_comes_in_the_same_breath_still_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        feed = ResponseReader.feed

        def feed_and_close(reader: ResponseReader, data: bytes) -> bool:
            done = feed(reader, data)
            pool.close()
            return done

        monkeypatch.setattr(ResponseReader, "feed", feed_and_close)
        async with peers(answering) as server, open_http_pool() as pool:
            assert (await pool.exchange(server.post(), ENDLESS)).status == 200
            assert pool.statistics().connections == 0

    async def test_a_closed_pool_refuses(self) -> None:
        async with peers(answering) as server:
            async with open_http_pool() as pool:
                pass
            with pytest.raises(NotSent) as caught:
                await pool.exchange(server.post(), ENDLESS)
            assert caught.value.code == "pool_closed"

    async def test_closing_again_changes_nothing(self) -> None:
        async with peers(answering) as server:
            async with open_http_pool() as pool:
                await pool.exchange(server.post(), ENDLESS)
                pool.close()
            assert_at_rest(pool)

    async def test_what_the_block_raises_comes_out_as_it_is(self) -> None:
        with pytest.raises(KeyError):
            async with open_http_pool():
                raise KeyError

    async def test_a_group_that_the_block_raises_comes_out_as_it_is(self) -> None:
        group = ExceptionGroup("two", [KeyError(), ValueError()])
        with pytest.raises(ExceptionGroup) as caught:
            async with open_http_pool():
                raise group
        assert caught.value.exceptions == group.exceptions

    async def test_a_fault_of_our_own_is_not_hidden_by_the_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(_: object, __: float) -> float:
            raise RuntimeError("a fault in the watch")

        async def block() -> None:
            async with open_http_pool() as pool:
                pool.watch.by(trio.current_time())
                try:
                    await trio.Event().wait()
                finally:
                    raise KeyError

        monkeypatch.setattr(HttpPool, "look", broken)
        with pytest.raises(ExceptionGroup) as caught:
            await block()
        assert {type(each) for each in caught.value.exceptions} == {RuntimeError, KeyError}

    async def test_a_cancelled_block_ends_cancelled(self) -> None:
        passed: list[str] = []
        with trio.CancelScope() as scope:
            async with open_http_pool():
                scope.cancel()
                await trio.Event().wait()
            passed.append("the block's end")
        assert scope.cancelled_caught
        assert not passed

    async def test_a_context_that_does_not_verify_opens_no_pool(self, tls: Tls) -> None:
        context = tls.client_context()
        context.check_hostname = False
        with pytest.raises(ConfigError):
            await use(open_http_pool(tls_context=context))


class TestDiscretion:
    async def test_neither_logs_nor_errors_name_what_was_sent(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        problems: list[ExchangeFailed] = []

        async def script(peer: Peer) -> None:
            await peer.answer(b"HTTP/1.1 200 OK\r\nsecret: secret\r\ncontent-length: 6\r\n\r\nsecret")
            await peer.answer(b"secret")
            await peer.gone()

        async with peers(script) as server, open_http_pool() as pool:
            request = HttpRequest(server.origin, b"POST", b"/secret", ((b"secret", b"secret"),), b"secret")
            await pool.exchange(request, ENDLESS)
            for each in (request, request._replace(target=b"/secret secret")):
                with pytest.raises(ExchangeFailed) as caught:
                    await pool.exchange(each, ENDLESS)
                problems.append(caught.value)
        assert [problem.code for problem in problems] == ["protocol_error", "request_malformed"]
        assert "secret" not in "".join(f"{problem!r} {problem.__cause__!r}" for problem in problems)
        assert not caplog.records


async def failing(exchange: Awaitable[object], code: str) -> None:
    with pytest.raises(ExchangeFailed) as caught:
        await exchange
    assert caught.value.code == code


async def overdue(pool: HttpPool, request: HttpRequest, deadlines: Deadlines, after_s: float) -> ExchangeFailed:
    """The failure of an exchange that must end exactly then."""
    start_s = trio.current_time()
    with pytest.raises(ExchangeFailed) as caught:
        await pool.exchange(request, deadlines)
    assert trio.current_time() - start_s == pytest.approx(after_s)
    return caught.value


async def cancelled_after(seconds: float, exchange: Awaitable[object]) -> None:
    with trio.move_on_after(seconds) as scope:
        await exchange
    assert scope.cancelled_caught


async def use(manager: AbstractAsyncContextManager[object]) -> None:
    async with manager:
        pass
