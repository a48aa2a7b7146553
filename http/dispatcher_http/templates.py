"""Templates of an organization: store a version, look at it, try it, publish drafts together, retire it.

A template that does not compile, or uses what it does not declare, is refused when it is handed in: at that moment
somebody is there to mend it. Every part is compiled, so that one answer names the faults of all. Invariant: what is
published was checked with everything it includes and against the other locales, while nobody could change any of it.
"""

from __future__ import annotations

from typing import Any

from quart_trio.wrappers import TrioResponse

from actors.store import definitions as setup_store
from actors.store import organizations
from actors.store import templates as store
from actors.store.api_keys import Scope
from actors.store.definitions import Change
from actors.store.templates import State, StoredTemplate
from dispatcher.acceptance import together
from dispatcher.documents import TITLE
from dispatcher.locales import TAG_LENGTH_MAX, normalize
from dispatcher.model import Channel, Template
from dispatcher.problems import Problem, Refused, escape_pointer
from dispatcher.sms_segments import segments_of
from dispatcher.template_checks import incomplete, worsened
from dispatcher.template_documents import NAME_LENGTH_MAX, VARIABLES_MAX, NewTemplate, parse_template, template_document
from dispatcher.template_surroundings import Surroundings
from dispatcher.templates import CompiledTemplate, MissingVariable, TemplateError
from dispatcher.zones import ZONE_RULE, is_zone
from dispatcher_http import wire
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import CHANGE_DEADLINE_S, Call, Route, announce, answer, no_content, whole_change
from dispatcher_http.services import Services

_RULE = "/v1/orgs/<org>/templates"


def routes(services: Services) -> list[Route]:
    """Adding, reading, trying, publishing, retiring."""

    async def add(call: Call) -> TrioResponse:
        body = await call.json()
        new = _accepted(parse_template(body, None))  # before anybody has to wait for it
        id, default = services.new_id(), await _default_locale(call)
        with whole_change():
            async with setup_store.changing(services.pool, call.organization_id, CHANGE_DEADLINE_S) as change:
                around = await _surroundings(change, default)
                new = _accepted(parse_template(body, around.library))
                if not new.draft:
                    in_force = await store.in_force(change, new.name, new.channel)
                    faults = [*around.faults(new.template()), *worsened(new.template(), in_force)]
                    if faults:
                        raise Refused(together(faults))
                stored = await store.insert(change, id, new)
            if not new.draft:
                await announce(services.changed(call.organization_id))
        return answer(_document(stored), 201, {"location": f"/v1/orgs/{call.organization_id}/templates/{id}"})

    async def publish(call: Call) -> TrioResponse:
        faults = wire.Faults()
        fields = wire.Fields(await call.json(), faults)
        name = fields.text("name", NAME_LENGTH_MAX)
        channel = fields.optional_choice("channel", Channel)
        fields.finish()
        faults.refuse_if_any()
        default = await _default_locale(call)
        with whole_change():
            async with setup_store.changing(services.pool, call.organization_id, CHANGE_DEADLINE_S) as change:
                drafts = await store.newest_drafts(change, name, channel)
                if not drafts:
                    raise Refused(_NO_DRAFTS)
                around = await _surroundings(change, default)
                checked = []
                for each in sorted({draft.channel for draft in drafts}):
                    checked += await _publishable(change, name, each, drafts, around)
                published = await store.publish(change, [draft.id for draft in drafts])
            await announce(services.changed(call.organization_id))
        texts = {compiled.template_id: compiled.fixed_text() for compiled in checked}
        return answer({"name": name, "published": [_published(stored, texts[stored.template.id]) for stored in published]})

    async def read_page(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, {"name", "state", "after", "page_size"})
        name = wire.query_value(call.args, "name", _name, "the name of a template")
        state = wire.query_choice(call.args, "state", State) or State.PUBLISHED
        page = await store.read_page(services.pool, call.organization_id, name, wire.page_request(call.args), state)
        return answer(wire.page_document(page, _summary))

    async def read(call: Call) -> TrioResponse:
        return answer(_document(await _stored(call)))

    async def preview(call: Call) -> TrioResponse:
        stored = await _stored(call)
        faults = wire.Faults()
        fields = wire.Fields(await call.json(), faults)
        variables = fields.optional_mapping("variables", VARIABLES_MAX) or {}
        locale = fields.optional_text("locale", TAG_LENGTH_MAX)
        if locale is not None and normalize(locale) is None:
            faults.add("/locale", "field_invalid", "This must be a BCP 47 language tag, such as pt-BR.")
        zone = fields.optional_text("time_zone", 64)
        if zone is not None and not is_zone(zone):
            faults.add("/time_zone", "field_invalid", f"This {ZONE_RULE}.")
        fields.finish()
        faults.refuse_if_any()
        template = stored.template
        definitions = await setup_store.read_all(services.pool, call.organization_id)
        around = Surroundings.of(definitions, await _default_locale(call))
        localization = around.localization(normalize(locale or "") or template.locale, zone or "UTC")
        try:
            payload = around.compiled(template).render_payload(variables, localization)
        except MissingVariable as error:
            raise Refused(error.problem(f"/variables/{escape_pointer(error.name or '')}")) from None
        except TemplateError as error:
            raise Refused(error.problem("/variables")) from None
        counted = {"segments": segments_of(payload["text"]).document()} if template.channel is Channel.SMS else {}
        return answer({"payload": payload, **counted})

    async def retire(call: Call) -> TrioResponse:
        with whole_change():
            if not await store.retire(services.pool, call.organization_id, call.id_of("template")):
                raise Refused(resource_not_found("template"))
            await announce(services.changed(call.organization_id))
        return no_content()

    async def _default_locale(call: Call) -> str:
        organization = await organizations.read(services.pool, call.organization_id)
        return "en" if organization is None else organization.default_locale

    async def _stored(call: Call) -> StoredTemplate:
        stored = await store.read(services.pool, call.organization_id, call.id_of("template"))
        if stored is None:
            raise Refused(resource_not_found("template"))
        return stored

    return [
        Route("POST", _RULE, Scope.TEMPLATES_WRITE, add),
        Route("GET", _RULE, Scope.TEMPLATES_READ, read_page),
        Route("POST", f"{_RULE}/publish", Scope.TEMPLATES_WRITE, publish),
        Route("GET", f"{_RULE}/<id>", Scope.TEMPLATES_READ, read),
        Route("POST", f"{_RULE}/<id>/preview", Scope.TEMPLATES_READ, preview),
        Route("DELETE", f"{_RULE}/<id>", Scope.TEMPLATES_WRITE, retire),
    ]


