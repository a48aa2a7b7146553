"""``dispatcher migrate``: bring the schema up to date, or tell how it stands."""

from __future__ import annotations

import click

import migrations
from dispatcher_http.commands.environment import configuration, postgres_url


@click.group("migrate")
def command() -> None:
    """Bring the database's schema up to date."""


@command.command("up")
def up() -> None:
    """Apply the migrations that are missing. Safe to run from several places at once."""
    with postgres_url(configuration()) as url:
        applied = migrations.up(url)
    for name in applied:
        click.echo(f"applied  {name}")
    if not applied:
        click.echo("The schema is up to date.", err=True)


@command.command("status")
def status() -> int:
    """List the migrations. The exit status is 0 when the schema is the one this program needs, else 1."""
    with postgres_url(configuration()) as url:
        found = migrations.status(url)
    for word, names in (("applied", found.applied), ("pending", found.pending), ("unknown", found.unknown)):
        for name in names:
            click.echo(f"{word}  {name}")
    if found.unknown:
        click.echo("The schema is newer than this program: upgrade the dispatcher.", err=True)
    elif found.pending:
        click.echo("Run `dispatcher migrate up`.", err=True)
    return 1 if found.unknown or found.pending else 0
