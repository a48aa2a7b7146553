"""A whole set-up over HTTP: everything as one document, and replacing all of it or some sections at once, or not at all.

The document is checked together with what it does not touch before anything is written, and written only onto the very set-up it
was checked against. Invariant: an answer that lists changes tells of all of them, and one that refuses has changed nothing.
"""

from __future__ import annotations

from typing import Any

from quart_trio.wrappers import TrioResponse

from actors.in_turns import in_turns
from actors.store import setups as store
from actors.store.api_keys import Scope
from actors.store.definitions import ANYTHING
from dispatcher import setup_push
from dispatcher.bundle import Contents, Verb, digest, document_of
from dispatcher.model import OrganizationId
from dispatcher.problems import Problem, Refused
from dispatcher.setup_push import Push
from dispatcher_http import wire
from dispatcher_http.definitions import default_locale
from dispatcher_http.preconditions import entity_tag, precondition_failed
from dispatcher_http.routing import CHANGE_DEADLINE_S, Call, Route, announce, answer, whole_change
from dispatcher_http.services import Services

TRIES_MAX = 3
"""How often a change without a precondition is decided about anew, when others change things all the while."""


def routes(services: Services) -> list[Route]:
    """Reading. Changing comes through :mod:`dispatcher_http.setup_lane`, because it may be large."""

    async def read(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, ())
        contents = await store.read(services.pool, call.organization_id, CHANGE_DEADLINE_S)
        document = {"default_locale": await default_locale(services, call.organization_id), **document_of(contents)}
        return answer(document, 200, {"etag": entity_tag(digest(contents))})

    return [Route("GET", "/v1/orgs/<org>/setup", Scope.SETUP_READ, read)]


async def change(
    services: Services, organization_id: OrganizationId, body: bytes, expected: str | None, *, dry_run: bool
) -> tuple[dict[str, Any], str]:
    """Decide about a document and, unless it is a dry run, carry it out. What has changed, or would, and the tag of the result.

    ``expected`` is the tag the set-up must have. Raises Refused with every fault.
    """
    document = wire.object_of(body)
    for _ in range(TRIES_MAX):
        push, current = await _decided(services, organization_id, document, expected)
        if dry_run or not push.is_change:
            break
        with whole_change():
            done = await store.apply(
                services.pool, organization_id, current, push.changes, push.after, services.new_id, CHANGE_DEADLINE_S
            )
            if done:
                await announce(services.changed(organization_id))
        if done:
            break
    else:
        raise Refused(precondition_failed("set-up"))
    return _report(push, dry_run), digest(push.after)


async def _decided(
    services: Services, organization_id: OrganizationId, document: dict[str, Any], expected: str | None
) -> tuple[Push, Contents]:
    current = await store.read(services.pool, organization_id, CHANGE_DEADLINE_S)
    if expected not in (None, ANYTHING, digest(current)):
        raise Refused(precondition_failed("set-up"))
    push = await in_turns(setup_push.decide(current, document, await default_locale(services, organization_id)))
    if push.faults:
        first = push.faults[0]
        raise Refused(Problem(422, first.code, first.title, first.detail, first.pointer, errors=push.faults))
    return push, current


def _report(push: Push, dry_run: bool) -> dict[str, Any]:
    verbs = {verb.value: [each.document() for each in push.changes if each.verb is verb] for verb in Verb}
    return {"dry_run": dry_run, "changed": push.is_change, **verbs}
