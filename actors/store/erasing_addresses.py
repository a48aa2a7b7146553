"""Erasing whoever has an address and need not be a user: all that was sent to it.

No index finds notifications by address, because every accept would have to pay for it. So all of them are walked through in the
order of their ids, those under way and then history, a bounded number at a time; where it has come to is a cursor that the caller
brings back. Invariant: every step may be repeated, and what a step has passed and left is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen

from actors.store.erasing import BLANKED
from actors.store.feedback import translated
from dispatcher.contacts import address_of
from dispatcher.model import Channel, NotificationId, OrganizationId

if TYPE_CHECKING:
    from actors.io.postgres import Pool

SEEN_MAX = 10_000
"""Rows looked at in one step."""
_FIRST_ID = "00000000-0000-0000-0000-000000000000"
_UNDER_WAY, _PAST = "n", "h"
"""Where a cursor is: among notifications, or in history."""

_IS_THEIRS = "contact_address(channel, recipient) = %(address)s AND channel = %(channel)s"
_CONTACT = """
INSERT INTO contacts AS c (id, organization_id, channel, address, recipient)
VALUES (gen_random_uuid(), %(organization_id)s, %(channel)s, %(address)s, '')
ON CONFLICT (organization_id, channel, address) DO UPDATE SET recipient = '', note = NULL
WHERE c.recipient <> '' OR c.note IS NOT NULL
"""
_POINTS = """
DELETE FROM contact_points WHERE organization_id = %(organization_id)s AND channel = %(channel)s AND address = %(address)s
"""
# What is being sent gets no further attempt; see erasing.py.
_NOTIFICATIONS = f"""
WITH seen AS (
    SELECT id, organization_id, channel, recipient FROM notifications WHERE id > %(after)s::uuid ORDER BY id LIMIT %(seen_max)s
), theirs AS (
    SELECT id FROM seen WHERE organization_id = %(organization_id)s AND {_IS_THEIRS}
), mine AS (
    SELECT id, status IN ('scheduled', 'queued') AS waits, channel FROM notifications
    WHERE id IN (SELECT id FROM theirs) AND status <> 'sending' ORDER BY id FOR UPDATE SKIP LOCKED
), {BLANKED}, ending AS (
    UPDATE notifications n SET expires_at = least(n.expires_at, now()) FROM theirs WHERE n.id = theirs.id AND n.status = 'sending'
)
SELECT (SELECT max(id::text) FROM seen), (SELECT count(*) FROM seen), (SELECT count(*) FROM theirs), count(*),
    array_agg(id) FILTER (WHERE waits) FROM mine
"""
_HISTORY = """
WITH seen AS (
    SELECT id, channel, recipient FROM notification_history
    WHERE organization_id = %(organization_id)s AND id > %(after)s::uuid ORDER BY id LIMIT %(seen_max)s
), blank AS (
    UPDATE notification_history h
    SET user_id = NULL, recipient = '', payload = '{}', idempotency_key = NULL, decisions = NULL
    FROM seen WHERE h.organization_id = %(organization_id)s AND h.id = seen.id AND contact_address(seen.channel, seen.recipient) =
        %(address)s AND seen.channel = %(channel)s
    RETURNING h.id
)
SELECT (SELECT max(id::text) FROM seen), (SELECT count(*) FROM seen), (SELECT count(*) FROM blank)
"""


@frozen
class AddressErased:
    """What some steps have done. ``left`` are notifications that were being sent, or changed, in that moment: the caller walks
    again for them. ``after`` is where to go on; None at the end.
    """

    contact_points: int
    notifications: int
    canceled: tuple[tuple[NotificationId, Channel], ...]
    left: int
    after: str | None


def is_cursor(text: str) -> bool:
    """Whether it may be one of ours, as far as its form goes; the rest of it is an id."""
    return text[:2] in (f"{_UNDER_WAY}:", f"{_PAST}:")


async def erase_address(
    pool: Pool, organization_id: OrganizationId, channel: Channel, recipient: str, after: str | None, steps_max: int
) -> AddressErased:
    """Erase what there is of an address, as far as ``steps_max`` steps go from ``after`` on (None: from the beginning)."""
    address = {"organization_id": organization_id, "channel": channel.value, "address": address_of(channel, recipient)}
    points = erased = left = 0
    canceled: list[tuple[NotificationId, Channel]] = []
    place, last = (_UNDER_WAY, _FIRST_ID) if after is None else (after[0], after[2:])
    with translated("an erasure"):
        if after is None:
            await pool.execute(_CONTACT, address)
            points = await pool.execute(_POINTS, address)
        for _ in range(steps_max):
            parameters: dict[str, Any] = {**address, "after": last, "seen_max": SEEN_MAX}
            if place == _UNDER_WAY:
                ((end, seen, theirs, blanked, ids),) = await pool.fetch(_NOTIFICATIONS, parameters)
                canceled += ((NotificationId(id), channel) for id in ids or ())
                left += theirs - blanked
            else:
                ((end, seen, blanked),) = await pool.fetch(_HISTORY, parameters)
            erased += blanked
            if seen == SEEN_MAX:
                last = end
            elif place == _UNDER_WAY:
                place, last = _PAST, _FIRST_ID
            else:
                return AddressErased(points, erased, tuple(canceled), left, None)
    return AddressErased(points, erased, tuple(canceled), left, f"{place}:{last}")
