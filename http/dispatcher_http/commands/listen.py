"""``dispatcher listen``: follow an organization's events at a terminal."""

from __future__ import annotations

import os
import signal
from urllib.parse import urlsplit

import click
import trio

from actors.store.api_keys import is_key
from dispatcher_http.commands.organizations import checked_id
from dispatcher_http.listener import StreamEnded, listen

KEY_VARIABLE = "API_KEY"


def checked_url(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A click callback: an address somebody can serve at."""
    try:
        parts = urlsplit(value)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise click.BadParameter("must be where a dispatcher serves, such as http://127.0.0.1:8080")
    return value


@click.command("listen")
@click.argument("organization", callback=checked_id)
@click.option(
    "--url", default="http://127.0.0.1:8080", show_default=True, callback=checked_url, help="Where the dispatcher serves."
)
@click.option("--since", help='Resume after this "position"; 0 for everything that is still kept.')
def command(organization: str, url: str, since: str | None) -> None:
    """Print the events of ORGANIZATION as they happen, one JSON object a line. The API key is read from $API_KEY."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not is_key(key.encode()):
        raise click.ClickException(f"set {KEY_VARIABLE} to an API key with the scope stream:read")

    async def follow() -> bool:
        """Print until the stream ends, or a signal asks to. True when it was a signal."""
        interrupted = False
        failure: Exception | None = None
        # Taken as signals and not as KeyboardInterrupt, which is lost when it strikes where Python ignores exceptions.
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    nonlocal interrupted
                    async for _ in signals:
                        interrupted = True
                        nursery.cancel_scope.cancel()

                nursery.start_soon(watch)
                try:
                    async with listen(url, organization, key, since) as events:
                        async for event in events:
                            click.echo(event)
                except (OSError, trio.TooSlowError, StreamEnded) as error:
                    failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return interrupted

    try:
        interrupted = trio.run(follow)
    except (OSError, trio.TooSlowError) as error:
        raise click.ClickException(f"nobody serves at {url}: {getattr(error, 'strerror', None) or 'no answer'}") from None
    if interrupted:
        raise click.Abort
