"""Dead letters of an organization: list them, send one again, drop one."""

from __future__ import annotations

from typing import Any

from quart_trio.wrappers import TrioResponse

from actors.store import dead_letters as store
from actors.store.api_keys import Scope
from actors.store.dead_letters import DeadLetter
from dispatcher.model import DeadLetterReason
from dispatcher.problems import Refused
from dispatcher_http import wire
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route, announce, answer, no_content, whole_change
from dispatcher_http.services import Services

_RULE = "/v1/orgs/<org>/dead-letters"


def routes(services: Services) -> list[Route]:
    """Listing, requeueing, discarding."""

    async def read_page(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, {"reason", "after", "page_size"})
        reason = wire.query_choice(call.args, "reason", DeadLetterReason)
        page = await store.read_page(services.pool, call.organization_id, reason, wire.page_request(call.args))
        return answer(wire.page_document(page, _document))

    async def requeue(call: Call) -> TrioResponse:
        with whole_change():
            id = await store.requeue(services.pool, call.organization_id, call.id_of("dead_letter"), services.attempts_max)
            if id is None:
                raise Refused(resource_not_found("dead_letter"))
            await announce(services.requeued(call.organization_id, [id]))
        return answer({"id": id, "status": "queued"}, 202)

    async def discard(call: Call) -> TrioResponse:
        if not await store.discard(services.pool, call.organization_id, call.id_of("dead_letter")):
            raise Refused(resource_not_found("dead_letter"))
        return no_content()

    return [
        Route("GET", _RULE, Scope.DEAD_LETTERS_READ, read_page),
        Route("POST", f"{_RULE}/<id>/requeue", Scope.DEAD_LETTERS_WRITE, requeue),
        Route("DELETE", f"{_RULE}/<id>", Scope.DEAD_LETTERS_WRITE, discard),
    ]


def _document(letter: DeadLetter) -> dict[str, Any]:
    return {
        "notification_id": letter.notification_id,
        "reason": letter.reason,
        "code": letter.code,
        "channel": letter.channel,
        "provider": letter.provider,
        "created_at": wire.moment(letter.created_at),
    }
