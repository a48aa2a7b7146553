"""Events: what came of one, what would come of one, and why a notification is what it is. Taking them in is the accept lane's."""

from __future__ import annotations

from typing import Any

import orjson
from quart_trio.wrappers import TrioResponse

from actors.store import events as store
from actors.store import notifications
from actors.store.api_keys import Scope
from actors.store.notifications import NotificationDetail
from dispatcher.aftermath import happened, stands
from dispatcher.decisions import Code, decided
from dispatcher.problems import Refused
from dispatcher_http import wire
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route, answer
from dispatcher_http.services import Services

_EVENTS = "/v1/orgs/<org>/events"
_NOTIFICATIONS = "/v1/orgs/<org>/notifications"


def routes(services: Services) -> list[Route]:
    """Reading one, and explaining."""

    async def read(call: Call) -> TrioResponse:
        event = await store.read(services.pool, call.organization_id, call.path["id"])
        if event is None:
            raise Refused(resource_not_found("event"))
        document = {
            "id": event.id,
            "type": event.type,
            "correlation_id": event.correlation_id,
            "received_at": wire.moment(event.received_at),
            "answer": orjson.loads(event.answer),
        }
        return answer(document)

    async def explain_event(call: Call) -> TrioResponse:
        services.admit()
        return answer(await services.events.explain(call.organization_id, await call.json(), with_payload=_with_payload(call)))

    async def explain_item(call: Call) -> TrioResponse:
        services.admit()
        return answer(await services.explain(call.organization_id, await call.json(), with_payload=_with_payload(call)))

    async def explain_notification(call: Call) -> TrioResponse:
        id = call.id_of("notification")
        detail = await notifications.read(services.pool, call.organization_id, id)
        if detail is None:
            raise Refused(resource_not_found("notification"))
        decisions, event_id, topic, correlation_id = await store.decisions_of(services.pool, call.organization_id, id)
        document = {
            "id": id,
            "event_id": event_id,
            "topic": topic,
            "correlation_id": correlation_id,
            "decisions": list(decisions or [decided(Code.RULE_DIRECT).document(), decided(Code.RECIPIENT_GIVEN).document()]),
            "since": since_document(detail),
        }
        return answer(document)

    return [
        Route("POST", f"{_EVENTS}/explain", Scope.EVENTS_READ, explain_event),
        Route("GET", f"{_EVENTS}/<path:id>", Scope.EVENTS_READ, read),
        Route("POST", f"{_NOTIFICATIONS}/explain", Scope.NOTIFICATIONS_READ, explain_item),
        Route("GET", f"{_NOTIFICATIONS}/<id>/explain", Scope.NOTIFICATIONS_READ, explain_notification),
    ]


def since_document(detail: NotificationDetail) -> list[dict[str, Any]]:
    """What has happened to a notification since it was taken in, oldest first, and how it stands."""
    summary = detail.summary
    found = []
    for entry in detail.timeline:
        details = {"attempt": entry.attempt, "provider": entry.provider, "provider_code": entry.code}
        decision = happened(entry.event, **details, provider_config_id=entry.provider_config_id)
        if decision is not None:
            found.append({"at": wire.moment(entry.at), **decision.document()})
    standing = stands(
        summary.status, reason=summary.reason, due_at=wire.moment(summary.next_retry_at), attempts=summary.attempts or None
    )
    return [*found, {"at": wire.moment(summary.updated_at), **standing.document()}]


def _with_payload(call: Call) -> bool:
    wire.refuse_unknown(call.args, {"payload"})
    return wire.query_value(call.args, "payload", _flag, "'true' or 'false'") or False


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("flag")
    return text == "true"
