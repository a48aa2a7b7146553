"""Statistics of an organization: how many of its notifications came to what, day by day."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from quart_trio.wrappers import TrioResponse

from actors.store import statistics as store
from actors.store.api_keys import Scope
from actors.store.statistics import DAYS_MAX, By, Statistics
from dispatcher.problems import Problem, Refused
from dispatcher_http import wire
from dispatcher_http.routing import Call, Route, answer
from dispatcher_http.services import Services

_RULE = "/v1/orgs/<org>/statistics"
_DAYS = timedelta(days=29)
"""Before the last day, if nobody says which is the first."""
_BY = (By.DAY, By.CHANNEL, By.OUTCOME)


def routes(services: Services) -> list[Route]:
    """Reading numbers."""

    async def read(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, {"from", "to", "by"})
        first = wire.query_value(call.args, "from", _day, "a day such as 2026-11-30")
        last = wire.query_value(call.args, "to", _day, "a day such as 2026-11-30")
        among = ", ".join(f"'{each}'" for each in By)
        by = wire.query_value(call.args, "by", _by, f"some of {among}, separated by commas") or _BY
        if last is None:
            last = await store.today(services.pool)
        if first is None:
            first = last - _DAYS
        if not timedelta(0) <= last - first < timedelta(days=DAYS_MAX):
            detail = f"The query must not ask for an end before its beginning, nor for more than {DAYS_MAX} days."
            raise Refused(Problem(400, "query_invalid", "Invalid query", detail))
        return answer(_document(await store.read(services.pool, call.organization_id, first, last, by)))

    return [Route("GET", _RULE, Scope.NOTIFICATIONS_READ, read)]


def _document(statistics: Statistics) -> dict[str, Any]:
    names = [str(each) for each in statistics.by]
    return {
        "from": statistics.first_day.isoformat(),
        "to": statistics.last_day.isoformat(),
        "by": names,
        "items": [{**dict(zip(names, values, strict=True)), "count": n} for values, n in statistics.rows],
    }


def _day(text: str) -> date:
    if len(text) != 10 or not "1970" <= text[:4] <= "9998":
        raise ValueError("day")
    return date.fromisoformat(text)


def _by(text: str) -> tuple[By, ...]:
    return tuple(dict.fromkeys(By(each) for each in text.split(",")))
