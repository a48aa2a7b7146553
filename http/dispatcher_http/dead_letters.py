"""Dead letters of an organization as a workbench: look at them, group them by cause, send again, drop, take them away as a file.

What changes many letters is bounded for each call and says how many are left; whoever wants more calls again. Such calls take
turns, a few at a time for the whole process, so that the connections to Postgres stay with the notifications under way.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import trio
from quart_trio.wrappers import TrioResponse

from actors.store import dead_letters as store
from actors.store.api_keys import Scope
from actors.store.dead_letter_filter import NO_PROVIDER
from actors.store.dead_letter_groups import Group, read_groups
from actors.store.dead_letters import Count, DeadLetter
from dispatcher.problems import Refused
from dispatcher_http import wire
from dispatcher_http.letter_export import CONTENT_TYPE, Exports
from dispatcher_http.letter_requests import CAUSE_NAMES, QUERY_NAMES, Selection, filter_of_query, selection_of_body
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import CHANGE_DEADLINE_S, Call, Route, announce, answer, no_content, whole_change
from dispatcher_http.services import Services

TURNS_MAX = 2
"""Statements about many letters at once, in one process."""

_RULE = "/v1/orgs/<org>/dead-letters"


def routes(services: Services) -> list[Route]:
    """One letter, and many."""
    turns = trio.CapacityLimiter(TURNS_MAX)
    return [*_single_routes(services), *_bulk_routes(services, turns), *_export_routes(Exports(services.pool, turns))]


def _single_routes(services: Services) -> list[Route]:
    async def read_page(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, QUERY_NAMES | {"after", "page_size"})
        which = filter_of_query(call.args)
        page = await store.read_page(services.pool, call.organization_id, which, wire.page_request(call.args))
        return answer(wire.page_document(page, _document))

    async def requeue(call: Call) -> TrioResponse:
        with whole_change():
            letter = call.id_of("dead_letter")
            id = await store.requeue(services.pool, call.organization_id, letter, services.attempts_max, call.key_id)
            if id is None:
                raise Refused(resource_not_found("dead_letter"))
            await announce(services.requeued(call.organization_id, [id]))
        return answer({"id": id, "status": "queued"}, 202)

    async def discard(call: Call) -> TrioResponse:
        with whole_change():
            if not await store.discard(services.pool, call.organization_id, call.id_of("dead_letter"), call.key_id):
                raise Refused(resource_not_found("dead_letter"))
            await announce(services.discarded(call.organization_id, 1))
        return no_content()

    return [
        Route("GET", _RULE, Scope.DEAD_LETTERS_READ, read_page),
        Route("POST", f"{_RULE}/<id>/requeue", Scope.DEAD_LETTERS_WRITE, requeue),
        Route("DELETE", f"{_RULE}/<id>", Scope.DEAD_LETTERS_WRITE, discard),
    ]


def _bulk_routes(services: Services, turns: trio.CapacityLimiter) -> list[Route]:
    pool = services.pool

    async def read_causes(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, CAUSE_NAMES)
        which = filter_of_query(call.args)
        with trio.fail_after(CHANGE_DEADLINE_S):
            async with turns:
                found = await read_groups(pool, call.organization_id, which)
        return answer({"items": [_group_document(group) for group in found.groups], "more": found.more})

    async def requeue(call: Call) -> TrioResponse:
        asked = selection_of_body(await call.json(), paced=True)
        org, which, limit, pace = call.organization_id, asked.which, asked.limit, asked.pace
        with whole_change():
            async with turns:
                if asked.dry_run:
                    would = await store.preview(pool, org, which, limit, pace)
                    return _changed("requeued", asked, would.rows, would.left, {"last_due_at": would.last_due_at})
                done = await store.requeue_many(pool, org, which, limit, pace, services.attempts_max, call.key_id)
            if done.due:
                await announce(services.requeued_many(org, done.due))
        return _changed("requeued", asked, len(done.due), done.left, {"last_due_at": done.last_due_at})

    async def discard(call: Call) -> TrioResponse:
        asked = selection_of_body(await call.json(), paced=False)
        org, which, limit = call.organization_id, asked.which, asked.limit
        with whole_change():
            async with turns:
                if asked.dry_run:
                    would = await store.preview(pool, org, which, limit, asked.pace)
                    return _changed("discarded", asked, would.rows, would.left, {})
                done = await store.discard_many(pool, org, which, limit, call.key_id)
            if done.rows:
                await announce(services.discarded(org, done.rows))
        return _changed("discarded", asked, done.rows, done.left, {})

    return [
        Route("GET", f"{_RULE}/groups", Scope.DEAD_LETTERS_READ, read_causes),
        Route("POST", f"{_RULE}/requeue", Scope.DEAD_LETTERS_WRITE, requeue),
        Route("POST", f"{_RULE}/discard", Scope.DEAD_LETTERS_WRITE, discard),
    ]


def _export_routes(exports: Exports) -> list[Route]:
    async def export(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, QUERY_NAMES | {"after"})
        which = filter_of_query(call.args)
        after = wire.page_request(call.args).after
        # Who reads notifications may know who they are for anyhow.
        people = Scope.NOTIFICATIONS_READ in call.scopes
        if call.request.method == "HEAD":
            return TrioResponse(b"", content_type=CONTENT_TYPE)
        response = TrioResponse(await exports.open(call.organization_id, which, after, people=people), content_type=CONTENT_TYPE)
        response.timeout = None  # it takes as long as it takes; a reader who takes nothing loses the connection
        return response

    return [Route("GET", f"{_RULE}/export", Scope.DEAD_LETTERS_READ, export)]


def _changed(verb: str, asked: Selection, rows: int, left: Count, more: dict[str, datetime | None]) -> TrioResponse:
    document: dict[str, Any] = {verb: rows, "left": _count_document(left), "dry_run": asked.dry_run}
    document.update((name, wire.moment(at)) for name, at in more.items())
    return answer(document)


def _count_document(count: Count) -> dict[str, Any]:
    return {"count": count.rows, "more": count.more}


def _group_document(group: Group) -> dict[str, Any]:
    return {
        "reason": group.reason,
        "code": group.code,
        "channel": group.channel,
        "provider": group.provider,
        "count": group.count.rows,
        "count_more": group.count.more,
        "oldest_at": wire.moment(group.oldest_at),
        "newest_at": wire.moment(group.newest_at),
        "example_ids": group.examples,
        "filter": {
            "reason": group.reason,
            "code": group.code,
            "channel": group.channel,
            "provider": group.provider or NO_PROVIDER,
        },
    }


def _document(letter: DeadLetter) -> dict[str, Any]:
    return {
        "notification_id": letter.notification_id,
        "reason": letter.reason,
        "code": letter.code,
        "channel": letter.channel,
        "provider": letter.provider,
        "created_at": wire.moment(letter.created_at),
        "unknowns": letter.unknowns,
    }
