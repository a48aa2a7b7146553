"""Fetches what a report can not be trusted without: certificates, and confirmations that must be visited.

Only URLs come here that a provider's module has approved. Bounded in every way: a deadline, the size of an answer, no redirects,
one fetch per URL at a time, few answers kept, none for longer than a day.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable

import trio

from actors.io.http import Deadlines, MaybeSent, NotSent
from actors.transports import Transports
from dispatcher.errors import DispatcherError
from dispatcher.http_message import HttpRequest
from dispatcher.origins import parse_base_url

KEPT_S = 86_400.0
KEPT_MAX = 64
BYTES_MAX = 64 * 1024
FETCH_S = 5.0
FETCHES_MAX = 4
_QUERY = re.compile(r"[!-~]*")
_DEADLINES = Deadlines(pool_s=FETCH_S, connect_s=FETCH_S, write_s=FETCH_S, read_s=FETCH_S, total_s=FETCH_S)


class NotFetched(DispatcherError):
    """It could not be had at this moment. Says nothing of the URL, which may carry a token."""


class Fetcher:
    """Fetches over the transports that carry everything else. ``now_s`` is monotonic."""

    def __init__(self, transports: Transports, now_s: Callable[[], float] = trio.current_time) -> None:
        self._transports = transports
        self._now_s = now_s
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._under_way: dict[str, trio.Event] = {}
        self._room = trio.CapacityLimiter(FETCHES_MAX)

    async def get(self, url: str) -> bytes:
        """What stands at a URL, kept for a day. Raises NotFetched."""
        while (others := self._under_way.get(url)) is not None:
            await others.wait()
        kept = self._kept.get(url)
        if kept is not None and kept[0] > self._now_s():
            return kept[1]
        done = self._under_way[url] = trio.Event()
        try:
            body = await self.visit(url)
        finally:
            del self._under_way[url]
            done.set()
        self._kept[url] = (self._now_s() + KEPT_S, body)
        self._kept.move_to_end(url)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return body

    async def visit(self, url: str) -> bytes:
        """What stands at a URL now. Raises NotFetched."""
        address, _, query = url.partition("?")
        base = parse_base_url(address)
        if base is None or _QUERY.fullmatch(query) is None or "#" in url:
            raise NotFetched("not a URL that can be fetched")
        target = (base.path or "/").encode("ascii") + (b"?" + query.encode("ascii") if query else b"")
        request = HttpRequest(base.origin, b"GET", target, ((b"user-agent", b"notification-dispatcher"), (b"accept", b"*/*")))
        try:
            async with self._room:
                response = await self._transports.exchange(request, _DEADLINES)
        except (NotSent, MaybeSent) as error:
            raise NotFetched(f"nothing was fetched: {type(error).__name__}") from None
        body = getattr(response, "body", None)
        if response.status != 200 or not isinstance(body, bytes) or len(body) > BYTES_MAX:
            raise NotFetched("what was fetched is of no use")
        return body
