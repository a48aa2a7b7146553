"""``python -m soak.leaks`` (``make leaks``): does anything grow that should not, under an hour of cancelled calls?

One dispatcher process works while its provider hangs, resets and refuses, listeners come and go, and configurations change; the
HTTP transport alone does the same in a process of its own. Memory is sampled every ten seconds; files, connections, places and
living actors whenever everything rests for a moment. At the end a line is laid through each. Ends with 1 when something surely
rises, a place was lost, or three quarters of an hour did not suffice to tell.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from math import isfinite
from pathlib import Path
from random import Random

import click
import httpx
import psycopg
import trio

import migrations
from running import Customer, enrol, samples, store
from soak.__main__ import base
from soak.cancels import open_files, resident_mib
from soak.fleet import Fleet
from soak.processes import Child, child
from soak.producers import Producers, Shop
from soak.run import settings
from soak.servers import Postgres, Valkey, servers
from soak.slope import Verdict, after_start_up, fit
from soak.unrest import Unrest

CYCLE_S = 40.0
REST_S = 20.0
"""After each cycle of work everything rests, at most so long: until nothing is in memory. Then what is counted is looked at: at
work it goes up and down with the machine's mood, at rest whatever is left has leaked."""
SAMPLE_S = 10.0
"""Memory is sampled all along."""
LIMITS = {"MiB": 6.0, "files": 3.0, "connections": 3.0, "places": 1.0, "actors": 3.0}
"""Growth per hour that counts as none, by unit. Memory: the least of the real leaks other projects write about is several times
that; below it, a process that is replaced once a week does not notice."""
ENOUGH_MIN = 45.0
"""Who looks for so many minutes should know: what is still undecided then is no success."""
ORGANIZATIONS = 24
IDLE_S = "3"
"""So short that actors keep falling asleep."""


class Series:
    """Samples by name; a name ends in its unit, in brackets."""

    def __init__(self) -> None:
        self.values: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    def add(self, name: str, value: float) -> None:
        """One sample, of a thing whose name ends in its unit."""
        self.values[name].append((trio.current_time(), value))

    def report(self) -> tuple[list[str], set[Verdict]]:
        """A line for each, and all their verdicts."""
        width = max(map(len, self.values), default=0)
        lines: list[str] = []
        verdicts: set[Verdict] = set()
        for name, taken in self.values.items():
            unit = name[name.rindex("(") + 1 : -1]
            slope = fit(after_start_up(taken))
            verdict = slope.verdict(LIMITS[unit])
            verdicts.add(verdict)
            error = f"{slope.error:.2f}" if isfinite(slope.error) else "?"
            lines.append(
                f"{name:<{width}}  {verdict.value:<9}  {slope.per_hour:+.2f} {unit}/h ± {error}"
                f"  ({slope.first:,.1f} → {slope.last:,.1f}, {slope.samples} samples)"
            )
        return lines, verdicts


def last_line(verdicts: Collection[Verdict], broken: bool, minutes: float) -> tuple[str, bool]:
    """What it all means, and whether that is an end with 0. ``broken``: a place was lost, or the process ended by itself."""
    if broken or Verdict.RISING in verdicts:
        return "NOT SOUND", False
    if Verdict.UNDECIDED not in verdicts:
        return "sound", True
    if minutes >= ENOUGH_MIN:
        return f"UNDECIDED after {minutes:g} minutes: nothing surely rises, and not everything is surely flat", False
    return f"too short to tell: nothing is broken, and not everything is surely flat; {ENOUGH_MIN:g} minutes should do", True


async def run(minutes: float, rate_per_s: float, folder: Path) -> tuple[list[str], bool]:
    """The report's lines, and whether it is sound."""
    series, said = Series(), ""
    lost_places: list[str] = []
    with servers(folder) as (postgres, valkey):
        migrations.up(postgres.url)
        async with child(["-m", "soak.provider"], folder / "sandbox.log") as provider:
            sandbox = await provider.serving()
            async with _dispatcher(postgres, valkey, sandbox, folder) as fleet, httpx.AsyncClient(timeout=30) as client:
                (slot,) = fleet.slots
                assert slot.url is not None
                assert slot.child is not None
                customers = await _customers(postgres.url, slot.url, sandbox, client)
                done: Counter[str] = Counter()
                async with child(["-m", "soak.cancels"], folder / "cancels.log") as cancels, trio.open_nursery() as nursery:
                    nursery.start_soon(_follow, cancels, series, lost_places)
                    nursery.start_soon(_memory, series, slot.child.pid)
                    ends_at = trio.current_time() + minutes * 60
                    for cycle in count():
                        length_s = min(CYCLE_S, ends_at - trio.current_time())
                        if length_s <= 0:
                            break
                        await _work(cycle, length_s, fleet, customers, sandbox, rate_per_s, folder, done)
                        await _rest(slot.url, sandbox, client)
                        await _count(series, slot.child.pid, slot.url, sandbox, postgres, valkey, client)
                    said = (await client.get(f"{slot.url}/metrics")).text
                    nursery.cancel_scope.cancel()
                done["ended by itself"] = sum(fleet.ended_alone.values())
    lines, verdicts = series.report()
    attempts = {name.partition("outcome=")[2].strip('"}'): n for name, n in samples(said).items() if "attempts_total" in name}
    work = ", ".join(f"{name} {count:,.0f}" for name, count in {**done, **attempts}.items())
    lines.append(f"meanwhile: {work}")
    lines += [f"! places still in use after a round: {line}" for line in lost_places[:5]]
    words, sound = last_line(verdicts, bool(lost_places or fleet.ended_alone), minutes)
    return [*lines, words], sound


