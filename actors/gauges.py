"""Present values of a process, by name, as they are read at a scrape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from actors.node import Node


def gauges_of(node: Node) -> Mapping[str, float]:
    """What is held, waits and runs now."""
    ledger, permits, accepting = node.ledger.statistics(), node.permits.statistics(), node.acceptor.statistics()
    breakers_open = sum(
        state != "closed" for actor in node.organizations.alive() for state in actor.core.statistics().breakers.values()
    )
    herald, pool, callers = node.herald.statistics(), node.pool.statistics(), node.callers.statistics()
    redis, providers, now_s = node.redis.statistics(), node.surroundings.transports.http.statistics(), trio.current_time()
    return {
        "organizations_alive": len(node.organizations.alive()),
        "organizations_quarantined": node.organizations.quarantined,
        "breakers_open": breakers_open,
        "shards_owned": len(node.shards.owned),
        "calls_under_way": callers.calling,
        "channels_in_line": callers.in_line,
        "in_flight": permits.held,
        "claims_waiting": permits.waiting,
        "gate_pending": ledger.gate.pending,
        "record_pending": ledger.record.pending,
        "settle_pending": ledger.settle.pending,
        "accept_pending": accepting.pending,
        "feedback_pending": node.ingest.statistics().pending,
        "listeners": herald.listeners,
        "postgres_connections": pool.size,
        "postgres_waiting": pool.waiting,
        "unpushed": node.acceptor.admitting.pusher.pending,
        "announcements_buffered": herald.buffered,
        "redis_pending": redis.pending,
        "redis_waiting": redis.waiting,
        "provider_connections": providers.connections,
        "provider_connections_waiting": providers.waiting,
        **node.surroundings.transports.gauges(),
        "queue_age_s": node.metrics.queue_age.read(now_s),
        "loop_late_s": node.metrics.loop_late.read(now_s),
        **node.headroom.gauges(),
        **({} if node.archivist is None else node.archivist.gauges()),
    }
