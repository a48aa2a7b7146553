"""What an organization has set up: rules, topics, layouts, catalogues and its policy, each document under its name.

A document is refused with every fault at once when it is handed in. What it names and is not there yet is a warning in the
answer, because parts of a set-up come one by one; what others name can not be removed. Invariant: a change is announced before it
is confirmed, and made only if nobody has changed in between what the caller says to have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import trio
from quart_trio.wrappers import TrioResponse

from actors.in_turns import in_turns
from actors.store import definitions as store
from actors.store import organizations, setups, templates
from actors.store.api_keys import Scope
from actors.store.definitions import NOTHING, Change, Stored
from dispatcher.bundle import SECTIONS
from dispatcher.catalogue_checks import catalogues_of, words_lost
from dispatcher.catalogues import state as catalogue_state
from dispatcher.definitions import POLICY_NAME, Definition, Kind
from dispatcher.documents import storage_fault
from dispatcher.layouts import Layout
from dispatcher.model import OrganizationId
from dispatcher.problems import Problem, Refused
from dispatcher.setup import parsed
from dispatcher.setup_checks import layout_faults, namers_of_topic, spoken, unknown_names
from dispatcher.setup_push import COUNT_MAX
from dispatcher.translations import Catalogue
from dispatcher_http import wire
from dispatcher_http.preconditions import entity_tag, expected_tag, precondition_failed
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import CHANGE_DEADLINE_S, Call, Route, announce, answer, no_content, whole_change
from dispatcher_http.services import Services

NAME_LENGTH_MAX = 255

_ORGANIZATION = "/v1/orgs/<org>"
_KINDS = {section: Kind(kind) for section, kind in SECTIONS.items() if section not in ("policy", "templates")}


def routes(services: Services) -> list[Route]:
    """For each kind: the list, and reading, storing and removing one. There is one policy, which can not be removed."""

    async def read_page(kind: Kind, call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, {"after", "page_size"})
        after = wire.query_value(call.args, "after", _name, "a cursor from the field 'next' of a page")
        page = await store.page(services.pool, call.organization_id, kind, after, wire.page_size(call.args))
        items = []
        for each in page.items:
            items.append(_summary(each))
            await trio.lowlevel.checkpoint()  # each is compiled, to see whether it can be used
        return answer({"items": items, "page": {"next": page.next}})

    async def read(kind: Kind, call: Call) -> TrioResponse:
        name = _name_in(call, kind)
        stored = await store.read(services.pool, call.organization_id, kind, name)
        if stored is None:
            if kind is not Kind.POLICY:
                raise Refused(resource_not_found(kind))
            return answer({"name": name, "revision": 0, "body": {}}, 200, {"etag": entity_tag(NOTHING)})
        state = await _state(services, call.organization_id, stored)
        return answer(_document(stored, state), 200, {"etag": entity_tag(stored.tag)})

    async def put(kind: Kind, call: Call) -> TrioResponse:
        return await stored_document(services, call, kind, _name_in(call, kind), await call.json())

    async def remove(kind: Kind, call: Call) -> TrioResponse:
        name, expected = _name_in(call, kind), expected_tag(call.request.headers)
        default = await default_locale(services, call.organization_id)  # before a connection is held, for it takes another
        with whole_change():
            async with store.changing(services.pool, call.organization_id, CHANGE_DEADLINE_S) as change:
                before = await change.read(kind, name)
                if before is None:
                    raise Refused(resource_not_found(kind))
                if expected is not None and not store.is_expected(expected, before):
                    raise Refused(precondition_failed(kind))
                if kind is Kind.TOPIC:
                    _refuse_if_named(kind, [spoken(key) for key in namers_of_topic(await setups.definitions_of(change), name)])
                was = await _definitions(change) if (kind, name) == (Kind.CATALOGUE, default) else []
                await change.delete(kind, name)
                if kind is Kind.LAYOUT:
                    await _refuse_if_broken(change, default)
                elif (kind, name) == (Kind.CATALOGUE, default):
                    await _refuse_if_wordless(change, was, default)
            await announce(services.changed(call.organization_id))
        return no_content()

    found = [
        Route("GET", f"{_ORGANIZATION}/policy", Scope.SETUP_READ, partial(read, Kind.POLICY)),
        Route("PUT", f"{_ORGANIZATION}/policy", Scope.SETUP_WRITE, partial(put, Kind.POLICY)),
    ]
    for section, kind in _KINDS.items():
        address = f"{_ORGANIZATION}/{section}"
        found += [
            Route("GET", address, Scope.SETUP_READ, partial(read_page, kind)),
            Route("GET", f"{address}/<name>", Scope.SETUP_READ, partial(read, kind)),
            Route("PUT", f"{address}/<name>", Scope.SETUP_WRITE, partial(put, kind)),
            Route("DELETE", f"{address}/<name>", Scope.SETUP_WRITE, partial(remove, kind)),
        ]
    return found


async def stored_document(services: Services, call: Call, kind: Kind, name: str, body: dict[str, Any]) -> TrioResponse:
    """Store a document, in place of the one before, and answer with what stands there then. Raises Refused."""
    expected = expected_tag(call.request.headers)
    made = _no_fault_of_storing(body) or parsed(kind, name, body)
    if isinstance(made, Problem):
        raise Refused(made)
    default = await default_locale(services, call.organization_id)  # before a connection is held, for it takes another
    with whole_change():
        async with store.changing(services.pool, call.organization_id, CHANGE_DEADLINE_S) as change:
            before = await change.read(kind, name)
            if expected is not None and not store.is_expected(expected, before):
                raise Refused(precondition_failed(kind))
            if before is None and await change.count(kind) >= COUNT_MAX:
                raise Refused(_too_many(kind))
            was = await _definitions(change) if (kind, name) == (Kind.CATALOGUE, default) else []
            stored = await change.put(kind, name, body)
            if kind is Kind.LAYOUT:
                await _refuse_if_broken(change, default)
            elif (kind, name) == (Kind.CATALOGUE, default):
                await _refuse_if_wordless(change, was, default)
            warnings = await _warnings(change, stored)
        await announce(services.changed(call.organization_id))
    state, headers = await _state(services, call.organization_id, stored), {"etag": entity_tag(stored.tag)}
    return answer(_document(stored, state, warnings), 201 if before is None else 200, headers)


async def _refuse_if_broken(change: Change, default: str) -> None:
    """Refuse, and so undo, a change of the layouts with which something would not compile any more, or not find its words."""
    now, in_force = await _definitions(change), await templates.all_in_force(change)
    layouts = _layouts(now)
    faults = await in_turns(layout_faults(layouts, in_force))
    faults = faults or await in_turns(words_lost(in_force, layouts, None, catalogues_of(now), default))
    if faults:
        raise Refused(Problem(409, "layout_in_use", "The layout is in use", faults[0].detail, errors=tuple(faults)))


async def _refuse_if_wordless(change: Change, was: Iterable[Definition], default: str) -> None:
    """Refuse, and so undo, a change of the default locale's catalogue that takes a message from a template."""
    now, in_force = await _definitions(change), await templates.all_in_force(change)
    lost = await in_turns(words_lost(in_force, _layouts(now), catalogues_of(was), catalogues_of(now), default))
    if lost:
        raise Refused(Problem(409, "catalogue_in_use", "The catalogue is in use", lost[0].detail, errors=tuple(lost)))


