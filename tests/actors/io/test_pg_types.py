from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Json, Jsonb

from actors.io.pg_types import ADAPTERS

ID = "0192d3a4-7c1e-7f00-8000-0123456789ab"

Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def connection(postgres_url: str) -> Iterator[Connection]:
    with psycopg.connect(postgres_url, context=ADAPTERS) as connection:
        yield connection


@pytest.mark.parametrize("binary", [False, True])
def test_ids_come_back_as_text(connection: Connection, binary: bool) -> None:
    row = connection.execute("SELECT %s::uuid, ARRAY[%s::uuid]", (ID, UUID(ID)), binary=binary).fetchone()

    assert row == (ID, [ID])


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("wrapper", [Json, Jsonb])
def test_json_goes_both_ways(connection: Connection, wrapper: type[Json] | type[Jsonb], binary: bool) -> None:
    value = {"name": "Zoë ☂", "n": [1, 2.5, None, True], "empty": {}}

    row = connection.execute("SELECT %s, %s::json", (wrapper(value), '{"a": 1}'), binary=binary).fetchone()

    assert row == (value, {"a": 1})


def test_json_is_orjsons(connection: Connection) -> None:
    """What the standard library would refuse."""
    assert connection.execute("SELECT %s ->> 0", (Jsonb([UUID(ID)]),)).fetchone() == (ID,)


def test_nothing_else_in_the_process_is_affected(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT %s::uuid", (ID,)).fetchone() == (UUID(ID),)
