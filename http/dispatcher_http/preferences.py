"""What users of an organization want to get: their preferences by topic and channel."""

from __future__ import annotations

from typing import Any

from quart_trio.wrappers import TrioResponse

from actors.store import preferences as store
from actors.store.api_keys import Scope
from actors.store.preferences import StoredPreference
from dispatcher.decisions import ENDS
from dispatcher.model import Channel
from dispatcher.people import User
from dispatcher.people_documents import Preference, parse_preferences, place_faults
from dispatcher.preferences import allowed
from dispatcher.problems import Refused
from dispatcher_http import wire
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route, answer
from dispatcher_http.services import Services
from dispatcher_http.users import USER, taken, user_id_of

_RULE = f"{USER}/preferences"
_ONE = f"{_RULE}/<topic>/<channel>"


def routes(services: Services) -> list[Route]:
    """Reading, writing all, writing one."""

    async def read(call: Call) -> TrioResponse:
        user_id = user_id_of(call)
        found = await store.read(services.pool, call.organization_id, user_id)
        if found is None:
            raise Refused(resource_not_found("user"))
        said = {(each.preference.topic, each.preference.channel): each.preference.allowed for each in found}
        user = User(user_id, preferences=said)
        topics = [
            {
                "topic": topic.name,
                "title": topic.title,
                "critical": topic.critical,
                "channels": {channel.value: allowed(user, topic, channel) not in ENDS for channel in Channel},
            }
            for topic in (await store.topics(services.pool, call.organization_id)).values()
        ]
        return answer({"preferences": [preference_document(each) for each in found], "topics": topics})

    async def put_all(call: Call) -> TrioResponse:
        user_id, body = user_id_of(call), await call.json()
        preferences = taken(parse_preferences(body, await store.topics(services.pool, call.organization_id)))
        if not await store.put(services.pool, call.organization_id, user_id, preferences, whole=True):
            raise Refused(resource_not_found("user"))
        return await read(call)

    async def put_one(call: Call) -> TrioResponse:
        user_id = user_id_of(call)
        faults = wire.Faults()
        fields = wire.Fields(await call.json(), faults)
        if fields.value("allowed") is None:
            faults.add("/allowed", "field_missing", "This field is required.")
        is_allowed = fields.boolean("allowed", default=False)
        fields.finish()
        topic, channel = await _place(call, faults)
        preference = Preference(topic, channel, is_allowed)
        if not await store.put(services.pool, call.organization_id, user_id, [preference], whole=False):
            raise Refused(resource_not_found("user"))
        return await read(call)

    async def drop_one(call: Call) -> TrioResponse:
        place = call.path["topic"], call.path["channel"]
        if not await store.put(services.pool, call.organization_id, user_id_of(call), [], whole=False, without=[place]):
            raise Refused(resource_not_found("user"))
        return await read(call)

    async def _place(call: Call, faults: wire.Faults) -> tuple[str, str]:
        topic, channel = call.path["topic"], call.path["channel"]
        known = await store.topics(services.pool, call.organization_id)
        faults.extend(place_faults(topic, channel, known))
        faults.refuse_if_any()
        return topic, channel

    return [
        Route("GET", _RULE, Scope.USERS_READ, read),
        Route("PUT", _RULE, Scope.USERS_WRITE, put_all),
        Route("PUT", _ONE, Scope.USERS_WRITE, put_one),
        Route("DELETE", _ONE, Scope.USERS_WRITE, drop_one),
    ]


def preference_document(stored: StoredPreference) -> dict[str, Any]:
    """One preference as it is shown."""
    return {
        "topic": stored.preference.topic,
        "channel": stored.preference.channel,
        "allowed": stored.preference.allowed,
        "source": stored.source,
        "changed_at": wire.moment(stored.changed_at),
    }
