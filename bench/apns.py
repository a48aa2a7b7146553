"""What a push through APNs costs: our provider over one HTTP/2 connection, the sandbox in another process.

``python -m bench.apns``. The figure that matters is the CPU of this process, the client, for one notification: building the
request, writing it to a stream, reading and classing the answer.
"""

from __future__ import annotations

import os
import resource
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import click
import httpx
import trio
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from actors.io.h2 import H2Limits, open_h2_pool
from actors.io.http_terms import Deadlines
from bench.rig import ROOT, contestant
from dispatcher.ids import RANDOM_BITS, uuid7
from dispatcher.model import Channel, Delivery, NotificationId, OrganizationId, ProviderConfig
from dispatcher.outcome import OutcomeClass
from dispatcher.providers.apns import BoundApns, bind
from dispatcher.providers.provider import Moment

WARM_UP = 500


@frozen
class Measured:
    """One run over one connection. ``streams_max`` were in flight at most."""

    count: int
    concurrency: int
    seconds: float
    client_cpu_s: float
    streams_max: int

    @property
    def per_s(self) -> float:
        """Notifications a second."""
        return self.count / self.seconds

    @property
    def client_cpu_us(self) -> float:
        """Of this process, for each."""
        return self.client_cpu_s / self.count * 1e6


@contextmanager
def running_sandbox() -> Iterator[tuple[str, ssl.SSLContext]]:
    """A sandbox in a process of its own: where its APNs listens, and a context that trusts it."""
    command = [sys.executable, "-m", "dispatcher_sandbox", "--port", "0"]
    with contestant(command, {**os.environ, "PYTHONPATH": str(ROOT / "http")}) as sandbox:
        url = next(word for word in sandbox.first_line.split() if word.startswith("http://"))
        apns_url: str = httpx.get(f"{url}/_sandbox/").json()["urls"]["apns"]
        yield apns_url, ssl.create_default_context(cadata=httpx.get(f"{url}/_sandbox/ca.pem").text)


def provider(url: str) -> BoundApns:
    """Our provider, with a key of this run."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    credentials = {"team_id": "TEAMTEAM01", "key_id": "KEYKEYKEY1", "private_key": pem}
    settings = {"topic": "org.example.tickets", "base_url": url}
    config = ProviderConfig("1", OrganizationId("bench"), Channel.PUSH, "apns", settings, credentials, revision=1)
    return bind(config, {url})


async def measure(url: str, context: ssl.SSLContext, *, count: int, concurrency: int) -> Measured:
    """Send ``count`` notifications, ``concurrency`` at a time."""
    bound, random, deadlines = provider(url), Random(1), Deadlines()
    deliveries = [
        Delivery(
            NotificationId(uuid7(1_700_000_000_000 + number, random.getrandbits(RANDOM_BITS))),
            OrganizationId("bench"),
            Channel.PUSH,
            random.randbytes(32).hex(),
            {"title": "Doors", "text": "They open at seven. See you there!", "data": {"seat": "B7"}},
            attempt=1,
            attempts_max=8,
            created_at_s=1_700_000_000.0,
        )
        for number in range(WARM_UP + count)
    ]
    streams_max = 0
    async with open_h2_pool(limits=H2Limits(connections_per_account_max=1), tls_context=context) as pool:

        async def caller(mine: list[Delivery]) -> None:
            nonlocal streams_max
            for number, delivery in enumerate(mine):
                response = await pool.exchange(bound.request(delivery, Moment(time.time(), random.randbytes)), deadlines)
                assert bound.classify(response, 0.0).kind is OutcomeClass.DELIVERED
                if not number % 16:
                    streams_max = max(streams_max, pool.statistics().streams + 1)

        async def send(some: list[Delivery]) -> None:
            async with trio.open_nursery() as nursery:
                for number in range(concurrency):
                    nursery.start_soon(caller, some[number::concurrency])

        await send(deliveries[:WARM_UP])
        began_s, cpu_s = time.perf_counter(), _cpu_s()
        await send(deliveries[WARM_UP:])
        measured = Measured(count, concurrency, time.perf_counter() - began_s, _cpu_s() - cpu_s, streams_max)
        assert pool.statistics().opened_total == 1
        return measured


def run(*, count: int, concurrencies: tuple[int, ...] = (1, 16, 128)) -> list[Measured]:
    """Measure with so many calls at a time, one after the other."""
    with running_sandbox() as (url, context):
        return [trio.run(_measure, url, context, count, concurrency) for concurrency in concurrencies]


async def _measure(url: str, context: ssl.SSLContext, count: int, concurrency: int) -> Measured:
    return await measure(url, context, count=count, concurrency=concurrency)


def report(results: list[Measured]) -> None:
    """Print a table."""
    print("APNs over one HTTP/2 connection")
    print(f"{'at a time':>10} {'streams':>8} {'per second':>11} {'client CPU, µs each':>20}")
    for result in results:
        print(f"{result.concurrency:>10} {result.streams_max:>8} {result.per_s:>11.0f} {result.client_cpu_us:>20.0f}")


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@click.command()
@click.option("--count", default=5_000, show_default=True, help="Notifications of one run.")
def main(count: int) -> None:
    """Measure pushes through APNs."""
    report(run(count=count))


if __name__ == "__main__":
    main()
