"""What does each provider cost: client CPU per notification, and what riding together gains: ``python -m bench providers``.

For every provider of the registry, in turns, round after round: building the request and reading the answer alone (*words*), and
the whole exchange over the dispatcher's own transport with the sandbox in another process (*exchange*); only the CPU of this
process counts. The connections are plain, kept and warm, so TLS is not in it. What is not called over HTTP/1.1 has no
exchange; APNs is measured by itself, over one connection of HTTP/2, see ``apns``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from random import Random
from statistics import median

import click
import trio
from attrs import define, field

from actors.io.http import Deadlines, PoolLimits, open_http_pool
from actors.tokens import fetch_token
from actors.transports import Transports
from bench import apns, batches
from bench.provider_samples import SAMPLES, Sample
from bench.rig import ROOT, contestant, servers, spread
from dispatcher.ids import RANDOM_BITS, uuid7
from dispatcher.model import Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import OutcomeClass
from dispatcher.providers.provider import Bound, Moment, Response
from dispatcher.providers.registry import REGISTRY
from dispatcher.providers.tokens import Authorizing, Token

ORGANIZATION = OrganizationId("bench")
TASKS = 16
"""Exchanges at once."""
WARM_UP = 32


@define
class Subject:
    """One provider under measurement; microseconds of CPU per notification, one value a round."""

    name: str
    sample: Sample
    bound: Bound
    deliveries: Sequence[Delivery] = field(repr=False)
    answer: Response = field(repr=False)
    token: str | None = field(default=None, repr=False)
    words_us: list[float] = field(factory=list)
    exchange_us: list[float] = field(factory=list)

    def moment(self, random: Random) -> Moment:
        """Now."""
        return Moment(time.time(), random.randbytes, self.token)


def bind(name: str, sample: Sample, url: str) -> Bound:
    """The provider as the sample configures it."""
    config = ProviderConfig(
        "bench", ORGANIZATION, sample.channel, name, sample.settings(url), sample.credentials(url), revision=1
    )
    return REGISTRY[name].bind(config, {url, sample.origin})


def deliveries(sample: Sample, url: str, count: int, random: Random) -> list[Delivery]:
    """Notifications to send, each with an id and a recipient of its own."""
    now_s = time.time()
    return [
        Delivery(
            NotificationId(uuid7(int(now_s * 1000), random.getrandbits(RANDOM_BITS))),
            ORGANIZATION,
            sample.channel,
            sample.recipient(url, number),
            sample.payload,
            1,
            8,
            now_s,
        )
        for number in range(count)
    ]


async def exchange(subject: Subject, transports: Transports, random: Random, some: Sequence[Delivery]) -> None:
    """Send these, some at once. Each must be taken: what is refused quickly is no measure."""
    waiting = iter(some)

    async def send() -> None:
        for delivery in waiting:
            response = await transports.exchange(subject.bound.request(delivery, subject.moment(random)), Deadlines())
            outcome = subject.bound.classify(response, time.time())
            if outcome.kind is not OutcomeClass.DELIVERED:
                raise SystemExit(f"{subject.name}: the sandbox did not take a notification: {outcome.code}")
            subject.answer = response

    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(send)


def words(subject: Subject, random: Random) -> None:
    """Build every request and read an answer, without sending anything."""
    for delivery in subject.deliveries:
        subject.bound.request(delivery, subject.moment(random))
        subject.bound.classify(subject.answer, time.time())


async def prepare(name: str, url: str, transports: Transports, count: int, random: Random) -> Subject:
    """Bind a provider, fetch its token if it needs one, warm up."""
    sample = SAMPLES[name]
    bound = bind(name, sample, url)
    token = None
    if isinstance(bound, Authorizing):
        fetched = await fetch_token(
            bound, transports=transports, deadlines=Deadlines(), unix_s=time.time, random_bytes=random.randbytes
        )
        if not isinstance(fetched, Token):
            raise SystemExit(f"{name}: the sandbox gave no token: {fetched.code}")
        token = fetched.text
    some = deliveries(sample, url, count, random)
    subject = Subject(name, sample, bound, some, sample.answer, token)  # type: ignore[arg-type]  # read in the next line but one
    if sample.answer is None:
        await exchange(subject, transports, random, some[:WARM_UP])
    words(subject, random)
    return subject


async def measure(url: str, rounds: int, count: int, seed: int) -> list[Subject]:
    """All providers in turns."""
    random = Random(seed)
    limits = PoolLimits(connections_per_origin_max=TASKS)
    async with open_http_pool(limits=limits) as pool:
        transports = Transports(pool)
        subjects = [await prepare(name, url, transports, count, random) for name in REGISTRY if name in SAMPLES]
        for number in range(rounds):
            for subject in subjects if number % 2 == 0 else reversed(subjects):
                began_s = time.process_time()
                words(subject, random)
                subject.words_us.append((time.process_time() - began_s) * 1e6 / count)
                if subject.sample.answer is None:
                    began_s = time.process_time()
                    await exchange(subject, transports, random, subject.deliveries)
                    subject.exchange_us.append((time.process_time() - began_s) * 1e6 / count)
    return subjects


def costs(*, rounds: int, count: int, seed: int) -> list[Subject]:
    """Measure against a sandbox of its own and print the table."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "http")}
    with contestant([sys.executable, "-m", "dispatcher_sandbox", "--port", "0"], environment) as sandbox:
        url = next(word for word in sandbox.first_line.split() if word.startswith("http://"))
        subjects = trio.run(measure, url, rounds, count, seed)
    print(f"\nProviders: client CPU µs per notification, {count:,} a turn; median [least - most] of {rounds} rounds")
    print(f"{'':<18}{'words':>24}{'exchange':>26}")
    for subject in sorted(subjects, key=lambda each: median(each.words_us)):
        whole = spread(subject.exchange_us, 1) if subject.exchange_us else "not over HTTP/1.1"
        print(f"{subject.name:<18}{spread(subject.words_us, 1):>24}{whole:>26}")
    if left_out := sorted(REGISTRY.keys() - SAMPLES.keys()):
        print(f"no sample: {', '.join(left_out)}")
    print()
    apns.report(apns.run(count=count))
    return subjects


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds of every comparison.")
@click.option("--count", default=1_000, show_default=True, help="Notifications of each provider in one turn.")
@click.option("--mails", default=12_000, show_default=True, help="Mails of one turn, alone or together; 0 leaves that out.")
@click.option("--organizations", default=20, show_default=True, help="Organizations that send those mails.")
@click.option("--seed", default=1, show_default=True)
def command(rounds: int, count: int, mails: int, organizations: int, seed: int) -> None:
    """What each provider costs, and what mails gain by riding together."""
    costs(rounds=rounds, count=count, seed=seed)
    if mails:
        with servers() as up:
            batches.main(up, rounds=rounds, count=mails, organizations=organizations, seed=seed)
