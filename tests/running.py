"""A whole dispatcher for tests, in this process or in one of its own, and the customers who use it over HTTP and websocket.

Everything is real: Postgres, Valkey, sockets. What tests wait for is something they can see (an event, an answer, a process's
end), and every wait ends at :data:`PATIENCE_S`.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from secrets import randbits, token_bytes
from typing import Any

import httpx
import orjson
import trio
from attrs import define, field, frozen

from actors.io.postgres import Pool, open_pool
from actors.store import api_keys, organizations
from actors.store.api_keys import Scope
from dispatcher.config import from_mapping
from dispatcher.ids import RANDOM_BITS, uuid7
from dispatcher.model import OrganizationId
from dispatcher_http.listener import listen
from dispatcher_http.serving import Service, open_service
from dispatcher_sandbox.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
PATIENCE_S = 45.0
"""No wait of these tests is this long, even on a busy machine."""
KEYS = f"k1:{b64encode(bytes(32)).decode()}"
IMPATIENT: Mapping[str, str] = {
    "DISPATCHER_PORT": "0",
    "DISPATCHER_ENCRYPTION_KEYS": KEYS,
    "DISPATCHER_RETRY_BASE_S": "0.05",
    "DISPATCHER_RETRY_CAP_S": "0.2",
    "DISPATCHER_SWEEP_S": "0.3",
    "DISPATCHER_CONNECT_DEADLINE_S": "1",
    "DISPATCHER_REQUEST_DEADLINE_S": "1",
    "DISPATCHER_LEASE_S": "11.1",
    "DISPATCHER_DRAIN_S": "5",
    "DISPATCHER_BREAKER_OPEN_BASE_S": "0.2",
    "DISPATCHER_BREAKER_OPEN_CAP_S": "0.4",
}
"""Settings that make the same things happen sooner. A lease has to be ten seconds longer than a call."""
_LOOK_S = 0.02

Event = Mapping[str, Any]
FINAL = ("notification.delivered", "notification.failed")


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Look until it is so."""
    with trio.fail_after(PATIENCE_S):
        while True:
            seen = condition()
            if seen if isinstance(seen, bool) else await seen:
                return
            await trio.sleep(_LOOK_S)


def mail(recipient: str, **fields: Any) -> dict[str, Any]:
    """A notification to hand in."""
    return {"channel": "email", "recipient": recipient, "content": {"subject": "Doors", "text": "They open at seven."}, **fields}


@define
class Feed:
    """What a listener heard, in order; and waiting for what it has not heard yet."""

    _events: AsyncIterator[str]
    heard: list[Event] = field(factory=list)

    async def next(self) -> Event:
        """The next event."""
        with trio.fail_after(PATIENCE_S):
            event: Event = orjson.loads(await anext(self._events))
        self.heard.append(event)
        return event

    async def until(self, **wanted: object) -> Event:
        """The first event with these fields, heard already or not."""
        for event in self.heard:
            if wanted.items() <= event.items():
                return event
        while not wanted.items() <= (event := await self.next()).items():
            pass
        return event

    async def outcomes(self, ids: Iterable[str]) -> dict[str, str]:
        """What became of these notifications in the end: the type of their last event, by id."""
        ended: dict[str, str] = {}
        waited_for = set(ids)
        for event in self.heard:
            if event["type"] in FINAL:
                ended[event["id"]] = event["type"]
        while waited_for - ended.keys():
            event = await self.next()
            if event["type"] in FINAL:
                ended[event["id"]] = event["type"]
        return {id: ended[id] for id in waited_for}

    def of(self, id: str) -> list[str]:
        """The types of one notification's events so far, without their common part."""
        return [event["type"].removeprefix("notification.") for event in self.heard if event.get("id") == id]


@frozen
class Customer:
    """An organization as its own programs see it: an address, a key, HTTP and the stream."""

    url: str
    organization_id: str
    key: str = field(repr=False)
    client: httpx.AsyncClient = field(repr=False)

    async def call(
        self, method: str, path: str, document: object = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """One request below the organization's own address."""
        return await self.client.request(
            method,
            f"{self.url}/v1/orgs/{self.organization_id}/{path}",
            content=None if document is None else orjson.dumps(document),
            headers={"authorization": f"Bearer {self.key}", "content-type": "application/json", **(headers or {})},
        )

    async def get(self, path: str) -> Any:
        """What stands there."""
        response = await self.call("GET", path)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, document: object = None) -> Any:
        """The answer to something that must be accepted."""
        response = await self.call("POST", path, document)
        assert response.status_code in (200, 201, 202), response.text
        return response.json()

    async def send(self, recipient: str, **fields: Any) -> str:
        """Hand one notification in; its id."""
        id: str = (await self.post("notifications", mail(recipient, **fields)))["id"]
        return id

    async def send_all(self, recipients: Iterable[str]) -> list[str]:
        """Hand a batch in, all of which must be accepted; their ids."""
        answer = await self.post("notifications", {"items": [mail(recipient) for recipient in recipients]})
        assert answer["rejected"] == answer["duplicates"] == 0, answer
        return [item["id"] for item in answer["items"]]

    async def statuses(self) -> dict[str, str]:
        """The status of every notification, by id."""
        found: dict[str, str] = {}
        page = await self.get("notifications?page_size=250")
        while True:
            found.update((item["id"], item["status"]) for item in page["items"])
            if page["page"]["next"] is None:
                return found
            page = await self.get(f"notifications?page_size=250&after={page['page']['next']}")

    async def all_delivered(self, ids: Iterable[str]) -> bool:
        """Whether all of these are, now."""
        statuses = await self.statuses()
        return all(statuses.get(id) == "delivered" for id in ids)

    async def timeline(self, id: str) -> list[str]:
        """The events of one notification's timeline."""
        return [entry["event"] for entry in (await self.get(f"notifications/{id}"))["timeline"]]

    async def add_provider(self, origin: str, **settings: Any) -> str:
        """Configure the sandbox there as the provider of mail; the configuration's id."""
        id: str = (await self.post("providers", provider(origin, **settings)))["id"]
        return id

    @asynccontextmanager
    async def listen(self, since: str | None = None) -> AsyncIterator[Feed]:
        """Follow the stream."""
        async with listen(self.url, self.organization_id, self.key, since) as events:
            yield Feed(events)


