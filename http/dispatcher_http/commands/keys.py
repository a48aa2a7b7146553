"""``dispatcher keys``: who may call. A key is shown once, when it is created; only its digest is stored."""

from __future__ import annotations

import secrets
import time

import click

from actors.io.postgres import Pool
from actors.store import api_keys, organizations
from dispatcher.ids import RANDOM_BITS, is_uuid, uuid7
from dispatcher.model import OrganizationId
from dispatcher_http.commands.environment import configuration, with_store
from dispatcher_http.commands.organizations import checked_id
from dispatcher_http.commands.table import print_table

ORGANIZATION = click.argument("organization", callback=checked_id)


def checked_key_id(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """A click callback: the key's id. A key itself, pasted here by mistake, is not repeated."""
    if not is_uuid(value):
        raise click.BadParameter("a key is revoked by its id, which `dispatcher keys list` shows")
    return value


async def _must_exist(pool: Pool, organization: OrganizationId) -> None:
    if await organizations.read(pool, organization) is None:
        raise click.ClickException(
            f"there is no organization {organization}: create it with `dispatcher organizations create {organization}`"
        )


@click.group("keys")
def command() -> None:
    """Create, list and revoke API keys."""


@command.command("create")
@ORGANIZATION
@click.option("--name", default="", help="What it is for, for people.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([str(scope) for scope in api_keys.Scope]),
    help="What it may be used for; can be given several times. Default: everything.",
)
def create(organization: OrganizationId, name: str, scopes: tuple[str, ...]) -> None:
    """Create a key of ORGANIZATION and print it, this once."""
    key = api_keys.compose(secrets.token_bytes(api_keys.ENTROPY_BYTES))
    id = uuid7(time.time_ns() // 1_000_000, secrets.randbits(RANDOM_BITS))
    granted = [scope for scope in api_keys.Scope if scope in scopes or not scopes]

    async def work(pool: Pool) -> None:
        await _must_exist(pool, organization)
        await api_keys.create(pool, id, organization, name, key, granted)

    with_store(work)
    click.echo(key)
    click.echo(f"Keep it now: it is not stored. Its id is {id}.", err=True)


@command.command("list")
@ORGANIZATION
def list_all(organization: OrganizationId) -> None:
    """List the keys of ORGANIZATION, revoked ones too. The keys themselves are not stored."""

    async def work(pool: Pool) -> list[api_keys.ApiKey]:
        await _must_exist(pool, organization)
        return await api_keys.read_all(pool, organization)

    rows = []
    for key in with_store(work):
        scopes = "everything" if key.scopes == frozenset(api_keys.Scope) else ",".join(sorted(key.scopes))
        revoked = "-" if key.revoked_at is None else f"{key.revoked_at:%Y-%m-%d %H:%M}"
        rows.append((key.id, f"{key.created_at:%Y-%m-%d %H:%M}", revoked, scopes, key.name))
    print_table(("ID", "CREATED", "REVOKED", "SCOPES", "NAME"), rows)


@command.command("revoke")
@ORGANIZATION
@click.argument("key_id", callback=checked_key_id)
def revoke(organization: OrganizationId, key_id: str) -> None:
    """Revoke the key KEY_ID of ORGANIZATION."""

    async def work(pool: Pool) -> bool:
        return await api_keys.revoke(pool, organization, key_id)

    if not with_store(work):
        raise click.ClickException(f"{organization} has no key {key_id} that could be revoked")
    click.echo(f"Revoked. Processes that know it forget it within {configuration().surface.key_cache_s:g} s.", err=True)
