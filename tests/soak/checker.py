"""Gathers evidence from outside: the producers' file, the sandboxes' control API, Postgres by SQL, Redis by its keys.

A trigger writes down every change of every row while the soak runs, in the transaction that makes it: no transition escapes it,
and none is seen that was rolled back. Everything here blocks.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg
import redis

from soak.verdict import FINAL, Accepted, Evidence, Row, Step

TRIGGER = """
CREATE TABLE soak_steps (
    number bigserial PRIMARY KEY, id uuid, before text, after text,
    attempts_before int, attempts_after int, unknowns_before int, unknowns_after int
);
CREATE FUNCTION soak_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO soak_steps (id, before, after, attempts_before, attempts_after, unknowns_before, unknowns_after)
        SELECT n.id, NULL, n.status, 0, n.attempts, 0, n.unknowns FROM new_rows n;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO soak_steps (id, before, after, attempts_before, attempts_after, unknowns_before, unknowns_after)
        SELECT o.id, o.status, NULL, o.attempts, 0, o.unknowns, 0 FROM old_rows o;
    ELSE
        INSERT INTO soak_steps (id, before, after, attempts_before, attempts_after, unknowns_before, unknowns_after)
        SELECT n.id, o.status, n.status, o.attempts, n.attempts, o.unknowns, n.unknowns
        FROM new_rows n JOIN old_rows o ON o.id = n.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER soak_insert AFTER INSERT ON notifications
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION soak_step();
CREATE TRIGGER soak_update AFTER UPDATE ON notifications
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION soak_step();
CREATE TRIGGER soak_delete AFTER DELETE ON notifications
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION soak_step();
"""
"""Sound because a row's changes are serial: who changes it next waits for the commit of who changed it before."""

WORK = ("queue", "inflight", "delayed", "parked")
"""Keys ``notifications:<one of these>:…`` hold ids that somebody still has to do something about."""
_LOOK_S = 0.5
_LEFT_MAX = 1000


def watch(postgres_url: str) -> None:
    """From now on every change of a notification is written down."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(TRIGGER)


def leftovers(redis_url: str) -> dict[str, list[str]]:
    """Ids that are in Redis, by key."""
    found: dict[str, list[str]] = {}
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        for key in client.scan_iter("notifications:*", count=1000):
            if key.split(":")[1] in WORK:
                kind = client.type(key)
                ids = client.lrange(key, 0, _LEFT_MAX) if kind == "list" else client.zrange(key, 0, _LEFT_MAX)
                if ids:
                    found[key] = list(ids)
    return found


def unfinished(postgres_url: str) -> int:
    """How many notifications are not final."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM notifications WHERE status <> ALL(%s)", [sorted(FINAL)]).fetchone()
    assert row is not None
    return int(row[0])


def wait_until_quiet(postgres_url: str, redis_url: str, patience_s: float, sleep: Callable[[float], None]) -> float | None:
    """Wait until every notification is final and Redis holds none; the seconds that took, or None when it did not happen."""
    begun = time.monotonic()
    while time.monotonic() - begun < patience_s:
        with suppress(psycopg.OperationalError, redis.ConnectionError):  # it may still be recovering from the last fault
            if unfinished(postgres_url) == 0 and not leftovers(redis_url):
                return time.monotonic() - begun
        sleep(_LOOK_S)
    return None


def gather(accepted: Path, postgres_url: str, redis_url: str, sandboxes: Mapping[str, tuple[str, bool]]) -> Evidence:
    """The evidence. ``sandboxes`` are name to URL and whether it honours keys."""
    effects: dict[str, Mapping[str, int]] = {}
    forgotten = 0
    for name, (url, _) in sandboxes.items():
        effects[name] = httpx.get(f"{url}/_sandbox/ledger", timeout=60).json()["notifications"]
        forgotten += httpx.get(f"{url}/_sandbox/ledger/summary", timeout=60).json()["notifications"]["forgotten"]
    return Evidence(
        accepted=read_accepted(accepted),
        rows={row.id: row for row in rows(postgres_url)},
        effects=effects,
        honours={name: honours for name, (_, honours) in sandboxes.items()},
        steps=steps(postgres_url),
        leftovers=leftovers(redis_url),
        forgotten=forgotten,
    )


def read_accepted(path: Path) -> Sequence[Accepted]:
    """The producers' book."""
    return [Accepted(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def rows(postgres_url: str) -> Iterator[Row]:
    """Every notification."""
    with psycopg.connect(postgres_url) as connection, connection.cursor("soak_rows") as cursor:
        cursor.itersize = 10_000
        cursor.execute(
            "SELECT n.id::text, n.organization_id, n.status, n.attempts, n.attempts_max, n.unknowns,"
            " extract(epoch FROM n.updated_at - n.created_at)::float8, d.reason"
            " FROM notifications n LEFT JOIN dead_letters d ON d.notification_id = n.id"
        )
        yield from (Row(*row) for row in cursor)


def steps(postgres_url: str) -> Iterator[Step]:
    """Every change, in order."""
    with psycopg.connect(postgres_url) as connection, connection.cursor("soak_steps") as cursor:
        cursor.itersize = 10_000
        cursor.execute(
            "SELECT id::text, before, after, attempts_before, attempts_after, unknowns_before, unknowns_after"
            " FROM soak_steps ORDER BY number"
        )
        yield from (Step(*row) for row in cursor)
