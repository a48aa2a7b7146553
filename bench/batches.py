"""What does riding together gain: one dispatcher, mails alone and up to a hundred in a call, in turns.

Two sets of organizations in the same process and on the same servers, alike but for ``batch_max``: what one set has queued is
dispatched, then what the other has. Every mail has words of its own, so what is compared includes the substitutions.
"""

from __future__ import annotations

import sys
import time
from statistics import median

import orjson
from attrs import frozen

from bench.dispatch import DEADLINE_S
from bench.rig import TEXT, Load, Servers, Turn, accounts, contestant, spread

BATCH_MAX = 100
GOAL = 2.0
IN_FLIGHT_MAX = 4 * BATCH_MAX
"""Of one organization: it claims a quarter of this at once, which then waits together."""


class Worded(Load):
    """Every mail with words of its own."""

    def payload(self, number: int) -> str:
        """As long as in the other benches."""
        return orjson.dumps({"subject": "Your tickets", "text": f"{number:08d} {TEXT[9:]}"}).decode()


@frozen
class Side:
    """One set of organizations."""

    name: str
    load: Load


def run_turn(side: Side, count: int, pid: int) -> tuple[Turn, float]:
    """Dispatch what one side has queued; how it went, and how many mails there were to a request."""
    side.load.queue(side.load.lay_out(count))
    with accounts({"own": pid, **side.load.servers.pids}) as spent:
        began_s = time.monotonic()
        side.load.wake()
        side.load.wait_done(count, DEADLINE_S)
        seconds = time.monotonic() - began_s
    side.load.check(count)
    return Turn(count, seconds, {name: cpu * 1e6 / count for name, cpu in spent.items()}), count / side.load.requests()


def main(up: Servers, *, rounds: int, count: int, organizations: int, seed: int) -> list[float]:
    """Run ``rounds`` rounds of both in turns and print the table; the ratios of their rates."""
    sides = [
        Side("alone", Worded(up, organizations, seed, "alone")),
        Side("together", Worded(up, organizations, seed + 1, "together", batch_max=BATCH_MAX)),
    ]
    turns: dict[str, list[Turn]] = {side.name: [] for side in sides}
    sizes: list[float] = []
    environment = {**up.environment(), "DISPATCHER_ORGANIZATION_IN_FLIGHT_MAX": str(IN_FLIGHT_MAX)}
    with contestant([sys.executable, "-m", "bench.subject"], environment) as dispatcher:
        for side in sides:  # does not count: connections, caches, prepared statements
            run_turn(side, count, dispatcher.process.pid)
        for number in range(rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                turn, size = run_turn(side, count, dispatcher.process.pid)
                turns[side.name].append(turn)
                if side.name == "together":
                    sizes.append(size)
    for side in sides:
        side.load.close()
    print(
        f"\nSendGrid, mails alone and up to {BATCH_MAX} in a call: {organizations} organizations, {count:,} mails a turn; "
        f"median [least - most] of {rounds} rounds"
    )
    print(f"{'':<12}{'notifications/s':>26}   CPU µs per notification")
    for name, done in turns.items():
        costs = "  ".join(f"{part} {spread([turn.cpu_us[part] for turn in done])}" for part in done[0].cpu_us)
        print(f"{name:<12}{spread([turn.rate for turn in done]):>26}   {costs}")
    ratios = [both.rate / one.rate for both, one in zip(turns["together"], turns["alone"], strict=True)]
    print(f"together / alone: {spread(ratios, 2)}   (to reach: {GOAL:g}); {median(sizes):.0f} mails to a request")
    return ratios
