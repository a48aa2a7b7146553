"""Templates of notifications: compiled once, rendered many times, safe whoever wrote them.

A template has parts, such as a subject, a text, an HTML body (``template_parts``). Each is Jinja in a small allow-listed form
(``template_language``), with what it includes of the organization's layouts, rendered in a sandbox (``template_sandbox``) within
limits that are counted and never timed (``template_limits``). Variables that are missing, or are not as the template declares
them, are named all at once. Invariant: a rendered payload has the parts its channel needs, none of them empty where the provider
would refuse that, and its subject is one line, so that no variable can smuggle a header into a mail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import Factory, field, frozen

from dispatcher.documents import pointer_to
from dispatcher.localization import NEUTRAL, Localization
from dispatcher.model import Channel, Template
from dispatcher.problems import Problem
from dispatcher.template_includes import NO_LIBRARY, Layout, Library
from dispatcher.template_limits import DEFAULT_LIMITS, Budget, Limits, MissingVariable, TemplateError
from dispatcher.template_parts import SUBJECT_BYTES_MAX, PartSource, part_faults, part_sources, payload_of
from dispatcher.template_sandbox import Compiled, compile_source
from dispatcher.template_schema import MISSING, Fault, Schema, SchemaInvalid, problems
from dispatcher.whatsapp import template_faults

__all__ = [
    "DEFAULT_LIMITS",
    "SUBJECT_BYTES_MAX",
    "Compiled",
    "CompiledTemplate",
    "Limits",
    "MissingVariable",
    "TemplateError",
    "VariablesRefused",
    "compile_template",
    "payload_size",
    "render",
    "undeclared_variables",
]

HTML: Final = "text/html"
PLAIN: Final = "text/plain"

_CONTROL = re.compile("[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")


def compile_template(source: str, content_type: str, limits: Limits = DEFAULT_LIMITS) -> Compiled:
    """Compile one source. In ``text/html`` everything printed is escaped. Raises TemplateError."""
    return compile_source(source, escapes=content_type == HTML, limits=limits)


def render(compiled: Compiled, variables: Mapping[str, Any], limits: Limits = DEFAULT_LIMITS) -> str:
    """Render one source. Raises TemplateError, of which MissingVariable is one."""
    return _rendered(compiled, variables, Budget(limits.steps_max, limits.output_bytes_max), limits.output_bytes_max)


class VariablesRefused(TemplateError):
    """Variables that are not as the template declares them. ``faults`` has all of it, with pointers below the variables."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        missing = [pointer[1:].replace("/", ".") for pointer, code, _ in faults if code == MISSING]
        super().__init__(faults[0][1], missing[0] if missing else None)
        self.faults = faults

    def problem(self, pointer: str | None = None) -> Problem:
        """The answer for whoever sent the variables, which are at ``pointer``."""
        found = problems(self.faults, pointer or "")
        first = found[0]
        name = f" Name: {self.name}." if self.name else ""
        detail = f"{first.detail}{name}"
        errors = found if len(found) > 1 else ()
        return Problem(first.status, first.code, first.title, detail, first.pointer, errors=errors)


@frozen
class Part:
    """One part of a template, ready to render within ``bytes_max``."""

    name: str
    key: str
    group: str | None
    one_line: bool
    compiled: Compiled
    bytes_max: int


def _keys(template: CompiledTemplate) -> frozenset[tuple[str, frozenset[str]]]:
    return frozenset(key for part in template._parts for key in part.compiled.keys)


