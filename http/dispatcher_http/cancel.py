"""Canceling: one notification, or all of a correlation id. Whatever is on its way to a provider by then is not called back.

The lock on a notification's row decides between canceling and sending, so each is either canceled or sent. Repeating a cancel
does no harm. Invariant: what was canceled is announced after it is on record.
"""

from __future__ import annotations

import re
from typing import Any

import trio
from quart_trio.wrappers import TrioResponse

from actors.store import notifications as store
from actors.store.api_keys import Scope
from actors.store.schedule import PostgresSchedule
from dispatcher.model import NotificationId, Status
from dispatcher.problems import Problem, Refused
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route, answer, whole_change
from dispatcher_http.services import Services

ROWS_MAX = 1_000
"""Notifications of one statement …"""
PARTS_MAX = 10
"""… and statements of one request. Whoever wants more canceled asks again."""
STANDING_MAX = 10_000
"""So many notifications of a correlation id are counted by their status."""
TURNS_MAX = 2
"""Requests that cancel many at the same time, in one process."""

_RULE = "/v1/orgs/<org>/notifications"
_VISIBLE = re.compile(r"[!-~]{1,255}")


def routes(services: Services) -> list[Route]:
    """One, and many."""
    schedule = PostgresSchedule(services.pool)
    turns = trio.CapacityLimiter(TURNS_MAX)

    async def cancel(call: Call) -> TrioResponse:
        org, id = call.organization_id, NotificationId(call.id_of("notification"))
        with whole_change():
            canceled = await schedule.cancel(org, id)
            if canceled is not None and canceled.now:
                services.canceled(org, [(id, canceled.channel)])
        if canceled is not None and canceled.status is Status.CANCELED:
            return answer({"id": id, "status": Status.CANCELED.value})
        status = None if canceled is None else canceled.status
        if canceled is None:
            moved = await store.read(services.pool, org, id)  # what has been final for long stands elsewhere
            if moved is None:
                raise Refused(resource_not_found("notification"))
            if moved.summary.status is Status.CANCELED:
                return answer({"id": id, "status": Status.CANCELED.value})
            status = moved.summary.status
        raise Refused(_too_late(status))

    async def cancel_many(call: Call) -> TrioResponse:
        org, correlation_id = call.organization_id, _correlation_of(await call.json())
        count = items = 0
        more = True
        with whole_change():
            async with turns:
                for _ in range(PARTS_MAX):
                    part = await schedule.cancel_correlated(org, correlation_id, ROWS_MAX)
                    services.canceled(org, part.canceled)
                    count, items, more = count + len(part.canceled), items + part.items, part.more
                    if not more:
                        break
                statuses = await schedule.standing(org, correlation_id, STANDING_MAX)
        document: dict[str, Any] = {"canceled": count, "digest_items": items, "more": more}
        document["statuses"] = {status.value: n for status, n in sorted(statuses.items())}
        return answer(document)

    return [
        Route("POST", f"{_RULE}/<id>/cancel", Scope.NOTIFICATIONS_WRITE, cancel),
        Route("POST", f"{_RULE}/cancel", Scope.NOTIFICATIONS_WRITE, cancel_many),
    ]


def _correlation_of(body: dict[str, Any]) -> str:
    if body.keys() - {"correlation_id"}:
        raise Refused(_invalid("", 'has an unknown field; known is "correlation_id"', "field_unknown"))
    given = body.get("correlation_id")
    if not (isinstance(given, str) and _VISIBLE.fullmatch(given)):
        raise Refused(_invalid("/correlation_id", "must be 1 to 255 visible ASCII characters"))
    return given


def _invalid(pointer: str, detail: str, code: str = "field_invalid") -> Problem:
    return Problem(422, code, "Nothing can be canceled by this", detail, pointer)


def _too_late(status: Status | None) -> Problem:
    standing = "not known any more" if status is None else status.value
    detail = f"It is {standing}; only what is scheduled or queued can be canceled."
    return Problem(409, "not_cancelable", "The notification can not be canceled any more", detail)
