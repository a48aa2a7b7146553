"""Which member of the fleet each shard belongs to: rendezvous hashing, the same answer wherever the same members are known.

Every pair of shard and member has a score that depends on nothing else, and the highest score wins. So a member that joins takes
over only what it scores highest in, one that leaves gives up only its own, and nothing ever moves between two that stay.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2b


def preferred(shard: int, members: Collection[str]) -> str:
    """The member that should own the shard. Raises ValueError when there is none."""
    return max(members, key=lambda member: (_score(shard, member), member))


def share(member: str, members: Collection[str], shards: int) -> frozenset[int]:
    """The shards, of ``range(shards)``, that one of the members should own: on average an equal part, never an exact one."""
    return frozenset(shard for shard in range(shards) if preferred(shard, members) == member)


def _score(shard: int, member: str) -> bytes:
    """A checksum would not do: those of two members differ by the same bits in every shard."""
    return blake2b(b"%d/%b" % (shard, member.encode()), digest_size=8).digest()
