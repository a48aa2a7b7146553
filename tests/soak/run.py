"""One soak, from empty servers to evidence. Everything is real: processes, sockets, a Postgres and a Valkey of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import httpx
import trio
from attrs import frozen

import migrations
from running import Customer, enrol, environment, store
from soak.checker import gather, wait_until_quiet, watch
from soak.faults import Saboteur
from soak.fleet import Fleet
from soak.plan import Kind, faults
from soak.processes import child
from soak.producers import Producers, Shop
from soak.pulse import Pulse, rates, recovery_s
from soak.servers import servers
from soak.verdict import Findings, Reach, judge, missed

SETTINGS: Mapping[str, str] = {
    "request_deadline_s": "2",
    "lease_s": "12.1",
    "sweep_s": "0.5",
    "drain_s": "4",
    "retry_base_s": "0.1",
    "retry_cap_s": "1",
    "attempts_max": "40",
    "log_level": "warning",
}
"""Beside those of ``running.IMPATIENT``. The lease has to be ten seconds longer than a call. So many attempts that failures the
soak causes do not use them up: what fails in the end should have a reason."""
SANDBOXES = ("honours keys", "ignores keys")
WARM_UP_S = 3.0
SLOWEST_MAX = 5
COOL_DOWN_S = 5.0
"""Work goes on after the last fault, so that the recovery from the last kill can be seen."""
STILL_S = 2.0
"""After all is quiet: long enough for a process that wrongly thinks it has something to send to send it."""


@frozen
class Options:
    """What may be chosen."""

    seed: int
    minutes: float
    kills_max: float
    processes: int = 3
    organizations: int = 6
    rate_per_s: float = 100.0
    pace: float = 1.0
    only: Sequence[Kind] = ()
    settle_s: float = 180.0
    judge_recovery: bool = True


@frozen
class Outcome:
    """What one run brought."""

    options: Options
    findings: Findings
    faults: Mapping[str, int]
    missed: Mapping[str, int]
    under_way: Sequence[int]
    sending: Sequence[int | None]
    recoveries_s: Sequence[float | None]
    kills_s: Sequence[float]
    others: Sequence[tuple[float, float]]
    """When each fault that was no kill began and was over."""
    slowest: Sequence[tuple[float, Sequence[str]]]
    """The slowest recoveries, and what else went wrong from ten seconds before the kill until then."""
    quiet_after_s: float | None
    took_s: float
    cut_off: int
    """Attempts on record (where unknown: calls under way) at stops, and when a process was told again to end."""
    swallowed: int
    """Requests that took effect at the sandbox that ignores keys, and whose answer was withheld."""
    starts: int
    not_started: Mapping[str, int]
    ended_alone: Mapping[str, int]
    answers: Mapping[str, int]
    rejected: Mapping[str, int]

    @property
    def doubles_explained(self) -> int:
        """By attempts on record (where unknown: calls under way) at kills and stops, and withheld answers."""
        pairs = zip(self.sending, self.under_way, strict=True)
        return sum(under_way if sending is None else sending for sending, under_way in pairs) + self.cut_off + self.swallowed

    @property
    def reach(self) -> Reach:
        """What it was to reach."""
        kills_max = self.options.kills_max
        return Reach(
            doubled_without_key=self.findings.doubled_without_key,
            doubles_explained=self.doubles_explained,
            kills_s=self.kills_s,
            recoveries_s=self.recoveries_s,
            others=self.others,
            kills_min=0 if kills_max == float("inf") else int(kills_max),
        )

    @property
    def missed_goals(self) -> Mapping[str, Sequence[str]]:
        """What it did not reach, by name."""
        return missed(self.reach, judge_recovery=self.options.judge_recovery)

    @property
    def sound(self) -> bool:
        """Whether everything is as it must be."""
        return self.findings.sound and not self.missed_goals


def settings(postgres_url: str, redis_url: str, sandboxes: Sequence[str]) -> dict[str, str]:
    """The environment of a dispatcher in a soak."""
    return environment(postgres_url, redis_url, sandboxes, **SETTINGS)


async def run(options: Options, folder: Path) -> Outcome:
    """Soak in a folder that exists and is empty. It keeps logs and the producers' book."""
    began = trio.current_time()
    with servers(folder) as (postgres, valkey):
        migrations.up(postgres.url)
        watch(postgres.url)
        async with _sandboxes(folder) as urls, trio.open_nursery() as nursery:
            fleet = Fleet(options.processes, settings(postgres.url, valkey.url, urls), folder, Random(options.seed))
            nursery.start_soon(fleet.run)
            await fleet.all_serving()
            shops = await _shops(options.organizations, postgres.url, fleet, urls)
            producers = Producers(shops, fleet, options.rate_per_s, folder / "accepted.jsonl", Random(options.seed))
            saboteur = Saboteur(fleet, postgres, valkey, urls, float(SETTINGS["lease_s"]))
            pulse = Pulse(urls)
            async with httpx.AsyncClient() as client:
                await saboteur.calm(client)
            nursery.start_soon(pulse.run)
            async with trio.open_nursery() as work:
                work.start_soon(producers.run)
                await trio.sleep(WARM_UP_S)
                await saboteur.run(faults(options.seed, options.pace, options.only), options.kills_max, options.minutes * 60)
                await trio.sleep(COOL_DOWN_S)
                producers.stop()
            quiet_after_s = await trio.to_thread.run_sync(
                wait_until_quiet, postgres.url, valkey.url, options.settle_s, time.sleep
            )
            await trio.sleep(STILL_S)
            named = {name: (url, i == 0) for i, (name, url) in enumerate(zip(SANDBOXES, urls, strict=True))}
            book = folder / "accepted.jsonl"
            findings = await trio.to_thread.run_sync(lambda: judge(gather(book, postgres.url, valkey.url, named)))
            async with httpx.AsyncClient() as client:
                swallowed = (await client.get(f"{urls[1]}/_sandbox/ledger/summary")).json()["dropped"]
            nursery.cancel_scope.cancel()
    windows = rates(pulse.samples)
    recoveries_s = [recovery_s(windows, kill.at) for kill in saboteur.kills]
    return Outcome(
        options=options,
        findings=findings,
        faults={kind.value: count for kind, count in sorted(saboteur.done.items())},
        missed={kind.value: count for kind, count in sorted(saboteur.missed.items())},
        under_way=[kill.under_way for kill in saboteur.kills],
        sending=[kill.sending for kill in saboteur.kills],
        recoveries_s=recoveries_s,
        kills_s=[kill.at for kill in saboteur.kills],
        others=saboteur.others,
        slowest=_slowest(recoveries_s, saboteur),
        quiet_after_s=quiet_after_s,
        took_s=trio.current_time() - began,
        cut_off=saboteur.cut_off,
        swallowed=swallowed,
        starts=fleet.starts,
        not_started=fleet.not_started,
        ended_alone=fleet.ended_alone,
        answers=producers.answers,
        rejected=producers.rejected,
    )


