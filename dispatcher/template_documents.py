"""Templates as they are handed in: a document read and checked, with every fault at once.

Invariant: what comes out as a :class:`NewTemplate` has no fault by itself; whether it fits the other locales of its name is asked
when it is published (``template_checks``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
from attrs import field, frozen

from dispatcher.documents import Faults, Fields, pointer_to
from dispatcher.locales import TAG_LENGTH_MAX, normalize
from dispatcher.model import Channel, OrganizationId, Template
from dispatcher.problems import Problem, Refused
from dispatcher.template_checks import UNDECLARED, template_faults
from dispatcher.template_includes import NO_LIBRARY, Library
from dispatcher.template_limits import DEFAULT_LIMITS
from dispatcher.template_parts import DATA_MAX

NAME_LENGTH_MAX: Final = 255
LAYOUT_LENGTH_MAX: Final = 64
VARIABLES_MAX: Final = 200
DESCRIPTION_LENGTH_MAX: Final = 1000
SCHEMA_BYTES_MAX: Final = 64 * 1024
FIELDS: Final = (
    "name", "channel", "locale", "subject", "body_template", "html_template", "title", "data", "whatsapp", "layout", "variables",
    "schema",
)  # fmt: skip
"""What a template as a file has, in the order in which it is written; what is absent is left out."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


@frozen
class NewTemplate:
    """What somebody hands in to be stored as the next version, published at once unless it is a ``draft``."""

    name: str
    channel: Channel
    locale: str
    subject: str | None
    body_template: str
    html_template: str | None
    variables: Mapping[str, Mapping[str, Any]]
    parts: Mapping[str, Any] = field(factory=dict)
    schema: Mapping[str, Any] | None = None
    draft: bool = False

    def template(self) -> Template:
        """As it would be read back, once stored."""
        return Template(
            "",
            OrganizationId(""),
            self.name,
            self.channel,
            self.locale,
            0,
            self.subject,
            self.body_template,
            self.html_template,
            self.variables,
            self.parts,
            self.schema,
        )


def parse_template(body: Mapping[str, Any], library: Library | None = NO_LIBRARY) -> NewTemplate | Problem:
    """Read and check a template as it is handed in. All faults are in the Problem, with pointers into the document.

    Without a library it is checked by itself, whatever it includes and is wrapped in.
    """
    faults = Faults()
    fields = Fields(body, faults)
    new = _read(fields, faults)
    fields.finish()
    # What is declared may be among what could not be read, so then it is not said what is not.
    told, more = faults.pointers, template_faults(new.template(), library)
    faults.extend([one for one in more if one.pointer not in told and not (told and one.code == UNDECLARED)])
    try:
        faults.refuse_if_any()
    except Refused as refused:
        return refused.problem
    return new


def template_document(template: Template) -> dict[str, Any]:
    """What a template was handed in as, with the fields that its channel has; handed in again it makes the same."""
    document: dict[str, Any] = {"name": template.name, "channel": template.channel.value, "locale": template.locale}
    document |= {"subject": template.subject, "body_template": template.body_template, "html_template": template.html_template}
    document |= {name: template.parts.get(name) for name in ("title", "data", "whatsapp", "layout")}
    if template.parts.get("whatsapp") is not None:
        document["body_template"] = None
    return document | {"variables": template.variables, "schema": template.schema}


def _read(fields: Fields, faults: Faults) -> NewTemplate:
    name = fields.text("name", NAME_LENGTH_MAX)
    if not name.isprintable():
        faults.add("/name", "field_invalid", "This must have visible characters only.")
    channel = fields.choice("channel", Channel)
    tag = fields.text("locale", TAG_LENGTH_MAX)
    locale = normalize(tag)
    if tag and locale is None:
        faults.add("/locale", "field_invalid", "This must be a BCP 47 language tag, such as pt-BR.")
    length_max = DEFAULT_LIMITS.source_bytes_max
    subject = fields.optional_text("subject", length_max)
    whatsapp = _whatsapp(fields, faults)
    read_text = fields.text if whatsapp is None else fields.optional_text
    text = read_text("body_template", length_max)
    html = fields.optional_text("html_template", length_max)
    title = fields.optional_text("title", length_max)
    data = _data(fields, faults)
    layout = fields.optional_text("layout", LAYOUT_LENGTH_MAX)
    variables = _variables(fields.optional_mapping("variables", VARIABLES_MAX) or {}, faults)
    schema = fields.optional_mapping("schema", VARIABLES_MAX)
    if schema is not None and len(orjson.dumps(schema)) > SCHEMA_BYTES_MAX:
        faults.add("/schema", "template_schema_invalid", f"A schema has at most {SCHEMA_BYTES_MAX} bytes.")
    if schema is not None and variables:
        faults.add("/schema", "template_schema_invalid", "The variables are declared by 'variables' or by 'schema', not by both.")
    draft = fields.boolean("draft", False)
    given = {"title": title, "data": data, "whatsapp": whatsapp, "layout": layout}
    parts = {part: value for part, value in given.items() if value is not None}
    return NewTemplate(name, channel, locale or "", subject, text or "", html, variables, parts, schema, draft)


def _data(fields: Fields, faults: Faults) -> Mapping[str, str] | None:
    data = fields.optional_mapping("data", DATA_MAX)
    if data is None:
        return None
    inner = Fields(data, faults, "/data")
    return {key: inner.text(key, DEFAULT_LIMITS.source_bytes_max, 0) for key in data}


def _whatsapp(fields: Fields, faults: Faults) -> Mapping[str, Any] | None:
    """A provider's template by its name and language, with sources of its parameters."""
    given = fields.optional_mapping("whatsapp", VARIABLES_MAX)
    if given is None:
        return None
    inner = Fields(given, faults, "/whatsapp")
    found: dict[str, Any] = {"name": inner.text("name", 512), "language": inner.text("language", 32)}
    parameters = inner.value("parameters")
    inner.finish()
    if parameters is not None and (
        not isinstance(parameters, list) or not all(isinstance(one, str) and 1 <= len(one) <= 8192 for one in parameters)
    ):
        faults.add("/whatsapp/parameters", "field_invalid", "This must be a list of templates, each of 1 to 8192 characters.")
        parameters = None
    return found | {"parameters": parameters or []}


def _variables(declared: Mapping[str, Any], faults: Faults) -> dict[str, dict[str, Any]]:
    variables: dict[str, dict[str, Any]] = {}
    for name, declaration in declared.items():
        if _VARIABLE.fullmatch(name) is None:
            faults.add("/variables", "field_invalid", "Names of variables have letters, digits and underscores, at most 64.")
            continue
        pointer = pointer_to("/variables", name)
        if not isinstance(declaration, dict):
            faults.add(pointer, "field_invalid", "This must be an object.")
            continue
        fields = Fields(declaration, faults, pointer)
        variables[name] = {"required": fields.boolean("required", False)}
        default = fields.value("default")
        if "default" in declaration:
            variables[name]["default"] = default
        description = fields.optional_text("description", DESCRIPTION_LENGTH_MAX)
        if description is not None:
            variables[name]["description"] = description
        fields.finish()
    return variables
