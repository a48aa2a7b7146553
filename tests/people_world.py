"""People for tests of the surface: an organization with topics, and calls about its users."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
from attrs import define, field

from actors.store.api_keys import Scope
from surface_doubles import Surface

TOPICS: dict[str, dict[str, Any]] = {
    "offers": {"title": "Offers"},
    "reminders": {"title": "Reminders", "default": ["push"]},
    "security": {"title": "Security", "critical": True},
}
ADA = {
    "locale": "pt-br",
    "time_zone": "America/Sao_Paulo",
    "quiet_hours": {"start": "22:00", "end": "07:00", "days": ["fri", "sat"]},
    "contact_points": {"email": ["Ada@example.org", "ada@work.example"], "sms": ["+15551234567"]},
}


@define
class Desk:
    """One organization's own program, as far as its users are concerned."""

    surface: Surface
    organization_id: str = "acme"
    scopes: tuple[Scope, ...] = ()
    _headers: dict[str, str] = field(factory=dict)

    async def call(self, method: str, path: str, document: Any = None) -> httpx.Response:
        """One request below ``/users``."""
        if not self._headers:
            self._headers = await self.surface.authorization(self.organization_id, *self.scopes)
        return await self.surface.client.request(
            method,
            f"/v1/orgs/{self.organization_id}/users{path}",
            content=None if document is None else orjson.dumps(document),
            headers={**self._headers, "content-type": "application/json"},
        )

    async def get(self, path: str) -> Any:
        """What stands there."""
        response = await self.call("GET", path)
        assert response.status_code == 200, response.text
        return response.json()

    async def put(self, path: str, document: Any) -> Any:
        """What a change that must be taken answers."""
        response = await self.call("PUT", path, document)
        assert response.status_code == 200, response.text
        return response.json()

    async def add_topics(self) -> None:
        """Define the topics."""
        await self.surface.new_key(self.organization_id)
        for name, body in TOPICS.items():
            await self.surface.services.pool.execute(
                "INSERT INTO definitions (organization_id, kind, name, body) VALUES (%s, 'topic', %s, %s::jsonb)",
                (self.organization_id, name, orjson.dumps(body).decode()),
            )