async def _surroundings(change: Change, default_locale: str) -> Surroundings:
    """What the organization's templates are surrounded by, which nobody changes meanwhile."""
    return Surroundings.of((stored.definition for stored in await change.read_all()), default_locale)


async def _publishable(
    change: Change, name: str, channel: Channel, drafts: list[Template], around: Surroundings
) -> list[CompiledTemplate]:
    """The drafts of a channel, compiled. Raises Refused with every fault of what would be in force with them."""
    mine = [draft for draft in drafts if draft.channel is channel]
    by_locale = {template.locale: template for template in [*await store.in_force(change, name, channel), *mine]}
    faults: list[Problem] = []
    for draft in mine:
        where = f"The draft of '{draft.locale}' for {channel}: "
        faults += [Problem(422, one.code, TITLE, where + one.detail, one.pointer) for one in around.faults(draft)]
    faults += [fault for _, fault in incomplete(by_locale.values())]
    if faults:
        raise Refused(together(faults))
    return [around.compiled(draft) for draft in mine]


def _accepted(new: NewTemplate | Problem) -> NewTemplate:
    if isinstance(new, Problem):
        raise Refused(new)
    return new


_NO_DRAFTS = Problem(
    409,
    "template_no_drafts",
    "Nothing to publish",
    "No draft of this name is newer than what is published.",
    "/name",
)


def _name(text: str) -> str:
    if not 1 <= len(text) <= NAME_LENGTH_MAX or not text.isprintable():
        raise ValueError("name")
    return text


def _summary(stored: StoredTemplate) -> dict[str, Any]:
    template = stored.template
    return {
        "id": template.id,
        "name": template.name,
        "channel": template.channel,
        "locale": template.locale,
        "version": template.version,
        "variables": template.variables,
        "created_at": wire.moment(stored.created_at),
        "published_at": wire.moment(stored.published_at),
        "retired_at": wire.moment(stored.retired_at),
    }


def _published(stored: StoredTemplate, text: str) -> dict[str, Any]:
    """One version that came into force; of a text message how many segments it takes at least, whatever the variables."""
    template = stored.template
    counted = {"segments_at_least": segments_of(text).document()} if template.channel is Channel.SMS else {}
    return {
        "id": template.id,
        "channel": template.channel,
        "locale": template.locale,
        "version": template.version,
        "published_at": wire.moment(stored.published_at),
        **counted,
    }


def _document(stored: StoredTemplate) -> dict[str, Any]:
    return _summary(stored) | template_document(stored.template)
