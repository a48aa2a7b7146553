"""HTTP messages as values: what a client asked, and what a simulated provider answers.

Nothing here knows a socket. Header names of a request are lower case; of a repeated header the last one counts.
"""

from __future__ import annotations

import email.utils
from typing import NamedTuple


class Request:
    """One whole request. ``target`` is the request target as sent, query included; ``body`` is free of its transfer coding."""

    __slots__ = ("body", "headers", "keep_alive", "method", "target")

    def __init__(self, method: bytes, target: bytes, headers: dict[bytes, bytes], body: bytes, keep_alive: bool = True) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive

    def __repr__(self) -> str:
        """Without target, headers and body: they carry recipients and credentials."""
        return f"<Request {self.method.decode('ascii', 'replace')}, {len(self.body)} bytes>"

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


class Answer(NamedTuple):
    """One response. ``headers`` is ready for the wire: every line ends in CRLF; framing, date and server are added later."""

    status: int
    headers: bytes = b""
    body: bytes = b""


JSON = b"Content-Type: application/json\r\n"
HTML = b"Content-Type: text/html\r\n"

REASONS: dict[int, str] = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable", 409: "Conflict", 413: "Payload Too Large",
    415: "Unsupported Media Type", 422: "Unprocessable Entity", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip

_STATUS_LINES: dict[int, bytes] = {
    status: f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\nServer: nginx\r\n".encode() for status in range(200, 600)
}


def gateway_page(status: int) -> Answer:
    """The page a front server answers by itself when it never lets the request through: HTML, where a client expects JSON."""
    title = f"{status} {REASONS.get(status, 'Error')}"
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body><center><h1>{title}</h1></center></body>\r\n</html>\r\n"
    return Answer(status, HTML, page.encode())


class DateLine:
    """The ``Date`` header line, built anew once a second."""

    __slots__ = ("_line", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def at(self, now_s: float) -> bytes:
        """The line for ``now_s``, in Unix seconds."""
        second = int(now_s)
        if second != self._second:
            self._second = second
            self._line = b"Date: " + email.utils.formatdate(second, usegmt=True).encode() + b"\r\n"
        return self._line


def encode(answer: Answer, date_line: bytes, *, keep_alive: bool, head_only: bool = False) -> bytes:
    """The bytes of ``answer`` on the wire. ``head_only`` is for a HEAD request: the length of a body that is not sent."""
    status, headers, body = answer
    return b"%b%b%bContent-Length: %d\r\nConnection: %b\r\n\r\n%b" % (
        _STATUS_LINES[status],
        date_line,
        headers,
        len(body),
        b"keep-alive" if keep_alive else b"close",
        b"" if head_only else body,
    )
