"""Who owns which shard, in memory: what ``actors/store/shards.py`` does in Postgres, as one step each."""

from __future__ import annotations

from collections.abc import Collection

from actors.memory_tables import MemoryDatabase, ShardRow
from actors.ports import Holding


def hold_shards(database: MemoryDatabase, me: str, shards: Collection[int], lease_s: float, *, stays: bool) -> Holding:
    """Renew what an incarnation owns of these shards and take what is free."""
    now_s = database.unix_s()
    held: dict[int, int] = {}
    database.beats.pop(me, None)
    if database.holds_lease(me, now_s):
        if stays:
            database.beats[me] = now_s + lease_s
        for shard in sorted(shards):
            row = database.shards.setdefault(shard, ShardRow())
            if row.owner in (None, me) or row.lease_until_s <= now_s:
                row.epoch += row.owner != me
                row.owner, row.lease_until_s = me, now_s + lease_s
                held[shard] = row.epoch
    members = {id for id, until_s in database.beats.items() if until_s > now_s and database.holds_lease(id, now_s)}
    return Holding(held, frozenset(members | {me} if database.holds_lease(me, now_s) else members))


def free_shards(database: MemoryDatabase, me: str, shards: Collection[int]) -> None:
    """Give up those of these shards that an incarnation owns."""
    for shard in shards:
        row = database.shards.get(shard)
        if row is not None and row.owner == me:
            row.owner, row.lease_until_s = None, float("-inf")
