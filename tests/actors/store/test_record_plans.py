"""A record finds its rows by their ids, however many others are pending and whatever Postgres believes about them."""

from __future__ import annotations

import psycopg
import pytest

from actors.store.statements import RECORD_DELIVERED, RECORD_OTHERS

PENDING = 30_000


@pytest.mark.parametrize("statement", [RECORD_DELIVERED, RECORD_OTHERS], ids=["delivered", "others"])
def test_rows_are_found_by_their_ids_and_by_nothing_else(database_url: str, statement: str) -> None:
    """Statistics are from a moment at which nothing was being sent, as they mostly are."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO organizations (id, name) VALUES ('acme', 'Acme')")
        connection.execute(
            "INSERT INTO notifications (id, organization_id, channel, attempts_max, created_at, updated_at, recipient, payload) "
            "SELECT gen_random_uuid(), 'acme', 'email', 8, now(), now(), 'reader@example.org', '{}' FROM generate_series(1, %s)",
            (PENDING,),
        )
        connection.execute(
            "INSERT INTO users (organization_id, id) SELECT 'acme', n::text FROM generate_series(1, %s) AS n", (PENDING,)
        )
        connection.execute(
            "INSERT INTO contact_points (id, organization_id, user_id, channel, address, recipient) "
            "SELECT gen_random_uuid(), 'acme', n::text, 'push', sha256(n::text::bytea), 'token' FROM generate_series(1, %s) AS n",
            (PENDING,),
        )
        connection.execute("VACUUM ANALYZE notifications, contact_points")
        connection.execute("SET plan_cache_mode = force_generic_plan")
        count = statement.count("%s")
        for number in range(count):
            statement = statement.replace("%s", f"${number + 1}", 1)
        connection.execute(f"PREPARE record AS {statement}".encode())
        rows = connection.execute(f"EXPLAIN EXECUTE record ({', '.join(['NULL'] * count)})".encode()).fetchall()
    plan = "\n".join(row[0] for row in rows)

    assert "Index Scan using notifications_pkey on notifications n" in plan
    assert "Seq Scan on notifications" not in plan
    assert "Seq Scan on contact_points" not in plan
