"""One HTTP/2 connection: many exchanges at once, one task that reads and one that writes.

Whoever begins a stream only puts it in line; the writer encodes all that stand there in its next turn and hands them to the
kernel in one send. So a stream that is cancelled or overdue before that turn leaves nothing behind, and what leaves in one turn
of the loop leaves in one packet.

Invariant: every stream that was begun ends exactly once, also when the connection does. ``room`` is what the peer's settings and
our own limit leave; nothing is begun on a connection that is going away.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Any, Protocol

import trio
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError

from actors.io.h2_stream import H2Stream
from actors.io.h2_terms import H2Limits
from actors.io.h2_wire import H2Client
from actors.io.http_terms import MaybeSent, NotSent, Phase
from actors.io.http_watch import Watch
from actors.io.http_wire import RECEIVE_BYTES_MAX
from actors.io.tls import TlsChannel

PING = b"dispatch"


class Home(Protocol):
    """Whom a connection tells what others may care about."""

    def has_room(self, link: H2Link) -> None:
        """A stream has ended, the settings have changed, or the connection has begun to go away."""

    def has_ended(self, link: H2Link, unsent: list[H2Stream]) -> None:
        """It is gone. Of ``unsent`` nothing was encoded: they may go elsewhere."""


class H2Link:
    """An open connection. ``run`` is its life; everything else never waits."""

    __slots__ = (
        "_client",
        "_handlers",
        "_home",
        "_limits",
        "_outbox",
        "_pinged_s",
        "_poll",
        "_scope",
        "_sock",
        "_streams",
        "_tls",
        "_unfinished",
        "_watch",
        "_work",
        "_writer",
        "answered",
        "busy_since_s",
        "code",
        "ended",
        "going",
        "heard_s",
        "idle_since_s",
        "is_new",
        "opened_s",
        "ready_by_s",
        "refused_total",
        "was_idle",
    )

    def __init__(
        self, sock: socket.socket, tls: TlsChannel, home: Home, watch: Watch, limits: H2Limits, ready_by_s: float
    ) -> None:
        self.opened_s = self.heard_s = self.idle_since_s = trio.current_time()
        self.ready_by_s = ready_by_s
        """When the peer must have sent its settings; infinite once it has."""
        self.is_new = True
        """The pool has not heard of it yet. Written by the pool."""
        self.answered = False
        """It has brought at least one answer."""
        self.code = ""
        """Why it has ended."""
        self.busy_since_s = inf
        self.going = False
        """It takes no new streams; those under way may end."""
        self.ended = False
        self.was_idle = False
        """It ended while it carried nothing."""
        self.refused_total = 0
        self._sock = sock
        self._tls = tls
        self._home = home
        self._watch = watch
        self._limits = limits
        self._client = H2Client(limits)
        self._streams: dict[int, H2Stream] = {}
        self._outbox: dict[H2Stream, None] = {}
        """Begun, not yet encoded."""
        self._unfinished: deque[H2Stream] = deque()
        """Those whose bodies wait for the peer's windows."""
        self._pinged_s = inf
        self._scope = trio.CancelScope()
        self._work = True  # the client's preface
        self._writer: trio.lowlevel.Task | None = None
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        self._poll = poll.poll
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            ResponseReceived: self._on_response,
            DataReceived: self._on_data,
            StreamEnded: self._on_end,
            StreamReset: self._on_reset,
            RemoteSettingsChanged: self._on_settings,
            ConnectionTerminated: self._on_goaway,
        }

    # --- for the pool ---------------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many streams may be begun now."""
        if self.going or self.ready_by_s < inf:  # before the peer's settings nobody knows how many it allows
            return 0
        return min(self._client.remote_settings.max_concurrent_streams, self._limits.streams_max) - self.streams

    @property
    def streams(self) -> int:
        """Under way, those not yet encoded included."""
        return len(self._streams) + len(self._outbox)

    def begin(self, stream: H2Stream) -> None:
        """Put a stream in line for the writer's next turn. Only while there is room."""
        stream.link = self
        self._outbox[stream] = None
        self._wake_writer()

    def cancel(self, stream: H2Stream) -> None:
        """Forget a stream whose caller no longer waits, and tell the peer if it knows of it."""
        if not stream.number:
            del self._outbox[stream]
        else:
            self._drop(stream)
            self._reset(stream.number)
        self._home.has_room(self)

    def end(self, phase: Phase, code: str) -> None:
        """Close at once. What may have been sent fails as that, what was handed out goes on elsewhere."""
        if self.ended:
            return
        self.ended = self.going = True
        self.code = code
        self.was_idle = not self.streams
        unsent = list(self._outbox)
        lost = list(self._streams.values())
        self._outbox.clear()
        self._streams.clear()
        for stream in lost:
            stream.lose(phase if stream.sent else "write", code)
        for stream in unsent:
            stream.link = None
        self._scope.cancel()
        self._sock.close()
        self._home.has_ended(self, unsent)

    def retire(self) -> None:
        """Close a connection without streams the polite way."""
        with suppress(OSError, ProtocolError, ssl.SSLError):
            self._client.close_connection()
            self._sock.send(self._tls.encrypt(self._client.data_to_send()) + self._tls.farewell())
        self.end("read", "closed")

    def look(self, now_s: float) -> float:
        """Fail what is overdue, ask for a sign of life. Returns when to look again."""
        if self.ready_by_s <= now_s:
            self.end("connect", "timeout_connect")
            return inf
        earliest_s = self.ready_by_s
        for stream in [*self._outbox, *self._streams.values()]:
            if stream.deadline_s <= now_s:
                self.cancel(stream)
                stream.overdue()
            elif stream.deadline_s < earliest_s:
                earliest_s = stream.deadline_s
        if not self._streams:
            return earliest_s
        quiet_since_s = max(self.heard_s, self.busy_since_s)
        if self._pinged_s < quiet_since_s:
            self._pinged_s = inf
        if self._pinged_s + self._limits.ping_wait_s <= now_s:
            self.end("read", "timeout_ping")
            return inf
        if self._pinged_s == inf and quiet_since_s + self._limits.ping_after_s <= now_s:
            self._pinged_s = now_s
            self._client.ping(PING)
            self._wake_writer()
        if self._pinged_s == inf:
            return min(earliest_s, quiet_since_s + self._limits.ping_after_s)
        return min(earliest_s, self._pinged_s + self._limits.ping_wait_s)

    # --- its tasks ------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read and write until the connection ends, whoever ends it."""
        phase: Phase = "read"
        code = "reset"
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read()
                    nursery.cancel_scope.cancel()
                code = "closed"
        except* OSError:
            pass
        except* ssl.SSLError:
            code = "tls_failed"
        except* Exception:  # the peer does not keep to the protocol, in one of the many ways in which the library says so
            phase, code = "protocol", "protocol_error"
            self._say_goodbye()
        finally:
            self.end(phase, code)

    async def _read(self) -> None:
        """Take in what comes until the peer closes."""
        receive, tls = self._sock.recv, self._tls
        open_ = self._take_in()  # settings may have come in one packet with the end of the handshake
        while open_:
            await trio.lowlevel.wait_readable(self._sock)
            with suppress(BlockingIOError):
                tls.receive(receive(RECEIVE_BYTES_MAX))
                self.heard_s = trio.current_time()
                open_ = self._take_in()

    def _take_in(self) -> bool:
        """Decrypt and understand what is there. False when the peer has closed."""
        plain: list[bytes] = []
        open_ = True
        try:
            while (data := self._tls.decrypt(RECEIVE_BYTES_MAX)) is not None:
                if not data:
                    open_ = False
                    break
                plain.append(data)
        except ssl.SSLEOFError:
            open_ = False
        if plain:
            client, handlers = self._client, self._handlers
            for event in client.receive_data(plain[0] if len(plain) == 1 else b"".join(plain)):
                handler = handlers.get(type(event))
                if handler is not None:
                    handler(event)
            # Answers to what came, and bodies that its windows let go on.
            self._wake_writer()
        return open_

    async def _write(self) -> None:
        """Send what there is to send, all of it at once, whenever there is something."""
        send, client, outbox = self._sock.send, self._client, self._outbox
        task = trio.lowlevel.current_task()
        client.initiate_connection()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if not self._work:
                self._writer = task
                await trio.lowlevel.wait_task_rescheduled(abort)
            self._work = False
            if outbox and not self._streams and self._poll(0):
                await trio.lowlevel.checkpoint()  # it has been idle: maybe the peer has closed it, which the reader then sees
                await trio.lowlevel.checkpoint()
            batch = self._encode()
            data = client.data_to_send()
            if not data:
                continue
            rest = memoryview(self._tls.encrypt(data))
            while rest:
                try:
                    rest = rest[send(rest) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._sock)
                    continue
                for stream in batch:
                    stream.sent = True
            now_s = trio.current_time()
            for stream in batch:
                if not stream.rest and stream.phase == "write":
                    self._watch.by(stream.enter("read", now_s + stream.deadlines.read_s))

    def _encode(self) -> list[H2Stream]:
        """Write down the streams in line and what the windows allow of bodies. Returns those that now leave."""
        batch = []
        outbox, client, streams = self._outbox, self._client, self._streams
        if self._unfinished:
            for _ in range(len(self._unfinished)):
                stream = self._unfinished.popleft()
                if self._streams.get(stream.number) is stream:
                    batch.append(stream)
                    self._pump(stream)
        if outbox:
            now_s = trio.current_time()
            if not streams:
                self.busy_since_s = now_s
                self._watch.by(now_s + self._limits.ping_after_s)
            for stream in list(outbox):
                if stream.deadline_s <= now_s:
                    continue  # this process stood still meanwhile: the watch ends it
                del outbox[stream]
                stream.number = client.begin(stream.fields, end=not stream.rest)
                streams[stream.number] = stream
                self._watch.by(stream.enter("write", now_s + stream.deadlines.write_s))
                batch.append(stream)
                if stream.rest:
                    self._pump(stream)
        return batch

    def _pump(self, stream: H2Stream) -> None:
        """Write down as much of a body as the peer has room for."""
        client, rest = self._client, stream.rest
        while rest:
            room = min(client.local_flow_control_window(stream.number), client.max_outbound_frame_size)
            if room <= 0:
                self._unfinished.append(stream)
                break
            piece, rest = (rest, b"") if len(rest) <= room else (rest[:room], rest[room:])
            client.send_data(stream.number, piece, end_stream=not rest)
        stream.rest = rest

    def _wake_writer(self) -> None:
        self._work = True
        if self._writer is not None:
            trio.lowlevel.reschedule(self._writer)
            self._writer = None

    # --- what the peer says ---------------------------------------------------------------------------------------------------

    def _on_response(self, event: ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.head(event.headers)

    def _on_data(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        self._client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if stream is not None and not stream.data(event.data):
            self.cancel(stream)
            stream.fail(MaybeSent("limit", "body_too_large", stream.status))

    def _on_end(self, event: StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            if stream.rest:  # it has answered without wanting to read all
                self._reset(stream.number)
            self._drop(stream)
            self.answered = True
            stream.finish()
            self._home.has_room(self)

    def _on_reset(self, event: StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            self.refused_total += event.error_code == ErrorCodes.REFUSED_STREAM
            self._drop(stream)
            stream.reset(event.error_code)
            self._home.has_room(self)

    def _on_settings(self, _event: RemoteSettingsChanged) -> None:
        self.ready_by_s = inf
        self._home.has_room(self)

    def _on_goaway(self, event: ConnectionTerminated) -> None:
        self.going = True
        last = event.last_stream_id or 0
        for number, stream in list(self._streams.items()):
            if number > last:
                self.refused_total += 1
                self._drop(stream)
                stream.fail(NotSent("read", "going_away"))
        self._home.has_room(self)

    def _reset(self, number: int) -> None:
        with suppress(ProtocolError):  # the peer has ended it meanwhile
            self._client.reset_stream(number, ErrorCodes.CANCEL)
            self._wake_writer()

    def _drop(self, stream: H2Stream) -> None:
        del self._streams[stream.number]
        self._client.open_count -= 1
        if not self._streams:
            self.idle_since_s = trio.current_time()

    def _say_goodbye(self) -> None:
        """Tell the peer what was wrong, as far as that goes out without waiting."""
        with suppress(OSError, ssl.SSLError):
            self._sock.send(self._tls.encrypt(self._client.data_to_send()))