def _layouts(definitions: Iterable[Definition]) -> dict[str, Layout]:
    found = {each.name: parsed(Kind.LAYOUT, each.name, each.body) for each in definitions if each.kind is Kind.LAYOUT}
    return {name: made for name, made in found.items() if isinstance(made, Layout)}


async def _definitions(change: Change) -> list[Definition]:
    return [stored.definition for stored in await change.read_all()]


async def default_locale(services: Services, organization_id: OrganizationId) -> str:
    """The locale in which every chain of an organization ends."""
    organization = await organizations.read(services.pool, organization_id)
    return organization.default_locale if organization is not None else "en"


async def _state(services: Services, organization_id: OrganizationId, stored: Stored) -> Mapping[str, Any]:
    """Of a catalogue, how it stands beside that of the default locale; nothing of others."""
    definition = stored.definition
    if definition.kind is not Kind.CATALOGUE:
        return {}
    default = await default_locale(services, organization_id)
    beside = await store.read(services.pool, organization_id, Kind.CATALOGUE, default)
    bodies = {each.definition.name: each.definition.body for each in (beside, stored) if each is not None}
    found = {locale: parsed(Kind.CATALOGUE, locale, body) for locale, body in bodies.items()}
    catalogues = {locale: made for locale, made in found.items() if isinstance(made, Catalogue)}
    return {"state": catalogue_state(catalogues, default, definition.name)} if definition.name in catalogues else {}


async def _warnings(change: Change, stored: Stored) -> list[Problem]:
    """What the document names and is not there yet."""
    definition = stored.definition
    if definition.kind not in (Kind.RULE, Kind.POLICY):
        return []
    topics = {key.name for key in await setups.definitions_of(change) if key.kind == Kind.TOPIC}
    return list(unknown_names(definition.kind, definition.body, topics, await setups.template_names(change)))


def _refuse_if_named(kind: Kind, namers: Iterable[str]) -> None:
    named = list(namers)
    if named:
        listed = ", ".join(named[:10]) + (f" and {len(named) - 10} more" if len(named) > 10 else "")
        detail = f"It can not be removed while it is named by {listed}. Change these first."
        raise Refused(Problem(409, "definition_in_use", f"The {kind} is in use", detail))


def _no_fault_of_storing(body: dict[str, Any]) -> Problem | None:
    fault = storage_fault(body)
    return None if fault is None else Problem(422, "field_invalid", "The definition can not be stored", fault, "")


def _too_many(kind: Kind) -> Problem:
    return Problem(
        422, "too_many_definitions", "Too many", f"An organization may have at most {COUNT_MAX} of the kind {kind}.", ""
    )


def _name_in(call: Call, kind: Kind) -> str:
    try:
        return _name(call.path.get("name", POLICY_NAME))
    except ValueError:
        raise Refused(resource_not_found(kind)) from None


def _name(text: str) -> str:
    if not 1 <= len(text) <= NAME_LENGTH_MAX or not text.isprintable():
        raise ValueError("name")
    return text


def _summary(stored: Stored) -> dict[str, Any]:
    definition = stored.definition
    made = parsed(definition.kind, definition.name, definition.body)
    return {
        "name": definition.name,
        "revision": definition.revision,
        "created_at": wire.moment(stored.created_at),
        "updated_at": wire.moment(stored.updated_at),
        **({"fault": made.document()} if isinstance(made, Problem) else {}),
    }


def _document(stored: Stored, state: Mapping[str, Any], warnings: Iterable[Problem] = ()) -> dict[str, Any]:
    listed = [{"code": each.code, "detail": each.detail, "pointer": each.pointer} for each in warnings]
    return {**_summary(stored), "body": stored.definition.body, **state, **({"warnings": listed} if listed else {})}