@asynccontextmanager
async def _dispatcher(postgres: Postgres, valkey: Valkey, sandbox: str, folder: Path) -> AsyncIterator[Fleet]:
    chosen = {**settings(postgres.url, valkey.url, [sandbox]), "DISPATCHER_IDLE_S": IDLE_S, "DISPATCHER_KEY_CACHE_S": "5"}
    fleet = Fleet(1, chosen, folder, Random(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.run)
        await fleet.all_serving()
        yield fleet
        nursery.cancel_scope.cancel()


async def _customers(postgres_url: str, url: str, sandbox: str, client: httpx.AsyncClient) -> list[Customer]:
    async with store(postgres_url) as pool:
        keys = {f"shop-{number}": await enrol(pool, f"shop-{number}") for number in range(ORGANIZATIONS)}
    customers = [Customer(url, organization_id, key, client) for organization_id, key in keys.items()]
    for customer in customers:
        await customer.add_provider(sandbox)
    return customers


async def _follow(cancels: Child, series: Series, lost_places: list[str]) -> None:
    """What the transport on its own says after each round; a sample every ten seconds or so."""
    buffer = b""
    assert cancels.process.stdout is not None
    async for data in cancels.process.stdout:
        *lines, buffer = (buffer + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            series.add("transport alone, memory (MiB)", said["memory"])
            series.add("transport alone, open files (files)", said["files"])
            series.add("transport alone, idle places (places)", said["places"])
            if said["places in use"] or said["waiting"]:
                lost_places.append(line.decode())


async def _memory(series: Series, pid: int) -> None:
    while True:
        series.add("memory (MiB)", resident_mib(pid))
        await trio.sleep(SAMPLE_S)


async def _work(
    cycle: int,
    length_s: float,
    fleet: Fleet,
    customers: Sequence[Customer],
    sandbox: str,
    rate_per_s: float,
    folder: Path,
    done: Counter[str],
) -> None:
    """Everything at once, and then all of it cut off in the middle."""
    (slot,) = fleet.slots
    assert slot.url is not None
    shops = [Shop(customer.organization_id, customer.key) for customer in customers]
    book, first = folder / "accepted.jsonl", cycle * 10_000_000
    producers = Producers(shops, fleet, rate_per_s, book, Random(cycle), first)
    unrest = Unrest(slot.url, customers, sandbox, Random(cycle))
    with trio.move_on_after(length_s):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(producers.run)
            nursery.start_soon(unrest.run)
    done.update({**unrest.done, "accepted": producers.accepted})


async def _rest(url: str, sandbox: str, client: httpx.AsyncClient) -> None:
    """A healthy provider and no new work, until every actor sleeps."""
    (await client.put(f"{sandbox}/_sandbox/behaviour", json={})).raise_for_status()
    with trio.move_on_after(REST_S):
        while True:
            await trio.sleep(0.5)
            gauges = samples((await client.get(f"{url}/metrics")).text)
            if not gauges["dispatcher_organizations_alive"] and not gauges["dispatcher_http_listeners"]:
                return


async def _count(
    series: Series, pid: int, url: str, sandbox: str, postgres: Postgres, valkey: Valkey, client: httpx.AsyncClient
) -> None:
    gauges = samples((await client.get(f"{url}/metrics")).text)
    at_provider = (await client.get(f"{sandbox}/_sandbox/statistics")).json()["connections"] - 1
    series.add("idle connections at the provider (connections)", at_provider)
    series.add("open files beside them (files)", open_files(pid) - at_provider)
    series.add("connections at Postgres (connections)", await trio.to_thread.run_sync(_backends, postgres.url))
    series.add("connections at Valkey (connections)", await trio.to_thread.run_sync(_clients, valkey))
    series.add("calls under way (places)", gauges["dispatcher_calls_under_way"])
    series.add("claimed and in memory (places)", gauges["dispatcher_in_flight"])
    series.add("listeners (connections)", gauges["dispatcher_http_listeners"])
    series.add("organizations awake (actors)", gauges["dispatcher_organizations_alive"])


def _backends(url: str) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def _clients(valkey: Valkey) -> int:
    with valkey.client() as client:
        return len(client.client_list()) - 1


@click.command("leaks")
@click.option("--minutes", default=60.0, show_default=True, help="How long to look. A quarter of an hour says little.")
@click.option("--rate", default=40.0, show_default=True, help="Notifications per second.")
def main(minutes: float, rate: float) -> None:
    """Work for an hour while calls are cancelled and everything comes and goes; then say what grew."""
    print(f"leaks: {minutes:g} minutes, {rate:g} notifications/s, {ORGANIZATIONS} organizations", flush=True)
    with tempfile.TemporaryDirectory(prefix="leaks-", dir=base(), ignore_cleanup_errors=True) as folder:
        lines, sound = trio.run(partial(run, minutes, rate, Path(folder)))
    print("\n".join(lines))
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
