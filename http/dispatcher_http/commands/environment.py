"""What every command starts from: the settings in the environment, and the store they lead to."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import trio

import migrations
from actors.embedded.postgres import postgres_for_a_command
from actors.io.postgres import Pool, open_pool
from dispatcher.config import Config, from_mapping

T = TypeVar("T")


def configuration() -> Config:
    """The settings of this process. Raises ``ConfigError`` naming every fault."""
    return from_mapping(os.environ)


@contextmanager
def postgres_url(config: Config) -> Iterator[str]:
    """The Postgres that is configured; or the one in the data folder, which runs already or runs for this block."""
    if config.postgres.url is not None:
        yield config.postgres.url
    else:
        with postgres_for_a_command(Path(config.data_dir)) as url:
            yield url


def with_store(work: Callable[[Pool], Awaitable[T]]) -> T:
    """Run ``work`` on Trio with a pool on the store, whose schema is the one this program knows.

    A private server's schema is nobody else's business, so it is brought up to date on the way; that of a configured server is
    only checked. Raises ``ConfigError``, ``StoreUnavailable`` and what ``work`` raises.
    """
    config = configuration()

    async def run(url: str) -> T:
        async with open_pool(
            url,
            size_max=1,
            connect_deadline_s=config.postgres.connect_deadline_s,
            statement_deadline_s=config.postgres.statement_deadline_s,
            random=random.Random(),
            name="dispatcher command",
        ) as pool:
            await pool.wait_ready(config.postgres.connect_deadline_s)
            return await work(pool)

    with postgres_url(config) as url:
        if config.postgres.url is None:
            migrations.up(url)
        else:
            migrations.check(url)
        return trio.run(run, url)
