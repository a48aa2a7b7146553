"""What does the sandbox itself cost? CPU microseconds of its own process per accepted mail/send.

    python bench/sandbox_cost.py [--requests 60000] [--connections 32] [--pipelined 1] [--tls]

It shares the machine with whatever it serves, so a dear sandbox would hide what the dispatcher costs. The client here is as
lean as it can be; its CPU is not counted. The target is at most 40 µs for 700 bytes on 32 keep-alive connections, on a machine
with nothing else to do: neighbours that share its caches make every microsecond longer.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import httpx
import orjson
import trio

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "http")])}
MESSAGE_BYTES = 700
START_S = 15.0


def mail_send(number: int) -> bytes:
    """One request as the dispatcher would write it, its body of about MESSAGE_BYTES."""
    notification_id = f"0199aaaa-bbbb-7ccc-8ddd-{number:012d}"
    text = {"type": "text/plain", "value": ""}
    document = {
        "personalizations": [
            {
                "to": [{"email": f"somebody.{number}@example.com"}],
                "custom_args": {"notification_id": notification_id, "organization_id": f"org-{number % 50}"},
            }
        ],
        "from": {"email": "tickets@example.org", "name": "Tickets"},
        "subject": "Your tickets",
        "content": [text, {"type": "text/html", "value": "<p>See you there.</p>"}],
    }
    text["value"] = "x" * (MESSAGE_BYTES - len(orjson.dumps(document)))
    body = orjson.dumps(document)
    return (
        b"POST /v3/mail/send HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer SG.bench.key\r\nAccept: application/json\r\n"
        b"Content-Type: application/json\r\nIdempotency-Key: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (notification_id.encode(), len(body), body)
    )


async def drive(
    address: tuple[str, int], context: ssl.SSLContext | None, requests: int, connections: int, pipelined: int
) -> None:
    """Send ``requests`` requests over ``connections`` connections, ``pipelined`` at a time, and check every answer."""
    numbers = iter(range(0, requests, pipelined))

    async def converse() -> None:
        stream: trio.abc.Stream = await trio.open_tcp_stream(*address)
        if context is not None:
            stream = trio.SSLStream(stream, context, server_hostname="localhost")
        async with stream:
            for first in numbers:
                await stream.send_all(b"".join(mail_send(first + offset) for offset in range(pipelined)))
                answers = b""
                while answers.count(b"\r\n\r\n") < pipelined:
                    answers += await stream.receive_some(65536)
                if answers.count(b"HTTP/1.1 202 ") != pipelined:
                    raise SystemExit(f"not accepted: {answers!r}")

    async with trio.open_nursery() as nursery:
        for _ in range(connections):
            nursery.start_soon(converse)


@contextmanager
def sandbox(*options: str) -> Iterator[str]:
    """A sandbox in a process of its own; gives its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dispatcher_sandbox", "--port", "0", *options], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        started = re.search(r"https?://[^\s/]+", process.stdout.readline())
        if started is None:
            raise SystemExit("the sandbox did not start")
        yield started[0]
    finally:
        process.terminate()
        process.wait(START_S)


@contextmanager
def certificate() -> Iterator[tuple[str, ssl.SSLContext]]:
    """A throw-away certificate for localhost: its file, and a client's context that trusts it."""
    import trustme

    authority = trustme.CA()
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes())
        file.flush()
        context = ssl.create_default_context()
        authority.configure_trust(context)
        yield file.name, context


def measure(url: str, context: ssl.SSLContext | None, requests: int, connections: int, pipelined: int) -> None:
    """Warm up, drive, print."""
    parts = httpx.URL(url)
    host = "localhost" if context is not None else parts.host
    with httpx.Client(base_url=str(parts.copy_with(host=host)), verify=context or True) as control:

        def cpu_s() -> float:
            return float(control.get("/_sandbox/statistics").raise_for_status().json()["cpu_s"])

        address = (parts.host, parts.port or 0)
        trio.run(drive, address, context, max(requests // 10, connections * pipelined), connections, pipelined)
        control.delete("/_sandbox/ledger").raise_for_status()
        before_s, began_s = cpu_s(), time.perf_counter()
        trio.run(drive, address, context, requests, connections, pipelined)
        took_s, spent_s = time.perf_counter() - began_s, cpu_s() - before_s
        accepted = control.get("/_sandbox/ledger/summary").raise_for_status().json()["accepted"]
        memory_kib = control.get("/_sandbox/statistics").json()["memory_kib_max"]
    body_bytes = len(mail_send(0).partition(b"\r\n\r\n")[2])
    print(
        f"sandbox: {spent_s / accepted * 1e6:6.1f} µs CPU per accepted mail/send of {body_bytes} bytes; "
        f"{accepted} on {connections} {'TLS ' if context else ''}connections, {pipelined} at a time, "
        f"{accepted / took_s:,.0f}/s; at most {memory_kib / 1024:,.0f} MiB"
    )


@click.command()
@click.option("--requests", default=60_000, show_default=True)
@click.option("--connections", default=32, show_default=True)
@click.option("--pipelined", default=1, show_default=True, help="Requests sent before their answers are awaited.")
@click.option("--tls", is_flag=True)
def main(requests: int, connections: int, pipelined: int, tls: bool) -> None:
    """Print the sandbox's CPU microseconds per request."""
    if tls:
        with certificate() as (file, context), sandbox("--tls-certificate", file) as url:
            measure(url, context, requests, connections, pipelined)
    else:
        with sandbox() as url:
            measure(url, None, requests, connections, pipelined)


if __name__ == "__main__":
    main()
