"""``dispatcher credentials``: the encryption of stored provider credentials."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from actors.io.postgres import Pool
from actors.store import encryption
from dispatcher_http.commands.environment import configuration, with_store
from dispatcher_http.secret_file import keys_of_folder


@click.group("credentials")
def command() -> None:
    """Rotate the key that provider credentials are encrypted with."""


@command.command("rotate")
def rotate() -> None:
    """Encrypt every credential with the first key of DISPATCHER_ENCRYPTION_KEYS.

    To rotate: put a new key in front (new:…,old:…), restart every dispatcher, run this, then drop the old key.
    Where several dispatchers run, add the new key behind the old one first and restart them all: one that lacks it can not
    open what others seal.
    """
    config = configuration()
    keys = config.encryption_keys
    if keys is None:
        if config.postgres.url is not None:
            raise click.ClickException("DISPATCHER_ENCRYPTION_KEYS is not set: there is no key to rotate to")
        keys = keys_of_folder(Path(config.data_dir))
    chosen = keys

    async def work(pool: Pool) -> encryption.Rotation:
        return await encryption.rotate(
            pool, chosen, secrets.token_bytes, lambda done: click.echo(f"{done.moved} of {done.total}", err=True)
        )

    done = with_store(work)
    click.echo(f"{done.moved} credentials moved to the key {keys.sealing_id}; the other keys are not needed any more.")
