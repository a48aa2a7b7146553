"""The floor: dispatching without a dispatcher. One program, top to bottom, that makes the same requests of the same servers.

No actors, breakers, buckets, retries, leases, limits or metrics. For each organization in turn: claim from its list, one gate
statement, the POSTs over 32 connections (a socket and a parser, nothing else), one record statement, one settle script with
the announcements. What the dispatcher costs above this is what its features cost.

Run by the rig: prints ``ready``, then empties every queue once for each line on standard input.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import time
from typing import Any
from uuid import uuid4

import orjson
import trio
from httptools import HttpResponseParser

from actors.io.postgres import Pool, open_pool
from actors.io.redis import Redis, open_redis
from actors.ports import Settlement
from actors.redis_queue import RedisQueue
from actors.store.statements import GATE, RECORD_DELIVERED, REGISTER
from bench.rig import API_KEY, SHARDS
from dispatcher.http_message import HttpRequest
from dispatcher.model import Channel, Delivery, OrganizationId, ProviderConfig
from dispatcher.providers.registry import REGISTRY, Bound, Moment, Request

CONNECTIONS = 32
BATCH = 500


class Answer:
    """Collects one response."""

    def __init__(self) -> None:
        self.done = False
        self.message_id: bytes | None = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if name == b"X-Message-Id":
            self.message_id = value

    def on_message_complete(self) -> None:
        self.done = True


async def post(sock: trio.socket.SocketType, data: bytes) -> str | None:
    """One request over one connection."""
    await sock.send(data)
    answer = Answer()
    parser = HttpResponseParser(answer)
    while not answer.done:
        parser.feed_data(await sock.recv(65_536))
    if parser.get_status_code() != 202:
        raise SystemExit(f"the sandbox answered {parser.get_status_code()}")
    return answer.message_id.decode() if answer.message_id else None


def wire(request: Request) -> bytes:
    """The request as bytes."""
    assert isinstance(request, HttpRequest)
    origin = request.origin
    head = [b"%b %b HTTP/1.1" % (request.method, request.target), b"host: %b:%d" % (origin.host.encode(), origin.port)]
    head.extend(name + b": " + value for name, value in request.headers)
    head.append(b"content-length: %d" % len(request.body))
    return b"\r\n".join(head) + b"\r\n\r\n" + request.body


class Floor:
    """The program: its connections and what it knows by heart."""

    def __init__(
        self,
        pool: Pool,
        redis: Redis,
        sockets: list[trio.socket.SocketType],
        bounds: dict[str, Bound],
        configs: dict[str, str],
    ) -> None:
        self.pool = pool
        self.queue = RedisQueue(redis, lease_s=60.0, shards=SHARDS)
        self.sockets = sockets
        self.bounds = bounds
        self.configs = configs
        self.incarnation = str(uuid4())

    async def dispatch(self, name: OrganizationId) -> None:
        """Empty one organization's queue."""
        while True:
            ids = (await self.queue.claim(name, BATCH)).ids
            if not ids:
                return
            params = {"claimer": self.incarnation, "ids": sorted(ids), "closed": []}
            rows: list[Any] = await self.pool.fetch(GATE, params)
            sent = await self.send(name, [Delivery(row[0], row[1], Channel(row[2]), *row[3:]) for row in rows])
            recorded = await self.pool.fetch(
                RECORD_DELIVERED,
                (
                    [id for id, _ in sent],
                    [1] * len(sent),
                    ["sendgrid"] * len(sent),
                    [self.configs[name]] * len(sent),
                    [message_id for _, message_id in sent],
                    self.incarnation,
                ),
            )
            notices = [
                orjson.dumps({"type": "notification.delivered", "id": id, "channel": "email", "status": "delivered", "at": 0.0})
                for (id,) in recorded
            ]
            await self.queue.settle([Settlement(name, done=[id for (id,) in recorded], announcements=notices)])

    async def send(self, name: str, deliveries: list[Delivery]) -> list[tuple[str, str | None]]:
        """POST them all over the connections."""
        waiting = list(reversed(deliveries))
        sent: list[tuple[str, str | None]] = []
        request = self.bounds[name].request
        moment = Moment(time.time(), secrets.token_bytes)

        async def work(sock: trio.socket.SocketType) -> None:
            while waiting:
                delivery = waiting.pop()
                sent.append((delivery.id, await post(sock, wire(request(delivery, moment)))))

        async with trio.open_nursery() as nursery:
            for sock in self.sockets:
                nursery.start_soon(work, sock)
        sent.sort()
        return sent


async def main() -> None:
    sandbox_url = os.environ["DISPATCHER_PROVIDER_URLS_EXTRA"]
    deadlines: dict[str, Any] = {"connect_deadline_s": 10.0, "random": random.Random()}
    async with (
        open_pool(os.environ["DISPATCHER_POSTGRES_URL"], size_max=1, statement_deadline_s=30.0, **deadlines) as pool,
        open_redis(os.environ["DISPATCHER_REDIS_URL"], command_deadline_s=30.0, **deadlines) as redis,
    ):
        rows = await pool.fetch("SELECT organization_id, id, settings FROM delivery_provider_configs")
        bounds = {
            name: REGISTRY["sendgrid"].bind(
                ProviderConfig(id, name, Channel.EMAIL, "sendgrid", settings, {"api_key": API_KEY}, 1), (sandbox_url,)
            )
            for name, id, settings in rows
        }
        sockets = []
        host, _, port = sandbox_url.removeprefix("http://").partition(":")
        for _ in range(CONNECTIONS):
            sock = trio.socket.socket()
            await sock.connect((host, int(port)))
            sock.setsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_NODELAY, 1)
            sockets.append(sock)
        floor = Floor(pool, redis, sockets, bounds, {name: id for name, id, _ in rows})
        await pool.execute(REGISTER, (floor.incarnation, 86_400.0))
        print("ready", flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            for name in bounds:
                await floor.dispatch(OrganizationId(name))


if __name__ == "__main__":
    trio.run(main)
