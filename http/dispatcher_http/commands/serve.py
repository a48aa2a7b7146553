"""``dispatcher serve``: the service itself, in the foreground."""

from __future__ import annotations

import click
import trio

from dispatcher_http import logs
from dispatcher_http.commands.environment import configuration
from dispatcher_http.serving import Service, run_until_signalled


@click.command("serve")
def command() -> None:
    """Serve until SIGTERM or Ctrl-C, then drain. A second signal ends it at once."""
    config = configuration()
    logs.configure(config.log_level)
    trio.run(run_until_signalled, config, _announce)


def _announce(service: Service) -> None:
    click.echo(f"Serving on {service.url}")
