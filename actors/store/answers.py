"""Answers to whole batches, kept under their Idempotency-Key so that a replay gets the same one."""

from __future__ import annotations

from actors.io.postgres import Pool
from dispatcher.model import OrganizationId


async def read_answer(pool: Pool, organization_id: OrganizationId, idempotency_key: str) -> tuple[bytes, bytes] | None:
    """The hash of the request and the JSON of its answer. None when the key is new."""
    rows = await pool.fetch(
        "SELECT request_hash, answer FROM batch_answers WHERE organization_id = %s AND idempotency_key = %s",
        (organization_id, idempotency_key),
    )
    return (bytes(rows[0][0]), rows[0][1].encode()) if rows else None
