"""``dispatcher presets``: the set-ups that are shipped, and installing one for an organization."""

from __future__ import annotations

import os

import click
import httpx

from actors.store.api_keys import is_key
from dispatcher.presets import PRESETS
from dispatcher_http.commands.listen import KEY_VARIABLE, checked_url
from dispatcher_http.commands.organizations import checked_id
from dispatcher_http.commands.table import print_table

DEADLINE_S = 60.0
_SIGNS = {"created": "+", "updated": "~", "unchanged": "=", "kept": "!"}
"""What stands before a thing that is new, that changes, that stays the same, that is left alone because it was changed."""


@click.group("presets")
def command() -> None:
    """List and install the set-ups that are shipped."""


@command.command("list")
def list_all() -> None:
    """List the presets."""
    rows = [(preset.name, ", ".join(preset.summary()["events"]), preset.description) for preset in PRESETS.values()]
    print_table(("NAME", "EVENTS", "DESCRIPTION"), rows)


@command.command("install")
@click.argument("organization", callback=checked_id)
@click.argument("name", type=click.Choice(sorted(PRESETS)))
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--overwrite", is_flag=True, help="Replace also what the organization has changed.")
@click.option(
    "--url", default="http://127.0.0.1:8080", show_default=True, callback=checked_url, help="Where the dispatcher serves."
)
def install(organization: str, name: str, dry_run: bool, overwrite: bool, url: str) -> None:
    """Install the preset NAME for ORGANIZATION. The API key is read from $API_KEY.

    Each line is one thing: + new, ~ replaced, = there already, ! left alone because it was changed.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not is_key(key.encode()):
        raise click.ClickException(f"set {KEY_VARIABLE} to an API key with the scope setup:write")
    asked = {"dry_run": str(dry_run).lower(), "overwrite": str(overwrite).lower()}
    address = f"{url.rstrip('/')}/v1/orgs/{organization}/presets/{name}/install"
    try:
        answer = httpx.post(
            address, params=asked, headers={"Authorization": f"Bearer {key}"}, timeout=DEADLINE_S, trust_env=False
        )
        report = answer.json()
    except (httpx.HTTPError, ValueError):
        raise click.ClickException(f"no dispatcher answers at {url}") from None
    if answer.status_code != 200:
        raise click.ClickException(str(report.get("detail") or report.get("title") or answer.status_code))
    for verb, sign in _SIGNS.items():
        for thing in report[verb]:
            where = " ".join(thing[field] for field in ("kind", "name", "channel", "locale") if field in thing)
            click.echo(f"{sign} {where}")
    if report["kept"]:
        click.echo("What is marked ! was changed and is left as it is; --overwrite replaces it.", err=True)
