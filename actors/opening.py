"""Connects a node to its servers, runs it, and has it leave in good order."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random

import trio

from actors.herald import Herald
from actors.hot import Loaders
from actors.io.h2 import H2Limits, open_h2_pool
from actors.io.http import PoolLimits, open_http_pool
from actors.io.postgres import open_pool
from actors.io.redis import open_redis, open_subscriber
from actors.io.smtp import SmtpPoolLimits, open_smtp_pool
from actors.io.tls import trusting
from actors.node import Node
from actors.node_ports import Ports
from actors.redis_queue import RedisQueue
from actors.store.answers import read_answer
from actors.store.dispatching import PostgresStore
from actors.store.erasing import tidy
from actors.store.feedback import PostgresFeedback
from actors.store.history import PostgresArchive
from actors.store.people import PostgresPeople
from actors.store.schedule import PostgresSchedule
from actors.transports import Transports
from dispatcher.config import Config
from dispatcher.errors import ConfigError

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_node(
    config: Config, *, incarnation: str, random: Random, random_bytes: Callable[[int], bytes], unix_s: Callable[[], float]
) -> AsyncIterator[Node]:
    """Connect to the servers ``config`` names and run a node; on leaving, drain it.

    ``incarnation`` is a fresh UUID of this start; ``random`` decides, ``random_bytes`` is for secrets. Raises StoreUnavailable
    or QueueUnavailable when a server can not be reached.
    """
    if config.postgres.url is None or config.redis.url is None:
        raise ConfigError("open_node needs the URLs of Postgres and Redis")
    d = config.dispatch
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            open_pool(
                config.postgres.url,
                size_max=config.postgres.pool_size_max,
                connect_deadline_s=config.postgres.connect_deadline_s,
                statement_deadline_s=config.postgres.statement_deadline_s,
                random=random,
            )
        )
        connect_s, command_s = config.redis.connect_deadline_s, config.redis.command_deadline_s
        redis = await stack.enter_async_context(
            open_redis(config.redis.url, connect_deadline_s=connect_s, command_deadline_s=command_s, random=random)
        )
        subscriber = await stack.enter_async_context(
            open_subscriber(config.redis.url, connect_deadline_s=connect_s, command_deadline_s=command_s, random=random)
        )
        http_pool = await stack.enter_async_context(
            open_http_pool(
                limits=PoolLimits(connections_per_origin_max=d.connections_per_origin_max, connections_max=d.calls_max),
                tls_context=trusting(config.provider_ca_file),
            )
        )
        h2_pool = await stack.enter_async_context(
            open_h2_pool(limits=H2Limits(streams_max=d.calls_max), tls_context=trusting(config.provider_ca_file))
        )
        smtp_limits = SmtpPoolLimits(connections_per_login_max=d.connections_per_origin_max, connections_max=d.calls_max)
        smtp_pool = await stack.enter_async_context(
            open_smtp_pool(limits=smtp_limits, tls_context=trusting(config.provider_ca_file))
        )

        await pool.wait_ready(config.postgres.connect_deadline_s)
        await redis.execute("PING")

        def make_herald(node: Node) -> Herald:
            return Herald(
                redis,
                subscriber,
                shards=d.shards,
                listeners_max=config.surface.listeners_max,
                buffer_max=config.surface.listener_buffer_max,
                on_wake=node.organizations.wake,
                on_changed=node.drop_cached,
                on_missed=node.drop_all_cached,
                on_shards=node.shards.look,
            )

        loaders = Loaders(pool, config.encryption_keys, config.provider_urls_extra)
        ports = Ports(
            store=PostgresStore(pool, incarnation),
            queue=RedisQueue(redis, lease_s=d.lease_s, shards=d.shards),
            load_providers=loaders.providers,
            load_template=loaders.template,
            load_setup=loaders.setup,
            load_template_set=loaders.template_set,
            people=PostgresPeople(pool),
            stored_answer=lambda organization_id, key: read_answer(pool, organization_id, key),
            feedback=PostgresFeedback(pool),
            load_webhook=loaders.webhook,
            tidy_people=partial(tidy, pool),
            archive=PostgresArchive(pool, d.history_after_s),
            schedule=PostgresSchedule(pool),
        )
        node = Node(
            config,
            ports=ports,
            pool=pool,
            redis=redis,
            transports=Transports(http_pool, smtp_pool, h2_pool),
            make_herald=make_herald,
            incarnation=incarnation,
            random=random,
            random_bytes=random_bytes,
            unix_s=unix_s,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            try:
                yield node
            finally:
                if not await node.leave():
                    logger.warning("the drain ended before everything did; whoever runs next takes it back")
            nursery.cancel_scope.cancel()
