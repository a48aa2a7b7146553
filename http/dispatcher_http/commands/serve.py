"""``dispatcher serve``: the service itself, in the foreground."""

from __future__ import annotations

from functools import partial

import click
import trio

from dispatcher_http import logs
from dispatcher_http.commands.environment import configuration
from dispatcher_http.serving import Service, run_until_signalled
from dispatcher_sandbox.doors import DOORS


@click.command("serve")
@click.option("--sandbox", is_flag=True, help="Run loopback providers beside it, for a first look without accounts.")
@click.option("--sandbox-port", default=8025, show_default=True, help="Port of the sandbox; 0 takes a free one.")
def command(sandbox: bool, sandbox_port: int) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain. A second signal ends it at once."""
    config = configuration()
    logs.configure(config.log_level)

    def announce(service: Service) -> None:
        if service.sandbox is not None:
            click.echo(f"Sandbox providers on {service.sandbox.url} (use it as the base_url of a provider)")
            for door in DOORS:
                click.echo(f"Sandbox for {door.speaks} on {service.sandbox.urls[door.name]}")
        click.echo(f"Serving on {service.url}")

    trio.run(partial(run_until_signalled, config, announce, sandbox_port=sandbox_port if sandbox else None))
