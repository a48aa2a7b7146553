"""What waits costs nothing until it is due: no statement of the dispatching, and none of the mending, looks at its rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from actors.store import schedule_statements, statements
from dispatcher.model import OrganizationId

ACME = OrganizationId("acme")
WAITING = 20_000
INCARNATION = "0198c000-0000-7000-8000-00000000000a"
PARAMS: dict[str, Any] = {"limit": 100, "claimer": INCARNATION, "rescues_max": 5, "first_s": 5.0, "later_s": 60.0}
FIRST_ID = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def waiting(databases: Any, migrated_template: str) -> Iterator[psycopg.Connection[Any]]:
    """A database in which many wait for next year, and a few are queued."""
    url = databases.create(migrated_template)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO organizations (id, name) VALUES ('acme', 'Acme')")
        for status, rows in (("scheduled", WAITING), ("queued", 50)):
            connection.execute(
                """INSERT INTO notifications (id, organization_id, status, channel, attempts_max, created_at, updated_at,
                       next_retry_at, expires_at, recipient, payload, correlation_id)
                   SELECT gen_random_uuid(), 'acme', %s, 'email', 8, now() - interval '1 day', now() - interval '1 day',
                       CASE WHEN %s = 'scheduled' THEN now() + interval '1 year' * random() + interval '1 hour' END,
                       now() + interval '2 years', 'ada@example.org', '{}', 'c' || n %% 1000
                   FROM generate_series(1, %s) AS n""",
                (status, status, rows),
            )
        connection.execute("ANALYZE notifications")
        yield connection
    databases.drop(url)


def looked_at(connection: psycopg.Connection[Any], statement: str, params: Any) -> int:
    """How many rows of notifications a statement reads, indexes filtered and thrown away included."""
    with connection.transaction(force_rollback=True):
        found = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", params).fetchone()
        assert found is not None
    total = 0
    nodes = [found[0][0]["Plan"]]
    while nodes:
        node = nodes.pop()
        nodes.extend(node.get("Plans", ()))
        if node.get("Relation Name") == "notifications" or "notifications" in node.get("Index Name", ""):
            kept = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            total += kept * node["Actual Loops"]
    return total


@pytest.mark.parametrize(
    ("name", "statement", "params"),
    [
        ("rescue", statements.RESCUE, PARAMS),
        ("expire", statements.EXPIRE, (100,)),
        ("restore", statements.QUEUED, (0.0, FIRST_ID, 30.0, 100)),
        ("reseed", statements.QUEUED_ALL, (0.0, FIRST_ID, 0.0, 100)),
        ("strays", statements.SENDING, (INCARNATION, 30.0, 100)),
        ("prune", statements.PRUNE, None),
        ("what is due next", schedule_statements.NEXT, None),
        ("release", schedule_statements.RELEASE, (100,)),
        ("due", schedule_statements.DUE, (100,)),
        (
            "cancel by correlation id",
            schedule_statements.CANCEL_CORRELATED,
            {"organization_id": ACME, "correlation_id": "c7", "limit": 100},
        ),
    ],
)
def test_no_statement_reads_what_waits(waiting: psycopg.Connection[Any], name: str, statement: str, params: Any) -> None:
    assert looked_at(waiting, statement, params) <= 4 * 101, name


def test_a_row_that_waits_is_in_no_index_of_what_is_pending(waiting: psycopg.Connection[Any]) -> None:
    found = waiting.execute(
        "SELECT relname, reltuples FROM pg_class WHERE relname IN ('notifications_pending', 'notifications_expiry')"
    ).fetchall()

    assert {name: int(tuples) for name, tuples in found} == {"notifications_pending": 50, "notifications_expiry": 50}


def test_releasing_is_one_statement_for_any_number(waiting: psycopg.Connection[Any]) -> None:
    assert len(re.findall("UPDATE", schedule_statements.RELEASE)) == 2, "one update, and the lock of what it updates"
    assert "SKIP LOCKED" in schedule_statements.RELEASE
