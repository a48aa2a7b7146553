"""Reports of providers that tell no time: a repetition that comes later says nothing new, in memory and on Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

import pytest

from actors.feedback_ports import FeedbackStore, Report
from actors.io.postgres import open_pool
from actors.memory_feedback import MemoryFeedback
from actors.memory_tables import MemoryDatabase
from actors.store.feedback import PostgresFeedback
from dispatcher.contacts import ContactStatus
from dispatcher.feedback.feedback import KEPT_FOR_EVER_UNIX_S, SOFT_BOUNCES_MAX, Feedback, FeedbackKind
from dispatcher.model import Channel, OrganizationId

ACME = OrganizationId("acme")
CONFIG = "0198c000-0000-7000-8000-0000000000c1"
NUMBER = "+15551230000"
NOW = 1_700_000_000.125


@pytest.fixture(params=["memory", "postgres"])
async def feedback(request: pytest.FixtureRequest) -> AsyncIterator[FeedbackStore]:
    if request.param == "memory":
        yield MemoryFeedback(MemoryDatabase(lambda: NOW))
        return
    url: str = request.getfixturevalue("database_url")
    async with open_pool(url, size_max=2, connect_deadline_s=10, statement_deadline_s=10, random=Random(1)) as pool:
        await pool.execute("INSERT INTO organizations (id, name) VALUES ('acme', 'Acme')")
        await pool.execute(
            "INSERT INTO delivery_provider_configs (id, organization_id, provider, channel, credentials)"
            " VALUES (%s, 'acme', 'twilio_sms', 'sms', 'x')",
            (CONFIG,),
        )
        yield PostgresFeedback(pool)


def report(event_id: str, kind: FeedbackKind, at_unix_s: float) -> Report:
    told = Feedback(event_id, kind, "code", at_unix_s, recipient=NUMBER, key_unix_s=KEPT_FOR_EVER_UNIX_S)
    return Report(ACME, CONFIG, "twilio_sms", Channel.SMS, told)


async def test_an_old_start_that_is_repeated_opens_nothing_again(feedback: FeedbackStore) -> None:
    await feedback.take([report("start", FeedbackKind.RESUBSCRIBED, NOW)])
    stopped = await feedback.take([report("stop", FeedbackKind.UNSUBSCRIBED, NOW + 60)])
    replayed = await feedback.take([report("start", FeedbackKind.RESUBSCRIBED, NOW + 120)])

    assert [change.status for change in stopped.contacts] == [ContactStatus.UNSUBSCRIBED]
    assert (replayed.new, replayed.known, list(replayed.contacts)) == (0, 1, [])


async def test_a_repeated_soft_bounce_is_one(feedback: FeedbackStore) -> None:
    for repetition in range(2 * SOFT_BOUNCES_MAX):
        assert not (await feedback.take([report("off", FeedbackKind.SOFT_BOUNCED, NOW + repetition)])).contacts
    for number in range(1, SOFT_BOUNCES_MAX):
        taken = await feedback.take([report(f"off {number}", FeedbackKind.SOFT_BOUNCED, NOW + 60 + number)])

    assert [change.status for change in taken.contacts] == [ContactStatus.BOUNCED]


async def test_what_is_kept_for_ever_is_never_forgotten(feedback: FeedbackStore) -> None:
    await feedback.take([report("stop", FeedbackKind.UNSUBSCRIBED, 1.0)])

    assert await feedback.prune(10) == 0
