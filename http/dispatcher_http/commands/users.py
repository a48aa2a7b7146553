"""``dispatcher users``: what a person may ask of an organization, at a terminal."""

from __future__ import annotations

import click
import orjson

from actors.io.postgres import Pool
from actors.store import erasing, organizations
from actors.store.page import ROWS_MAX, PageRequest
from dispatcher.model import OrganizationId
from dispatcher.people_documents import USER_ID_RULE, is_user_id
from dispatcher_http.commands.environment import with_store
from dispatcher_http.commands.keys import ORGANIZATION
from dispatcher_http.person_rights import erased_document, export_document

STEPS_MAX = 20
"""Steps of an erasure at a time."""


def checked_user_id(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A click callback: the id of a user, which is not repeated."""
    if not is_user_id(value):
        raise click.BadParameter(f"a user id {USER_ID_RULE}")
    return value


USER = click.argument("user", callback=checked_user_id)


@click.group("users")
def command() -> None:
    """Hand out all that is kept of a person, or erase it."""


@command.command("export")
@ORGANIZATION
@USER
def export(organization: OrganizationId, user: str) -> None:
    """Print all that is kept of USER of ORGANIZATION, as lines of JSON: pages of notifications, the person on the first."""

    async def work(pool: Pool) -> bool:
        after: str | None = None
        while True:
            document = await export_document(pool, organization, user, PageRequest(after, ROWS_MAX))
            if document is None:
                return False
            click.echo(orjson.dumps(document))
            after = document["notifications"]["page"]["next"]
            if after is None:
                return True

    if not with_store(work):
        raise click.ClickException(f"{organization} has nothing of a user of this id")


@command.command("erase")
@ORGANIZATION
@USER
@click.confirmation_option(prompt="Everything that is kept of this person goes for good. Go on?")
def erase(organization: OrganizationId, user: str) -> None:
    """Erase all that is kept of USER of ORGANIZATION, and print how much it was. Counts stay."""

    async def work(pool: Pool) -> erasing.Erased:
        if await organizations.read(pool, organization) is None:
            raise click.ClickException(f"there is no organization {organization}")
        erased = await erasing.erase(pool, organization, user, STEPS_MAX)
        while erased.more:
            erased = erased.and_then(await erasing.erase(pool, organization, user, STEPS_MAX))
        return erased

    erased = with_store(work)
    click.echo(orjson.dumps(erased_document(erased)))
    if erased.sending:
        click.echo("What is being sent at this moment goes when that ends; a running dispatcher sees to it.", err=True)
