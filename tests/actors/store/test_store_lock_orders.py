"""Who changes the same people at the same moment waits, and nobody in a circle."""

from __future__ import annotations

from collections.abc import Callable

import trio

from actors.io.postgres import Pool
from actors.store import users
from actors.store.schedule import PostgresSchedule
from dispatcher.model import Channel, NotificationId, OrganizationId
from dispatcher.people_documents import Profile, Token
from store_rows import insert_notification

ACME = OrganizationId("acme")
TOKEN = "t" * 100
_WAITS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_a_token_may_be_registered_while_its_death_is_recorded(pool: Pool) -> None:
    await users.put(pool, ACME, [Profile("ada")])
    await users.put_token(pool, ACME, "ada", Token(TOKEN))
    await pool.execute(
        "INSERT INTO contacts (id, organization_id, channel, address, recipient, failed_at, failed_as) "
        "VALUES (gen_random_uuid(), 'acme', 'push', contact_address('push', %s), %s, now(), 'invalid')",
        (TOKEN, TOKEN),
    )
    registered: list[users.Registered | None] = []

    async def register() -> None:
        registered.append(await users.put_token(pool, ACME, "ada", Token(TOKEN)))

    async with trio.open_nursery() as nursery:
        async with pool.connection() as recording, recording.transaction():
            await recording.execute("UPDATE contacts SET failed_at = now() WHERE channel = 'push'")
            nursery.start_soon(register)
            while (await pool.fetch(_WAITS))[0][0] == 0:  # noqa: ASYNC110 - only Postgres knows
                await trio.sleep(0.01)
            await recording.execute("DELETE FROM contact_points WHERE channel = 'push'")

    assert [one.point.recipient for one in registered if one is not None] == [TOKEN]
    assert await pool.fetch("SELECT recipient FROM contact_points") == [(TOKEN,)]


async def test_a_gate_and_a_cancelation_that_meet_in_another_order_wait_in_no_circle(
    pool: Pool, new_id: Callable[[], str]
) -> None:
    first, second = sorted((NotificationId(new_id()), NotificationId(new_id())))
    for id in (first, second):
        await insert_notification(pool, id)
    await pool.execute("UPDATE notifications SET correlation_id = 'c1'")
    schedule = PostgresSchedule(pool)
    canceled: list[tuple[NotificationId, Channel]] = []

    async def cancel() -> None:
        canceled.extend((await schedule.cancel_correlated(ACME, "c1", 10)).canceled)

    async with trio.open_nursery() as nursery:
        async with pool.connection() as gate, gate.transaction():
            await gate.execute("UPDATE notifications SET status = 'sending' WHERE id = %s", (second,))
            nursery.start_soon(cancel)
            while (await pool.fetch(_WAITS))[0][0] == 0:  # noqa: ASYNC110 - only Postgres knows
                await trio.sleep(0.01)
            await gate.execute("UPDATE notifications SET status = 'sending' WHERE id = %s AND status = 'queued'", (first,))

    assert canceled == [(first, Channel.EMAIL)]
    assert await pool.fetch("SELECT status FROM notifications ORDER BY id") == [("canceled",), ("sending",)]