def _slowest(recoveries_s: Sequence[float | None], saboteur: Saboteur) -> list[tuple[float, list[str]]]:
    pairs = zip(recoveries_s, saboteur.kills, strict=True)
    slowest = sorted(((took_s, kill.at) for took_s, kill in pairs if took_s), reverse=True)[:SLOWEST_MAX]
    return [
        (took_s, [f"{at - killed_at:+.1f} s {name}" for at, name in saboteur.log if -10 <= at - killed_at <= took_s])
        for took_s, killed_at in slowest
    ]


@asynccontextmanager
async def _sandboxes(folder: Path) -> AsyncIterator[list[str]]:
    """The two providers, as processes: the first honours keys."""
    async with child(["-m", "soak.provider", "--honours"], folder / "sandbox-0.log") as first:
        async with child(["-m", "soak.provider"], folder / "sandbox-1.log") as second:
            yield [await first.serving(), await second.serving()]


async def _shops(count: int, postgres_url: str, fleet: Fleet, sandboxes: Sequence[str]) -> list[Shop]:
    """Organizations with a provider each, turn by turn the one and the other sandbox."""
    shops = []
    async with store(postgres_url) as pool, httpx.AsyncClient(timeout=30) as client:
        for number in range(count):
            shop = Shop(f"shop-{number}", await enrol(pool, f"shop-{number}"))
            url = fleet.serving[0].url
            assert url is not None
            customer = Customer(url, shop.organization_id, shop.api_key, client)
            await customer.add_provider(sandboxes[number % len(sandboxes)])
            shops.append(shop)
    return shops
