"""The sandbox as a process of its own: ``python -m dispatcher_sandbox``, and the command the dispatcher's own CLI mounts."""

from __future__ import annotations

import gc
import resource
import signal
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import trio

from dispatcher_sandbox.behaviour import Behaviour, Outage
from dispatcher_sandbox.doors import DOORS
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox


async def serve(
    host: str,
    port: int,
    behaviour: Behaviour | None = None,
    tls: ssl.SSLContext | None = None,
    seed: int = 0,
    started: Callable[[Sandbox], None] = lambda _sandbox: None,
    ports: Mapping[str, int] | None = None,
) -> None:
    """Run a sandbox until SIGTERM or SIGINT; call ``started`` with it once it accepts connections.

    Only for the main thread. Raises OSError when the address can not be had.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_sandbox(host, port, behaviour, tls, seed, ports=ports) as sandbox:
            started(sandbox)
            async for _ in signals:
                return


def _mix(_context: click.Context, _parameter: click.Parameter, text: str | None) -> dict[int, float]:
    try:
        pairs = [pair.partition("=") for pair in text.split(",")] if text else []
        return {int(status): float(share) for status, _, share in pairs}
    except ValueError:
        raise click.BadParameter("write statuses and shares, for example 503=0.1,429=0.05") from None


def _tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    if certificate is None:
        if key is not None:
            raise click.UsageError("--tls-key needs --tls-certificate")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def _allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _door_ports(command: Callable[..., None]) -> Callable[..., None]:
    """An option for the port of each way in beside HTTP/1.1."""
    for door in reversed(DOORS):
        meaning = f"Port of {door.speaks}; 0 takes a free one, as --port 0 does.  [default: {door.port}]"
        option = click.option(f"--{door.name}-port", type=int, help=meaning)
        command = option(command)
    return command


_OUTAGES = [outage.value for outage in Outage]


@click.command("sandbox")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; its control API asks for no key.")
@click.option("--port", default=8025, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--latency-s", default=0.0, help="Seconds added to every answer.")
@click.option("--error-mix", callback=_mix, help="Statuses and their shares, for example 503=0.1,429=0.05.")
@click.option("--drop-after-accept", default=0.0, help="Share of requests that are accepted and never answered.")
@click.option("--rate-limit-per-s", type=float, help="Requests per second and API key; beyond it 429.")
@click.option("--outage", type=click.Choice(_OUTAGES), default="none", help="Be away, in one of three ways.")
@click.option("--honour-idempotency-keys", is_flag=True, help="Replay the first answer for a repeated idempotency-key.")
@click.option("--seed", default=0, help="Start of the random numbers.")
@click.option("--tls-certificate", type=click.Path(exists=True, dir_okay=False), help="Certificate chain, PEM; makes it HTTPS.")
@click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Private key, PEM, unless in the same file.")
@click.option("--ca-file", type=click.Path(dir_okay=False, path_type=Path), help="Write the authority to trust here, PEM.")
@_door_ports
def sandbox_command(
    host: str,
    port: int,
    latency_s: float,
    error_mix: dict[int, float],
    drop_after_accept: float,
    rate_limit_per_s: float | None,
    outage: str,
    honour_idempotency_keys: bool,
    seed: int,
    tls_certificate: str | None,
    tls_key: str | None,
    ca_file: Path | None,
    **ports: int | None,
) -> None:
    """Speak as providers do on a loopback address: check every request as strictly, and fail when told to."""
    try:
        behaviour = Behaviour(
            latency_s=latency_s,
            error_mix=error_mix,
            drop_after_accept=drop_after_accept,
            rate_limit_per_s=rate_limit_per_s,
            outage=Outage(outage),
            honour_idempotency_keys=honour_idempotency_keys,
        )
        tls = _tls(tls_certificate, tls_key)
    except (ValueError, ssl.SSLError) as error:
        raise click.ClickException(str(error)) from None
    _allow_many_files()
    gc.freeze()

    def started(sandbox: Sandbox) -> None:
        if ca_file is not None:
            ca_file.write_bytes(sandbox.ca_pem)
        url = sandbox.url
        click.echo(f"The sandbox speaks as every provider over HTTP at {url} (control API at {url}/_sandbox/, Ctrl-C ends it)")
        for door in DOORS:
            click.echo(f"The sandbox speaks {door.speaks} at {sandbox.urls[door.name]}")

    by_name: dict[str, int] = {}
    for door in DOORS:
        given = ports[f"{door.name}_port"]
        by_name[door.name] = given if given is not None else door.port if port else 0
    try:
        trio.run(serve, host, port, behaviour, tls, seed, started, by_name)
    except OSError as error:
        raise click.ClickException(f"can not listen on {host} port {port}: {error.strerror or error}") from None
