"""The table of shards: who may claim for which part of the organizations. Postgres decides, by its own clock.

A shard is free when nobody owns it or when its owner's lease has run out. Taking a free one adds 1 to its ``epoch`` in the same
statement, so whoever gets a shard back can tell whether somebody else had it in between. Rows are locked in the order of their
numbers, so that two processes can never wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from actors.io.postgres import Pool
from actors.ports import Holding

# An incarnation whose lease of attempts is not alive owns nothing: whatever it claimed could not pass the gate.
HOLD = """
WITH beat AS (
    UPDATE incarnations
    SET beats_until = CASE WHEN %(stays)s THEN now() + make_interval(secs => %(lease_s)s) END
    WHERE id = %(me)s AND lease_until > now() RETURNING id
), held AS (
    INSERT INTO shards AS s (shard, owner, epoch, lease_until)
    SELECT wanted.shard, beat.id, 1, now() + make_interval(secs => %(lease_s)s)
    FROM beat, unnest(%(shards)s::int[]) AS wanted(shard)
    ORDER BY wanted.shard
    ON CONFLICT (shard) DO UPDATE
    SET owner = excluded.owner, lease_until = excluded.lease_until,
        epoch = s.epoch + (s.owner IS DISTINCT FROM excluded.owner)::int
    WHERE s.owner = excluded.owner OR s.owner IS NULL OR s.lease_until <= now()
    RETURNING s.shard, s.epoch
)
SELECT (SELECT array_agg(shard) FROM held), (SELECT array_agg(epoch) FROM held),
       ARRAY(SELECT id::text FROM incarnations WHERE beats_until > now() AND lease_until > now() AND id <> %(me)s),
       EXISTS (SELECT FROM beat)
"""
RELEASE = """
WITH mine AS (
    SELECT shard FROM shards WHERE owner = %s AND shard = ANY(%s) ORDER BY shard FOR UPDATE
)
UPDATE shards s SET owner = NULL, lease_until = NULL FROM mine WHERE s.shard = mine.shard
"""


async def hold(pool: Pool, incarnation: str, shards: Collection[int], lease_s: float, *, stays: bool) -> Holding:
    """Renew what is ours of these shards, take what is free of them. Gives up after half the lease: later it is of no use."""
    params = {"me": incarnation, "shards": sorted(shards), "lease_s": lease_s, "stays": stays}
    rows: Sequence[tuple[list[int] | None, list[int] | None, list[str], bool]]
    rows = await pool.fetch(HOLD, params, deadline_s=lease_s / 2)
    ((held, epochs, others, alive),) = rows
    return Holding(dict(zip(held or (), epochs or (), strict=True)), frozenset([*others, incarnation] if alive else others))


async def release(pool: Pool, incarnation: str, shards: Collection[int]) -> None:
    """Free those of these shards that are ours."""
    await pool.execute(RELEASE, (incarnation, sorted(shards)))
