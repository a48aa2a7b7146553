"""Makes the calls to the hooks: what is due leaves, at most ``CALLS_MAX`` at once, every call with a deadline."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable

import httpx
import trio

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.reporting import Parcel, Reporting

CALLS_MAX = 16
CALL_S = 10.0
GATHER_S = 0.005
"""So long an event waits for others of its hook."""


class _Whole(httpx.AsyncByteStream):
    """A body in one piece. Not a generator: one that is given up in the middle would be left to the garbage collector."""

    def __init__(self, body: bytes) -> None:
        self._pieces = iter((body,))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return next(self._pieces)
        except StopIteration:
            raise StopAsyncIteration from None


class Postman:
    """One sandbox's client. ``run`` until cancelled; what is waiting then is lost."""

    def __init__(self, reporting: Reporting, behaviour: Callable[[], Behaviour], clock: Callable[[], float]) -> None:
        self._reporting = reporting
        self._behaviour = behaviour
        self._clock = clock
        self._news = trio.Event()
        self._room = trio.Semaphore(CALLS_MAX)

    async def run(self) -> None:
        """Send what is due, for ever."""
        reporting = self._reporting
        reporting.wake = self._wake
        if reporting.next_due_s() is None:
            await self._news.wait()  # a client is opened with the first event only: most sandboxes never report anything
        client = httpx.AsyncClient(timeout=CALL_S, verify=False, trust_env=False)  # noqa: S501 - loopback
        async with client, trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                next_s = reporting.next_due_s()
                wait_s = math.inf if next_s is None else next_s - self._clock()
                with trio.move_on_after(max(wait_s, 0)):
                    await self._news.wait()
                await trio.sleep(GATHER_S)
                for parcel in reporting.due(self._behaviour(), self._clock()):
                    await self._room.acquire()
                    nursery.start_soon(self._deliver, client, parcel)

    def _wake(self) -> None:
        self._news.set()

    async def _deliver(self, client: httpx.AsyncClient, parcel: Parcel) -> None:
        try:
            acknowledged = await self._call(client, parcel)
        finally:
            self._room.release()
        self._reporting.answered(parcel, acknowledged, self._behaviour(), self._clock())

    async def _call(self, client: httpx.AsyncClient, parcel: Parcel) -> bool:
        callback = parcel.callback(self._clock())
        if callback is None:
            return True
        try:
            with trio.fail_after(CALL_S):
                headers = dict(callback.headers)
                request = client.build_request(callback.method, callback.url, headers=headers, content=callback.body or None)
                request.stream = _Whole(callback.body)
                response = await client.send(request)
        except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError):
            return False
        return response.is_success and (callback.expected is None or response.content == callback.expected)
