"""People in Postgres: whatever deciding about any number of users of an organization needs, in one statement."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dispatcher.contacts import ContactStatus
from dispatcher.model import Channel, OrganizationId
from dispatcher.people import ContactPoint, QuietHours, User
from dispatcher.policy import read_quiet_hours

if TYPE_CHECKING:
    from actors.io.postgres import Pool

READ = """
SELECT u.id, u.locale, u.time_zone, u.quiet_hours,
    (SELECT json_agg(json_build_array(p.id, p.channel, p.recipient, coalesce(c.status, 'active'), p.app, p.platform,
            extract(epoch FROM p.expires_at)::float8) ORDER BY p.refreshed_at DESC, p.id DESC)
        FROM contact_points p LEFT JOIN contacts c USING (organization_id, channel, address)
        WHERE p.organization_id = u.organization_id AND p.user_id = u.id),
    (SELECT json_agg(json_build_array(f.topic, f.channel, f.allowed))
        FROM preferences f WHERE f.organization_id = u.organization_id AND f.user_id = u.id),
    (SELECT json_object_agg(t.cap, ARRAY(SELECT extract(epoch FROM at)::float8 FROM unnest(t.times) AS at ORDER BY at))
        FROM cap_times t WHERE t.organization_id = u.organization_id AND t.user_id = u.id)
FROM users u WHERE u.organization_id = %s AND u.id = ANY(%s::text[])
"""


class PostgresPeople:
    """The users of all organizations."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, organization_id: OrganizationId, user_ids: Collection[str]) -> Mapping[str, User]:
        """Those of these users that the organization has, by their ids."""
        if not user_ids:
            return {}
        # Nobody is called by what Postgres can not even be asked for.
        askable = [id for id in user_ids if "\0" not in id]
        return {row[0]: _user(*row) for row in await self._pool.fetch(READ, (organization_id, askable))}


def quiet_hours_of(document: Mapping[str, Any] | None) -> QuietHours | None:
    """Quiet hours as they are stored."""
    return None if document is None else read_quiet_hours(document, "", [])


def _user(
    id: str,
    locale: str | None,
    time_zone: str | None,
    quiet_hours: Mapping[str, Any] | None,
    points: Sequence[Sequence[Any]] | None,
    preferences: Sequence[tuple[str, str, bool]] | None,
    cap_times_s: Mapping[str, Sequence[float]] | None,
) -> User:
    return User(
        id=id,
        locale=locale,
        time_zone=time_zone,
        quiet_hours=quiet_hours_of(quiet_hours),
        points=tuple(_point(*point) for point in points or ()),
        preferences={(topic, channel): allowed for topic, channel, allowed in preferences or ()},
        cap_times_s={cap: tuple(times_s) for cap, times_s in (cap_times_s or {}).items()},
    )


def _point(
    id: str, channel: str, recipient: str, status: str, app: str | None, platform: str | None, expires_at_s: float | None
) -> ContactPoint:
    return ContactPoint(id, Channel(channel), recipient, ContactStatus(status), app, platform, expires_at_s)
