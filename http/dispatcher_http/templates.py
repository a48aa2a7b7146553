"""Templates of an organization: store a version, look at it, try it, retire it.

A template that does not compile, or uses what it does not declare, is refused when it is handed in: at that moment
somebody is there to mend it. Every part is compiled, so that one answer names the faults of all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quart_trio.wrappers import TrioResponse

from actors.store import templates as store
from actors.store.api_keys import Scope
from actors.store.templates import NewTemplate, StoredTemplate
from dispatcher.locales import TAG_LENGTH_MAX, normalize
from dispatcher.model import Channel, OrganizationId, Template
from dispatcher.problems import Refused
from dispatcher.templates import (
    DEFAULT_LIMITS,
    HTML,
    PLAIN,
    CompiledTemplate,
    MissingVariable,
    TemplateError,
    compile_template,
    undeclared_variables,
)
from dispatcher_http import wire
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route, announce, answer, no_content, whole_change
from dispatcher_http.services import Services

NAME_LENGTH_MAX = 255
VARIABLES_MAX = 200
DESCRIPTION_LENGTH_MAX = 1000

_RULE = "/v1/orgs/<org>/templates"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


def routes(services: Services) -> list[Route]:
    """Adding, reading, trying, retiring."""

    async def add(call: Call) -> TrioResponse:
        new = _new_template(await call.json())
        id = services.new_id()
        with whole_change():
            stored = await store.add(services.pool, id, call.organization_id, new)
            await announce(services.changed(call.organization_id))
        return answer(_document(stored), 201, {"location": f"/v1/orgs/{call.organization_id}/templates/{id}"})

    async def read_page(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, {"name", "after", "page_size"})
        name = wire.query_value(call.args, "name", _name, "the name of a template")
        page = await store.read_page(services.pool, call.organization_id, name, wire.page_request(call.args))
        return answer(wire.page_document(page, _summary))

    async def read(call: Call) -> TrioResponse:
        return answer(_document(await _stored(call)))

    async def preview(call: Call) -> TrioResponse:
        stored = await _stored(call)
        faults = wire.Faults()
        fields = wire.Fields(await call.json(), faults)
        variables = fields.optional_mapping("variables", VARIABLES_MAX) or {}
        fields.finish()
        faults.refuse_if_any()
        try:
            payload = CompiledTemplate.of(stored.template).render_payload(variables)
        except MissingVariable as error:
            raise Refused(error.problem(_pointer_to_variable(error.name or ""))) from None
        except TemplateError as error:
            raise Refused(error.problem("/variables")) from None
        return answer({"payload": payload})

    async def retire(call: Call) -> TrioResponse:
        with whole_change():
            if not await store.retire(services.pool, call.organization_id, call.id_of("template")):
                raise Refused(resource_not_found("template"))
            await announce(services.changed(call.organization_id))
        return no_content()

    async def _stored(call: Call) -> StoredTemplate:
        stored = await store.read(services.pool, call.organization_id, call.id_of("template"))
        if stored is None:
            raise Refused(resource_not_found("template"))
        return stored

    return [
        Route("POST", _RULE, Scope.TEMPLATES_WRITE, add),
        Route("GET", _RULE, Scope.TEMPLATES_READ, read_page),
        Route("GET", f"{_RULE}/<id>", Scope.TEMPLATES_READ, read),
        Route("POST", f"{_RULE}/<id>/preview", Scope.TEMPLATES_READ, preview),
        Route("DELETE", f"{_RULE}/<id>", Scope.TEMPLATES_WRITE, retire),
    ]


def _new_template(body: Mapping[str, Any]) -> NewTemplate:
    """Read and check a template. Raises Refused with every fault."""
    faults = wire.Faults()
    fields = wire.Fields(body, faults)
    name = fields.text("name", NAME_LENGTH_MAX)
    if not name.isprintable():
        faults.add("/name", "field_invalid", "This must have visible characters only.")
    channel = fields.choice("channel", Channel)
    tag = fields.text("locale", TAG_LENGTH_MAX)
    locale = normalize(tag)
    if tag and locale is None:
        faults.add("/locale", "field_invalid", "This must be a BCP 47 language tag, such as pt-BR.")
    source_length_max = DEFAULT_LIMITS.source_bytes_max
    subject = fields.optional_text("subject", source_length_max)
    text = fields.text("body_template", source_length_max)
    html = fields.optional_text("html_template", source_length_max)
    variables = _variables(fields.optional_mapping("variables", VARIABLES_MAX) or {}, faults)
    fields.finish()
    _check_parts(channel, subject, text, html, faults)
    faults.refuse_if_any()
    new = NewTemplate(name, channel, locale or "", subject, text, html, variables)
    for part, names in undeclared_variables(_template(new)).items():
        listed = ", ".join(f"'{each}'" for each in names)
        faults.add(f"/{part}", "template_variable_undeclared", f"It uses {listed}, which 'variables' does not declare.")
    faults.refuse_if_any()
    return new


def _variables(declared: Mapping[str, Any], faults: wire.Faults) -> dict[str, dict[str, Any]]:
    variables: dict[str, dict[str, Any]] = {}
    for name, declaration in declared.items():
        if _VARIABLE.fullmatch(name) is None:
            faults.add("/variables", "field_invalid", "Names of variables have letters, digits and underscores, at most 64.")
            continue
        pointer = wire.pointer_to("/variables", name)
        if not isinstance(declaration, dict):
            faults.add(pointer, "field_invalid", "This must be an object.")
            continue
        fields = wire.Fields(declaration, faults, pointer)
        variables[name] = {"required": fields.boolean("required", False)}
        default = fields.value("default")
        if "default" in declaration:
            variables[name]["default"] = default
        description = fields.optional_text("description", DESCRIPTION_LENGTH_MAX)
        if description is not None:
            variables[name]["description"] = description
        fields.finish()
    return variables


def _check_parts(channel: Channel, subject: str | None, text: str, html: str | None, faults: wire.Faults) -> None:
    """Every part that is there compiles, and those that must be there are."""
    if channel is Channel.EMAIL and subject is None:
        faults.extend([TemplateError("template_part_missing").problem("/subject")])
    for part, source, content_type in (
        ("subject", subject, PLAIN),
        ("body_template", text, PLAIN),
        ("html_template", html, HTML),
    ):
        if source is None:
            continue
        if part != "body_template" and channel is not Channel.EMAIL:
            faults.extend([TemplateError("template_part_forbidden").problem(f"/{part}")])
            continue
        try:
            compile_template(source, content_type)
        except TemplateError as error:
            faults.extend([error.problem(f"/{part}")])


def _template(new: NewTemplate) -> Template:
    """As what is about to be stored would be read back."""
    return Template(
        "",
        OrganizationId(""),
        new.name,
        new.channel,
        new.locale,
        0,
        new.subject,
        new.body_template,
        new.html_template,
        new.variables,
    )


def _name(text: str) -> str:
    if not 1 <= len(text) <= NAME_LENGTH_MAX or not text.isprintable():
        raise ValueError("name")
    return text


def _pointer_to_variable(path: str) -> str:
    pointer = "/variables"
    for name in path.split("."):
        pointer = wire.pointer_to(pointer, name)
    return pointer


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
        "retired_at": wire.moment(stored.retired_at),
    }


def _document(stored: StoredTemplate) -> dict[str, Any]:
    template = stored.template
    return _summary(stored) | {
        "subject": template.subject,
        "body_template": template.body_template,
        "html_template": template.html_template,
    }
