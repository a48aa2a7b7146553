"""Statistics over HTTP: one's own numbers, of days that can be asked for."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from actors.store import statistics
from actors.store.api_keys import Scope
from store_rows import insert_notification
from surface_doubles import Surface, assert_problem

PATH = "/v1/orgs/acme/statistics"


async def test_an_organization_reads_its_own_numbers(surface: Surface) -> None:
    await surface.authorization("globex")
    headers = await surface.authorization("acme", Scope.NOTIFICATIONS_READ)
    pool, new_id = surface.services.pool, surface.services.new_id
    await insert_notification(pool, new_id(), "globex")
    id = await insert_notification(pool, new_id())
    await pool.execute("UPDATE notifications SET status = 'failed', reason = 'expired' WHERE id = %s", (id,))
    await pool.execute("INSERT INTO counts VALUES ('acme', '2026-02-28', 'sms', 'delivered', '', 7)")
    day = await statistics.today(pool)

    recent = (await surface.client.get(PATH, headers=headers)).json()
    past = (await surface.client.get(f"{PATH}?from=2026-02-28&to=2026-02-28&by=outcome,reason", headers=headers)).json()

    assert recent == {
        "from": str(day - timedelta(days=29)),
        "to": str(day),
        "by": ["day", "channel", "outcome"],
        "items": [
            {"day": str(day), "channel": "email", "outcome": "accepted", "count": 1},
            {"day": str(day), "channel": "email", "outcome": "failed", "count": 1},
        ],
    }
    assert past == {
        "from": "2026-02-28",
        "to": "2026-02-28",
        "by": ["outcome", "reason"],
        "items": [{"outcome": "delivered", "reason": "", "count": 7}],
    }


@pytest.mark.parametrize(
    "query",
    [
        "from=2026-02-30",
        "from=20260228",
        "from=2026-W09",
        "to=yesterday",
        "to=0000-01-01",
        "to=0001-01-01",
        "to=9999-12-31",
        "from=2026-03-01&to=2026-02-28",
        "from=2024-01-01&to=2026-01-01",
        "by=",
        "by=day,person",
        "since=2026-02-28",
        "from=2026-02-28&from=2026-02-28",
    ],
)
async def test_a_question_that_is_not_understood_is_refused(surface: Surface, query: str) -> None:
    response = await surface.client.get(f"{PATH}?{query}", headers=await surface.authorization())

    assert_problem(response, 400, "query_invalid")


async def test_as_many_days_as_may_be_asked_for(surface: Surface) -> None:
    headers = await surface.authorization()
    last = date(2026, 2, 28)
    for days, status in ((statistics.DAYS_MAX, 200), (statistics.DAYS_MAX + 1, 400)):
        first = last - timedelta(days=days - 1)
        assert (await surface.client.get(f"{PATH}?from={first}&to={last}", headers=headers)).status_code == status


async def test_numbers_are_for_who_may_read_notifications(surface: Surface) -> None:
    response = await surface.client.get(PATH, headers=await surface.authorization("acme", Scope.NOTIFICATIONS_WRITE))

    assert response.status_code == 403
