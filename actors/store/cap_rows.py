"""What frequency caps count, inside the transaction that inserts: times of each person and cap, held while they are looked at.

Invariant: two transactions that count for the same person and cap go one after the other, so together they stay within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from actors.ports import Admission
from dispatcher.caps import CapName, count_all
from dispatcher.model import NotificationId

if TYPE_CHECKING:
    from actors.io.postgres import TrioConnection

# Rows are made, or held, in the order in which they are given.
_HOLD = """
INSERT INTO cap_times AS c (organization_id, user_id, cap, times)
SELECT organization_id, user_id, cap, '{}'
FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY AS u(organization_id, user_id, cap, place)
ORDER BY place
ON CONFLICT (organization_id, user_id, cap) DO UPDATE SET cap = excluded.cap
RETURNING organization_id, user_id, cap, ARRAY(SELECT extract(epoch FROM t)::float8 FROM unnest(c.times) AS t ORDER BY 1),
    extract(epoch FROM now())::float8
"""
_KEEP = """
UPDATE cap_times c SET times = ARRAY(SELECT to_timestamp(t::float8) FROM json_array_elements_text(u.times) AS t)
FROM json_to_recordset(%s::json) AS u(organization_id text, user_id text, cap text, times json)
WHERE c.organization_id = u.organization_id AND c.user_id = u.user_id AND c.cap = u.cap
"""
# The insert counted them as accepted, which they are not.
_LEAVE_OUT = """
WITH over AS (DELETE FROM notifications WHERE id = ANY(%s::uuid[]) RETURNING organization_id, channel)
INSERT INTO count_deltas (organization_id, day, channel, what, reason, n)
SELECT organization_id, (now() AT TIME ZONE 'UTC')::date, channel, 'accepted', '', -count(*) FROM over GROUP BY 1, 2, 3
"""


async def count(admissions: Sequence[Admission], connection: TrioConnection[Any]) -> set[NotificationId]:
    """Count what was just inserted, and take out again what is over a cap; returns that."""
    names = sorted({(a.organization_id, use.user_id, use.cap) for a in admissions for use in a.caps})
    if not names:
        return set()
    rows = await (await connection.execute(_HOLD, [list(column) for column in zip(*names, strict=True)])).fetchall()
    known: dict[CapName, tuple[float, ...]] = {(org, user, cap): tuple(times) for org, user, cap, times, _ in rows}
    counted, over = count_all(known, [(a.organization_id, a.id, a.caps) for a in admissions], rows[0][-1])
    if counted:
        kept = [{"organization_id": o, "user_id": u, "cap": c, "times": times} for (o, u, c), times in counted.items()]
        await connection.execute(_KEEP, (orjson.dumps(kept).decode(),))
    if over:
        await connection.execute(_LEAVE_OUT, (sorted(over),))
    return {NotificationId(id) for id in over}
