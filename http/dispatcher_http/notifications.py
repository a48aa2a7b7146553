"""Notifications of an organization: what became of them. Accepting them is :mod:`dispatcher_http.accept_lane`."""

from __future__ import annotations

from typing import Any

from quart_trio.wrappers import TrioResponse

from actors.store import notifications as store
from actors.store.api_keys import Scope
from actors.store.notifications import Confirmed, NotificationSummary, TimelineEntry
from dispatcher.model import Channel, Status
from dispatcher.problems import Refused
from dispatcher_http import cancel, wire
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route, answer
from dispatcher_http.services import Services

_RULE = "/v1/orgs/<org>/notifications"


def routes(services: Services) -> list[Route]:
    """Reading one and many."""

    async def read_page(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, {"status", "channel", "after", "page_size"})
        status = wire.query_choice(call.args, "status", Status)
        channel = wire.query_choice(call.args, "channel", Channel)
        page = await store.read_page(services.pool, call.organization_id, status, channel, wire.page_request(call.args))
        return answer(wire.page_document(page, summary_document))

    async def read(call: Call) -> TrioResponse:
        detail = await store.read(services.pool, call.organization_id, call.id_of("notification"))
        if detail is None:
            raise Refused(resource_not_found("notification"))
        document = summary_document(detail.summary)
        document["template"] = detail.template
        document["payload"] = detail.payload
        document["timeline"] = [_entry_document(entry) for entry in detail.timeline]
        return answer(document)

    return [
        Route("GET", _RULE, Scope.NOTIFICATIONS_READ, read_page),
        Route("GET", f"{_RULE}/<id>", Scope.NOTIFICATIONS_READ, read),
        *cancel.routes(services),
    ]


def summary_document(summary: NotificationSummary) -> dict[str, Any]:
    """One notification as it is listed."""
    return {
        "id": summary.id,
        "status": summary.status,
        "channel": summary.channel,
        "recipient": summary.recipient,
        "user_id": summary.user_id,
        "template_id": summary.template_id,
        "locale": summary.locale,
        "idempotency_key": summary.idempotency_key,
        "attempts": summary.attempts,
        "attempts_max": summary.attempts_max,
        "unknowns": summary.unknowns,
        "provider": summary.provider,
        "provider_config_id": summary.provider_config_id,
        "provider_message_id": summary.provider_message_id,
        "reason": summary.reason,
        "next_retry_at": wire.moment(summary.next_retry_at),
        "send_at": wire.moment(summary.next_retry_at) if summary.status is Status.SCHEDULED else None,
        "expires_at": wire.moment(summary.expires_at),
        "correlation_id": summary.correlation_id,
        "created_at": wire.moment(summary.created_at),
        "updated_at": wire.moment(summary.updated_at),
        "confirmation": _confirmation_document(summary.confirmation),
    }


def _confirmation_document(confirmation: Confirmed | None) -> dict[str, Any] | None:
    if confirmation is None:
        return None
    return {"state": confirmation.state, "code": confirmation.code, "at": wire.moment(confirmation.at)}


def _entry_document(entry: TimelineEntry) -> dict[str, Any]:
    optional = {
        "attempt": entry.attempt,
        "code": entry.code,
        "provider": entry.provider,
        "provider_config_id": entry.provider_config_id,
        "next_retry_at": wire.moment(entry.next_retry_at),
        "api_key_id": entry.api_key_id,
    }
    present = {name: value for name, value in optional.items() if value is not None}
    return {"at": wire.moment(entry.at), "event": entry.event, **present}
