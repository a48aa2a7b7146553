"""HTTP/1.1 as bytes in and values out: no socket, no clock, no task.

``encode_request`` writes one request. :class:`ResponseReader` is fed whatever the network brings, in pieces of any size,
and holds exactly one response at a time; how the bytes were cut never changes the response (a property test holds it to
that). It also decides whether the connection may carry another exchange: only when the response ended where its own
framing says and nothing came after it.
"""

from __future__ import annotations

from functools import lru_cache

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from actors.io.http_terms import MaybeSent, NotSent, Phase
from dispatcher.http_message import HttpRequest, HttpResponse, Origin

RECEIVE_BYTES_MAX = 65_536
CHUNK_FRAME_BYTES_MAX = 16
"""Framing a peer may spend per chunk, on average, before it counts against ``header_bytes_max``."""

_DEFAULT_PORTS = {"http": 80, "https": 443, "h2": 443}
_METHODS_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))


@lru_cache(maxsize=1024)
def host_of(origin: Origin) -> bytes:
    """The ``Host`` header's value: bracketed if it is an IPv6 literal, without the scheme's own port."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    if origin.port != _DEFAULT_PORTS.get(origin.scheme):
        host = f"{host}:{origin.port}"
    return host.encode("ascii")


def encode_request(request: HttpRequest, host: bytes) -> bytes:
    """The whole request in one piece, so that it leaves in one send.

    Raises NotSent (``request_malformed``) when a part would break out of its line: header injection ends here.
    """
    _, method, target, headers, body = request
    lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (method, target, host), *[b": ".join(header) for header in headers]]
    if body or method in _METHODS_WITH_BODY:
        lines.append(b"content-length: %d" % len(body))
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    # One CR and one LF for every line, and the empty one: a single character more came from a part.
    if len(head) - len(head.translate(None, b"\r\n\0")) != 2 * len(lines) + 2 or b" " in target or not target:
        raise NotSent("protocol", "request_malformed")
    return head + body


class ResponseReader:
    """Collects one response after another from a connection's bytes.

    ``begin`` starts the next response; ``feed`` and ``end`` return True once it is whole. The methods named ``on_…`` are
    the parser's callbacks. A fault raises MaybeSent, and the reader is not to be used again.
    """

    __slots__ = (
        "_body",
        "_body_bytes_max",
        "_chunks",
        "_fault",
        "_head_done",
        "_head_only",
        "_header_bytes_max",
        "_headers",
        "_parser",
        "_rest",
        "_room",
        "_wire_bytes",
        "appetite",
        "keep_alive",
        "response",
        "status",
    )

    def __init__(self, header_bytes_max: int, body_bytes_max: int) -> None:
        self.appetite = 0
        """How many bytes to feed at most: keeps a head from outgrowing its limit inside one feed."""
        self.keep_alive = False
        """Valid once the response is whole: nothing forbids another exchange on this connection."""
        self.response: HttpResponse | None = None
        self.status: int | None = None
        """The final status, from the end of its head on."""
        self._header_bytes_max = header_bytes_max
        self._body_bytes_max = body_bytes_max
        self._parser: HttpResponseParser | None = None
        self._head_only = False
        self._headers: list[tuple[bytes, bytes]] = []
        self.begin(head_only=False)

    def begin(self, head_only: bool) -> None:
        """Be ready for the response to a request just being sent; ``head_only`` when it is the answer to a HEAD."""
        # After a HEAD the parser still expects the body that the headers announced; it cannot be told otherwise.
        if self._parser is None or self._head_only:
            self._parser = HttpResponseParser(self)
        self._head_only = head_only
        self.response = None
        self.status = None
        self.appetite = min(RECEIVE_BYTES_MAX, self._header_bytes_max)
        self._headers.clear()
        self._head_done = False
        self._body = b""
        self._rest: bytearray | None = None
        self._room = self._body_bytes_max
        self._chunks = 0
        self._wire_bytes = 0
        self._fault: tuple[Phase, str] | None = None

    def feed(self, data: bytes) -> bool:
        """Take in what arrived. True when the response is whole."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if self._fault is None and self.response is None:
                raise MaybeSent("protocol", "protocol_error", self.status) from error
            self.keep_alive = False
        if self._fault is not None:
            raise MaybeSent(*self._fault, self.status)
        if self.response is not None:
            return True
        self._wire_bytes += len(data)
        # Interim responses, trailers and chunk extensions are read by the parser for as long as a peer cares to send them.
        body_bytes = self._body_bytes_max - self._room
        spare = self._header_bytes_max + CHUNK_FRAME_BYTES_MAX * self._chunks + body_bytes - self._wire_bytes
        if spare <= 0:
            raise MaybeSent("limit", "headers_too_large", self.status)
        self.appetite = RECEIVE_BYTES_MAX if self._head_done else min(RECEIVE_BYTES_MAX, spare)
        return False

    def end(self, *, clean: bool) -> bool:
        """The peer has closed. True when that completes a response delimited by the close.

        ``clean`` is False when the close may be an attacker's doing (TLS without its closing alert): then it ends nothing.
        """
        if self.response is not None:
            self.keep_alive = False
            return True
        if not self._wire_bytes:
            raise MaybeSent("read", "closed")
        if not self._head_done:
            raise MaybeSent("read", "truncated")
        codings = self._transfer_codings()
        if codings and codings != [b"chunked"]:
            raise MaybeSent("protocol", "transfer_coding_unsupported", self.status)
        if codings or not clean or any(name == b"content-length" for name, _ in self._headers):
            raise MaybeSent("read", "truncated", self.status)
        self._finish()
        self.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        if self.response is not None:
            self.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # a trailer is dropped: nobody asked for one
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        if self.response is not None:
            return
        self._head_done = True
        status = self._parser.get_status_code()
        if status == 101:
            self._fault = ("protocol", "upgrade_unasked")
        elif status >= 200:
            self.status = status
            if self._head_only:
                self._finish()

    def on_chunk_header(self) -> None:
        if self.response is not None:
            self.keep_alive = False
            return
        self._chunks += 1
        if self._chunks == 1 and self._transfer_codings() != [b"chunked"]:
            self._fault = ("protocol", "transfer_coding_unsupported")

    def on_body(self, data: bytes) -> None:
        if self.response is not None:
            self.keep_alive = False
            return
        self._room -= len(data)
        if self._room < 0:
            self._fault = ("limit", "body_too_large")
        elif self._rest is not None:
            self._rest += data
        elif self._body:
            self._rest = bytearray(data)
        else:
            self._body = data

    def on_message_complete(self) -> None:
        if self.response is not None:
            return
        if self.status is None:  # an interim response: the real one follows
            self._headers.clear()
            self._head_done = False
            return
        self._finish()

    def _transfer_codings(self) -> list[bytes]:
        return [value.strip().lower() for name, value in self._headers if name == b"transfer-encoding"]

    def _finish(self) -> None:
        assert self._parser is not None
        assert self.status is not None
        if self._fault is not None:
            return
        self.keep_alive = self._parser.should_keep_alive()
        body = self._body if self._rest is None else self._body + self._rest
        self.response = HttpResponse(self.status, tuple(self._headers), body)
