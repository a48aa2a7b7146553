"""HTTP requests and responses as values: what a provider decides to send, and what it is shown of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Headers = Sequence[tuple[bytes, bytes]]


class Origin(NamedTuple):
    """Where a connection leads. ``host`` is a lower-case name or address literal without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class HttpRequest(NamedTuple):
    """One request, ready for the wire except for ``Host`` and ``Content-Length``, which the transport writes.

    ``method`` and ``target`` (origin form, for example ``/v3/mail/send``) are ASCII; header names are lower case.
    """

    origin: Origin
    method: bytes
    target: bytes
    headers: Headers
    body: bytes = b""

    def __repr__(self) -> str:
        return f"<{self.method.decode('latin-1')} request of {len(self.body)} bytes to {self.origin}>"


class HttpResponse(NamedTuple):
    """One whole response. Header names are lower case; ``body`` is decoded of its transfer coding only."""

    status: int
    headers: Headers
    body: bytes

    def __repr__(self) -> str:
        return f"<response {self.status} of {len(self.body)} bytes>"

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header given by its lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
