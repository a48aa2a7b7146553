"""Many exchanges, cancelled at any moment, against peers that misbehave at random: afterwards nothing is in use."""

from __future__ import annotations

import random
from contextlib import suppress
from math import inf

import pytest
import trio
from trio.testing import MockClock

from actors.io.http import Deadlines, ExchangeFailed, PoolLimits, open_http_pool
from house import Tls
from http_peer import OK, OK_AND_CLOSE, Peer, peers

CALLERS = 24
EXCHANGES_EACH = 40
LARGE = b"x" * (8 << 20)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_no_place_is_lost_however_exchanges_end(secure: bool, tls: Tls, autojump_clock: MockClock) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    dice = random.Random(seed)
    endings = {"answered": 0, "failed": 0, "cancelled": 0}

    async def misbehave(peer: Peer) -> None:
        while await peer.request() is not None:
            match dice.randrange(12):
                case 0:
                    await peer.send(OK_AND_CLOSE)
                    return
                case 1:
                    return
                case 2:
                    peer.reset()
                    return
                case 3:
                    await peer.send(OK[: dice.randrange(len(OK))])
                    return
                case 4:
                    await peer.send(OK + b"leftover")
                case 5:
                    await peer.send(b"not HTTP at all\r\n\r\n")
                case 6:
                    await peer.gone()
                    return
                case 7:
                    for byte in OK:
                        await peer.send(bytes([byte]))
                case _:
                    await peer.send(OK)

    async def call() -> None:
        for _ in range(EXCHANGES_EACH):
            server = dice.choice(servers)
            request = server.post(LARGE if dice.random() < 0.01 else b"hello")
            with trio.CancelScope() as scope:
                if dice.random() < 0.5:
                    nursery.start_soon(cancel_later, scope, dice.randrange(30))
                try:
                    # The clock only moves when everybody waits for a silent peer (case 6).
                    response = await pool.exchange(request, Deadlines(inf, inf, inf, inf, total_s=1))
                    assert response.body == b"ok"
                    endings["answered"] += 1
                except ExchangeFailed:
                    endings["failed"] += 1
            if scope.cancelled_caught:
                endings["cancelled"] += 1

    async def cancel_later(scope: trio.CancelScope, steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    context = tls.server_context() if secure else None
    async with peers(misbehave, tls=context) as one, peers(misbehave, tls=context) as other:
        servers = [one, other]
        limits = PoolLimits(connections_per_origin_max=6, connections_max=9)
        async with open_http_pool(limits=limits, tls_context=tls.client_context()) as pool:
            async with trio.open_nursery() as nursery:
                for _ in range(CALLERS):
                    nursery.start_soon(call)

            statistics = pool.statistics()
            assert (statistics.in_use, statistics.waiting) == (0, 0)
            assert statistics.idle == statistics.connections == len(pool._connections)
            assert sum(endings.values()) == CALLERS * EXCHANGES_EACH
            assert min(endings.values()) > 0

            # Every place can still be used.
            for _ in range(20):
                with suppress(ExchangeFailed):
                    await pool.exchange(one.post(), Deadlines(total_s=1))
            assert pool.statistics().in_use == 0
        assert pool.statistics().connections == 0
