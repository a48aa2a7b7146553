"""Stores are tested on a migrated database of their own, through the real pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count
from random import Random

import pytest

from actors.io.postgres import Pool, open_pool
from actors.store import organizations
from dispatcher.ids import uuid7
from dispatcher.model import OrganizationId


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """A database in which the organizations acme and globex exist."""
    async with open_pool(database_url, size_max=4, connect_deadline_s=5, statement_deadline_s=5, random=Random(1)) as pool:
        await organizations.create(pool, OrganizationId("acme"), "Acme", "en")
        await organizations.create(pool, OrganizationId("globex"), "Globex", "de")
        yield pool


@pytest.fixture
def new_id() -> Callable[[], str]:
    """Ids that sort as they were made."""
    milliseconds = count(1_764_000_000_000)
    return lambda: uuid7(next(milliseconds), 1)
