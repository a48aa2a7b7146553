"""No personal data and no secret anywhere but where it is kept: a marked notification goes every way there is, and is looked for.

After each test all places are searched: log lines, metrics, Redis (its keys, its commands, its messages), columns of Postgres,
answers, events, what the process writes. The last tests plant the mark in each place and see the search find it.
"""

from __future__ import annotations

import logging
import os
import sys
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import psycopg
import pytest
import redis
import trio
from attrs import define

from actors.embedded.folder import read_running
from actors.herald import Herald
from actors.store import notifications
from canary import (
    BOUNCING,
    CONTENT,
    CREDENTIAL,
    IDEMPOTENCY_KEY,
    MARK,
    RECIPIENT,
    TEMPLATE_TEXT,
    USER,
    VARIABLE,
    WRONG_API_KEY,
    Watch,
    logged,
    monitored,
)
from dispatcher.messages import Concluded
from dispatcher.organization import Organization
from dispatcher.providers.sendgrid import BoundSendGrid
from dispatcher.templates import CompiledTemplate
from dispatcher_http.listener import StreamEnded, listen
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from http_peer import Peer, peers
from running import ROOT, Customer, Running, dispatching, enrol, environment, http_client, program, provider, store, until

TEMPLATE = {
    "name": "ticket",
    "channel": "email",
    "locale": "en",
    "subject": f"{TEMPLATE_TEXT} {{{{ name }}}}",
    "body_template": f"{TEMPLATE_TEXT} {{{{ name }}}}",
    "variables": {"name": {"required": True, "description": TEMPLATE_TEXT}},
}


def marked(**fields: Any) -> dict[str, Any]:
    """A notification of which every part is marked."""
    content = {"subject": CONTENT, "text": CONTENT, "html": CONTENT}
    return {"channel": "email", "recipient": RECIPIENT, "user_id": USER, "content": content, **fields}


def templated(**fields: Any) -> dict[str, Any]:
    return {"channel": "email", "recipient": RECIPIENT, "template": "ticket", "variables": {"name": VARIABLE}, **fields}


