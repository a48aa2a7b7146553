"""Dead letters by cause: reason, code, channel and provider together, with a bounded count.

The causes of an organization are few, its letters may be a million. So the index is not read but skipped through, from the
first letter of one cause to the first of the next, and no cause is counted further than :data:`COUNT_MAX`: the work is bounded
by the number of causes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from actors.store.dead_letter_filter import COUNT_MAX, LetterFilter, Params
from actors.store.dead_letters import Count
from dispatcher.model import Channel, DeadLetterReason, NotificationId, OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

GROUPS_MAX = 200
"""Causes looked at. Codes are a closed set for each provider, so an organization with more has something else to mend first."""
EXAMPLES_MAX = 3
STATEMENT_DEADLINE_S = 8.0

_CAUSE = "d.reason, d.code, d.channel, coalesce(d.provider, '')"
_GROUPS = f"""
WITH RECURSIVE cause AS (
    (SELECT d.reason, d.code, d.channel, coalesce(d.provider, '') AS provider, 1 AS number
     FROM dead_letters d WHERE {{causes}} ORDER BY {_CAUSE} LIMIT 1)
    UNION ALL
    SELECT following.reason, following.code, following.channel, following.provider, cause.number + 1
    FROM cause CROSS JOIN LATERAL (
        SELECT d.reason, d.code, d.channel, coalesce(d.provider, '') AS provider FROM dead_letters d
        WHERE {{causes}} AND ({_CAUSE}) > (cause.reason, cause.code, cause.channel, cause.provider)
        ORDER BY {_CAUSE} LIMIT 1
    ) AS following
    WHERE cause.number <= %(groups_max)s
)
SELECT cause.reason, cause.code, cause.channel, nullif(cause.provider, ''), counted.found, oldest.created_at, newest.created_at,
       ARRAY(SELECT d.notification_id FROM dead_letters d WHERE {{letters}} ORDER BY d.created_at DESC LIMIT %(examples_max)s)
FROM cause
CROSS JOIN LATERAL (
    SELECT count(*) AS found FROM (SELECT FROM dead_letters d WHERE {{letters}} LIMIT %(count_max)s + 1) AS matching
) AS counted
LEFT JOIN LATERAL (SELECT d.created_at FROM dead_letters d WHERE {{letters}} ORDER BY d.created_at LIMIT 1) AS oldest ON true
LEFT JOIN LATERAL (SELECT d.created_at FROM dead_letters d WHERE {{letters}} ORDER BY d.created_at DESC LIMIT 1) AS newest ON true
ORDER BY cause.number
"""
_OF_CAUSE = (
    "d.organization_id = %(organization_id)s AND d.reason = cause.reason AND d.code = cause.code AND d.channel = cause.channel "
    "AND coalesce(d.provider, '') = cause.provider"
)


@frozen
class Group:
    """The letters of one cause: ``examples`` are the newest of them."""

    reason: DeadLetterReason
    code: str
    channel: Channel
    provider: str | None
    count: Count
    oldest_at: datetime
    newest_at: datetime
    examples: Sequence[NotificationId]


@frozen
class Groups:
    """The largest first. With ``more`` there are causes past :data:`GROUPS_MAX` that were not looked at."""

    groups: Sequence[Group]
    more: bool


async def read_groups(pool: Pool, organization_id: OrganizationId, which: LetterFilter) -> Groups:
    """Group the letters that match by cause. Templates and ids are no part of a cause: a filter that has them is refused."""
    if which.template is not None or which.ids is not None:
        raise ValueError("letters are grouped by cause only")
    causes, params = evolve(which, created_from=None, created_before=None).condition(organization_id)
    letters = _OF_CAUSE
    for name, value, comparison in (("from", which.created_from, ">="), ("before", which.created_before, "<")):
        if value is not None:
            letters += f" AND d.created_at {comparison} %(created_{name})s"
            params[f"created_{name}"] = value
    limits: Params = {"groups_max": GROUPS_MAX, "count_max": COUNT_MAX, "examples_max": EXAMPLES_MAX}
    rows = await pool.fetch(_GROUPS.format(causes=causes, letters=letters), {**params, **limits}, deadline_s=STATEMENT_DEADLINE_S)
    groups = [_group(row) for row in rows[:GROUPS_MAX] if row[4]]
    return Groups(sorted(groups, key=lambda group: (group.count.rows, group.newest_at), reverse=True), len(rows) > GROUPS_MAX)


def _group(row: tuple[Any, ...]) -> Group:
    reason, code, channel, provider, found, oldest_at, newest_at, examples = row
    count = Count(min(found, COUNT_MAX), found > COUNT_MAX)
    return Group(DeadLetterReason(reason), code, Channel(channel), provider, count, oldest_at, newest_at, examples)
