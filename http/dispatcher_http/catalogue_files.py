"""Catalogues as PO files over HTTP, for the programs that translators work with.

``GET`` gives one against the words of the organization's default locale, with what is not translated yet; ``PUT`` stores one like
the JSON document it is. Invariant: a file is checked as that document is, and its faults name lines beside pointers.
"""

from __future__ import annotations

from typing import Final

import trio
from quart_trio.wrappers import TrioResponse

from actors.store import definitions as store
from actors.store.api_keys import Scope
from dispatcher.catalogue_checks import catalogues_of
from dispatcher.definitions import Kind
from dispatcher.locales import normalize
from dispatcher.po_files import MEDIA_TYPE, from_po, to_po
from dispatcher.problems import Problem, Refused
from dispatcher.translations import Catalogue
from dispatcher_http import wire
from dispatcher_http.definitions import default_locale, stored_document
from dispatcher_http.preconditions import entity_tag
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route
from dispatcher_http.services import Services

_RULE: Final = "/v1/orgs/<org>/catalogues/<name>/po"
_MEDIA_TYPE: Final = Problem(
    415, "media_type_unsupported", "Unsupported media type", f"Send {MEDIA_TYPE} in UTF-8, without a Content-Encoding."
)
_UTF_8: Final = frozenset({"charset=utf-8", 'charset="utf-8"'})


def routes(services: Services) -> list[Route]:
    """Reading and storing one catalogue as a file."""
    # A file of a thousand messages takes Babel a tenth of a second, so it is done beside the event loop, one at a time.
    turns = trio.CapacityLimiter(1)

    async def read(call: Call) -> TrioResponse:
        name = _locale_in(call)
        default = await default_locale(services, call.organization_id)
        stored = await store.read(services.pool, call.organization_id, Kind.CATALOGUE, name)
        beside = await store.read(services.pool, call.organization_id, Kind.CATALOGUE, default)
        found = catalogues_of([each.definition for each in (stored, beside) if each is not None])
        # A language that is not begun yet is a file with nothing translated.
        catalogue = found.get(name) or (Catalogue(name, {}, {"messages": {}}) if stored is None and default in found else None)
        if catalogue is None:
            raise Refused(resource_not_found(Kind.CATALOGUE))
        data = await trio.to_thread.run_sync(to_po, catalogue, found.get(default), limiter=turns)
        headers = {"etag": entity_tag(store.NOTHING if stored is None else stored.tag)}
        headers["content-disposition"] = f'attachment; filename="{name}.po"'
        return TrioResponse(data, 200, headers, content_type=f"{MEDIA_TYPE}; charset=utf-8")

    async def put(call: Call) -> TrioResponse:
        name = _locale_in(call)
        media_type, *parameters = call.request.headers.get("Content-Type", "").lower().split(";")
        charsets = {each.strip() for each in parameters if each.strip().startswith("charset=")}
        if media_type.strip() != MEDIA_TYPE or not charsets <= _UTF_8 or call.request.headers.get("Content-Encoding") is not None:
            raise Refused(_MEDIA_TYPE)
        data = await call.request.get_data(False, False, False)
        default = await default_locale(services, call.organization_id)
        body = await trio.to_thread.run_sync(from_po, data, name, default, limiter=turns)
        if isinstance(body, Problem):
            raise Refused(body)
        return await stored_document(services, call, Kind.CATALOGUE, name, body)

    return [Route("GET", _RULE, Scope.SETUP_READ, read), Route("PUT", _RULE, Scope.SETUP_WRITE, put)]


def _locale_in(call: Call) -> str:
    wire.refuse_unknown(call.args, set())
    name = call.path["name"]
    if normalize(name) != name:
        raise Refused(resource_not_found(Kind.CATALOGUE))
    return name
