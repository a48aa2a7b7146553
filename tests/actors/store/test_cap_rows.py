"""Frequency caps in Postgres: what is left out was never accepted, and what is kept stays short."""

from __future__ import annotations

import psycopg

from dispatcher.caps import CapUse
from schedule_world import admission, insert, postgres_world


async def test_what_a_cap_leaves_out_does_not_count_as_accepted(database_url: str) -> None:
    async with postgres_world(database_url) as world:
        batch = [admission(world, caps=(CapUse("ada", "daily", world.now_s + n, 2, 3600),)) for n in range(5)]
        assert len((await insert(world, *batch)).capped) == 3

    with psycopg.connect(database_url) as connection:
        counted = connection.execute("SELECT sum(n) FROM count_deltas WHERE what = 'accepted'").fetchone()
    assert counted == (2,)


async def test_times_that_no_later_question_needs_are_not_kept(database_url: str) -> None:
    async with postgres_world(database_url) as world:
        for hour in (-3, -2, 0):
            use = CapUse("ada", "hourly", world.now_s + hour * 3600, 5, 3600)
            await insert(world, admission(world, caps=(use,)))

    with psycopg.connect(database_url) as connection:
        kept = connection.execute("SELECT cardinality(times) FROM cap_times").fetchone()
    assert kept == (1,)