@define
class House:
    """A watched dispatcher with two organizations."""

    running: Running
    sandbox: Sandbox
    watch: Watch
    acme: Customer
    other: Customer

    async def call(self, method: str, path: str, document: object = None, **headers: str) -> httpx.Response:
        """A request of acme whose answer must repeat nothing."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.watch.answer(await self.acme.call(method, path, document, named))

    async def raw(self, body: bytes, path: str = "notifications", **headers: str) -> httpx.Response:
        """The same with a body as it is."""
        named = {"authorization": f"Bearer {self.acme.key}", "content-type": "application/json"}
        named.update({name.replace("_", "-"): value for name, value in headers.items()})
        url = f"{self.acme.url}/v1/orgs/acme/{path}"
        return self.watch.answer(await self.acme.client.post(url, content=body, headers=named))

    async def outcomes(self, *items: dict[str, Any]) -> dict[str, str]:
        """Hand these in, all of which must be accepted, and wait for what becomes of them."""
        async with self.acme.listen() as feed:
            answer = await self.call("POST", "notifications", {"items": items})
            outcomes = await feed.outcomes([item["id"] for item in answer.json()["items"]])
            self.watch.events(feed.heard)
        return outcomes


@asynccontextmanager
async def watched(database_url: str, redis_url: str, origins: tuple[str, ...] = (), **settings: str) -> AsyncIterator[House]:
    """A watched dispatcher. At the end everything that it left anywhere is noted."""
    watch = Watch()
    async with AsyncExitStack() as stack:
        stack.enter_context(logged(watch))
        stack.enter_context(monitored(watch, redis_url))
        sandbox = await stack.enter_async_context(open_sandbox())
        settings = {"provider_urls_extra": ",".join((sandbox.url, *origins)), **settings}
        running = await stack.enter_async_context(dispatching(database_url, redis_url, **settings))
        acme, other = await running.customer("acme"), await running.customer("other")
        watch.secrets += [acme.key.removeprefix("ndk_"), other.key.removeprefix("ndk_")]
        house = House(running, sandbox, watch, acme, other)
        await house.call("POST", "providers", provider(sandbox.url, api_key=CREDENTIAL))
        await acme.post("templates", TEMPLATE)
        try:
            yield house
        finally:
            await look(house, database_url, redis_url)
    # Once more: ending may leave something behind as well.
    watch.postgres(database_url)
    watch.redis(redis_url)


async def look(house: House, database_url: str, redis_url: str) -> None:
    """Note everything there is to see from outside."""
    house.watch.saw("the metrics", (await house.running.client.get(f"{house.running.url}/metrics")).content)
    for path in ("healthz", "readyz"):
        house.watch.answer(await house.running.client.get(f"{house.running.url}/{path}"))
    for path in ("notifications", "dead-letters", "templates", "providers"):
        house.watch.answer(await house.other.call("GET", path))
    for path in ("dead-letters", "providers"):
        house.watch.answer(await house.acme.call("GET", path))
    house.watch.postgres(database_url)
    house.watch.redis(redis_url)


@pytest.fixture
async def house(database_url: str, redis_url: str, capfd: pytest.CaptureFixture[str]) -> AsyncIterator[House]:
    """A watched dispatcher, and the search at its end."""
    async with watched(database_url, redis_url) as house:
        yield house
    for name, text in zip(("standard output", "standard error"), capfd.readouterr(), strict=True):
        house.watch.saw(name, text)

    assert house.watch.found() == []


# --- the ways it can go -------------------------------------------------------------------------------------


async def test_accepted_and_delivered(house: House) -> None:
    outcomes = await house.outcomes(marked(), templated(), marked(idempotency_key=IDEMPOTENCY_KEY))
    single = await house.call("POST", "notifications", marked(), idempotency_key=f"single-{IDEMPOTENCY_KEY}")
    again = await house.call("POST", "notifications", marked(), idempotency_key=f"single-{IDEMPOTENCY_KEY}")
    batch = await house.call("POST", "notifications", {"items": [marked()]}, idempotency_key=f"batch-{IDEMPOTENCY_KEY}")

    assert set(outcomes.values()) == {"notification.delivered"}
    assert single.content == again.content
    assert batch.json()["accepted"] == 1
    assert MARK.encode() in house.sandbox.ledger.recent[0].body


async def test_failed_in_every_way(house: House) -> None:
    tricks = ("bounce", "soft", "always-soft", "rate-limited", "drop", "close", "too-large", "status-418")
    outcomes = await house.outcomes(*[marked(recipient=f"{trick}+{MARK}@sandbox.test") for trick in tricks])
    letters = (await house.call("GET", "dead-letters")).json()["items"]
    for letter in letters:
        await house.call("POST", f"dead-letters/{letter['notification_id']}/requeue")
    async with house.acme.listen(since="0") as feed:
        await feed.outcomes(outcomes)
        house.watch.events(feed.heard)

    assert sorted(outcomes.values()).count("notification.failed") == 4
    assert len(letters) == 4


REFUSED: dict[str, tuple[int, Callable[[House], Any]]] = {
    "not JSON": (400, lambda house: house.raw(b'{"recipient": "' + RECIPIENT.encode() + b'" oops')),
    "not UTF-8": (400, lambda house: house.raw(RECIPIENT.encode() + b"\xff")),
    "a list": (422, lambda house: house.raw(orjson.dumps([marked()]))),
    "wrong types": (422, lambda house: house.call("POST", "notifications", marked(recipient=[RECIPIENT], user_id={USER: 1}))),
    "no recipient": (422, lambda house: house.call("POST", "notifications", marked(recipient=f"{MARK} at home"))),
    "no channel": (422, lambda house: house.call("POST", "notifications", marked(channel=MARK))),
    "no locale": (422, lambda house: house.call("POST", "notifications", templated(locale=f"{MARK}!"))),
    "no time": (422, lambda house: house.call("POST", "notifications", marked(expires_at=MARK))),
    "long ago": (422, lambda house: house.call("POST", "notifications", marked(expires_at="2001-01-01T00:00:00Z"))),
    "no key": (422, lambda house: house.call("POST", "notifications", marked(idempotency_key=f"{MARK} ü"))),
    "no template": (422, lambda house: house.call("POST", "notifications", templated(template=MARK))),
    "a missing variable": (422, lambda house: house.call("POST", "notifications", templated(variables={"other": VARIABLE}))),
    "a variable that is no text": (422, lambda house: house.call("POST", "notifications", templated(variables=[VARIABLE]))),
    "a channel nobody serves": (
        422,
        lambda house: house.call("POST", "notifications", marked(channel="push", content={"text": CONTENT})),
    ),
    "two lines of subject": (
        422,
        lambda house: house.call("POST", "notifications", marked(content={"subject": f"{CONTENT}\n{MARK}", "text": "x"})),
    ),
    "what cannot be stored": (
        422,
        lambda house: house.call("POST", "notifications", marked(content={"subject": CONTENT, "text": f"{MARK}\0"})),
    ),
    "too large an item": (
        413,
        lambda house: house.call("POST", "notifications", marked(content={"subject": MARK, "text": MARK * 60_000})),
    ),
    "too large a body": (413, lambda house: house.raw(MARK.encode() * 2_000_000)),
    "too many items": (413, lambda house: house.call("POST", "notifications", {"items": [MARK] * 5001})),
    "two keys": (
        422,
        lambda house: house.call("POST", "notifications", marked(idempotency_key=MARK), idempotency_key=f"{MARK}-2"),
    ),
    "a wrong key header": (400, lambda house: house.call("POST", "notifications", marked(), idempotency_key=f"{MARK} {MARK}")),
    "a wrong content type": (415, lambda house: house.raw(orjson.dumps(marked()), content_type=f"text/{MARK}")),
    "a wrong encoding": (415, lambda house: house.raw(orjson.dumps(marked()), content_encoding=MARK)),
    "a wrong API key": (
        401,
        lambda house: house.raw(orjson.dumps(marked()), authorization=f"Bearer {WRONG_API_KEY}"),
    ),
    "another scheme": (401, lambda house: house.raw(orjson.dumps(marked()), authorization=f"Basic {MARK}")),
    "an unknown address": (404, lambda house: house.call("GET", MARK)),
    "an unknown id": (404, lambda house: house.call("GET", f"notifications/{MARK}")),
    "an unknown query": (400, lambda house: house.call("GET", f"notifications?{MARK}={MARK}")),
    "an unknown status": (400, lambda house: house.call("GET", f"notifications?status={MARK}")),
    "an unknown place": (400, lambda house: house.call("GET", f"notifications?after={MARK}")),
    "an unknown method": (405, lambda house: house.call("PATCH", "notifications", marked())),
    "a template that does not compile": (
        422,
        lambda house: house.call("POST", "templates", {**TEMPLATE, "body_template": f"{TEMPLATE_TEXT} {{% if %}}"}),
    ),
    "a template that reaches for attributes": (
        422,
        lambda house: house.call("POST", "templates", {**TEMPLATE, "body_template": f"{TEMPLATE_TEXT} {{{{ name.__class__ }}}}"}),
    ),
    "a template of nonsense": (
        422,
        lambda house: house.call("POST", "templates", {**TEMPLATE, "locale": MARK + "!", "channel": MARK, "variables": [MARK]}),
    ),
    "a provider of nonsense": (
        422,
        lambda house: house.call("POST", "providers", {**provider(f"https://{MARK}.example"), "priority": MARK}),
    ),
    "a base URL elsewhere": (
        422,
        lambda house: house.call("POST", "providers", provider(f"https://{MARK}.example", CREDENTIAL, from_name=f"{MARK};")),
    ),
    "credentials that are none": (
        422,
        lambda house: house.call("POST", "providers", provider(house.sandbox.url, api_key=f"{CREDENTIAL} ")),
    ),
}  # fmt: skip


async def test_refused_in_every_way(house: House) -> None:
    for way, (status, attempt) in REFUSED.items():
        answer = await attempt(house)

        assert answer.status_code == status, way
        assert house.watch.found() == [], way

    assert await house.acme.statuses() == {}


async def test_refused_in_a_batch(house: House) -> None:
    items = [marked(recipient=MARK), templated(template=MARK), templated(variables={}), MARK, {MARK: MARK}, marked(), [RECIPIENT]]
    answer = await house.call(
        "POST", "notifications", {"items": [item for item in items if not isinstance(item, dict) or MARK not in item]}
    )

    assert answer.json()["rejected"] == 5


async def test_a_template_that_loops_at_the_wrong_time(house: House) -> None:
    loops = {
        **TEMPLATE,
        "name": "loops",
        "body_template": "{% for a in range(9999) %}{% for b in range(9999) %}{{ name }}{% endfor %}{% endfor %}",
    }
    added = await house.acme.call("POST", "templates", loops)
    refused = await house.call("POST", "notifications", templated(template="loops"))
    preview = await house.call("POST", f"templates/{added.json()['id']}/preview", {"variables": {"name": VARIABLE}})

    assert (added.status_code, refused.status_code, preview.status_code) == (201, 422, 422)


async def test_heard_by_nobody_who_may_not(house: House) -> None:
    for key, query in ((WRONG_API_KEY, None), (house.other.key, None), (house.acme.key, f"{MARK}")):
        with pytest.raises(StreamEnded) as refused:
            async with listen(house.acme.url, "acme", key, query):
                pass
        house.watch.saw("answers", str(refused.value))


async def test_nonsense_on_the_wire(house: House) -> None:
    port = httpx.URL(house.running.url).port
    assert port is not None
    for nonsense in (f"{MARK}\r\n\r\n", f"GET /{MARK} HTTP/9.9\r\n\r\n", f"POST / HTTP/1.1\r\ncontent-length: {MARK}\r\n\r\n"):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(nonsense.encode())
            house.watch.saw("answers", bytes(await stream.receive_some()))
    # One that leaves in the middle of what it says.
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = f"POST /v1/orgs/acme/notifications HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.acme.key}\r\n"
        await stream.send_all(f"{head}content-type: application/json\r\ncontent-length: 999\r\n\r\n{RECIPIENT}".encode())

    assert (await house.call("GET", "notifications")).status_code == 200


# --- providers that say too much ----------------------------------------------------------------------------


def echoes(status: int) -> Callable[[Peer], Any]:
    """A provider that answers with all it was told: in the body, as its field's name, in headers."""

    async def script(peer: Peer) -> None:
        while (received := await peer.request()) is not None:
            said = received.body.decode() + received.headers[b"authorization"].decode()
            body = orjson.dumps({"errors": [{"message": said, "field": RECIPIENT, "help": said}]})
            head = (
                f"HTTP/1.1 {status} {MARK}\r\nx-message-id: {RECIPIENT} \u00fc\r\nlocation: https://{MARK}.example/\r\n"
                f"retry-after: {MARK}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            )
            await peer.send(head.encode() + body)

    return script


async def talks_nonsense(peer: Peer) -> None:
    received = await peer.request()
    if received is not None:
        await peer.send(received.body + b"\r\n\r\n")


async def breaks_off(peer: Peer) -> None:
    received = await peer.request()
    if received is not None:
        await peer.send(b"HTTP/1.1 202 OK\r\ncontent-length: 100000\r\n\r\n" + received.body)
        peer.reset()


async def chunks_nonsense(peer: Peer) -> None:
    received = await peer.request()
    if received is not None:
        await peer.send(b"HTTP/1.1 202 OK\r\ntransfer-encoding: chunked\r\n\r\n" + MARK.encode() + b"\r\n" + received.body)


PROVIDERS = {
    **{f"echoes {status}": echoes(status) for status in (200, 301, 400, 401, 403, 404, 413, 418, 429, 500, 503, 999)},
    "talks nonsense": talks_nonsense,
    "breaks off": breaks_off,
    "chunks nonsense": chunks_nonsense,
}


async def test_providers_that_say_too_much(database_url: str, redis_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    async with AsyncExitStack() as stack:
        origins = {kind: str((await stack.enter_async_context(peers(script))).origin) for kind, script in PROVIDERS.items()}
        house = await stack.enter_async_context(watched(database_url, redis_url, tuple(origins.values()), attempts_max="2"))
        config = (await house.acme.get("providers"))["items"][0]["id"]
        async with house.acme.listen() as feed:
            for kind, origin in origins.items():
                before = await tries(house)
                await house.call("PUT", f"providers/{config}", {"settings": provider(origin)["settings"]})
                await house.call("POST", "notifications", {"items": [marked(), templated()]})
                await until(partial(more_tries, house, before))

                assert house.watch.found() == [], kind
            house.watch.events(feed.heard)
    for name, text in zip(("standard output", "standard error"), capfd.readouterr(), strict=True):
        house.watch.saw(name, text)

    assert house.watch.found() == []


async def tries(house: House) -> float:
    """How many attempts have ended so far."""
    return sum(value for name, value in (await house.running.metrics()).items() if name.startswith("dispatcher_attempts_total"))


async def more_tries(house: House, than: float) -> bool:
    return await tries(house) > than


# --- crashes ------------------------------------------------------------------------------------------------


def explodes(*args: object, **kwargs: object) -> Any:
    """A fault of ours that has a person's data in its text, and some more in its cause."""
    try:
        raise KeyError(RECIPIENT)
    except KeyError as error:
        raise RuntimeError(f"{CONTENT} {args!r} {kwargs!r}") from error


async def explodes_later(*args: object, **kwargs: object) -> Any:
    explodes(*args, **kwargs)


async def test_a_crash_while_accepting(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompiledTemplate, "render_payload", explodes)
    answer = await house.call("POST", "notifications", templated())

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")


async def test_a_crash_while_reading(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "read_page", explodes_later)
    answer = await house.call("GET", "notifications")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")


@pytest.mark.parametrize("method", ["request", "classify"])
async def test_a_crash_while_sending(house: House, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(BoundSendGrid, method, explodes)
    await house.call("POST", "notifications", {"items": [marked()]})
    await until(lambda: more_tries(house, 0))


async def test_a_crash_of_an_organization(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts again and takes back what it held."""
    handle, crashes = Organization.handle, 1

    def crash_at_times(self: Organization, event: Any, now: Any) -> Any:
        nonlocal crashes
        if isinstance(event, Concluded) and crashes:
            crashes -= 1
            explodes(event)
        return handle(self, event, now)

    monkeypatch.setattr(Organization, "handle", crash_at_times)
    outcomes = await house.outcomes(marked(), templated())

    assert set(outcomes.values()) == {"notification.delivered"}
    assert crashes == 0
    assert (await house.running.metrics())['dispatcher_events_total{event="actor_restart"}'] >= 1


async def test_a_crash_of_a_listener(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Herald, "_frames", explodes)
    with pytest.raises(StreamEnded) as ended:
        async with house.acme.listen():
            pass
    house.watch.saw("answers", str(ended.value))


async def test_a_row_that_postgres_refuses(house: House, database_url: str) -> None:
    """Its own message quotes the whole row."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER TABLE notifications ADD CHECK (recipient <> '{RECIPIENT}')")
    single = await house.call("POST", "notifications", marked())
    batch = await house.call("POST", "notifications", {"items": [marked(), marked(recipient="ada@example.org")]})

    assert (single.status_code, single.json()["code"]) == (422, "not_storable")
    assert [item["status"] for item in batch.json()["items"]] == ["rejected", "accepted"]


async def test_servers_that_refuse_everything(house: House, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE notifications RENAME COLUMN recipient TO receiver")
        answers = [
            await house.call("POST", "notifications", marked()),
            await house.call("GET", "notifications"),
        ]
        connection.execute("ALTER TABLE notifications RENAME COLUMN receiver TO recipient")

    assert all(answer.status_code >= 422 for answer in answers)


# --- a process ----------------------------------------------------------------------------------------------

CRASHING = f"""
from actors.ledger import Ledger

async def explode(self, batch):
    raise RuntimeError(f"{RECIPIENT} {{batch!r}}") from KeyError("{CONTENT}")

Ledger._flush_records = explode
"""


async def test_a_process_that_dies_of_a_fault_of_ours(servers_folder: Path, tmp_path: Path) -> None:
    """Talkative, and ended by an exception nobody handles. Its private servers write logs of their own."""
    (tmp_path / "sitecustomize.py").write_text(CRASHING)
    data_dir = servers_folder / tmp_path.name
    watch = Watch()
    async with open_sandbox() as sandbox, http_client() as client:
        settings = environment(
            None, None, [sandbox.url], data_dir=str(data_dir), log_level="debug", encryption_keys="", drain_s="1"
        )
        settings["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}{os.pathsep}{ROOT / 'http'}"
        async with program("serve", settings=settings) as dispatcher:
            url = await dispatcher.serving()
            running = read_running(data_dir / "postgres")
            assert running is not None
            assert running.url is not None
            async with store(running.url) as pool:
                acme = Customer(url, "acme", await enrol(pool, "acme"), client)
            watch.secrets.append(acme.key.removeprefix("ndk_"))
            await acme.post("providers", provider(sandbox.url, api_key=CREDENTIAL))
            await acme.post("templates", TEMPLATE)
            await acme.call("POST", "notifications", templated(variables={}))
            await acme.post("notifications", {"items": [marked(), templated()]})
            status = await dispatcher.ended()
    watch.saw("standard output", dispatcher.out)
    watch.saw("standard error", dispatcher.err)
    for log in data_dir.glob("*/server.log*"):
        watch.saw(str(log), log.read_bytes())

    assert status == 1
    assert "RuntimeError at " in dispatcher.err.splitlines()[-1]
    assert watch.found() == []


# --- the search itself --------------------------------------------------------------------------------------


async def test_the_search_finds_what_is_planted_anywhere(
    database_url: str, redis_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with psycopg.connect(database_url, autocommit=True) as session, redis.Redis.from_url(redis_url) as client:
        async with watched(database_url, redis_url) as house:
            await house.outcomes(marked(), marked(recipient=BOUNCING))
            assert house.watch.found() == []
            logging.getLogger("actors.anything").debug("sent to %s", RECIPIENT)
            house.running.service.node.metrics.codes["email", RECIPIENT] += 1
            client.set("a key", RECIPIENT)
            house.watch.answer(await house.acme.call("GET", "notifications"))
            house.watch.events([{"type": "notification.created", "recipient": RECIPIENT}])
            session.execute("UPDATE attempts SET code = 'http_400: ' || (SELECT recipient FROM notifications LIMIT 1)")
            session.execute(f"SELECT '{RECIPIENT}'")
            sys.stdout.write(RECIPIENT)
    house.watch.saw("standard output", capfd.readouterr().out)

    assert house.watch.found() == [
        "Postgres attempts.code", "Postgres statements", "Redis", "Redis commands", "answers", "standard output", "the log",
        "the metrics", "the stream",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["string", "name", "list", "set", "zset", "hash", "stream"])
def test_the_search_looks_into_every_kind_of_key(kind: str, redis_url: str) -> None:
    watch = Watch()
    with redis.Redis.from_url(redis_url) as client:
        {
            "string": lambda: client.set("k", RECIPIENT),
            "name": lambda: client.set(RECIPIENT, "v"),
            "list": lambda: client.rpush("k", "a", RECIPIENT),
            "set": lambda: client.sadd("k", "a", RECIPIENT),
            "zset": lambda: client.zadd("k", {"a": 1, RECIPIENT: 2}),
            "hash": lambda: client.hset("k", "field", RECIPIENT),
            "stream": lambda: client.xadd("k", {"e": RECIPIENT}),
        }[kind]()
    watch.redis(redis_url)

    assert watch.found() == ["Redis"]


def test_the_search_hears_what_is_only_published(redis_url: str) -> None:
    watch = Watch()
    with monitored(watch, redis_url), redis.Redis.from_url(redis_url) as client:
        client.eval("redis.call('PUBLISH', 'topic', ARGV[1] .. '.org')", 0, RECIPIENT.removesuffix(".org"))

    assert watch.found() == ["Redis commands"]


@pytest.mark.parametrize(
    "spelt",
    [
        MARK.upper(),
        quote(RECIPIENT),
        RECIPIENT.encode().hex(),
        *(b64encode(f"{'x' * shift}{RECIPIENT}".encode()).decode() for shift in range(3)),
        *(urlsafe_b64encode(f"{'x' * shift}{MARK}".encode()).decode() for shift in range(3)),
        repr(f"{RECIPIENT}\n"),
        orjson.dumps([CONTENT]).decode(),
    ],
)
def test_the_search_knows_other_spellings(spelt: str) -> None:
    watch = Watch()
    watch.saw("here", spelt)

    assert watch.found() == ["here"]
