"""Users of an organization: profiles, contact points and push tokens.

A user is known by an id of the organization's own. An address or a token stands in a body or an answer, never in a path: paths
are what proxies and people write down.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from quart_trio.wrappers import TrioResponse

from actors.feedback_ports import ContactChange
from actors.store import users as store
from actors.store.api_keys import Scope
from actors.store.users import StoredPoint, StoredUser
from dispatcher.acceptance import is_recipient, recipient_rule
from dispatcher.contacts import ContactStatus
from dispatcher.model import Channel
from dispatcher.people_documents import (
    POINTS_MAX,
    USER_ID_RULE,
    USERS_MAX,
    Profile,
    is_user_id,
    parse_point,
    parse_profile,
    parse_profiles,
    parse_token,
)
from dispatcher.problems import Problem, Refused
from dispatcher.spans import document_of
from dispatcher.subscriptions import normal_subscription
from dispatcher_http import wire
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route, announce, answer, no_content, whole_change
from dispatcher_http.services import Services

RULE = "/v1/orgs/<org>/users"
USER = f"{RULE}/<user>"

_T = TypeVar("_T")


def routes(services: Services) -> list[Route]:
    """Writing and reading profiles, adding and removing ways to reach people."""

    async def put(call: Call) -> TrioResponse:
        profile = taken(parse_profile(user_id_of(call), await call.json()))
        await store.put(services.pool, call.organization_id, [profile])
        return await read(call)

    async def put_many(call: Call) -> TrioResponse:
        body = await call.json()
        rows = body.get("users")
        if body.keys() != {"users"} or not isinstance(rows, list) or not 1 <= len(rows) <= USERS_MAX:
            detail = f'The body must be {{"users": [...]}} with 1 to {USERS_MAX} users.'
            raise Refused(Problem(422, "body_invalid", "The request can not be used", detail, "/users"))
        parsed = parse_profiles(rows)
        profiles = [each for each in parsed if isinstance(each, Profile)]
        if profiles:
            await store.put(services.pool, call.organization_id, profiles)
        verdicts = [_verdict(index, each) for index, each in enumerate(parsed)]
        return answer({"stored": len(profiles), "rejected": len(rows) - len(profiles), "users": verdicts})

    async def read(call: Call) -> TrioResponse:
        found = await store.read(services.pool, call.organization_id, user_id_of(call))
        if found is None:
            raise Refused(resource_not_found("user"))
        return answer(user_document(found))

    async def add_point(call: Call) -> TrioResponse:
        user_id = user_id_of(call)
        channel, recipient = taken(parse_point(await call.json()))
        try:
            added = await store.add_point(services.pool, call.organization_id, user_id, channel, recipient)
        except ValueError:
            detail = f"A user has at most {POINTS_MAX} contact points on a channel; remove one first."
            raise Refused(Problem(409, "contact_points_full", "Too many contact points", detail, "/channel")) from None
        if added is None:
            raise Refused(resource_not_found("user"))
        return answer(point_document(added), 201)

    async def remove_point(call: Call) -> TrioResponse:
        if not await store.remove_point(services.pool, call.organization_id, user_id_of(call), call.id_of("contact_point")):
            raise Refused(resource_not_found("contact_point"))
        return no_content()

    async def put_token(call: Call) -> TrioResponse:
        user_id = user_id_of(call)
        token = taken(parse_token(await call.json(), _now_unix_s()))
        with whole_change():
            registered = await store.put_token(services.pool, call.organization_id, user_id, token)
            if registered is None:
                raise Refused(resource_not_found("user"))
            if registered.revived is not None:
                change = ContactChange(call.organization_id, registered.revived, Channel.PUSH, ContactStatus.ACTIVE, None)
                await announce(services.contacts_changed([change]))
        return answer(point_document(registered.point))

    async def remove_token(call: Call) -> TrioResponse:
        user_id = user_id_of(call)
        faults = wire.Faults()
        fields = wire.Fields(await call.json(), faults)
        token = fields.text("token", 4096)
        fields.finish()
        if not faults and not is_recipient(token, Channel.PUSH):
            faults.add("/token", "field_invalid", f"This {recipient_rule(Channel.PUSH)}.")
        faults.refuse_if_any()
        if not await store.remove_token(services.pool, call.organization_id, user_id, normal_subscription(token)):
            raise Refused(resource_not_found("push_token"))
        return no_content()

    return [
        Route("POST", RULE, Scope.USERS_WRITE, put_many),
        Route("PUT", USER, Scope.USERS_WRITE, put),
        Route("GET", USER, Scope.USERS_READ, read),
        Route("POST", f"{USER}/contact_points", Scope.USERS_WRITE, add_point),
        Route("DELETE", f"{USER}/contact_points/<id>", Scope.USERS_WRITE, remove_point),
        Route("PUT", f"{USER}/push_tokens", Scope.USERS_WRITE, put_token),
        Route("POST", f"{USER}/push_tokens/remove", Scope.USERS_WRITE, remove_token),
    ]


def user_id_of(call: Call) -> str:
    """The user id in the path. Raises Refused for what can be nobody's."""
    user_id = call.path["user"]
    if not is_user_id(user_id):
        detail = f"A user id {USER_ID_RULE}."
        raise Refused(Problem(422, "user_id_invalid", "Nobody can be called so", detail))
    return user_id


def taken(parsed: _T | Problem) -> _T:
    """What was read. Raises Refused for what could not be."""
    if isinstance(parsed, Problem):
        raise Refused(parsed)
    return parsed


def user_document(user: StoredUser) -> dict[str, Any]:
    """One user as it is shown."""
    return {
        "id": user.id,
        "locale": user.locale,
        "time_zone": user.time_zone,
        "quiet_hours": None if user.quiet_hours is None else document_of(user.quiet_hours),
        "contact_points": points_document(user.points),
        "created_at": wire.moment(user.created_at),
        "updated_at": wire.moment(user.updated_at),
    }


def points_document(points: Sequence[StoredPoint]) -> dict[str, list[dict[str, Any]]]:
    """Contact points by channel, the one to try first in front."""
    by_channel: dict[str, list[dict[str, Any]]] = {channel.value: [] for channel in Channel}
    for point in points:
        by_channel[point.channel.value].append(point_document(point))
    return by_channel


def point_document(point: StoredPoint) -> dict[str, Any]:
    """One contact point as it is shown."""
    token = {"app": point.app, "platform": point.platform, "expires_at": wire.moment(point.expires_at)}
    return {
        "id": point.id,
        "channel": point.channel,
        "recipient": point.recipient,
        "status": point.status,
        **(token if point.channel is Channel.PUSH else {}),
        "created_at": wire.moment(point.created_at),
        "refreshed_at": wire.moment(point.refreshed_at),
    }


def _verdict(index: int, parsed: Profile | Problem) -> dict[str, Any]:
    if isinstance(parsed, Problem):
        return {"index": index, "status": "rejected", "problem": parsed.below(f"/users/{index}").document()}
    return {"index": index, "status": "stored"}


def _now_unix_s() -> float:
    return datetime.now(UTC).timestamp()
