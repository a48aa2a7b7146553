"""One exchange on its way through an HTTP/2 pool: in line, on a stream of a connection, answered or failed.

Invariant: the task that waits for it is woken exactly once, with a response or with the failure that says whether the peer may
have acted: NotSent as long as nothing of the request was handed to the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import outcome
import trio
from h2.errors import ErrorCodes

from actors.io.http_terms import Deadlines, ExchangeFailed, MaybeSent, NotSent, Phase
from dispatcher.http_message import HttpResponse, Origin

if TYPE_CHECKING:
    from actors.io.h2_connection import H2Link
    from actors.io.h2_wire import Fields


class H2Stream:
    """What a caller waits for. ``number`` is 0 until it is on the wire; ``rest`` is what of the body is still to be sent."""

    __slots__ = (
        "_chunks",
        "_forget",
        "_headers",
        "_room",
        "_task",
        "account",
        "deadline_s",
        "deadlines",
        "ends_s",
        "fields",
        "link",
        "number",
        "origin",
        "phase",
        "rest",
        "sent",
        "status",
    )

    def __init__(
        self,
        origin: Origin,
        account: bytes,
        fields: Fields,
        body: bytes,
        deadlines: Deadlines,
        now_s: float,
        body_bytes_max: int,
        forget: Callable[[H2Stream], None],
    ) -> None:
        self.origin = origin
        self.account = account
        self.fields = fields
        self.rest: bytes | memoryview = body
        self.deadlines = deadlines
        self.ends_s = now_s + deadlines.total_s
        self.deadline_s = min(now_s + deadlines.pool_s, self.ends_s)
        self.phase: Phase = "pool"
        self.link: H2Link | None = None
        self.number = 0
        self.sent = False
        """Something of it may have been handed to the kernel."""
        self.status: int | None = None
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._chunks: list[bytes] = []
        self._room = body_bytes_max
        self._forget = forget
        self._task: trio.lowlevel.Task | None = None

    async def wait(self) -> HttpResponse:
        """Wait for the end. Raises NotSent or MaybeSent. Whoever is cancelled has the stream reset."""
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            self._forget(self)
            return trio.lowlevel.Abort.SUCCEEDED

        response: HttpResponse = await trio.lowlevel.wait_task_rescheduled(abort)
        return response

    def enter(self, phase: Phase, phase_ends_s: float) -> float:
        """Begin a phase; returns when it has to end."""
        self.phase = phase
        self.deadline_s = min(phase_ends_s, self.ends_s)
        return self.deadline_s

    def head(self, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of the answer has arrived. Raises ValueError when it is none."""
        self.status = int(headers[0][1])
        self._headers = tuple(headers[1:])

    def data(self, data: bytes) -> bool:
        """Part of the answer's body. False when it is more than there is room for."""
        self._room -= len(data)
        if data and self._room >= 0:
            self._chunks.append(data)
        return self._room >= 0

    def finish(self) -> None:
        """The answer is whole."""
        assert self.status is not None
        self._wake(outcome.Value(HttpResponse(self.status, self._headers, b"".join(self._chunks))))

    def reset(self, code: int) -> None:
        """The peer has broken it off."""
        if code == ErrorCodes.REFUSED_STREAM:
            self.fail(NotSent("read", "stream_refused"))
        else:
            self.fail(MaybeSent("read", "stream_reset", self.status))

    def lose(self, phase: Phase, code: str) -> None:
        """Its connection is gone."""
        self.fail(MaybeSent(phase, code, self.status) if self.sent else NotSent(phase, code))

    def overdue(self) -> None:
        """Its deadline has passed. Once it is written down, it may still leave with what waits for the kernel."""
        code = f"timeout_{self.phase}"
        self.fail(MaybeSent(self.phase, code, self.status) if self.number else NotSent(self.phase, code))

    def fail(self, failure: ExchangeFailed) -> None:
        """It ends without an answer."""
        self._wake(outcome.Error(failure))

    def _wake(self, result: outcome.Outcome[HttpResponse]) -> None:
        task, self._task = self._task, None
        assert task is not None
        trio.lowlevel.reschedule(task, result)