@frozen
class CompiledTemplate:
    """A stored template, ready to render. ``names`` are the variables of each part."""

    template_id: str
    name: str
    version: int
    locale: str
    channel: Channel
    names: Mapping[str, frozenset[str]]
    _parts: tuple[Part, ...] = field(repr=False)
    _whatsapp: Mapping[str, Any] | None = field(repr=False)
    _required: tuple[str, ...] = field(repr=False)
    _defaults: Mapping[str, Any] = field(repr=False)
    _schema: Schema | None = field(repr=False)
    _limits: Limits = field(repr=False)
    keys: frozenset[tuple[str, frozenset[str]]] = field(default=Factory(_keys, takes_self=True), init=False, repr=False)
    """The messages it takes from catalogues, each with the names of the arguments it gives it."""

    @classmethod
    def of(cls, template: Template, limits: Limits = DEFAULT_LIMITS, library: Library | None = NO_LIBRARY) -> CompiledTemplate:
        """Compile all parts, with what they include of the library. Raises TemplateError that tells the part."""
        for error in part_faults(template):
            raise error
        layout = layout_of(template, library)
        parts = tuple(compile_part(source, layout, limits, library) for source in part_sources(template))
        schema = schema_of(template)
        declared = template.variables.items()
        defaults = {name: declaration["default"] for name, declaration in declared if "default" in declaration}
        return cls(
            template.id,
            template.name,
            template.version,
            template.locale,
            template.channel,
            MappingProxyType({part.name: part.compiled.names for part in parts}),
            parts,
            template.parts.get("whatsapp"),
            tuple(name for name, declaration in declared if declaration.get("required") and "default" not in declaration),
            defaults if schema is None else schema.defaults,
            schema,
            limits,
        )

    def render_payload(self, variables: Mapping[str, Any], localization: Localization = NEUTRAL) -> dict[str, Any]:
        """The payload, with the fields that ``acceptance.CONTENT_FIELDS`` lists for the channel.

        ``localization`` is for whom: nobody in particular means the template's own locale, in UTC. Numbers and dates are written
        for the locale of its words: the catalogue's, of a template that takes them from there.
        Steps and size are limits of the whole payload. Raises TemplateError, of which MissingVariable is one.
        """
        if self._defaults:
            variables = {**self._defaults, **variables}
        self._check(variables)
        words = localization.messages.locale if self.keys and localization.messages is not None else self.locale
        localization = localization.within(words)
        budget = Budget(self._limits.steps_max, self._limits.output_bytes_max)
        left = self._limits.output_bytes_max
        payload = payload_of(self._whatsapp)
        for part in self._parts:
            try:
                text = _rendered(part.compiled, variables, budget, min(left, part.bytes_max), localization)
                if part.one_line:
                    _check_line(text, part.key)
            except TemplateError as error:
                raise error.at(part=part.name) from None
            left -= len(text)
            if part.group is None:
                payload[part.key] = text
            elif part.group == "data":
                payload.setdefault("data", {})[part.key] = text
            else:
                payload["template"]["parameters"].append(text)
        if self._whatsapp is None:
            if not (payload["text"].strip() or payload.get("html", "").strip()):
                raise TemplateError("template_empty", part="body_template")
        else:
            for pointer, _ in template_faults(payload["template"]):
                raise TemplateError("template_parameter_invalid", part=f"whatsapp{pointer}")
        return payload

    def keys_of_parts(self) -> dict[str, frozenset[tuple[str, frozenset[str]]]]:
        """The messages that each part takes from catalogues; nothing of parts that take none."""
        return {part.name: part.compiled.keys for part in self._parts if part.compiled.keys}

    def undeclared(self) -> dict[str, tuple[str, ...]]:
        """By part, the names it uses that its schema does not declare; empty without a schema."""
        schema = self._schema
        if schema is None:
            return {}
        found = {}
        for part in self._parts:
            paths = {schema.undeclared(path) for path in (*part.compiled.paths, *((name,) for name in part.compiled.names))}
            if paths - {None}:
                found[part.name] = tuple(sorted(path for path in paths if path is not None))
        return found

    def fixed_text(self) -> str:
        """What the text says whatever the variables; empty where there is no text of its own."""
        return "".join(part.compiled.fixed for part in self._parts if part.group is None and part.key == "text")

    def _check(self, variables: Mapping[str, Any]) -> None:
        if self._schema is not None:
            faults = self._schema.faults(variables)
            if faults:
                raise VariablesRefused(faults)
            return
        missing = [name for name in self._required if variables.get(name) is None]
        if len(missing) == 1:
            raise MissingVariable(missing[0])
        if missing:
            raise VariablesRefused(tuple((pointer_to("", name), MISSING, "This variable is required.") for name in missing))


def layout_of(template: Template, library: Library | None) -> Layout | None:
    """The layout that a template names. Raises TemplateError when there is none that has a source for any of its parts."""
    name = template.parts.get("layout")
    if name is None or library is None:
        return None
    layout = library.get(name)
    wrapped = [part for part in part_sources(template) if part.wrapped]
    if layout is None or all(layout.source(part.escapes) is None for part in wrapped):
        raise TemplateError("template_layout_unknown", name, part="layout")
    return layout


def compile_part(source: PartSource, layout: Layout | None, limits: Limits, library: Library | None) -> Part:
    """Compile one part of a template that has this layout. Raises TemplateError that tells the part."""
    wrapped = layout is not None and source.wrapped and layout.source(source.escapes) is not None
    try:
        around = layout.name if layout is not None and wrapped else None
        is_data = source.group == "data"
        compiled = compile_source(
            source.source, escapes=source.escapes, limits=limits, library=library, layout=around, is_data=is_data
        )
    except TemplateError as error:
        raise error.at(part=source.name) from None
    bytes_max = min(source.bytes_max or limits.output_bytes_max, limits.output_bytes_max)
    return Part(source.name, source.key, source.group, source.one_line, compiled, bytes_max)


def schema_of(template: Template) -> Schema | None:
    """The compiled schema of a template's variables. Raises TemplateError for one that can not be used."""
    if template.schema is None:
        return None
    try:
        return Schema.of(template.schema)
    except SchemaInvalid:
        raise TemplateError("template_schema_invalid", part="schema") from None


def payload_size(payload: Mapping[str, Any]) -> int:
    """The characters of all texts of a rendered payload."""
    size = 0
    for value in payload.values():
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict):
            size += payload_size(value)
        else:
            size += sum(map(len, value))
    return size


def undeclared_variables(
    template: Template, limits: Limits = DEFAULT_LIMITS, library: Library | None = NO_LIBRARY
) -> dict[str, tuple[str, ...]]:
    """The names each part uses although the template does not declare them; empty when it declares none at all.

    Raises TemplateError for a template that does not compile.
    """
    if template.schema is not None:
        return CompiledTemplate.of(template, limits, library).undeclared()
    if not template.variables:
        return {}
    names = CompiledTemplate.of(template, limits, library).names
    found = {part: tuple(sorted(used - template.variables.keys())) for part, used in names.items()}
    return {part: undeclared for part, undeclared in found.items() if undeclared}


def _rendered(
    compiled: Compiled, variables: Mapping[str, Any], budget: Budget, bytes_max: int, localization: Localization = NEUTRAL
) -> str:
    text = compiled.run(variables, budget, bytes_max, localization)
    if not text.isascii():
        try:
            size = len(text.encode())
        except UnicodeEncodeError:  # half of a surrogate pair; what is raised outside of here carries no text along
            size = None
        if size is not None and size > bytes_max:
            raise TemplateError("template_output_too_large")
    else:
        size = len(text)
    if size is None or "\0" in text:  # Postgres stores every character but this one
        raise TemplateError("template_output_invalid")
    return text


def _check_line(text: str, key: str) -> None:
    if _CONTROL.search(text):
        raise TemplateError("template_subject_line_break" if key == "subject" else "template_part_line_break")
    if not text.strip():
        raise TemplateError("template_empty")
