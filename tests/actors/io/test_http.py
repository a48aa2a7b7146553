from __future__ import annotations

import httpx

from actors.io import http
from actors.io.http import Deadlines, HttpPool, PoolStatistics, TrioTransport, open_http_pool
from http_peer import OK, Peer, peers


def test_everything_public_is_reachable_from_here() -> None:
    assert all(hasattr(http, name) for name in http.__all__)


async def test_one_pool_serves_the_hot_path_and_httpx_alike() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer_all(OK)

    async with peers(script) as server, open_http_pool() as pool:
        assert isinstance(pool, HttpPool)
        response = await pool.exchange(server.post(), Deadlines())
        async with httpx.AsyncClient(transport=TrioTransport(pool)) as client:
            other = await client.post(f"{server.origin}/", content=b"hello")

        assert response.status == other.status_code == 200
        assert response.body == other.content == b"ok"
        assert server.accepted == 1
        assert pool.statistics() == PoolStatistics(
            connections=1, idle=1, in_use=0, waiting=0, origins=1, opened_total=1, stale_total=0, expired_total=0
        )
