"""The sweep over parked reports: whoever runs it has more to mend, so nothing of it may end with one row."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import trio.testing

from actors.feedback import Ingest
from actors.feedback_ports import Taken
from actors.fetching import Fetcher
from actors.memory import MemoryQueue
from actors.memory_feedback import MemoryFeedback
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from actors.webhook_configs import WebhookConfigs
from dispatcher.errors import StoreRefused

NOW = 1_800_000_000.0


class Damaged(MemoryFeedback):
    """A store that refuses what is parked."""

    pruned = 0

    async def join(self, limit: int) -> tuple[Taken, int]:
        raise StoreRefused("Postgres refused reports: DataError")

    async def prune(self, limit: int) -> int:
        self.pruned += 1
        return 0


async def no_config(*_: Any) -> None:
    return None


async def test_a_parked_report_that_is_refused_does_not_end_the_sweep(autojump_clock: trio.testing.MockClock) -> None:
    store = Damaged(MemoryDatabase(lambda: NOW))
    queue = MemoryQueue(lambda: NOW, lease_s=60)
    configs = WebhookConfigs(no_config, ttl_min_s=1, ttl_max_s=2, random=Random(1))
    ingest = Ingest(store, queue, configs, cast("Fetcher", None), Metrics(), unix_s=lambda: NOW)

    await ingest.sweep()

    assert store.pruned == 1
