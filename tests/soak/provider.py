"""The counting sandbox as a process of its own, with a ledger that forgets nothing within hours: ``python -m soak.provider``."""

from __future__ import annotations

import gc
import signal
import sys

import trio

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.sandbox import open_sandbox

NAMES_MAX = 20_000_000


async def serve(honours: bool) -> None:
    """Print the URL, then serve until SIGTERM."""
    ledger = Ledger(NAMES_MAX, 200)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_sandbox(behaviour=Behaviour(honour_idempotency_keys=honours), ledger=ledger) as sandbox:
            print(f"Serving on {sandbox.url}", flush=True)
            async for _ in signals:
                return


if __name__ == "__main__":
    gc.freeze()
    trio.run(serve, "--honours" in sys.argv)
