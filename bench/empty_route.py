"""The yardstick for accepting one by one: Hypercorn on Trio serving a Quart-Trio route that does nothing."""

from __future__ import annotations

import signal

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart_trio import QuartTrio

app = QuartTrio("empty")


@app.post("/v1/orgs/<organization>/notifications")
async def nothing(organization: str) -> tuple[dict[str, str], int]:
    """Answer at once."""
    return {"id": "00000000-0000-0000-0000-000000000000", "status": "queued"}, 202


async def main() -> None:
    config = Config()
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = config.errorlog = None
    config.keep_alive_max_requests = 1_000_000
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                await serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)  # type: ignore[arg-type]

            await nursery.start(run)
            print("ready", f"http://127.0.0.1:{port}", flush=True)
            async for _ in signals:
                stop.set()
                break


if __name__ == "__main__":
    trio.run(main)
