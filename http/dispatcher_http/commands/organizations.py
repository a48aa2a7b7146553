"""``dispatcher organizations``: the tenants."""

from __future__ import annotations

import click

from actors.io.postgres import Pool
from actors.store import organizations
from dispatcher.model import OrganizationId
from dispatcher_http.commands.environment import with_store
from dispatcher_http.commands.table import print_table


def checked_id(context: click.Context, parameter: click.Parameter, value: str) -> OrganizationId:
    """A click callback: the id, if it can be one."""
    if not organizations.is_organization_id(value):
        raise click.BadParameter("an organization's id is 1 to 64 of a-z 0-9 - _ and starts with a letter or digit")
    return OrganizationId(value)


@click.group("organizations")
def command() -> None:
    """Create and list organizations."""


@command.command("create")
@click.argument("id", callback=checked_id)
@click.option("--name", help="Its name for people. Default: the id.")
@click.option("--locale", default="en", show_default=True, help="The locale of its templates when a notification names none.")
def create(id: OrganizationId, name: str | None, locale: str) -> None:
    """Create the organization ID, which stands in URLs: /v1/orgs/ID/notifications."""

    async def work(pool: Pool) -> bool:
        return await organizations.create(pool, id, name or id, locale)

    if not with_store(work):
        raise click.ClickException(f"the organization {id} exists already")
    click.echo(id)


@command.command("list")
def list_all() -> None:
    """List all organizations."""
    found = with_store(organizations.read_all)
    rows = [(entry.id, entry.default_locale, f"{entry.created_at:%Y-%m-%d %H:%M}", entry.name) for entry in found]
    print_table(("ID", "LOCALE", "CREATED", "NAME"), rows)
