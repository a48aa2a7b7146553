"""People in memory, on the tables of :mod:`actors.memory_tables`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import evolve

from actors.memory import Interrupt, Moment, checkpoint
from actors.memory_tables import MemoryDatabase
from dispatcher.contacts import ContactStatus
from dispatcher.model import OrganizationId
from dispatcher.people import User


class MemoryPeople:
    """The users of all organizations."""

    def __init__(self, database: MemoryDatabase, *, interrupt: Interrupt = checkpoint) -> None:
        self.database = database
        self.interrupt = interrupt

    async def read(self, organization_id: OrganizationId, user_ids: Collection[str]) -> Mapping[str, User]:
        """Those of these users that the organization has, by their ids."""
        await self.interrupt("people", Moment.BEFORE)
        users = {id: self.database.users.get((organization_id, id)) for id in user_ids}
        found = {id: self._as_of_now(organization_id, user) for id, user in users.items() if user is not None}
        await self.interrupt("people", Moment.AFTER)
        return found

    def put(self, organization_id: OrganizationId, user: User) -> None:
        """Store a user. What is known of contacts and caps comes from the tables of those, whatever the record says."""
        self.database.users[organization_id, user.id] = user

    def _as_of_now(self, organization_id: OrganizationId, user: User) -> User:
        database = self.database
        points = (
            evolve(
                point,
                status=database.suppressed_as(organization_id, point.channel, point.recipient) or ContactStatus.ACTIVE,
            )
            for point in user.points
        )
        counted = {
            cap: times_s
            for (organization, user_id, cap), times_s in database.cap_times.items()
            if (organization, user_id) == (organization_id, user.id)
        }
        return evolve(user, points=tuple(points), cap_times_s=counted)
