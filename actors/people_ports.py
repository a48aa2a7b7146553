"""What deciding about notifications needs to know of people. Held to one conformance suite by a real and an in-memory version."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from dispatcher.model import OrganizationId
from dispatcher.people import User


class People(Protocol):
    """The users of all organizations. May raise :class:`~dispatcher.errors.StoreUnavailable`."""

    async def read(self, organization_id: OrganizationId, user_ids: Collection[str]) -> Mapping[str, User]:
        """Those of these users that the organization has, by their ids, in one statement.

        Each comes with its contact points, the one to try first in front and those that have expired among them, with what is
        known of their contacts; with preferences; and with what frequency caps have counted.
        """
