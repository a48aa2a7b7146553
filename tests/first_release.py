"""A process of the first release, as far as it shows from outside: its statements and scripts, on connections of its own.

It blocks while it works. Nothing here is taken from today's program: what a released version does can not be changed any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import psycopg
import redis

import first_release_scripts as scripts
import first_release_statements as statements

RESCUES_MAX = 5
LEASE_S = 1000.0


class FirstReleaseStore:
    """The store of one incarnation. Use as a context manager."""

    def __init__(self, url: str, incarnation: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True, prepare_threshold=0)
        self.incarnation = incarnation

    def __enter__(self) -> FirstReleaseStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def register(self) -> None:
        self._connection.execute(statements.REGISTER, (self.incarnation, LEASE_S))

    def renew(self) -> bool:
        return self._connection.execute(statements.RENEW, (LEASE_S, self.incarnation)).fetchone() is not None

    def release(self) -> None:
        self._connection.execute(statements.RELEASE, (self.incarnation,))

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """How many were new."""
        return self._connection.execute(statements.INSERT, (orjson.dumps(list(rows)).decode(),)).rowcount

    def existing(self, organization_id: str, key: str) -> tuple[str, bytes] | None:
        """What a key stands for: id and hash."""
        row = self._connection.execute(statements.EXISTING, ([organization_id], [key])).fetchone()
        return None if row is None else (str(row[2]), bytes(row[3]))

    def gate(self, ids: Sequence[str], *, again: bool = False) -> dict[str, int]:
        """The number of the attempt that is now ours, by id."""
        params = {"claimer": self.incarnation, "ids": sorted(ids), "closed": []}
        if again:
            self._connection.execute(statements.HAND_BACK, params)
        rows = self._connection.execute(statements.GATE, params).fetchall()
        return {str(row[0]): row[5] for row in rows}

    def delivered(self, attempts: Mapping[str, int]) -> set[str]:
        """The ids that were ours."""
        ids, n = sorted(attempts), len(attempts)
        numbers = [attempts[id] for id in ids]
        columns = (ids, numbers, ["sendgrid"] * n, [None] * n, ["message"] * n, self.incarnation)
        return {str(row[0]) for row in self._connection.execute(statements.RECORD_DELIVERED, columns).fetchall()}

    def ended(self, id: str, attempt: int, outcome: str, *, dead: str | None = None, retry_in_s: float = 0.0) -> bool:
        """Record anything but a delivery. Whether it was ours."""
        verdict = {
            "id": id,
            "attempt": attempt,
            "status": "queued" if dead is None else "failed",
            "refund": 0,
            "doubles": int(outcome == "unknown"),
            "retry_in_s": retry_in_s if dead is None else None,
            "outcome": outcome,
            "code": "http_503",
            "dead": dead,
            "provider": "sendgrid",
            "config_id": None,
        }
        text = orjson.dumps([verdict]).decode()
        return self._connection.execute(statements.RECORD_OTHERS, (text, self.incarnation)).fetchone() is not None

    def rescue(self) -> set[str]:
        rows = self._connection.execute(statements.RESCUE, {"limit": 2000, "rescues_max": RESCUES_MAX}).fetchall()
        self._connection.execute(statements.PRUNE)
        return {str(row[1]) for row in rows}

    def expire(self) -> set[str]:
        return {str(row[1]) for row in self._connection.execute(statements.EXPIRE, (2000,)).fetchall()}

    def queued(self) -> set[str]:
        first = "00000000-0000-0000-0000-000000000000"
        return {str(row[1]) for row in self._connection.execute(statements.QUEUED_ALL, (0.0, first, 0.0, 10_000)).fetchall()}

    def requeue(self, organization_id: str, id: str) -> bool:
        return self._connection.execute(statements.REQUEUE, (organization_id, id, 8)).fetchone() is not None

    def discard(self, organization_id: str, id: str) -> bool:
        return self._connection.execute(statements.DISCARD, (organization_id, id)).rowcount == 1

    def timeline(self, organization_id: str, id: str) -> list[str]:
        return [row[1] for row in self._connection.execute(statements.TIMELINE, (organization_id, id)).fetchall()]


class FirstReleaseQueue:
    """The queue of one organization, in one shard."""

    def __init__(self, client: redis.Redis, organization_id: str) -> None:
        self._client: Any = client
        self._org = organization_id
        self._queue = f"notifications:queue:{organization_id}"
        self._inflight = f"notifications:inflight:{organization_id}"
        self._delayed = f"notifications:delayed:{organization_id}"
        self._events = f"notifications:events:{organization_id}"
        self._topic = f"notifications:org:{organization_id}"
        self._active = "notifications:active:0"
        self._wake = "notifications:wake:0"
        self._parked = [f"notifications:parked:{organization_id}:{channel}" for channel in ("email", "sms", "push", "whatsapp")]

    def enqueue(self, ids: Sequence[str], announcements: Sequence[bytes] = ()) -> None:
        self._run(
            scripts.ENQUEUE,
            [self._queue, self._active, self._events],
            [self._org, self._topic, self._wake, len(ids), *ids, *announcements],
        )

    def claim(self, n: int, lease_ms: int = 1_000_000) -> list[str]:
        ids, _, _ = self._run(scripts.CLAIM, [self._queue, self._inflight, self._delayed], [n, lease_ms])
        return [id.decode() for id in ids]

    def settle(
        self,
        done: Sequence[str] = (),
        delayed: Sequence[tuple[str, int]] = (),
        requeued: Sequence[str] = (),
        parked: Sequence[str] = (),
        announcements: Sequence[bytes] = (),
    ) -> None:
        """``delayed`` in milliseconds; ``parked`` on the channel email."""
        keys = [self._queue, self._inflight, self._delayed, self._events, self._active, *[self._parked[0]] * len(parked)]
        args: list[Any] = [self._org, self._topic, self._wake, len(done), len(delayed), len(requeued), len(parked), *done]
        for id, delay_ms in delayed:
            args += [delay_ms, id]
        self._run(scripts.SETTLE, keys, [*args, *requeued, *parked, *announcements])

    def unpark(self, n: int) -> tuple[int, int]:
        moved, left = self._run(scripts.UNPARK, [self._queue, self._parked[0]], [n])
        return int(moved), int(left)

    def retire(self) -> bool:
        return bool(self._run(scripts.RETIRE, self._reconciled(), [self._org, 30_000]))

    def restore(self, ids: Sequence[str]) -> int:
        return int(self._run(scripts.RESTORE, self._reconciled(), [self._org, self._wake, *sorted(ids)]))

    def _reconciled(self) -> list[str]:
        return [self._queue, self._inflight, self._delayed, self._active, *self._parked]

    def _run(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return self._client.register_script(script)(keys=keys, args=args)
