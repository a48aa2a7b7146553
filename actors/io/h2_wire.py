"""HTTP/2 as values: what of a request goes onto a stream, what of the answer comes back. No socket, no clock, no task.

The protocol itself is the ``h2`` library's. Here is what this client settles about it: compression, checks, and how it is told to
count. Invariant: no header can break out of its line where a peer turns it into HTTP/1.1.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.events import Event
from h2.settings import SettingCodes, Settings
from hpack import Encoder, HeaderTuple, NeverIndexedHeaderTuple

from actors.io.h2_terms import H2Limits
from actors.io.http_terms import NotSent
from actors.io.http_wire import host_of
from dispatcher.http_message import HttpRequest

Fields = list[tuple[bytes, bytes]]

SWEEP_STREAMS = 64
"""The library forgets closed streams only when it counts all it has; it is made to once in so many streams."""
REPEATED_MAX = 512
"""Fields remembered of a connection, to learn which are repeated."""
INDEXED = 0x80
"""The first bit of a field that is nothing but the number of an entry of the table."""
_UNPRINTABLE = bytes(range(32)) + b"\x7f"

# What is sent holds recipients and credentials, and the library tells its log all of it.
logging.getLogger("hpack").setLevel(logging.WARNING)


def fields_of(request: HttpRequest) -> Fields:
    """The header block of a request, method and path first. Raises NotSent (``request_malformed``)."""
    origin, method, target, headers, _ = request
    whole = b"".join([method, target, *[name + value for name, value in headers]])
    if len(whole.translate(None, _UNPRINTABLE)) != len(whole) or b" " in target or not target:
        raise NotSent("protocol", "request_malformed")
    pseudo = [(b":method", method), (b":scheme", b"https"), (b":authority", host_of(origin)), (b":path", target)]
    return [*pseudo, *headers]


class _PlainEncoder(Encoder):
    """Without Huffman coding: it would save a few bytes of each request and cost as much CPU as all the rest of it.

    What stands in the table is looked up once, and again only after the table has changed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._indices: dict[tuple[bytes, bytes], bytes] = {}

    def encode(self, headers: Iterable[HeaderTuple], huffman: bool = False) -> bytes:  # type: ignore[override]
        if self.header_table.resized:
            self._indices.clear()
        return super().encode(headers, huffman=False)

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:
        encoded = self._indices.get(to_add)
        if encoded is None:
            encoded = super().add(to_add, sensitive, huffman)
            if encoded[0] & INDEXED:
                self._indices[to_add] = encoded
            elif not sensitive:  # it has become the first entry, which moves all others
                self._indices.clear()
        return encoded


class _OutlivesGoaway(H2ConnectionStateMachine):
    """The library takes the peer's GOAWAY for the end; but the streams that it names are still answered."""

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        return [] if input_ is ConnectionInputs.RECV_GOAWAY else super().process_input(input_)


class H2Client(H2Connection):
    """The client's side of one connection, as the library keeps it."""

    def __init__(self, limits: H2Limits) -> None:
        # What is sent is checked by ``fields_of``.
        super().__init__(H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
        self.state_machine = _OutlivesGoaway()
        self.encoder = _PlainEncoder()
        ours = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes_max}
        self.local_settings = Settings(client=True, initial_values=ours)
        self.decoder.max_header_list_size = limits.header_bytes_max
        self.open_count = 0
        """Streams under way, as our own books say."""
        self._begun = 0
        self._repeated: dict[tuple[bytes, bytes], HeaderTuple | None] = {}

    @property
    def open_outbound_streams(self) -> int:
        """For the library's check before each new stream. It would go through all streams every time."""
        return self.open_count

    def begin(self, fields: Fields, *, end: bool) -> int:
        """Open a stream with this header block; returns its number."""
        number = self.get_next_available_stream_id()
        self.send_headers(number, [self._indexed(field) for field in fields], end_stream=end)
        self.open_count += 1
        self._begun += 1
        if not self._begun % SWEEP_STREAMS:
            self._open_streams(1)
        return number

    def clear_outbound_data_buffer(self) -> None:
        """Asked for by the library when the peer goes away. What waits there is for streams that may still end well."""

    def _indexed(self, field: tuple[bytes, bytes]) -> HeaderTuple:
        """A field that has been sent before goes into the compression table. Others would only push those out, above all the
        path, which names a recipient.
        """
        repeated = self._repeated
        known = repeated.get(field, field)
        if known is None:
            known = repeated[field] = HeaderTuple(*field)
        elif known is field:
            if len(repeated) >= REPEATED_MAX:
                repeated.clear()
            repeated[field] = None
            return NeverIndexedHeaderTuple(*field)
        return known  # type: ignore[return-value]
