"""Postgres native to Trio: psycopg's protocol and types, Trio's waits, cancellation and deadlines. Import from here.

``open_pool`` is what the dispatcher uses. ``TrioConnection`` is the bare driver for who needs just one connection. The parts:
``pg_waiting`` (waits), ``pg_names`` (name lookup), ``pg_blocks`` (lock, pipeline, transaction), ``pg_connection`` (the driver),
``pg_errors`` (what errors may say), ``pg_types`` (values), ``pg_pool`` (the pool). ``bench/io_postgres.py`` measures it.
"""

from __future__ import annotations

from .pg_connection import CANCEL_DEADLINE_S, TrioConnection
from .pg_errors import is_about_content
from .pg_pool import Pool, PoolStatistics, Session, open_pool
from .pg_types import ADAPTERS

__all__ = [
    "ADAPTERS",
    "CANCEL_DEADLINE_S",
    "Pool",
    "PoolStatistics",
    "Session",
    "TrioConnection",
    "is_about_content",
    "open_pool",
]
