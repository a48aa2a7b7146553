"""What Python services use today: a Celery worker that sends one notification a task with ``requests``.

The same work, the usual way: claim the row, POST, record the row, publish. Connections are kept: one to Postgres, one to
Redis and one HTTP session per worker process. Results are off and messages are prefetched, as one sets Celery up for speed.
"""

from __future__ import annotations

import os
from typing import Any

import psycopg
import redis
import requests
from celery import Celery
from celery.signals import worker_process_init

BROKER = os.environ.get("BENCH_BROKER_URL", "")
app = Celery("bench", broker=BROKER)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    task_default_queue="idle",
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
_kept: dict[str, Any] = {}


@worker_process_init.connect  # type: ignore[untyped-decorator]
def connect(**_: object) -> None:
    """Each worker process opens its connections once."""
    _kept["postgres"] = psycopg.connect(os.environ["DISPATCHER_POSTGRES_URL"], autocommit=True)
    _kept["redis"] = redis.Redis.from_url(os.environ["DISPATCHER_REDIS_URL"])
    _kept["http"] = requests.Session()


@app.task(name="bench.send")  # type: ignore[untyped-decorator]
def send(id: str) -> None:
    """Send one notification."""
    postgres, channel, session = _kept["postgres"], _kept["redis"], _kept["http"]
    row = postgres.execute(
        "UPDATE notifications SET status = 'sending', attempts = attempts + 1, updated_at = now() "
        "WHERE id = %s AND status = 'queued' RETURNING organization_id, recipient, payload",
        (id,),
    ).fetchone()
    if row is None:
        return
    organization_id, recipient, payload = row
    answer = session.post(
        os.environ["BENCH_SEND_URL"],
        headers={"Authorization": f"Bearer {os.environ['BENCH_API_KEY']}", "idempotency-key": id},
        json={
            "personalizations": [{"to": [{"email": recipient}]}],
            "from": {"email": "shop@example.org"},
            "subject": payload["subject"],
            "content": [{"type": "text/plain", "value": payload["text"]}],
            "custom_args": {"notification_id": id, "organization_id": organization_id},
        },
        timeout=20,
    )
    answer.raise_for_status()
    postgres.execute(
        "UPDATE notifications SET status = 'delivered', provider_message_id = %s, updated_at = now() "
        "WHERE id = %s AND status = 'sending'",
        (answer.headers.get("X-Message-Id"), id),
    )
    channel.publish(f"notifications:org:{organization_id}", f'{{"type":"notification.delivered","id":"{id}"}}')
