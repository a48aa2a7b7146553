"""Putting everything together: servers, schema, keys, node, surface; and taking it apart in the reverse order.

The first SIGTERM (or Ctrl-C) drains: no new requests, no new claims, calls under way may end, what is known is written down.
The second ends the process at once, which loses nothing either: that is what leases and the gate are for.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import trio
from attrs import evolve, frozen
from prometheus_client import CollectorRegistry

import migrations
from actors.embedded.postgres import embedded_postgres
from actors.embedded.valkey import embedded_valkey
from actors.hot import Loaders
from actors.io.postgres import Pool, open_pool
from actors.metrics import MetricsCollector
from actors.node import Node
from actors.opening import open_node
from actors.prober import Prober
from actors.store import encryption
from actors.store.dispatching import forget_incarnations
from dispatcher.config import Config
from dispatcher.errors import ConfigError
from dispatcher.ids import RANDOM_BITS, uuid7
from dispatcher.providers.registry import REGISTRY
from dispatcher.unsubscribe import Links
from dispatcher_http.app import App, create_app
from dispatcher_http.secret_file import keys_of_folder
from dispatcher_http.server import serve
from dispatcher_http.services import Services
from dispatcher_sandbox.doors import DOORS
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox

logger = logging.getLogger(__name__)

GC_YOUNG_OBJECTS = 10_000
"""Objects between two looks for garbage; Python's own number is 700. A batch of events makes many more and keeps them until it is
on disk, so it was looked through again and again (docs/decisions/107)."""
KILLED_STATUS = 128 + signal.SIGTERM


@frozen
class Service:
    """A running dispatcher: where it listens, and the node behind it."""

    url: str
    node: Node
    config: Config
    sandbox: Sandbox | None = None


@asynccontextmanager
async def open_servers(config: Config) -> AsyncIterator[Config]:
    """The configuration with URLs of servers that run and a schema that fits; embedded ones where none is configured.

    Raises ConfigError when a server can not be started or reached, or the schema is not the one this program knows.
    """
    data_dir = Path(config.data_dir)
    async with AsyncExitStack() as stack:
        postgres_url, redis_url, keys = config.postgres.url, config.redis.url, config.encryption_keys
        if postgres_url is None:
            postgres_url = await stack.enter_async_context(embedded_postgres(data_dir))
            for name in await trio.to_thread.run_sync(migrations.up, postgres_url):
                logger.info("applied the migration %s", name)
            await _forget_the_dead(postgres_url, config)
            if keys is None:
                keys = keys_of_folder(data_dir)
        else:
            await trio.to_thread.run_sync(migrations.check, postgres_url)
        if redis_url is None:
            redis_url = await stack.enter_async_context(embedded_valkey(data_dir))
        yield evolve(
            config,
            postgres=evolve(config.postgres, url=postgres_url),
            redis=evolve(config.redis, url=redis_url),
            encryption_keys=keys,
        )


@asynccontextmanager
async def open_service(config: Config) -> AsyncIterator[Service]:
    """A whole dispatcher, on servers that run already (see :func:`open_servers`). On leaving it drains.

    Raises ConfigError for keys that do not fit the database, or an address it can not listen on.
    """
    seeded = random.Random(secrets.randbits(64))
    async with AsyncExitStack() as stack:
        await _prepare(config, seeded)
        node = await stack.enter_async_context(
            open_node(config, incarnation=str(uuid4()), random=seeded, random_bytes=secrets.token_bytes, unix_s=time.time)
        )
        app = create_app(services_of(node, config, lambda: uuid7(time.time_ns() // 1_000_000, seeded.getrandbits(RANDOM_BITS))))
        stop = trio.Event()
        nursery = await stack.enter_async_context(trio.open_nursery())
        port = await nursery.start(_serve, app, config, stop)
        try:
            yield Service(f"http://{_host_in_url(config.surface.host)}:{port}", node, config)
        finally:
            stop.set()  # the nursery then waits for the requests under way; only after it the node drains


def services_of(node: Node, config: Config, new_id: Callable[[], str]) -> Services:
    """What the surface needs of a node."""
    loaders = Loaders(node.pool, config.encryption_keys, config.provider_urls_extra)
    random_bytes = secrets.token_bytes
    prober = Prober(loaders.provider, node.transports, new_id=new_id, random_bytes=random_bytes, unix_s=time.time)
    registry = CollectorRegistry()
    registry.register(MetricsCollector(node.metrics, node.gauges))
    return Services(
        accept=node.acceptor.accept,
        explain=node.acceptor.explain,
        events=node.event_desk,
        take_in=node.ingest.take_in,
        changed=node.changed,
        requeued=node.requeued,
        requeued_many=node.letter_news.requeued,
        discarded=node.letter_news.discarded,
        contacts_changed=node.ingest.contacts_changed,
        listen=node.herald.listen,
        probe=prober.probe,
        ready=node.ready,
        pool=node.pool,
        config=config.surface,
        providers=REGISTRY,
        registry=registry,
        encryption_keys=config.encryption_keys,
        provider_urls_extra=config.provider_urls_extra,
        attempts_max=config.dispatch.attempts_max,
        new_id=new_id,
        random_bytes=random_bytes,
        admit=node.headroom.admit,
        canceled=node.clock.canceled,
        links=Links.of(config.surface.public_url, config.encryption_keys),
    )


@asynccontextmanager
async def open_provider(config: Config, sandbox_port: int | None) -> AsyncIterator[tuple[Config, Sandbox | None]]:
    """The configuration, with a sandbox of this process allowed and trusted unless ``sandbox_port`` is None; and the sandbox.

    Port 0 takes free ones. Raises ConfigError when it can not listen on one of its ports.
    """
    if sandbox_port is None:
        yield config, None
        return
    async with AsyncExitStack() as stack:
        ports = {door.name: door.port for door in DOORS} if sandbox_port else {}
        try:
            sandbox = await stack.enter_async_context(open_sandbox(port=sandbox_port, ports=ports))
        except OSError as error:
            taken = ", ".join(map(str, (sandbox_port, *ports.values())))
            raise ConfigError(
                f"the sandbox can not listen on one of the ports {taken} ({error.strerror}): "
                "choose another first one with --sandbox-port, or 0 for any that are free"
            ) from None
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="dispatcher-sandbox-")))
        yield allowing(config, (sandbox,), folder), sandbox


def allowing(config: Config, sandboxes: Sequence[Sandbox], folder: Path) -> Config:
    """The configuration, with all ways into these sandboxes among the allowed origins, and their authorities trusted.

    ``folder`` takes the file that the authorities are read from. Raises ConfigError when the one named already can not be read.
    """
    authorities = b"\n".join(sandbox.ca_pem for sandbox in sandboxes)
    if config.provider_ca_file:
        try:
            authorities += b"\n" + Path(config.provider_ca_file).read_bytes()
        except OSError as error:
            raise ConfigError(f"DISPATCHER_PROVIDER_CA_FILE can not be read: {error.strerror}") from None
    trusted = folder / "authorities.pem"
    trusted.write_bytes(authorities)
    urls = [url for sandbox in sandboxes for url in sandbox.urls.values()]
    return evolve(config, provider_urls_extra=(*config.provider_urls_extra, *urls), provider_ca_file=str(trusted))


async def run_until_signalled(config: Config, on_ready: Callable[[Service], None], *, sandbox_port: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def service() -> None:
                async with (
                    open_provider(config, sandbox_port) as (provided, sandbox),
                    open_servers(provided) as complete,
                    open_service(complete) as running,
                ):
                    # What stands until the end need not be looked through again: that would stop everything for 50 ms each time.
                    gc.collect()
                    gc.freeze()
                    gc.set_threshold(GC_YOUNG_OBJECTS)
                    on_ready(evolve(running, sandbox=sandbox))
                    await asked_to_stop.wait()
                    logger.info("draining; a second signal ends the process at once")
                nursery.cancel_scope.cancel()

            asked_to_stop = trio.Event()
            nursery.start_soon(service)
            async for _ in signals:
                if asked_to_stop.is_set():
                    os._exit(KILLED_STATUS)
                asked_to_stop.set()


async def _serve(app: App, config: Config, stop: trio.Event, *, task_status: trio.TaskStatus[int]) -> None:
    await serve(app, config.surface, stop, grace_s=config.dispatch.drain_s, task_status=task_status)


async def _forget_the_dead(postgres_url: str, config: Config) -> None:
    """The data folder is ours alone, so whoever left a lease behind is dead: what it was sending need not wait for the lease
    to end."""
    async with _pool(postgres_url, config, random.Random()) as pool:
        await forget_incarnations(pool)


async def _prepare(config: Config, seeded: random.Random) -> None:
    """Check the keys against the database, before anything is claimed that could not be sent."""
    assert config.postgres.url is not None
    async with _pool(config.postgres.url, config, seeded) as pool:
        if config.encryption_keys is not None:
            await encryption.check(pool, config.encryption_keys, secrets.token_bytes)
        else:
            await encryption.check_none_needed(pool)


@asynccontextmanager
async def _pool(postgres_url: str, config: Config, seeded: random.Random) -> AsyncIterator[Pool]:
    """One connection for what is to be settled before anything else runs. Raises StoreUnavailable when there is none."""
    async with open_pool(
        postgres_url,
        size_max=1,
        connect_deadline_s=config.postgres.connect_deadline_s,
        statement_deadline_s=config.postgres.statement_deadline_s,
        random=seeded,
        name="dispatcher start",
    ) as pool:
        await pool.wait_ready(config.postgres.connect_deadline_s)
        yield pool


def _host_in_url(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
