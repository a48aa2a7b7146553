"""A whole surface on a real socket: Hypercorn, Quart and the stores on Postgres; only what lies behind them is in memory."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from functools import partial
from random import Random

import httpx
import pytest
import trio
from prometheus_client import CollectorRegistry

from actors.io.postgres import Pool, open_pool
from actors.store import api_keys, organizations
from actors.store.api_keys import Scope
from dispatcher.config import SurfaceConfig
from dispatcher.ids import RANDOM_BITS, uuid7
from dispatcher.model import OrganizationId
from dispatcher.providers.registry import REGISTRY
from dispatcher.unsubscribe import Links
from dispatcher.vault import EncryptionKeys
from dispatcher_http.app import create_app
from dispatcher_http.server import serve
from dispatcher_http.services import Services
from surface_doubles import InMemoryDispatch, Surface

SANDBOX_ORIGIN = "http://127.0.0.1:8025"


class Ids:
    """Fresh ids, a millisecond apart, so that they sort as they were made."""

    def __init__(self) -> None:
        self._ms = 1_764_000_000_000

    def __call__(self) -> str:
        self._ms += 1
        return uuid7(self._ms, secrets.randbits(RANDOM_BITS))


@pytest.fixture
def new_id() -> Ids:
    return Ids()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size_max=4, connect_deadline_s=5, statement_deadline_s=5, random=Random(1)) as pool:
        yield pool


@pytest.fixture
def surface_config() -> SurfaceConfig:
    """Override in a module to change its surface."""
    return SurfaceConfig(port=0, body_bytes_max=64 * 1024, listeners_max=4)


@pytest.fixture
async def surface(pool: Pool, new_id: Ids, surface_config: SurfaceConfig) -> AsyncIterator[Surface]:
    dispatch = InMemoryDispatch()
    services = Services(
        accept=dispatch.accept,
        explain=dispatch.events.explain,
        events=dispatch.events,
        take_in=dispatch.take_in,
        changed=dispatch.changed,
        requeued=dispatch.requeued,
        requeued_many=dispatch.requeued_many,
        discarded=dispatch.discarded,
        contacts_changed=dispatch.contacts_changed,
        canceled=dispatch.note_canceled,
        listen=dispatch.listen,
        probe=dispatch.probe,
        ready=dispatch.ready,
        pool=pool,
        config=surface_config,
        providers=REGISTRY,
        provider_urls_extra=(SANDBOX_ORIGIN,),
        registry=CollectorRegistry(),
        encryption_keys=EncryptionKeys.of({"k1": bytes(32)}),
        attempts_max=8,
        new_id=new_id,
        random_bytes=secrets.token_bytes,
        links=Links("https://notify.example.org", EncryptionKeys.of({"k1": bytes(32)})),
    )

    async def new_key(organization_id: str, *scopes: Scope) -> str:
        await organizations.create(pool, OrganizationId(organization_id), organization_id.title(), "en")
        key = api_keys.compose(secrets.token_bytes(api_keys.ENTROPY_BYTES))
        await api_keys.create(pool, new_id(), OrganizationId(organization_id), "test", key, scopes or tuple(Scope))
        return key

    app = create_app(services)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(partial(serve, app, surface_config, stop, grace_s=5))
        # No connection is kept between requests: what one test leaves on it must not meet the next request.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, limits=limits) as client:
            yield Surface(app, services, dispatch, client, port, stop, new_key)
        stop.set()
