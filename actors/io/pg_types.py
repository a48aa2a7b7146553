"""How values travel between Python and Postgres on the dispatcher's connections.

Ids are text in the dispatcher, so ``uuid`` comes back as ``str``. JSON goes through orjson both ways (``Jsonb(value)`` to write).
Everything else is psycopg's default.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import orjson
import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Loader
from psycopg.pq import Format
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg.types.string import TextLoader


class UuidBinaryLoader(Loader):
    """For cursors that asked for binary results."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        return str(UUID(bytes=bytes(data)))


def _adapters() -> AdaptersMap:
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_loader("uuid", TextLoader)
    adapters.register_loader("uuid", UuidBinaryLoader)
    set_json_dumps(orjson.dumps, adapters)
    set_json_loads(orjson.loads, adapters)
    return adapters


ADAPTERS: Final = _adapters()
