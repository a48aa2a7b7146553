"""Many exchanges, cancelled at any moment, against peers that misbehave at random: afterwards nothing is in use, no caller
got another's answer, no request arrived twice, and none that was reported as not sent arrived at all."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from itertools import count
from math import inf

import pytest
import trio
from trio.testing import MockClock

import soak.cancels
from actors.io.http import Deadlines, ExchangeFailed, NotSent, PoolLimits, open_http_pool
from house import Tls
from http_peer import Peer, peers

CALLERS = 24
EXCHANGES_EACH = 40
LARGE = b"x" * (8 << 20)
DEADLINES = Deadlines(inf, inf, inf, inf, total_s=1)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_no_place_is_lost_however_exchanges_end(secure: bool, tls: Tls, autojump_clock: MockClock) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    endings: Counter[str] = Counter()
    arrived: Counter[bytes] = Counter()
    not_sent: list[bytes] = []
    numbers = count()

    async def misbehave(peer: Peer) -> None:
        await soak.cancels.misbehave(peer, dice, arrived)

    async def call() -> None:
        for _ in range(EXCHANGES_EACH):
            number = b"/%d" % next(numbers)
            request = dice.choice(servers).post(LARGE if dice.random() < 0.01 else b"hello")._replace(target=number)
            with trio.CancelScope() as scope:
                if dice.random() < 0.5:
                    nursery.start_soon(cancel_later, scope, dice.randrange(30))
                try:
                    # The clock only moves when everybody waits for a silent peer (case 6).
                    response = await pool.exchange(request, DEADLINES)
                    endings["answered"] += 1
                    assert response.body == number or response.status == 408
                except ExchangeFailed as failure:
                    endings["failed"] += 1
                    if isinstance(failure, NotSent):
                        not_sent.append(number)
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

            # Every place can still be used.
            for _ in range(20):
                with suppress(ExchangeFailed):
                    await pool.exchange(one.post()._replace(target=b"/%d" % next(numbers)), DEADLINES)
            assert pool.statistics().in_use == 0
        assert pool.statistics().connections == 0

    assert endings.total() == CALLERS * EXCHANGES_EACH
    assert endings.keys() == {"answered", "failed", "cancelled"}
    assert max(arrived.values()) == 1
    assert arrived.keys().isdisjoint(not_sent)
