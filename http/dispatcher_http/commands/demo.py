"""``dispatcher demo``: everything once, in a minute, leaving nothing behind."""

from __future__ import annotations

import sys

import click
import trio

from dispatcher_http import demo, logs


@click.command("demo")
@click.pass_context
def command(context: click.Context) -> None:
    """Send a few hundred notifications through sandboxes of every channel and show what becomes of them."""
    logs.configure("error")

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    if not trio.run(demo.run, write):
        context.exit(1)
