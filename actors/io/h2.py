"""Outbound HTTP/2 native to Trio: the public names.

``H2Pool.exchange`` takes and returns what :class:`~actors.io.http.HttpPool` does, and fails in the same two ways; many exchanges
share a connection. The protocol is the ``h2`` library's.

| module | one idea |
|---|---|
| h2_terms | limits, statistics, the codes that HTTP/2 adds |
| h2_wire | what goes onto a stream, and how the library is used |
| h2_stream | one exchange on its way |
| h2_connection | many exchanges on one connection |
| h2_pool | who goes where, who waits |

TLS, dialling, deadlines and failures are those of :mod:`actors.io.http`. Nothing in these modules logs, and no exception they
raise names a URL, a header or a body.
"""

from actors.io.h2_pool import H2Pool, open_h2_pool
from actors.io.h2_terms import H2Limits, H2Statistics

__all__ = ["H2Limits", "H2Pool", "H2Statistics", "open_h2_pool"]
