"""``dispatcher listen``: follow an organization's events at a terminal."""

from __future__ import annotations

import os

import click
import trio

from dispatcher_http.commands.organizations import checked_id
from dispatcher_http.listener import listen

KEY_VARIABLE = "API_KEY"


@click.command("listen")
@click.argument("organization", callback=checked_id)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the dispatcher serves.")
@click.option("--since", help='Resume after this "position"; 0 for everything that is still kept.')
def command(organization: str, url: str, since: str | None) -> None:
    """Print the events of ORGANIZATION as they happen, one JSON object a line. The API key is read from $API_KEY."""
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise click.ClickException(f"set {KEY_VARIABLE} to an API key with the scope stream:read")

    async def follow() -> None:
        async with listen(url, organization, key, since) as events:
            async for event in events:
                click.echo(event)

    try:
        trio.run(follow)
    except (OSError, trio.TooSlowError) as error:
        raise click.ClickException(f"nobody serves at {url}: {getattr(error, 'strerror', None) or 'no answer'}") from None
