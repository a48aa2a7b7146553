"""How fast are notifications accepted: rendered, validated and durable before the answer.

Batches of 500 against the goal, and one by one against Hypercorn serving an empty Quart-Trio route, in turns. The
organization's provider is held at one mail an hour, so that what is accepted stays queued and accepting is measured alone.
The client is a few sockets in a loop, so that it costs little of the machine it shares.
"""

from __future__ import annotations

import random
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from urllib.parse import urlsplit

import httpx
import orjson
import psycopg
import trio

from actors.store import api_keys
from bench.rig import API_KEY, Servers, Turn, accounts, contestant, spread
from dispatcher.ids import RANDOM_BITS, uuid7

ORGANIZATION = "accept"
BATCH_ITEMS = 500
TEMPLATE = {
    "name": "purchase",
    "channel": "email",
    "locale": "en",
    "subject": "Your tickets for {{ event }}",
    "body_template": "Hello {{ name }}, thank you. {% for seat in seats %}{{ seat }}; {% endfor %}Paid: {{ total }}. "
    + "Enjoy! " * 40,
    "html_template": "<p>Hello {{ name }}, thank you.</p>"
    "<ul>{% for seat in seats %}<li>{{ seat }}</li>{% endfor %}</ul><p>{{ total }}</p>",
}


def item(number: int) -> dict[str, object]:
    """One purchase."""
    return {
        "channel": "email",
        "recipient": f"reader{number}@example.org",
        "template": "purchase",
        "variables": {
            "name": f"Reader {number}",
            "event": "The Nocturnes",
            "seats": ["Row 4, seat 7", "Row 4, seat 8"],
            "total": "70.00 EUR",
        },
    }


def request(url: str, key: str, body: bytes, resource: str = "notifications") -> bytes:
    """A POST as bytes."""
    host = urlsplit(url).netloc
    return (
        f"POST /v1/orgs/{ORGANIZATION}/{resource} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def post_all(url: str, requests: list[bytes], connections: int) -> None:
    """Send every request once, over keep-alive connections, each waiting for its answer."""
    parts = urlsplit(url)
    waiting = list(reversed(requests))

    async def work() -> None:
        stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)
        async with stream:
            while waiting:
                await stream.send_all(waiting.pop())
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += await stream.receive_some(65_536)
                head, _, body = answer.partition(b"\r\n\r\n")
                if b" 202 " not in head[:16]:
                    raise SystemExit(f"accepting was answered {head.splitlines()[0].decode()}: {body[:300].decode()}")
                lowered = head.lower()
                length = int(lowered.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
                while len(body) < length:
                    body += await stream.receive_some(65_536)

    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(work)


def set_up(servers: Servers, url: str) -> str:
    """An organization, a key, a provider that may send next to nothing, a template. Returns the key."""
    key = api_keys.compose(secrets.token_bytes(api_keys.ENTROPY_BYTES))
    with psycopg.connect(servers.postgres_url, autocommit=True) as connection:
        connection.execute("INSERT INTO organizations (id, name) VALUES (%s, %s)", (ORGANIZATION, ORGANIZATION))
        connection.execute(
            "INSERT INTO api_keys (id, organization_id, name, key_hash, scopes) VALUES (%s, %s, 'bench', %s, %s)",
            (
                uuid7(time.time_ns() // 1_000_000, random.getrandbits(RANDOM_BITS)),
                ORGANIZATION,
                api_keys.digest(key.encode()),
                [str(scope) for scope in api_keys.Scope],
            ),
        )
    with httpx.Client(base_url=f"{url}/v1/orgs/{ORGANIZATION}", headers={"authorization": f"Bearer {key}"}) as client:
        provider = {
            "provider": "sendgrid",
            "channel": "email",
            "credentials": {"api_key": API_KEY},
            "settings": {"from_email": "shop@example.org", "base_url": servers.sandbox_url, "rate_per_s": 1 / 3600, "burst": 1},
        }
        client.post("/providers", json=provider).raise_for_status()
        client.post("/templates", json=TEMPLATE).raise_for_status()
    return key


def check(servers: Servers, accepted: int) -> None:
    """Every accepted notification is a row, rendered: a fast wrong answer does not count."""
    with psycopg.connect(servers.postgres_url) as connection:
        rows = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE payload->>'html' LIKE '%%Row 4, seat 8%%') "
            "FROM notifications WHERE organization_id = %s",
            (ORGANIZATION,),
        ).fetchone()
    if rows != (accepted, accepted):
        raise SystemExit(f"{accepted} were accepted, but Postgres holds (rows, rendered) {rows}")


def turn(servers: Servers, url: str, pid: int, requests: list[bytes], per_request: int, connections: int) -> Turn:
    """Send the requests and account for them."""
    with accounts({"own": pid, "postgres": servers.pids["postgres"], "valkey": servers.pids["valkey"]}) as spent:
        began_s = time.monotonic()
        trio.run(post_all, url, requests, connections)
        seconds = time.monotonic() - began_s
    count = len(requests) * per_request
    return Turn(count, seconds, {name: cpu * 1e6 / count for name, cpu in spent.items()})


def main(servers: Servers, *, rounds: int, batches: int, singles: int, connections: int = 32) -> None:
    """Run the rounds and print the table."""
    environment = servers.environment()
    in_batches: list[Turn] = []
    one_by_one: list[Turn] = []
    empty: list[Turn] = []
    with ExitStack() as stack:
        ours = stack.enter_context(contestant([sys.executable, "-m", "bench.subject"], environment))
        theirs = stack.enter_context(contestant([sys.executable, "-m", "bench.empty_route"], environment))
        our_url, their_url = ours.first_line.split()[1], theirs.first_line.split()[1]
        key = set_up(servers, our_url)
        batch = orjson.dumps({"items": [item(number) for number in range(BATCH_ITEMS)]})
        big = [request(our_url, key, batch)] * batches
        small = [request(our_url, key, orjson.dumps(item(number))) for number in range(singles)]
        nothing = [request(their_url, key, orjson.dumps(item(number))) for number in range(singles)]
        accepted = 0
        for number in range(rounds + 1):
            measured: list[tuple[list[Turn], Callable[[], Turn]]] = [
                (in_batches, lambda: turn(servers, our_url, ours.process.pid, big, BATCH_ITEMS, 4)),
                (one_by_one, lambda: turn(servers, our_url, ours.process.pid, small, 1, connections)),
                (empty, lambda: turn(servers, their_url, theirs.process.pid, nothing, 1, connections)),
            ]
            for results, run in measured:
                result = run()
                accepted += 0 if results is empty else result.count
                if number:  # the first round warms up
                    results.append(result)
        check(servers, accepted)
    print(f"\nAccept: validated, rendered, durable; median [least - most] of {rounds} rounds")
    print(f"{'':<28}{'notifications/s':>24}   CPU µs per notification")
    for name, turns in (("batches of 500", in_batches), ("one by one", one_by_one), ("an empty Quart-Trio route", empty)):
        costs = "  ".join(f"{part} {spread([t.cpu_us[part] for t in turns])}" for part in ("own", "postgres", "valkey"))
        print(f"{name:<28}{spread([t.rate for t in turns]):>24}   {costs}")
    ratios = [mine.rate / other.rate for mine, other in zip(one_by_one, empty, strict=True)]
    print(f"batches of 500: {median([t.rate for t in in_batches]):,.0f}/s   (to reach: 5,000)")
    print(f"one by one / empty route: {spread(ratios, 2)}   (to reach: 0.75)")
