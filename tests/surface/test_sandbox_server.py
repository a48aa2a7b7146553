"""The sandbox on real sockets. Where time matters it is Trio's virtual one."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import orjson
import pytest
import trio
from trio.testing import MockClock

from dispatcher_sandbox import Behaviour, Limits, Outage, Sandbox, open_sandbox
from dispatcher_sandbox.server import LINGER_S, accept
from house import Tls
from sandbox_mails import AUTHORIZATION, NOTIFICATION, mail

HEADERS = {"authorization": AUTHORIZATION}


@pytest.fixture
def clock() -> MockClock:
    """Jumps when nothing has happened for a moment, so that bytes on their way through the loopback are not overtaken."""
    return MockClock(autojump_threshold=0.002)


class Client:
    """One connection, written and read by hand."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def send(self, *requests: bytes) -> None:
        await self.stream.send_all(b"".join(requests))

    async def answer(self, *, body: bool = True) -> tuple[int, bytes, bytes]:
        """The next answer: status, head, body."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            await self._fill()
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0) if body else 0
        while len(self._buffer) < length:
            await self._fill()
        content = bytes(self._buffer[:length])
        del self._buffer[:length]
        return int(head.split(b" ", 2)[1]), head, content

    async def ends(self) -> bool:
        """Whether the connection is over without another byte."""
        try:
            return not self._buffer and await self.stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True

    async def _fill(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._buffer += data


def port_of(sandbox: Sandbox) -> int:
    port = httpx.URL(sandbox.url).port
    assert port is not None
    return port


async def all_gone(sandbox: Sandbox) -> None:
    """Until no connection is left; ``clock`` makes it take no time."""
    while sandbox.statistics().connections:  # noqa: ASYNC110 - the other side's end raises no event here
        await trio.sleep(0.1)


@asynccontextmanager
async def connected(sandbox: Sandbox) -> AsyncIterator[Client]:
    stream = await trio.open_tcp_stream("127.0.0.1", port_of(sandbox))
    async with stream:
        yield Client(stream)


def post(document: Any = None, *, extra: bytes = b"", version: bytes = b"1.1") -> bytes:
    body = orjson.dumps(mail() if document is None else document)
    return (
        b"POST /v3/mail/send HTTP/%b\r\nHost: x\r\nAuthorization: %b\r\nContent-Type: application/json\r\n"
        b"%bContent-Length: %d\r\n\r\n%b" % (version, AUTHORIZATION.encode(), extra, len(body), body)
    )


def to(address: str, notification_id: str = NOTIFICATION) -> bytes:
    return post(mail(address, notification_id=notification_id))


async def test_an_ordinary_client_is_served() -> None:
    async with open_sandbox() as sandbox, httpx.AsyncClient(base_url=sandbox.url, headers=HEADERS) as client:
        accepted = await client.post("/v3/mail/send", json=mail())
        refused = await client.post("/v3/mail/send", json=mail(subject=""))
        missing = await client.get("/nowhere")
        summary = (await client.get("/_sandbox/ledger/summary")).json()
        statistics = (await client.get("/_sandbox/statistics")).json()

    assert (accepted.status_code, accepted.content) == (202, b"")
    assert len(accepted.headers["x-message-id"]) == 22
    assert accepted.headers["date"].endswith("GMT")
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["field"] == "subject"
    assert missing.status_code == 404
    assert (summary["requests"], summary["accepted"]) == (2, 1)
    assert (statistics["connections"], statistics["requests"]) == (1, 2)
    assert statistics["cpu_s"] > 0


async def test_a_blocking_client_in_a_thread_is_served_too() -> None:
    async with open_sandbox() as sandbox:

        def talk() -> list[int]:
            with httpx.Client(base_url=sandbox.url, headers=HEADERS) as client:
                return [client.post("/v3/mail/send", json=mail()).status_code for _ in range(3)]

        assert await trio.to_thread.run_sync(talk) == [202, 202, 202]
        assert sandbox.ledger.effects(NOTIFICATION) == 3
        assert sandbox.statistics().connections_total == 1


async def test_the_behaviour_can_be_set_from_inside_and_from_outside() -> None:
    async with open_sandbox() as sandbox, httpx.AsyncClient(base_url=sandbox.url, headers=HEADERS) as client:
        sandbox.change(outage=True)
        assert (await client.post("/v3/mail/send", json=mail())).status_code == 503
        assert (await client.put("/_sandbox/behaviour", json={"error_mix": {"500": 1}})).status_code == 200
        assert sandbox.behaviour == Behaviour(error_mix={500: 1.0})
        assert (await client.post("/v3/mail/send", json=mail())).status_code == 500
        sandbox.behaviour = Behaviour()
        assert (await client.post("/v3/mail/send", json=mail())).status_code == 202


async def test_a_setting_that_does_not_exist_or_does_not_hold_is_refused() -> None:
    async with open_sandbox() as sandbox:
        with pytest.raises(TypeError, match="latency"):
            sandbox.change(latency=1)
        with pytest.raises(ValueError, match="latency_s"):
            sandbox.change(latency_s=-1)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as client:
        await client.send(to("status-418@sandbox.test"), to("a@example.com"), to("status-419@sandbox.test"))

        assert [(await client.answer())[0] for _ in range(3)] == [418, 202, 419]


async def test_a_chunked_body_is_read() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        raw = orjson.dumps(mail())
        for start in range(0, len(raw), 50):
            yield raw[start : start + 50]

    async with open_sandbox() as sandbox, httpx.AsyncClient(base_url=sandbox.url, headers=HEADERS) as client:
        answer = await client.post("/v3/mail/send", content=pieces(), headers={"content-type": "application/json"})

    assert answer.status_code == 202


async def test_a_request_that_arrives_byte_by_byte_is_read() -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as client:
        raw = post()
        for start in range(len(raw)):
            await client.send(raw[start : start + 1])

        assert (await client.answer())[0] == 202


async def test_a_thousand_connections_are_held_and_each_is_answered() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        async with open_sandbox() as sandbox, trio.open_nursery() as nursery:
            answered, leave = [], trio.Event()

            async def talk(number: int) -> None:
                async with connected(sandbox) as client:
                    await client.send(to("a@example.com", f"n{number}"))
                    answered.append((await client.answer())[0])
                    await leave.wait()

            for number in range(1100):
                nursery.start_soon(talk, number)
            while len(answered) < 1100:
                await trio.lowlevel.checkpoint()

            assert sandbox.statistics().connections == 1100
            assert set(answered) == {202}
            assert len(sandbox.ledger.notifications) == 1100
            leave.set()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_connection_beyond_the_limit_waits_for_room(clock: MockClock) -> None:
    async with open_sandbox(limits=Limits(connections_max=1)) as sandbox, connected(sandbox) as second:
        async with connected(sandbox) as third:
            await second.send(post())
            await third.send(post())
            assert (await second.answer())[0] == 202
            with trio.move_on_after(5) as waited:
                await third.answer()
            assert waited.cancelled_caught
            assert sandbox.statistics().connections == 1
            await second.stream.aclose()
            assert (await third.answer())[0] == 202


async def test_close_is_honoured() -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as client:
        await client.send(post(extra=b"Connection: close\r\n"), post())
        status, head, _ = await client.answer()

        assert status == 202
        assert b"Connection: close" in head
        assert await client.ends()
        assert sandbox.ledger.accepted == 1


async def test_an_old_client_is_answered_and_let_go() -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as client:
        await client.send(post(version=b"1.0"))

        assert (await client.answer())[0] == 202
        assert await client.ends()


async def test_the_answer_to_head_has_no_body() -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as client:
        await client.send(b"HEAD /v3/mail/send HTTP/1.1\r\nHost: x\r\n\r\n", post())

        assert (await client.answer(body=False))[0] == 405
        assert (await client.answer())[0] == 202


async def test_a_client_may_ask_before_it_sends_its_body() -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as client:
        head, body = post(extra=b"Expect: 100-continue\r\n").split(b"\r\n\r\n", 1)
        await client.send(head + b"\r\n\r\n")
        assert (await client.answer())[0] == 100
        await client.send(body)
        assert (await client.answer())[0] == 202


async def test_a_mail_that_is_too_large_is_refused_while_it_is_still_being_sent() -> None:
    limits = Limits(body_bytes_max=1000)
    async with open_sandbox(limits=limits) as sandbox, httpx.AsyncClient(base_url=sandbox.url, headers=HEADERS) as client:
        large = mail(content=[{"type": "text/plain", "value": "x" * 5_000_000}])
        answer = await client.post("/v3/mail/send", json=large)

        assert answer.status_code == 413
        assert "text/html" in answer.headers["content-type"]
        assert (await client.post("/v3/mail/send", json=mail())).status_code == 202


async def test_who_never_stops_sending_is_cut_off(clock: MockClock) -> None:
    async with open_sandbox(limits=Limits(body_bytes_max=10)) as sandbox, connected(sandbox) as client:
        began = trio.current_time()
        await client.send(post())
        assert (await client.answer())[0] == 413
        assert await client.ends()
        await client.send(b"and on and on")
        await all_gone(sandbox)

        assert LINGER_S <= trio.current_time() - began < LINGER_S + 5


async def test_what_is_not_http_is_refused_after_the_requests_before_it() -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as client:
        await client.send(post(), b"and so on\r\n\r\n")

        assert [(await client.answer())[0] for _ in range(2)] == [202, 400]
        assert await client.ends()


async def test_an_endless_head_is_refused() -> None:
    async with open_sandbox(limits=Limits(header_bytes_max=1000)) as sandbox, connected(sandbox) as client:
        await client.send(b"GET / HTTP/1.1\r\n")
        for _ in range(100):
            await client.send(b"X-More: and more\r\n")

        assert (await client.answer())[0] == 431


async def test_a_dropped_request_has_taken_effect_and_ends_the_connection() -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as client:
        await client.send(to("a@example.com", "1"), to("drop@sandbox.test", "2"), to("a@example.com", "3"))

        assert (await client.answer())[0] == 202
        assert await client.ends()
        assert sandbox.ledger.notifications.at_least(1) == {"1": 1, "2": 1}


async def test_an_outage_that_closes_accepts_nothing() -> None:
    async with open_sandbox(behaviour=Behaviour(outage=Outage.CLOSE)) as sandbox, connected(sandbox) as client:
        await client.send(post())

        assert await client.ends()
        assert sandbox.ledger.accepted == 0


async def test_a_silent_request_is_never_answered(clock: MockClock) -> None:
    async with open_sandbox(behaviour=Behaviour(outage=Outage.SILENT)) as sandbox:
        async with connected(sandbox) as client:
            await client.send(post())
            with trio.move_on_after(300) as waited:
                await client.answer()
            assert waited.cancelled_caught
            assert sandbox.statistics().connections == 1
        await all_gone(sandbox)


async def test_silence_ends_at_last(clock: MockClock) -> None:
    async with open_sandbox(behaviour=Behaviour(outage=Outage.SILENT)) as sandbox, connected(sandbox) as client:
        await client.send(post())
        began = trio.current_time()

        assert await client.ends()
        assert 600 <= trio.current_time() - began < 700


async def test_latency_passes_before_the_answer_and_after_the_effect(clock: MockClock) -> None:
    async with open_sandbox(behaviour=Behaviour(latency_s=200)) as sandbox, connected(sandbox) as client:
        began = trio.current_time()
        await client.send(post())
        with trio.move_on_after(100):
            await client.answer()
        assert sandbox.ledger.accepted == 1
        assert (await client.answer())[0] == 202
        assert 200 <= trio.current_time() - began < 300


async def test_it_says_how_many_answers_it_holds_back(clock: MockClock) -> None:
    """Silence counts until the client gives up; what is answered at once never does."""
    async with open_sandbox(behaviour=Behaviour(latency_s=5)) as sandbox, connected(sandbox) as slow, connected(sandbox) as mute:
        await slow.send(post())
        while sandbox.statistics().under_way != 1:
            await trio.lowlevel.checkpoint()
        sandbox.change(outage=Outage.SILENT)
        await mute.send(post())
        await slow.answer()
        held_back = sandbox.statistics().under_way
        await mute.stream.aclose()
        while sandbox.statistics().under_way:
            await trio.lowlevel.checkpoint()

    assert held_back == 1


async def test_requests_that_come_together_wait_together(clock: MockClock) -> None:
    async with open_sandbox(behaviour=Behaviour(latency_s=10)) as sandbox, connected(sandbox) as client:
        began = trio.current_time()
        await client.send(post(), post(), post())

        assert [(await client.answer())[0] for _ in range(3)] == [202, 202, 202]
        assert 10 <= trio.current_time() - began < 20


async def test_a_late_answer_does_not_hold_up_those_before_it(clock: MockClock) -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as client:
        began = trio.current_time()
        await client.send(to("a@example.com", "1"), to("slow-30@sandbox.test", "2"))

        assert (await client.answer())[0] == 202
        assert trio.current_time() - began < 30
        assert (await client.answer())[0] == 202
        assert trio.current_time() - began >= 30


@pytest.mark.parametrize("sent", [b"", b"POST /v3/mail/send HTTP/1.1\r\nContent-Le", post()[:-5]])
async def test_a_connection_on_which_nothing_moves_is_closed(sent: bytes, clock: MockClock) -> None:
    async with open_sandbox(limits=Limits(idle_s=20)) as sandbox, connected(sandbox) as client:
        began = trio.current_time()
        await client.send(sent)

        assert await client.ends()
        assert 20 <= trio.current_time() - began < 30


async def test_a_connection_in_use_is_not_idle(clock: MockClock) -> None:
    async with open_sandbox(limits=Limits(idle_s=20)) as sandbox, connected(sandbox) as client:
        for _ in range(6):
            await trio.sleep(15)
            await client.send(post())
            assert (await client.answer())[0] == 202


async def test_a_client_that_vanishes_harms_nobody() -> None:
    async with open_sandbox() as sandbox:
        for raw in (post(), post()[:-5], b"", to("slow-1@sandbox.test")):
            async with connected(sandbox) as client:
                await client.send(raw)
                client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        async with connected(sandbox) as client:
            await client.send(post())
            assert (await client.answer())[0] == 202


async def test_a_slow_reader_gets_a_large_answer_whole() -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as client:
        for number in range(300_000):
            sandbox.ledger.notifications.add(f"a notification with a rather long name {number}")
        await client.send(b"GET /_sandbox/ledger HTTP/1.1\r\nHost: x\r\n\r\n", post())
        status, _, body = await client.answer()

        assert status == 200
        assert len(orjson.loads(body)["notifications"]) == 300_000
        assert (await client.answer())[0] == 202


async def test_one_who_does_not_read_does_not_hold_up_the_others() -> None:
    async with open_sandbox() as sandbox, connected(sandbox) as idler:
        for number in range(300_000):
            sandbox.ledger.notifications.add(f"a notification with a rather long name {number}")
        await idler.send(b"GET /_sandbox/ledger HTTP/1.1\r\nHost: x\r\n\r\n")
        async with connected(sandbox) as client:
            await client.send(post())
            assert (await client.answer())[0] == 202


async def test_the_end_closes_every_connection_at_once(clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with open_sandbox(behaviour=Behaviour(latency_s=500)) as sandbox:
            ended: list[bool] = []

            async def wait(raw: bytes) -> None:
                async with connected(sandbox) as client:
                    await client.send(raw)
                    ended.append(await client.ends())

            for raw in (b"", b"GET", post(), post(mail(subject=""))):
                nursery.start_soon(wait, raw)
            await trio.sleep(10)
            left = trio.current_time()
        nursery.cancel_scope.deadline = left + 1

    assert ended == [True] * 4


async def test_its_port_is_free_again_after_the_end() -> None:
    async with open_sandbox() as first, connected(first) as client:
        port = port_of(first)
        await client.send(post())
        await client.answer()
    async with open_sandbox(port=port) as second:
        assert second.url == f"http://127.0.0.1:{port}"


async def test_a_taken_port_is_an_error_at_once() -> None:
    async with open_sandbox() as sandbox:
        with pytest.raises(OSError, match="in use"):
            async with open_sandbox(port=port_of(sandbox)):
                raise AssertionError("it opened")


async def test_tls_is_served(tls: Tls) -> None:
    async with open_sandbox(tls=tls.server_context()) as sandbox:
        async with httpx.AsyncClient(base_url=sandbox.url, headers=HEADERS, verify=tls.client_context()) as client:
            answers = [await client.post("/v3/mail/send", json=mail(subject="x" * size)) for size in (1, 100_000)]

        assert sandbox.url.startswith("https://127.0.0.1:")
        assert [answer.status_code for answer in answers] == [202, 202]
        assert sandbox.statistics().connections_total == 1


async def test_a_polite_end_of_tls_is_understood(tls: Tls, clock: MockClock) -> None:
    async with open_sandbox(tls=tls.server_context()) as sandbox:
        raw = await trio.open_tcp_stream("127.0.0.1", port_of(sandbox))
        stream = trio.SSLStream(raw, tls.client_context(), server_hostname="localhost")
        await stream.send_all(post())
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 202 ")
        await stream.aclose()
        await all_gone(sandbox)


@pytest.mark.parametrize("sent", [post(), b"\x16\x03\x01"])
async def test_who_does_not_speak_tls_is_let_go(sent: bytes, tls: Tls, clock: MockClock) -> None:
    async with open_sandbox(tls=tls.server_context(), limits=Limits(idle_s=5)) as sandbox:
        async with connected(sandbox) as client:
            await client.send(sent)
            with pytest.raises(EOFError):
                await client.answer()
        async with httpx.AsyncClient(base_url=sandbox.url, headers=HEADERS, verify=tls.client_context()) as good:
            assert (await good.post("/v3/mail/send", json=mail())).status_code == 202


async def test_an_address_of_the_other_family_stands_in_brackets() -> None:
    if not socket.has_ipv6:
        return
    async with open_sandbox(host="::1") as sandbox, httpx.AsyncClient(base_url=sandbox.url, headers=HEADERS) as client:
        assert sandbox.url.startswith("http://[::1]:")
        assert (await client.post("/v3/mail/send", json=mail())).status_code == 202


class _Full:
    """A listener of a process that has no file descriptor left."""

    def __init__(self, number: int) -> None:
        self._number = number

    def accept(self) -> None:
        raise OSError(self._number, "no")


async def test_without_file_descriptors_it_waits_instead_of_spinning(clock: MockClock) -> None:
    began = trio.current_time()

    assert await accept(cast("socket.socket", _Full(errno.EMFILE))) is None
    assert trio.current_time() > began


async def test_a_listener_that_broke_is_not_hidden() -> None:
    with pytest.raises(OSError, match="no"):
        await accept(cast("socket.socket", _Full(errno.EBADF)))