def provider(origin: str, api_key: str = "SG.tests.tests", **settings: Any) -> dict[str, Any]:
    """A provider configuration to hand in."""
    return {
        "provider": "sendgrid",
        "channel": "email",
        "credentials": {"api_key": api_key},
        "settings": {"from_email": "tickets@hall.example", "base_url": origin, **settings},
    }


async def enrol(pool: Pool, organization_id: str, *scopes: Scope) -> str:
    """Create the organization, unless it exists, and a key of it."""
    organization = OrganizationId(organization_id)
    key = api_keys.compose(token_bytes(api_keys.ENTROPY_BYTES))
    await organizations.create(pool, organization, organization_id.title(), "en")
    id = uuid7(time.time_ns() // 1_000_000, randbits(RANDOM_BITS))
    await api_keys.create(pool, id, organization, "tests", key, scopes or tuple(Scope))
    return key


@asynccontextmanager
async def store(database_url: str) -> AsyncIterator[Pool]:
    """A pool of a test's own."""
    async with open_pool(database_url, size_max=2, connect_deadline_s=10, statement_deadline_s=10, random=Random(1)) as pool:
        yield pool


@frozen
class Running:
    """A dispatcher in this process."""

    service: Service
    client: httpx.AsyncClient

    @property
    def url(self) -> str:
        return self.service.url

    async def customer(self, organization_id: str, *scopes: Scope) -> Customer:
        """A customer with a new key of an organization, which is created if need be."""
        key = await enrol(self.service.node.pool, organization_id, *scopes)
        return Customer(self.url, organization_id, key, self.client)

    async def metrics(self) -> dict[str, float]:
        """Every sample by name and labels, as it stands in the text."""
        return samples((await self.client.get(f"{self.url}/metrics")).text)


@contextmanager
def own_root_logger() -> Iterator[None]:
    """Around what configures logging: afterwards the root logger is what it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def samples(text: str) -> dict[str, float]:
    """A page of metrics, read."""
    pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


@asynccontextmanager
async def dispatching(
    database_url: str, redis_url: str, sandboxes: Sequence[Sandbox] = (), /, **settings: str
) -> AsyncIterator[Running]:
    """A dispatcher in this process, on these servers. Settings are named without their prefix, in small letters."""
    config = from_mapping(environment(database_url, redis_url, [sandbox.url for sandbox in sandboxes], **settings))
    async with open_service(config) as service, http_client() as client:
        yield Running(service, client)


def http_client() -> httpx.AsyncClient:
    """A client as anybody might use it."""
    return httpx.AsyncClient(timeout=PATIENCE_S)


def environment(
    database_url: str | None = None, redis_url: str | None = None, origins: Iterable[str] = (), /, **settings: str
) -> dict[str, str]:
    """The variables of a dispatcher. Settings are named without their prefix, in small letters; an empty one is not set."""
    chosen = {
        **IMPATIENT,
        "DISPATCHER_POSTGRES_URL": database_url or "",
        "DISPATCHER_REDIS_URL": redis_url or "",
        "DISPATCHER_PROVIDER_URLS_EXTRA": ",".join(origins),
        **{f"DISPATCHER_{name.upper()}": value for name, value in settings.items()},
    }
    return {name: value for name, value in chosen.items() if value}


@define
class Program:
    """``dispatcher ...`` as a process. What it writes is read all along, so that it never waits for us."""

    process: trio.Process
    out: str = ""
    err: str = ""
    _unread: int = 2
    _news: trio.Event = field(factory=trio.Event)

    async def serving(self) -> str:
        """Its URL, once it says that it serves."""
        with trio.fail_after(PATIENCE_S):
            while (found := re.search(r"^Serving on (\S+)\n", self.out, re.MULTILINE)) is None:
                assert self._unread, self.err
                await self._news.wait()
        return found[1]

    async def said(self, words: str) -> None:
        """Wait until this stands in what it wrote."""
        with trio.fail_after(PATIENCE_S):
            while words not in self.out + self.err:
                assert self._unread, self.err
                await self._news.wait()

    async def ended(self) -> int:
        """Its exit status, once it has ended and everything it wrote has been read."""
        with trio.fail_after(PATIENCE_S):
            status = await self.process.wait()
            while self._unread:
                await self._news.wait()
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def _read(self, stream: trio.abc.ReceiveStream, name: str) -> None:
        async for data in stream:
            setattr(self, name, getattr(self, name) + bytes(data).decode())
            self._tell()
        self._unread -= 1
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


@asynccontextmanager
async def program(*arguments: str, settings: Mapping[str, str]) -> AsyncIterator[Program]:
    """Run ``dispatcher`` with these arguments and, of our own environment, only what it needs. Killed at the end of the block."""
    inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "dispatcher_http", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={**inherited, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'http'}", **settings},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    running = Program(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(running._read, process.stdout, "out"))
        nursery.start_soon(partial(running._read, process.stderr, "err"))
        try:
            yield running
        finally:
            process.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE_S):
                await process.wait()
