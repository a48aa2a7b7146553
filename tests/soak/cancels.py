"""The HTTP transport alone, for hours, against peers that misbehave at random, with exchanges cancelled at any moment.

``python -m soak.cancels`` prints a line of JSON at the end of each round, when no exchange is under way: then no place may be.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from contextlib import suppress
from itertools import count
from math import inf
from pathlib import Path
from random import Random

import trio

from actors.io.http import Deadlines, ExchangeFailed, PoolLimits, open_http_pool
from house import Tls
from http_peer import Peer, Server, peers

CALLERS = 16
ROUND_S = 5.0
DEADLINES = Deadlines(inf, inf, inf, inf, total_s=0.3)
LARGE = b"x" * (1 << 20)


async def misbehave(peer: Peer, dice: Random, arrived: Counter[bytes]) -> None:
    """Answer each request with its own target; or do not, in one of the ways peers have."""
    while (received := await peer.request()) is not None:
        number = received.line.split()[1]
        arrived[number] += 1
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(number), number)
        match dice.randrange(12):
            case 0:
                await peer.send(answer.replace(b"OK\r\n", b"OK\r\nconnection: close\r\n"))
                return
            case 1:
                return
            case 2:
                peer.reset()
                return
            case 3:
                await peer.send(answer[: dice.randrange(len(answer))])
                return
            case 4:
                await peer.send(answer + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong")
            case 5:
                await peer.send(b"not HTTP at all\r\n\r\n")
            case 6:
                await peer.gone()
                return
            case 7:
                for byte in answer:
                    await peer.send(bytes([byte]))
            case 8:
                await peer.send(answer)
                await peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
                return
            case _:
                await peer.send(answer)


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def open_files(pid: int) -> int:
    """File descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


async def main() -> None:
    """Rounds, until killed."""
    dice = Random(1)
    numbers = count()
    arrived: Counter[bytes] = Counter()
    endings: Counter[str] = Counter()

    async def script(peer: Peer) -> None:
        await misbehave(peer, dice, arrived)

    async def caller(until: float) -> None:
        while trio.current_time() < until:
            server = dice.choice(servers)
            request = server.post(LARGE if dice.random() < 0.005 else b"hello")._replace(target=b"/%d" % next(numbers))
            with trio.move_on_after(dice.choice((inf, 0.0, 0.001, 0.01, 0.1))) as scope:
                try:
                    await pool.exchange(request, DEADLINES)
                    endings["answered"] += 1
                except ExchangeFailed:
                    endings["failed"] += 1
            endings["cancelled"] += scope.cancelled_caught

    with tempfile.TemporaryDirectory() as folder:
        tls = Tls(Path(folder))
    servers: list[Server] = []
    limits = PoolLimits(connections_per_origin_max=6, connections_max=9)
    async with peers(script) as plain, peers(script, tls=tls.server_context()) as secure:
        servers += [plain, secure]
        async with open_http_pool(limits=limits, tls_context=tls.client_context()) as pool:
            while True:
                async with trio.open_nursery() as nursery:
                    for _ in range(CALLERS):
                        nursery.start_soon(caller, trio.current_time() + ROUND_S)
                statistics = pool.statistics()
                line = {
                    "memory": resident_mib(os.getpid()),
                    "files": open_files(os.getpid()),
                    "places in use": statistics.in_use,
                    "places": statistics.connections,
                    "waiting": statistics.waiting,
                    "exchanges": sum(endings.values()),
                    **endings,
                }
                print(json.dumps(line), flush=True)
                arrived.clear()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        trio.run(main)
