"""The listener's side of the stream: what it hears, and how it ends when the other side refuses, leaves, or is somebody else."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, RejectConnection, Request, TextMessage

from dispatcher_http import listener
from dispatcher_http.cli import main
from dispatcher_http.listener import StreamEnded, listen
from house import Tls
from running import program

KEY = "ndk_" + "A" * 43
Serve = Callable[[trio.abc.Stream], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve one connection after the other; yields the URL."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            if context is None:
                await serve(stream)
            else:
                await serve(trio.SSLStream(stream, context, server_side=True, https_compatible=True))

    (open_listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = open_listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, handle, [open_listener]))
        yield f"http{'' if context is None else 's'}://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


class Talk:
    """The server's end of a websocket, spoken by hand."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.protocol = WSConnection(ConnectionType.SERVER)

    async def hear(self) -> object:
        """The next event, or None when the client has left."""
        for event in self.protocol.events():
            return event
        data = await self.stream.receive_some()
        if not data:
            return None
        self.protocol.receive_data(bytes(data))
        return await self.hear()

    async def say(self, *events: AcceptConnection | CloseConnection | Ping | RejectConnection | TextMessage) -> None:
        await self.stream.send_all(b"".join(self.protocol.send(event) for event in events))


async def heard(url: str, since: str | None = None) -> list[str]:
    """Everything, and how it ended."""
    told: list[str] = []
    try:
        async with listen(url, "acme", KEY, since) as events:
            async for event in events:
                told.append(event)  # noqa: PERF401 - what was heard before the end counts as well
    except StreamEnded as ended:
        told.append(f"ended {ended.code}")
    return told


async def test_it_asks_with_its_key_and_hears_whole_messages() -> None:
    asked: list[Request] = []

    async def serve(stream: trio.abc.Stream) -> None:
        talk = Talk(stream)
        request = await talk.hear()
        assert isinstance(request, Request)
        asked.append(request)
        await talk.say(AcceptConnection(), TextMessage(data="one"), TextMessage(data="tw", message_finished=False))
        await talk.say(TextMessage(data="o"))
        await talk.say(CloseConnection(code=1001, reason="going away"))

    async with server(serve) as url:
        assert await heard(url, "17-0") == ["one", "two", "ended 1001"]

    assert asked[0].target == "/v1/orgs/acme/stream?since=17-0"
    assert (b"authorization", f"Bearer {KEY}".encode()) in asked[0].extra_headers


async def test_it_answers_pings() -> None:
    answers: list[object] = []

    async def serve(stream: trio.abc.Stream) -> None:
        talk = Talk(stream)
        await talk.hear()
        await talk.say(AcceptConnection(), Ping(payload=b"there?"))
        answers.append(await talk.hear())
        await talk.say(CloseConnection(code=1000))

    async with server(serve) as url:
        assert await heard(url) == ["ended 1000"]

    assert answers == [Pong(payload=b"there?")]


async def test_a_refusal_tells_its_status() -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        talk = Talk(stream)
        await talk.hear()
        await talk.say(RejectConnection(status_code=403))

    async with server(serve) as url:
        assert await heard(url) == ["ended 403"]


async def leave_at_once(stream: trio.abc.Stream) -> None:
    await stream.receive_some()


async def leave_after_accepting(stream: trio.abc.Stream) -> None:
    talk = Talk(stream)
    await talk.hear()
    await talk.say(AcceptConnection(), TextMessage(data="half", message_finished=False))


async def speak_nonsense(stream: trio.abc.Stream) -> None:
    await stream.receive_some()
    await stream.send_all(b"220 mail.example.org ESMTP\r\n")


async def turn_to_nonsense(stream: trio.abc.Stream) -> None:
    talk = Talk(stream)
    await talk.hear()
    await talk.say(AcceptConnection(), TextMessage(data="one"))
    await stream.send_all(b"\xff" * 20)


@pytest.mark.parametrize(
    ("serve", "told"),
    [
        (leave_at_once, ["ended 0"]),
        (leave_after_accepting, ["ended 1006"]),
        (speak_nonsense, ["ended 0"]),
        (turn_to_nonsense, ["one", "ended 1002"]),
    ],
)
async def test_a_server_that_leaves_or_is_none_ends_the_stream(serve: Serve, told: list[str]) -> None:
    async with server(serve) as url:
        assert await heard(url) == told


async def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CONNECT_DEADLINE_S", 0.05)

    async def serve(stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with server(serve) as url:
        with pytest.raises(trio.TooSlowError):
            await heard(url)


async def test_leaving_early_leaves_nothing_behind() -> None:
    """No generator that is closed later by chance, no connection."""
    gone = trio.Event()

    async def serve(stream: trio.abc.Stream) -> None:
        talk = Talk(stream)
        await talk.hear()
        await talk.say(AcceptConnection(), *[TextMessage(data="again")] * 3)
        while await talk.hear() is not None:
            pass
        gone.set()

    async with server(serve) as url:
        async with listen(url, "acme", KEY) as events:
            assert await anext(events) == "again"
        with trio.fail_after(10):
            await gone.wait()


async def test_over_tls_the_certificate_is_checked(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        try:
            talk = Talk(stream)
            if isinstance(await talk.hear(), Request):
                await talk.say(AcceptConnection(), TextMessage(data="one"), CloseConnection(code=1000))
        except trio.BrokenResourceError:
            pass  # it does not trust us

    async with server(serve, tls.server_context()) as url:
        with pytest.raises(StreamEnded, match="unable to get local issuer certificate"):
            async with listen(url, "acme", KEY):
                pass
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca_file))
        known = await heard(url)

    assert known == ["one", "ended 1000"]


# --- dispatcher listen --------------------------------------------------------------------------------------


@pytest.fixture
def api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", KEY)


@pytest.mark.parametrize("key", ["", "secret", f"{KEY}\nhost: elsewhere"])
def test_the_command_wants_a_key(key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("API_KEY", key)

    assert main(["listen", "acme"]) == 1
    assert capsys.readouterr().err == "Error: set API_KEY to an API key with the scope stream:read\n"


@pytest.mark.usefixtures("api_key")
def test_the_command_says_in_one_line_that_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "acme", "--url", "http://127.0.0.1:1"]) == 1

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("Error: nobody serves at http://127.0.0.1:1: ")
    assert told.err.count("\n") == 1


@pytest.mark.usefixtures("api_key")
@pytest.mark.parametrize("url", ["localhost:8080", "ftp://localhost", "http://", "http://host:port", "http://:0"])
def test_the_command_takes_no_url_that_is_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "acme", "--url", url]) == 2
    assert "such as http://127.0.0.1:8080" in capsys.readouterr().err


async def test_the_command_prints_events_and_says_why_they_end() -> None:
    async def serve(stream: trio.abc.Stream) -> None:
        talk = Talk(stream)
        await talk.hear()
        await talk.say(AcceptConnection(), TextMessage(data='{"n":1}'), TextMessage(data='{"n":2}'))
        await talk.say(CloseConnection(code=4008))

    async with server(serve) as url, program("listen", "acme", "--url", url, settings={"API_KEY": KEY}) as process:
        status = await process.ended()

    assert status == 1
    assert process.out == '{"n":1}\n{"n":2}\n'
    assert process.err == "Error: the event stream ended with 4008\n"
