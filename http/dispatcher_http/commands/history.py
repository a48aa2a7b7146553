"""``dispatcher history``: what is kept of the past, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from actors.archive import Partition
from actors.io.postgres import Pool
from actors.store.history import PostgresArchive
from dispatcher_http.commands.environment import with_store
from dispatcher_http.commands.table import print_table

_MIB = 1024 * 1024


@click.command("history")
def command() -> None:
    """List the partitions of the history: for how many days rows are kept, of which days they are, and when they are dropped.

    The number of rows is an estimate.
    """

    async def work(pool: Pool) -> Sequence[Partition]:
        return await PostgresArchive(pool, 0.0).partitions()

    rows = []
    for span, count, size_bytes in with_store(work):
        first, end = (bound[:10] for bound in span.bounds)
        dropped = datetime.fromtimestamp(span.over_at_unix_s, UTC)
        rows.append((str(span.kept_days), first, end, str(count), f"{size_bytes / _MIB:.1f}", f"{dropped:%Y-%m-%d %H:%M}"))
    print_table(("KEPT DAYS", "FROM", "BEFORE", "ROWS", "MIB", "DROPPED AFTER"), rows)
