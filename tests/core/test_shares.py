"""How shards are shared out: everything to somebody, about equal parts, and nothing moves that need not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.shares import preferred, share

NAMES = st.text("0123456789abcdef-", min_size=1, max_size=36)
MEMBERS = st.sets(NAMES, min_size=1, max_size=6)


def owners(members: set[str], shards: int = 64) -> list[str]:
    return [preferred(shard, members) for shard in range(shards)]


@given(MEMBERS, st.integers(0, 64))
def test_every_shard_belongs_to_exactly_one_member(members: set[str], shards: int) -> None:
    shares = [share(member, members, shards) for member in members]

    assert sorted(shard for one in shares for shard in one) == list(range(shards))


@given(MEMBERS)
def test_it_does_not_matter_who_asks_and_in_which_order_members_are_known(members: set[str]) -> None:
    assert owners(members) == [preferred(shard, sorted(members, reverse=True)) for shard in range(64)]


@given(MEMBERS, NAMES)
def test_who_joins_takes_over_and_nothing_else_moves(members: set[str], newcomer: str) -> None:
    before, after = owners(members), owners(members | {newcomer})

    assert all(new in (old, newcomer) for old, new in zip(before, after, strict=True))


@given(st.sets(NAMES, min_size=2, max_size=6))
def test_who_leaves_gives_up_only_its_own(members: set[str]) -> None:
    leaver = min(members)
    before, after = owners(members), owners(members - {leaver})

    assert all(new == old or old == leaver for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("members", [2, 3, 8])
def test_parts_are_about_equal(members: int) -> None:
    names = {f"0198c000-0000-7000-8000-0000000000{number:02}" for number in range(members)}
    parts = [len(share(name, names, 4096)) for name in names]

    assert min(parts) > 0.85 * 4096 / members
    assert max(parts) < 1.15 * 4096 / members


def test_nobody_is_no_owner() -> None:
    with pytest.raises(ValueError, match="empty"):
        preferred(0, frozenset())
