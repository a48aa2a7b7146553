"""Bytes in, whole requests out: the HTTP/1.1 reading side of one connection, without a socket.

Pipelined requests come out in order. What is not a request, or is larger than allowed, ends the reading: ``refusal`` then says
what to answer before closing, after the requests already read have had their answers.
"""

from __future__ import annotations

import httptools
from attrs import field, frozen
from attrs.validators import gt

from dispatcher_sandbox.messages import Answer, Request, gateway_page


@frozen
class Limits:
    """What one server is willing to hold. A request beyond a limit is refused; a connection beyond it waits to be accepted."""

    body_bytes_max: int = field(default=30 * 1024 * 1024, validator=gt(0))
    """SendGrid's own limit of a whole mail."""
    header_bytes_max: int = field(default=64 * 1024, validator=gt(0))
    connections_max: int = field(default=8192, validator=gt(0))
    idle_s: float = field(default=75.0, validator=gt(0))
    """A connection on which nothing moves for so long is closed, in the middle of a request as well as between two."""


class _Enough(Exception):
    """Stops the parser from inside a callback."""


class RequestReader:
    """Reads one connection. Feed it what arrives; look at ``wants_continue`` and ``refusal`` after each call."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._ready: list[Request] = []
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._in_head = False
        self.refusal: Answer | None = None
        """Set when reading is over for good: the answer to give before closing."""
        self.wants_continue = False
        """The client holds its body back until it is told ``100 Continue``."""

    def feed(self, data: bytes) -> list[Request]:
        """Take what arrived; give the requests it completed. After a refusal further bytes are ignored."""
        if self.refusal is not None:
            return []
        self.wants_continue = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            if self.refusal is None:  # not the _Enough of a refused body
                raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.refusal = gateway_page(400)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.header_bytes_max and self.refusal is None:
                self.refusal = gateway_page(431)
        ready = self._ready
        if ready:
            self._ready = []
        return ready

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        """A request starts."""
        self._target = b""
        self._headers = {}
        self._body = b""
        self._body_bytes = 0
        self._head_bytes = 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is whole: refuse a body that announces itself as too large before reading it."""
        self._in_head = False
        headers = self._headers
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.body_bytes_max:
            self._refuse_body()
        if b"expect" in headers and headers[b"expect"].lower() == b"100-continue":
            self.wants_continue = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.body_bytes_max:
            self._refuse_body()
        if self._chunks:
            self._chunks.append(data)
        elif self._body:
            self._chunks = [self._body, data]
        else:
            self._body = data

    def on_message_complete(self) -> None:
        """The request is whole."""
        body = self._body
        if self._chunks:
            body = b"".join(self._chunks)
            self._chunks = []
        self._body = b""
        self.wants_continue = False
        parser = self._parser
        self._ready.append(Request(parser.get_method(), self._target, self._headers, body, parser.should_keep_alive()))

    def _refuse_body(self) -> None:
        self._chunks = []
        self._body = b""
        self.wants_continue = False
        self.refusal = gateway_page(413)
        raise _Enough
