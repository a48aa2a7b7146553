"""The HTTP/2 pool against peers that speak the protocol over real TLS, and break off, refuse, stall and change their minds."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from h2.errors import ErrorCodes
from h2.events import PingReceived
from h2.settings import SettingCodes
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.io.h2 import H2Limits, H2Pool, open_h2_pool
from actors.io.http_terms import Deadlines, ExchangeFailed, MaybeSent, NotSent
from dispatcher.errors import ConfigError
from dispatcher.http_message import HttpRequest, HttpResponse
from h2_peer import H2Peer, H2Server, Script, answering, goaway, h2_peers
from house import Tls

ONE_STREAM = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
Ends = dict[bytes, HttpResponse | ExchangeFailed]


@asynccontextmanager
async def meeting(
    script: Script, tls: Tls, settings: dict[SettingCodes, int] | None = None, **limits: Any
) -> AsyncIterator[tuple[H2Pool, H2Server]]:
    """A pool, and peers that follow a script. At the end nothing may be under way."""
    async with h2_peers(script, tls, settings) as server:
        async with open_h2_pool(limits=H2Limits(**limits), tls_context=tls.client_context()) as pool:
            with trio.fail_after(20):
                yield pool, server
            assert pool.statistics().streams == pool.statistics().waiting == 0


async def ends_of(pool: H2Pool, server: H2Server, *bodies: bytes, deadlines: Deadlines | None = None) -> Ends:
    """Send these bodies at once, in order; how each of them ends."""
    ends: Ends = {}

    async def send(body: bytes) -> None:
        try:
            ends[body] = await pool.exchange(server.post(body), deadlines or Deadlines())
        except ExchangeFailed as failure:
            ends[body] = failure

    async with trio.open_nursery() as nursery:
        for body in bodies:
            nursery.start_soon(send, body)
            await trio.lowlevel.checkpoint()
    return ends


def failed(end: HttpResponse | ExchangeFailed) -> tuple[type[ExchangeFailed], str, str]:
    assert isinstance(end, ExchangeFailed), end
    return type(end), end.phase, end.code


async def test_an_exchange_brings_back_status_headers_and_body(tls: Tls) -> None:
    async def script(peer: H2Peer) -> None:
        received = await peer.request()
        seen.update(received.headers)
        await peer.answer(received.number, 418, b"teapot", (b"apns-id", b"1"))
        await peer.gone()

    seen: dict[bytes, bytes] = {}
    async with meeting(script, tls) as (pool, server):
        response = await pool.exchange(server.post(b"tea", (b"x-kind", b"green")), Deadlines())

    assert response == HttpResponse(418, ((b"apns-id", b"1"),), b"teapot")
    assert seen[b":method"] == b"POST"
    assert seen[b":scheme"] == b"https"
    assert seen[b":path"] == b"/"
    assert seen[b":authority"] == b"127.0.0.1:%d" % server.origin.port
    assert seen[b"x-kind"] == b"green"


async def test_many_exchanges_share_one_connection_and_leave_in_few_packets(tls: Tls) -> None:
    peers: list[H2Peer] = []

    async def script(peer: H2Peer) -> None:
        peers.append(peer)
        await peer.answer_all()

    async with meeting(script, tls) as (pool, server):
        await ends_of(pool, server, b"first")
        packets = len(peers[0].received_sizes)
        bodies = [b"%d" % number for number in range(200)]
        ends: Ends = {}

        async def send(body: bytes) -> None:
            ends[body] = await pool.exchange(server.post(body), Deadlines())

        async with trio.open_nursery() as nursery:
            for body in bodies:
                nursery.start_soon(send, body)
        statistics = pool.statistics()

        assert [end.body for end in ends.values() if isinstance(end, HttpResponse)] == list(ends)
        assert server.accepted == 1
        assert (statistics.connections, statistics.idle, statistics.opened_total) == (1, 1, 1)
        assert len(peers[0].received_sizes) - packets <= 8  # TLS hands them on in records of 16 KiB at most


async def test_no_more_streams_than_the_peer_allows_and_the_others_wait_in_order(tls: Tls) -> None:
    order: list[bytes] = []
    most = 0

    async def script(peer: H2Peer) -> None:
        nonlocal most
        while True:
            received = await peer.request()
            most = max(most, peer.h2.open_inbound_streams)
            order.append(received.body)
            await peer.answer(received.number)

    async with meeting(script, tls, ONE_STREAM, connections_per_account_max=1) as (pool, server):
        bodies = [b"%02d" % number for number in range(20)]
        ends = await ends_of(pool, server, *bodies)

        assert order == bodies
        assert most == 1
        assert all(isinstance(end, HttpResponse) for end in ends.values())
        assert server.accepted == 1


async def test_a_limit_that_falls_to_one_and_rises_again_is_obeyed_at_once(tls: Tls) -> None:
    async def script(peer: H2Peer) -> None:
        held = [received.number for received in await peer.requests(4)]
        await peer.allow(1)
        for number in held[:3]:
            await peer.answer(number)
        third = await peer.request_within(0.3)
        assert third is None, "a stream is still open, and one is all there may be"
        await peer.answer(held[3])
        fifth = await peer.request()
        assert await peer.request_within(0.3) is None
        await peer.allow(100)
        rest = await peer.requests(3)
        for received in [fifth, *rest]:
            await peer.answer(received.number)
        await peer.gone()

    async with meeting(script, tls, {SettingCodes.MAX_CONCURRENT_STREAMS: 4}, connections_per_account_max=1) as (pool, server):
        ends = await ends_of(pool, server, *[b"%d" % number for number in range(8)])

    assert all(isinstance(end, HttpResponse) for end in ends.values())


async def test_who_waits_for_a_stream_waits_no_longer_than_the_pool_deadline(tls: Tls) -> None:
    arrived = trio.Event()

    async def script(peer: H2Peer) -> None:
        await peer.request()
        arrived.set()
        await peer.gone()

    async with meeting(script, tls, ONE_STREAM, connections_per_account_max=1, waiting_max=1) as (pool, server):
        async with trio.open_nursery() as nursery:
            ends: Ends = {}

            async def send(*bodies: bytes) -> None:
                ends.update(await ends_of(pool, server, *bodies, deadlines=Deadlines(pool_s=0.2, read_s=0.4)))

            nursery.start_soon(send, b"a")
            await arrived.wait()
            nursery.start_soon(send, b"b", b"c")

    assert failed(ends[b"a"]) == (MaybeSent, "read", "timeout_read")
    assert failed(ends[b"b"]) == (NotSent, "pool", "timeout_pool")
    assert failed(ends[b"c"]) == (NotSent, "pool", "pool_full")


async def test_another_connection_is_opened_when_streams_wait_but_no_more_than_allowed(tls: Tls) -> None:
    arrived: set[int] = set()
    both = trio.Event()

    async def script(peer: H2Peer) -> None:
        received = await peer.request()
        arrived.add(peer.count)
        if len(arrived) == 2:
            both.set()
        await both.wait()
        await peer.answer(received.number)
        await peer.answer_all()

    async with meeting(script, tls, ONE_STREAM, connections_per_account_max=2) as (pool, server):
        ends = await ends_of(pool, server, *[b"%d" % number for number in range(6)])

        assert all(isinstance(end, HttpResponse) for end in ends.values())
        assert server.accepted == 2


async def test_what_goaway_leaves_out_was_not_sent_and_the_rest_ends_well(tls: Tls) -> None:
    async def script(peer: H2Peer) -> None:
        if peer.count > 1:
            await peer.answer_all()
            return
        first, second, _third = await peer.requests(3)
        await peer.go_away(second.number)
        for received in (second, first):
            await peer.answer(received.number, 200, b"late")
        await peer.gone()

    async with meeting(script, tls) as (pool, server):
        ends = await ends_of(pool, server, b"1", b"2", b"3")
        again = await pool.exchange(server.post(b"again"), Deadlines())

        assert [isinstance(ends[body], HttpResponse) for body in (b"1", b"2")] == [True, True]
        assert failed(ends[b"3"]) == (NotSent, "read", "going_away")
        assert again.body == b"again"
        assert server.accepted == 2
        assert pool.statistics().refused_total == 1


async def test_answers_that_come_in_one_packet_with_goaway_count(tls: Tls) -> None:
    async def script(peer: H2Peer) -> None:
        first, _second = await peer.requests(2)
        peer.h2.send_headers(first.number, [(b":status", b"200")], end_stream=True)
        await peer.stream.send_all(goaway(first.number) + peer.h2.data_to_send())
        await peer.gone()

    async with meeting(script, tls) as (pool, server):
        ends = await ends_of(pool, server, b"1", b"2")

    assert isinstance(ends[b"1"], HttpResponse)
    assert failed(ends[b"2"]) == (NotSent, "read", "going_away")


async def test_nothing_new_begins_on_a_connection_that_goes_away(tls: Tls) -> None:
    went = trio.Event()

    async def script(peer: H2Peer) -> None:
        if peer.count > 1:
            await peer.answer_all()
            return
        received = await peer.request()
        await peer.go_away(2**31 - 1)
        went.set()
        assert await peer.request_within(0.3) is None
        await peer.answer(received.number, 200, b"old")
        await peer.gone()

    async with meeting(script, tls) as (pool, server), trio.open_nursery() as nursery:
        ends: list[HttpResponse] = []

        async def send(body: bytes) -> None:
            ends.append(await pool.exchange(server.post(body), Deadlines()))

        nursery.start_soon(send, b"1")
        await went.wait()
        await trio.sleep(0.05)
        nursery.start_soon(send, b"new")

    assert [end.body for end in ends] == [b"new", b"old"]


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [(ErrorCodes.REFUSED_STREAM, NotSent, "stream_refused"), (ErrorCodes.INTERNAL_ERROR, MaybeSent, "stream_reset")],
)
async def test_a_refused_stream_was_not_sent_another_reset_may_have_been(
    tls: Tls, code: ErrorCodes, kind: type[ExchangeFailed], name: str
) -> None:
    async def script(peer: H2Peer) -> None:
        first, second = await peer.requests(2)
        await peer.refuse(first.number, code)
        await peer.answer(second.number)
        await peer.answer_all()

    async with meeting(script, tls) as (pool, server):
        ends = await ends_of(pool, server, b"1", b"2")
        await pool.exchange(server.post(), Deadlines())

        assert failed(ends[b"1"]) == (kind, "read", name)
        assert isinstance(ends[b"2"], HttpResponse)
        assert server.accepted == 1


async def test_a_connection_killed_after_the_request_leaves_it_unknown(tls: Tls) -> None:
    async def script(peer: H2Peer) -> None:
        await peer.requests(2)

    async with meeting(script, tls) as (pool, server):
        ends = await ends_of(pool, server, b"1", b"2")

    assert {failed(end)[::2] for end in ends.values()} <= {(MaybeSent, "closed"), (MaybeSent, "reset")}


async def test_a_connection_that_ended_while_idle_is_not_used_again(tls: Tls) -> None:
    async def script(peer: H2Peer) -> None:
        received = await peer.request()
        await peer.settled()
        await peer.answer(received.number)

    async with meeting(script, tls) as (pool, server):
        for _ in range(5):
            assert (await pool.exchange(server.post(), Deadlines())).status == 200
            await server.empty()

        assert server.accepted == 5


async def test_a_connection_closed_at_the_very_moment_of_use_is_noticed_before_anything_is_sent(tls: Tls) -> None:
    peers: list[H2Peer] = []

    async def script(peer: H2Peer) -> None:
        peers.append(peer)
        received = await peer.request()
        await peer.settled()
        await peer.answer(received.number)
        await trio.sleep_forever()

    async with meeting(script, tls) as (pool, server):
        for _ in range(12):
            assert (await pool.exchange(server.post(), Deadlines())).status == 200
            peers[-1].stream.transport_stream.socket.shutdown(socket.SHUT_RDWR)  # and nobody runs in between

        assert server.accepted == 12


async def test_a_body_larger_than_the_windows_goes_on_as_they_open(tls: Tls) -> None:
    large = b"x" * 300_000
    received: list[bytes] = []

    async def script(peer: H2Peer) -> None:
        request = await peer.request()
        received.append(request.body)
        await peer.answer(request.number, 200, b"done")
        await peer.answer_all()

    async with meeting(script, tls, {SettingCodes.INITIAL_WINDOW_SIZE: 1000}) as (pool, server):
        response = await pool.exchange(server.post(large), Deadlines())

    assert response.body == b"done"
    assert received == [large]


async def test_a_reader_that_takes_nothing_more_delays_nobody_but_large_bodies(tls: Tls) -> None:
    async def script(peer: H2Peer) -> None:
        peer.acknowledges = False
        small = await peer.request()
        await peer.answer(small.number)
        await peer.gone()

    async with meeting(script, tls, {SettingCodes.INITIAL_WINDOW_SIZE: 1000}) as (pool, server):
        ends = await ends_of(pool, server, b"x" * 5000, b"small", deadlines=Deadlines(write_s=0.3))

    assert failed(ends[b"x" * 5000]) == (MaybeSent, "write", "timeout_write")
    assert isinstance(ends[b"small"], HttpResponse)


async def test_a_large_answer_comes_through_and_one_that_is_too_large_ends_its_stream_only(tls: Tls) -> None:
    async def script(peer: H2Peer) -> None:
        first, second = await peer.requests(2)
        for request, size in ((first, 60_000), (second, 200_000)):
            await peer.answer_in_pieces(request.number, b"y" * size)
        await peer.answer_all()

    async with meeting(script, tls, body_bytes_max=100_000) as (pool, server):
        ends = await ends_of(pool, server, b"1", b"2")
        after = await pool.exchange(server.post(b"after"), Deadlines())

        first = ends[b"1"]
        assert isinstance(first, HttpResponse)
        assert len(first.body) == 60_000
        assert failed(ends[b"2"]) == (MaybeSent, "limit", "body_too_large")
        assert after.body == b"after"
        assert server.accepted == 1


async def test_whoever_is_cancelled_resets_its_stream_and_leaves_the_others(tls: Tls) -> None:
    begun = trio.Event()

    async def script(peer: H2Peer) -> None:
        received = await peer.requests(2)
        begun.set()
        reset = await peer.until_reset()
        assert reset.error_code == ErrorCodes.CANCEL
        (other,) = [request for request in received if request.number != reset.stream_id]
        await peer.answer(other.number, 200, other.body)
        await peer.answer_all()

    async with meeting(script, tls) as (pool, server), trio.open_nursery() as nursery:
        ends: list[HttpResponse] = []

        async def send(body: bytes, scope: trio.CancelScope) -> None:
            with scope:
                ends.append(await pool.exchange(server.post(body), Deadlines()))

        scope = trio.CancelScope()
        nursery.start_soon(send, b"left", scope)
        nursery.start_soon(send, b"stays", trio.CancelScope())
        await begun.wait()
        scope.cancel()

    assert [end.body for end in ends] == [b"stays"]


async def test_who_is_cancelled_in_line_sends_nothing(tls: Tls) -> None:
    bodies: list[bytes] = []
    first = trio.Event()

    async def script(peer: H2Peer) -> None:
        received = await peer.request()
        first.set()
        assert await peer.request_within(0.2) is None
        await peer.answer(received.number)
        while True:
            received = await peer.request()
            bodies.append(received.body)
            await peer.answer(received.number)

    async with meeting(script, tls, ONE_STREAM, connections_per_account_max=1) as (pool, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.exchange, server.post(b"1"), Deadlines())
            await first.wait()
            with trio.move_on_after(0.05):
                await pool.exchange(server.post(b"cancelled"), Deadlines())
        await pool.exchange(server.post(b"3"), Deadlines())

    assert bodies == [b"3"]


async def test_an_answer_that_does_not_come_ends_with_the_deadline_and_the_stream_is_reset(tls: Tls) -> None:
    async def script(peer: H2Peer) -> None:
        await peer.request()
        assert (await peer.until_reset()).error_code == ErrorCodes.CANCEL
        await peer.answer_all()

    async with meeting(script, tls) as (pool, server):
        ends = await ends_of(pool, server, b"1", deadlines=Deadlines(read_s=0.1))
        after = await pool.exchange(server.post(), Deadlines())

        assert failed(ends[b"1"]) == (MaybeSent, "read", "timeout_read")
        assert after.status == 200
        assert server.accepted == 1


async def test_a_silent_connection_is_asked_for_a_sign_of_life_and_given_up_without_one(tls: Tls) -> None:
    pinged = trio.Event()

    async def script(peer: H2Peer) -> None:
        if peer.count > 1:
            await peer.answer_all()
            return
        received = await peer.request()
        while not any(isinstance(event, PingReceived) for event in peer.events):
            await peer.more()
        await peer.answer(received.number)  # and with it the answer to the ping
        await peer.request()
        pinged.set()
        await trio.sleep_forever()

    async with meeting(script, tls, ping_after_s=0.1, ping_wait_s=0.2) as (pool, server):
        lived = await pool.exchange(server.post(), Deadlines())
        ends = await ends_of(pool, server, b"1")
        after = await pool.exchange(server.post(), Deadlines())

        assert lived.status == after.status == 200
        assert failed(ends[b"1"]) == (MaybeSent, "read", "timeout_ping")
        assert pinged.is_set()
        assert server.accepted == 2


async def test_an_idle_connection_is_closed_and_an_old_one_takes_nothing_new(tls: Tls) -> None:
    async with meeting(answering, tls, idle_s=0.1) as (pool, server):
        await pool.exchange(server.post(), Deadlines())
        await server.empty()
        assert pool.statistics().connections == 0
        assert pool.statistics().expired_total == 1
    async with meeting(answering, tls, age_max_s=0.1) as (pool, server):
        await pool.exchange(server.post(), Deadlines())
        await trio.sleep(0.15)
        await pool.exchange(server.post(), Deadlines())
        assert server.accepted == 2


async def test_each_account_has_connections_of_its_own_and_the_longest_idle_one_makes_room(tls: Tls) -> None:
    async with meeting(answering, tls, connections_max=2) as (pool, server):
        for account in (b"one", b"two", b"one", b"three"):
            await pool.exchange(server.post(b"", (b"authorization", account)), Deadlines())

        assert server.accepted == 3
        assert pool.statistics().connections == 2
        await pool.exchange(server.post(b"", (b"authorization", b"one")), Deadlines())
        assert server.accepted == 3  # it was "two" that had to go


async def test_a_peer_without_http2_or_without_a_trusted_certificate_is_not_sent_to(tls: Tls) -> None:
    async with h2_peers(answering, tls, alpn="http/1.1") as server, open_h2_pool(tls_context=tls.client_context()) as pool:
        ends = await ends_of(pool, server, b"1", b"2")
        assert {failed(end) for end in ends.values()} == {(NotSent, "tls", "tls_alpn")}
    async with h2_peers(answering, tls) as server, open_h2_pool() as pool:
        ends = await ends_of(pool, server, b"1")
        assert failed(ends[b"1"]) == (NotSent, "tls", "tls_verify")


async def test_a_peer_that_never_tells_its_settings_is_not_sent_to(tls: Tls) -> None:
    async def begin_not(self: H2Peer) -> None:
        await self.stream.receive_some()
        await trio.sleep_forever()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(H2Peer, "begin", begin_not)
        async with meeting(answering, tls) as (pool, server):
            ends = await ends_of(pool, server, b"1", b"2", deadlines=Deadlines(connect_s=0.2))

    assert {failed(end) for end in ends.values()} == {(NotSent, "connect", "timeout_connect")}


async def test_a_peer_that_breaks_the_protocol_ends_everything_under_way(tls: Tls) -> None:
    async def script(peer: H2Peer) -> None:
        await peer.requests(2)
        await peer.stream.send_all(b"\x00\x00\x00\x00\x01\x00\x00\x00\x00")  # data of no stream
        await peer.gone()

    async with meeting(script, tls) as (pool, server):
        ends = await ends_of(pool, server, b"1", b"2")

    assert {failed(end) for end in ends.values()} == {(MaybeSent, "protocol", "protocol_error")}


async def test_nobody_listens(tls: Tls) -> None:
    async with h2_peers(answering, tls) as server:
        pass
    async with open_h2_pool(tls_context=tls.client_context()) as pool:
        ends = await ends_of(pool, server, b"1", b"2")

        assert {failed(end) for end in ends.values()} == {(NotSent, "connect", "refused")}
        assert pool.statistics().connections == 0


@pytest.mark.parametrize(
    "request_", [(b"/\r\nx", ()), (b"/ x", ()), (b"", ()), (b"/", ((b"name", b"a\nb"),)), (b"/", ((b"na\rme", b"a"),))]
)
async def test_nothing_breaks_out_of_a_header(tls: Tls, request_: tuple[bytes, tuple[tuple[bytes, bytes], ...]]) -> None:
    target, headers = request_
    async with meeting(answering, tls) as (pool, server):
        with pytest.raises(NotSent, match="request_malformed"):
            await pool.exchange(HttpRequest(server.origin, b"POST", target, headers), Deadlines())


async def test_when_the_pool_ends_everything_under_way_fails(tls: Tls) -> None:
    arrived = trio.Event()

    async def script(peer: H2Peer) -> None:
        await peer.request()
        arrived.set()
        await peer.gone()

    async with h2_peers(script, tls, ONE_STREAM) as server, trio.open_nursery() as nursery:
        ends: list[tuple[type[ExchangeFailed], str, str]] = []

        async def send() -> None:
            with pytest.raises(ExchangeFailed) as raised:
                await pool.exchange(server.post(), Deadlines())
            ends.append(failed(raised.value))

        limits = H2Limits(connections_per_account_max=1)
        async with open_h2_pool(limits=limits, tls_context=tls.client_context()) as pool:
            nursery.start_soon(send)
            await arrived.wait()
            nursery.start_soon(send)
            await wait_all_tasks_blocked(0.02)
        with pytest.raises(NotSent, match="pool_closed"):
            await pool.exchange(server.post(), Deadlines())

    assert sorted(end[0].__name__ for end in ends) == ["MaybeSent", "NotSent"]
    assert {end[2] for end in ends} == {"pool_closed"}


async def test_a_context_that_does_not_verify_is_refused() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ConfigError):
        async with open_h2_pool(tls_context=context):
            pass


async def test_waiting_for_a_connection_is_bounded_on_a_virtual_clock_too(autojump_clock: MockClock, tls: Tls) -> None:
    async with open_h2_pool(limits=H2Limits(waiting_max=0), tls_context=tls.client_context()) as pool:
        async with h2_peers(answering, tls) as server:
            with pytest.raises(NotSent, match="pool_full"):
                await pool.exchange(server.post(), Deadlines())
