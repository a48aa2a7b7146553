"""What does one Postgres round trip cost this process, driven by Trio and driven from a worker thread?

    python bench/io_postgres.py [--url URL] [--rounds 15] [--trips 400]

Each way runs ``--trips`` round trips of one small prepared statement per round; the rounds of all ways are interleaved, so that a
busy machine is busy for all of them. Printed: CPU time of this process (its threads included, the server's not) and wall time per
round trip, median over the rounds, with the lowest and highest round. Without ``--url`` a private server is started.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent))

import psycopg
import trio

from actors.embedded.postgres import running_postgres
from actors.io.postgres import ADAPTERS, TrioConnection, open_pool

SQL = "SELECT %s::bigint + 1, %s::text"
PARAMS = (1, "a word")
PIPELINED = 100

Way = Callable[[int], Awaitable[None]]
"""Makes so many round trips."""


async def measure(url: str, rounds: int, trips: int) -> None:
    blocking = psycopg.connect(url, autocommit=True, prepare_threshold=0)
    connection = await TrioConnection.connect(url, autocommit=True, prepare_threshold=0, context=ADAPTERS)
    async with (
        open_pool(url, size_max=4, connect_deadline_s=10, statement_deadline_s=10, random=Random(0)) as pool,
        pool.session() as session,
    ):

        def blocking_trip() -> None:
            blocking.execute(SQL, PARAMS).fetchall()

        async def in_a_thread(n: int) -> None:
            for _ in range(n):
                await trio.to_thread.run_sync(blocking_trip)

        async def on_a_connection(n: int) -> None:
            for _ in range(n):
                await (await connection.execute(SQL, PARAMS)).fetchall()

        async def on_the_pool(n: int) -> None:
            for _ in range(n):
                await pool.fetch(SQL, PARAMS)

        async def on_a_session(n: int) -> None:
            for _ in range(n):
                await session.fetch(SQL, PARAMS)

        async def in_a_pipeline(n: int) -> None:
            for _ in range(n // PIPELINED):
                async with connection.pipeline():
                    cursors = [await connection.execute(SQL, PARAMS) for _ in range(PIPELINED)]
                for cursor in cursors:
                    await cursor.fetchall()

        ways: dict[str, Way] = {
            "psycopg in a worker thread": in_a_thread,
            "TrioConnection.execute": on_a_connection,
            "Pool.fetch": on_the_pool,
            "Session.fetch": on_a_session,
            f"pipeline of {PIPELINED}, each": in_a_pipeline,
        }
        cpu_us: dict[str, list[float]] = {name: [] for name in ways}
        wall_us: dict[str, list[float]] = {name: [] for name in ways}
        for way in ways.values():
            await way(PIPELINED)
        for _ in range(rounds):
            for name, way in ways.items():
                cpu, wall = time.process_time(), time.perf_counter()
                await way(trips)
                cpu_us[name].append((time.process_time() - cpu) / trips * 1e6)
                wall_us[name].append((time.perf_counter() - wall) / trips * 1e6)
    await connection.close()
    blocking.close()

    print(f"{rounds} interleaved rounds of {trips} round trips; µs per round trip, median (lowest-highest)")
    base = statistics.median(cpu_us["psycopg in a worker thread"])
    for name in ways:
        cpu = statistics.median(cpu_us[name])
        cpu_text = f"{cpu:6.1f} ({min(cpu_us[name]):.1f}-{max(cpu_us[name]):.1f})"
        wall_text = f"{statistics.median(wall_us[name]):6.1f} ({min(wall_us[name]):.1f}-{max(wall_us[name]):.1f})"
        print(f"{name:28} client CPU {cpu_text:24} x{cpu / base:4.2f}   wall {wall_text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--trips", type=int, default=400)
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url
        if url is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dispatcher-bench-"))
            url = stack.enter_context(running_postgres(Path(folder), durable=False))
        trio.run(measure, url, options.rounds, options.trips)


if __name__ == "__main__":
    main()
