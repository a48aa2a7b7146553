"""Rows as the hot path would have written them, for tests of what is read from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.types.json import Jsonb

from actors.io.postgres import Pool

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def insert(pool: Pool, table: str, **columns: Any) -> None:
    """One row of named columns."""
    values = [Jsonb(value) if isinstance(value, dict) else value for value in columns.values()]
    await pool.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(values))})", values)


async def insert_notification(pool: Pool, id: str, organization_id: str = "acme", **columns: Any) -> str:
    """A notification; queued email to somebody unless said otherwise. Returns its id."""
    row: dict[str, Any] = {
        "id": id,
        "organization_id": organization_id,
        "channel": "email",
        "attempts_max": 8,
        "created_at": START,
        "updated_at": START,
        "recipient": "somebody@example.org",
        "payload": {"subject": "Hello", "text": "Hello there"},
    }
    await insert(pool, "notifications", **(row | columns))
    return id


async def insert_attempt(pool: Pool, id: str, attempt: int, outcome: str, organization_id: str = "acme", **columns: Any) -> None:
    """One step of a notification's timeline, ``attempt`` minutes after the start."""
    row = {
        "notification_id": id,
        "attempt": attempt,
        "organization_id": organization_id,
        "outcome": outcome,
        "code": f"code_{attempt}",
        "at": START + timedelta(minutes=attempt),
    }
    await insert(pool, "attempts", **(row | columns))


async def insert_letter_of(
    pool: Pool, id: str, *, organization_id: str = "acme", columns: dict[str, Any] | None = None, **letter: Any
) -> str:
    """A failed notification with these columns, and its dead letter with those. Returns its id."""
    await insert_notification(pool, id, organization_id, **({"status": "failed", "attempts": 3} | (columns or {})))
    row = {
        "notification_id": id,
        "organization_id": organization_id,
        "reason": "hard",
        "code": "http_400",
        "channel": "email",
        "provider": "sendgrid",
        "created_at": START,
    }
    await insert(pool, "dead_letters", **(row | letter))
    return id


async def insert_dead_letter(pool: Pool, id: str, reason: str = "hard", organization_id: str = "acme", **columns: Any) -> str:
    """A failed notification and its dead letter. Returns its id."""
    await insert_notification(pool, id, organization_id, **({"status": "failed", "attempts": 3} | columns))
    await insert(
        pool,
        "dead_letters",
        notification_id=id,
        organization_id=organization_id,
        reason=reason,
        code="http_400",
        channel="email",
        provider="sendgrid",
        created_at=START,
    )
    return id
