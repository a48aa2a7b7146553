"""What the surface itself costs per accepted request: its server, its lane and its key check, without an acceptor behind.

Three processes answer the same requests in turns: an empty Quart-Trio route on Hypercorn as it comes, the same route on
our connections, and the accept lane with an acceptor that answers at once. What stands between the first two is
``dispatcher_http/connection.py``, between the last two ``dispatcher_http/accept_lane.py``.

    python -m bench.accept_route [--requests 4000] [--rounds 7] [--connections 16]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any

import trio
from attrs import frozen
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from prometheus_client import CollectorRegistry

from actors.store import api_keys
from actors.store.api_keys import ApiKey, Scope
from bench.accepting import ORGANIZATION, post_all, request
from bench.empty_route import app as empty_app
from bench.rig import ROOT, contestant, cpu_s, spread
from dispatcher.config import SurfaceConfig
from dispatcher.model import OrganizationId
from dispatcher_http.app import create_app
from dispatcher_http.server import serve
from dispatcher_http.services import Services

KEY = api_keys.compose(b"bench" + bytes(27))
BODY = b'{"channel":"email","recipient":"reader@example.org","content":{"subject":"x","text":"%s"}}' % (b"x" * 500)
NAMES = {
    "hypercorn": "empty route, Hypercorn as it comes",
    "connection": "empty route, our connections",
    "lane": "accept lane, our connections",
}


@frozen
class Accepted:
    """The answer of an acceptor that does nothing."""

    status: int = 202
    body: bytes = b'{"id":"00000000-0000-0000-0000-000000000000","status":"queued"}'
    headers: Mapping[str, str] = {}


class OneKey:
    """A pool that knows one key."""

    async def fetch(self, *_: object) -> list[tuple[Any, ...]]:
        key = ApiKey("id", OrganizationId(ORGANIZATION), "bench", frozenset(Scope), datetime.now(UTC), None)
        return [(key.id, key.organization_id, key.name, list(key.scopes), key.created_at, key.revoked_at)]


def accept_app() -> Any:
    """The surface, with nothing behind it."""
    answer = Accepted()

    async def accept(organization_id: OrganizationId, body: bytes, idempotency_key: str | None) -> Accepted:
        return answer

    unused: Any = None
    pool: Any = OneKey()
    services = Services(
        accept=accept,
        explain=unused,
        events=unused,
        changed=unused,
        requeued=unused,
        requeued_many=unused,
        discarded=unused,
        listen=unused,
        probe=unused,
        take_in=unused,
        contacts_changed=unused,
        ready=unused,
        pool=pool,
        config=SurfaceConfig(),
        providers={},
        provider_urls_extra=(),
        registry=CollectorRegistry(),
        encryption_keys=None,
        attempts_max=1,
        new_id=unused,
        random_bytes=unused,
    )
    return create_app(services)


async def contend(name: str) -> None:
    """Serve until SIGTERM."""
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            if name == "hypercorn":
                (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                config = Config()
                config.bind = [f"fd://{os.dup(listener.socket.fileno())}"]
                config.accesslog = config.errorlog = None
                config.keep_alive_max_requests = 1_000_000
                port = listener.socket.getsockname()[1]
                await nursery.start(partial(_hypercorn, config, stop))
            else:
                app: Any = accept_app() if name == "lane" else empty_app
                app.stopping = trio.Event()
                port = await nursery.start(partial(serve, app, SurfaceConfig(port=0), stop, grace_s=1))
            print(f"http://127.0.0.1:{port}", flush=True)
            async for _ in signals:
                stop.set()
                break


async def _hypercorn(config: Config, stop: trio.Event, *, task_status: trio.TaskStatus[Any]) -> None:
    app: Any = empty_app
    await hypercorn_serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)


def main(requests: int, rounds: int, connections: int) -> None:
    """Run the rounds and print the table."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "http")))}
    cpu_us: dict[str, list[float]] = {name: [] for name in NAMES}
    with ExitStack() as stack:
        contestants = {
            name: stack.enter_context(contestant([sys.executable, "-m", "bench.accept_route", "--serve", name], environment))
            for name in NAMES
        }
        for turn in range(rounds + 1):
            for name, each in contestants.items():
                url, pid = each.first_line, each.process.pid
                before_s = cpu_s(pid)
                trio.run(post_all, url, [request(url, KEY, BODY)] * requests, connections)
                if turn:  # the first one warms up
                    cpu_us[name].append((cpu_s(pid) - before_s) * 1e6 / requests)
    first = median(cpu_us["hypercorn"])
    print(f"{'':38}{'CPU us a request':>26}{'ratio':>8}")
    for name, values in cpu_us.items():
        print(f"{NAMES[name]:38}{spread(values):>26}{median(values) / first:8.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--serve", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run(contend, arguments.serve)
    else:
        main(arguments.requests, arguments.rounds, arguments.connections)
