"""How many notifications of an organization came to what, per day: read off counters, never counted.

What was not added up yet (see the table ``count_deltas``) is added in the same statement, so the answer is exact at any moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import frozen

from dispatcher.model import OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

DAYS_MAX = 366
"""Days of one answer."""


class By(StrEnum):
    """What numbers may be told apart by."""

    DAY = "day"
    CHANNEL = "channel"
    OUTCOME = "outcome"
    REASON = "reason"


_COLUMNS = {By.DAY: "day", By.CHANNEL: "channel", By.OUTCOME: "what", By.REASON: "reason"}


@frozen
class Statistics:
    """``rows`` have a value for each of ``by``, in that order, and a number; sorted."""

    first_day: date
    last_day: date
    by: Sequence[By]
    rows: Sequence[tuple[Sequence[str], int]]


async def today(pool: Pool) -> date:
    """The day it is in UTC by the clock that days are counted by."""
    ((day,),) = await pool.fetch("SELECT (now() AT TIME ZONE 'UTC')::date")
    assert isinstance(day, date)
    return day


async def read(pool: Pool, organization_id: OrganizationId, first_day: date, last_day: date, by: Sequence[By]) -> Statistics:
    """The numbers of these days, both included. ``by`` is not empty."""
    columns = ", ".join(_COLUMNS[each] for each in by)
    one = f"SELECT {columns}, n FROM {{table}} WHERE organization_id = %(organization_id)s AND day BETWEEN %(first)s AND %(last)s"
    rows = await pool.fetch(
        f"SELECT {columns}, sum(n)::bigint "
        f"FROM ({one.format(table='counts')} UNION ALL {one.format(table='count_deltas')}) AS known "
        f"GROUP BY {columns} ORDER BY {columns}",
        {"organization_id": organization_id, "first": first_day, "last": last_day},
    )
    return Statistics(first_day, last_day, by, [([str(value) for value in row[:-1]], row[-1]) for row in rows])
