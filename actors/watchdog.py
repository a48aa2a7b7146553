"""Notices what lives and gets nowhere. A fault that raises is seen by its supervisor; one that forgets is seen by nobody.

An organization's actor that has work, and nothing that keeps it from claiming, has to claim. The sweep names the organizations
with work; one whose actor has not claimed through several sweeps is stalled. Tasks that do one round after another say so at each
step, and one that has not for longer than all its deadlines together could last is stalled as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio

from actors.organization import OrganizationActor
from actors.supervision import Stalled

SWEEPS = 3
"""Sweeps an actor may ignore: each of them has woken it."""
STALLED_MIN_S = 60.0
"""And never sooner than this, however often the sweep looks: a busy process may be late with everything for a while."""
SILENT_S = 300.0
"""Longer than any one step of a task may take, its pauses aside: deadlines are seconds, a wait for a connection included."""


class Watchdog:
    """Remembers which actors looked stalled at each sweep, and since when."""

    def __init__(self, sweep_s: float) -> None:
        self.stalled_s = max(SWEEPS * sweep_s, STALLED_MIN_S)
        self._suspects: dict[OrganizationActor, tuple[float, int]] = {}

    def look(self, with_work: Iterable[OrganizationActor]) -> list[tuple[OrganizationActor, float]]:
        """Look at the actors whose organizations have work now. Returns the stalled ones, and for how long they have been."""
        now_s = trio.current_time()
        suspects: dict[OrganizationActor, tuple[float, int]] = {}
        for actor in with_work:
            if actor.should_claim:
                since_s, claims = self._suspects.get(actor, (now_s, actor.claims))
                suspects[actor] = (since_s if claims == actor.claims else now_s, actor.claims)
        self._suspects = suspects
        return [(actor, now_s - since_s) for actor, (since_s, _) in suspects.items() if now_s - since_s >= self.stalled_s]

    def forget(self) -> None:
        """Nothing could be seen this time: what was seen before says nothing any more."""
        self._suspects.clear()


async def watched(
    name: str, run: Callable[[], Awaitable[None]], stepped_s: Callable[[], float], *, silent_s: float = SILENT_S
) -> None:
    """Run a task that should never stand still.

    ``stepped_s`` says when it last took a step. Raises what it raises, and Stalled when that was ``silent_s`` ago.
    """
    began_s = trio.current_time()
    failure: Exception | None = None

    async def live() -> None:
        nonlocal failure
        try:
            await run()
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        late_s = 0.0
        while late_s < silent_s:
            await trio.sleep(max(silent_s - late_s, 1.0))
            late_s = trio.current_time() - max(began_s, stepped_s())
        failure = Stalled(f"{name} has not taken a step for {late_s:.0f} s", late_s)
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
