"""Templates of notifications: compiled once, rendered many times, safe whoever wrote them.

A template has parts: a subject, a text, an HTML body. Each is Jinja in a small allow-listed form (``template_language``),
rendered in a sandbox (``template_sandbox``) within limits that are counted and never timed (``template_limits``). A variable
that is missing is an error that names it. Invariant: a rendered payload has the parts its channel needs, none of them empty
where the provider would refuse that, and its subject is one line, so that no variable can smuggle a header into a mail.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import field, frozen

from dispatcher.layouts import NO_LIBRARY, Library
from dispatcher.localization import NEUTRAL, Localization
from dispatcher.model import Channel, Template
from dispatcher.template_limits import Budget, Limits, MissingVariable, TemplateError
from dispatcher.template_sandbox import Compiled, compile_source

__all__ = [
    "Compiled",
    "CompiledTemplate",
    "Limits",
    "MissingVariable",
    "TemplateError",
    "compile_template",
    "render",
    "undeclared_variables",
]

DEFAULT_LIMITS: Final = Limits()
SUBJECT_BYTES_MAX: Final = 998
"""The longest line a mail may have."""
HTML: Final = "text/html"
PLAIN: Final = "text/plain"

_CONTROL = re.compile("[\x00-\x1f\x7f\x80-\x9f\u2028\u2029]")


def compile_template(source: str, content_type: str, limits: Limits = DEFAULT_LIMITS) -> Compiled:
    """Compile one source. In ``text/html`` everything printed is escaped. Raises TemplateError."""
    return compile_source(source, escapes=content_type == HTML, limits=limits)


def render(compiled: Compiled, variables: Mapping[str, Any], limits: Limits = DEFAULT_LIMITS) -> str:
    """Render one source. Raises TemplateError, of which MissingVariable is one."""
    return _rendered(compiled, variables, Budget(limits.steps_max, limits.output_bytes_max), limits.output_bytes_max)


@frozen
class Part:
    """One part of a template: its field there, its key in the payload, and the most it may render to."""

    name: str
    key: str
    compiled: Compiled
    bytes_max: int


@frozen
class CompiledTemplate:
    """A stored template, ready to render. ``names`` are the variables of each part."""

    template_id: str
    name: str
    version: int
    locale: str
    names: Mapping[str, frozenset[str]]
    _parts: tuple[Part, ...] = field(repr=False)
    _required: tuple[str, ...] = field(repr=False)
    _defaults: Mapping[str, Any] = field(repr=False)
    _limits: Limits = field(repr=False)

    @classmethod
    def of(cls, template: Template, limits: Limits = DEFAULT_LIMITS, library: Library = NO_LIBRARY) -> CompiledTemplate:
        """Compile all parts, with what they include of the library. Raises TemplateError that tells the part."""
        email = template.channel is Channel.EMAIL
        if email and not template.subject:
            raise TemplateError("template_part_missing", part="subject")
        sources = (
            ("subject", "subject", template.subject, PLAIN, min(SUBJECT_BYTES_MAX, limits.output_bytes_max)),
            ("body_template", "text", template.body_template, PLAIN, limits.output_bytes_max),
            ("html_template", "html", template.html_template, HTML, limits.output_bytes_max),
        )
        parts = []
        for name, key, source, content_type, bytes_max in sources:
            if source is None:
                continue
            if not email and key != "text":
                raise TemplateError("template_part_forbidden", part=name)
            try:
                parts.append(Part(name, key, compile_template(source, content_type, limits), bytes_max))
            except TemplateError as error:
                raise error.at(part=name) from None
        declared = template.variables.items()
        return cls(
            template.id,
            template.name,
            template.version,
            template.locale,
            MappingProxyType({part.name: part.compiled.names for part in parts}),
            tuple(parts),
            tuple(name for name, declaration in declared if declaration.get("required") and "default" not in declaration),
            {name: declaration["default"] for name, declaration in declared if "default" in declaration},
            limits,
        )

    def render_payload(self, variables: Mapping[str, Any], localization: Localization = NEUTRAL) -> dict[str, str]:
        """The payload: ``{"subject", "text", "html"?}`` for email, ``{"text"}`` otherwise.

        ``localization`` is for whom: nobody in particular means the template's own locale, in UTC.
        Steps and size are limits of the whole payload. Raises TemplateError, of which MissingVariable is one.
        """
        if self._defaults:
            variables = {**self._defaults, **variables}
        for name in self._required:
            if variables.get(name) is None:
                raise MissingVariable(name)
        localization = localization.within(self.locale)
        budget = Budget(self._limits.steps_max, self._limits.output_bytes_max)
        left = self._limits.output_bytes_max
        payload: dict[str, str] = {}
        for part in self._parts:
            try:
                text = _rendered(part.compiled, variables, budget, min(left, part.bytes_max), localization)
                if part.key == "subject":
                    _check_subject(text)
            except TemplateError as error:
                raise error.at(part=part.name) from None
            left -= len(text)
            payload[part.key] = text
        if not (payload["text"].strip() or payload.get("html", "").strip()):
            raise TemplateError("template_empty", part="body_template")
        return payload


def undeclared_variables(template: Template, limits: Limits = DEFAULT_LIMITS) -> dict[str, tuple[str, ...]]:
    """The names each part uses although the template does not declare them; empty when it declares none at all.

    Raises TemplateError for a template that does not compile.
    """
    if not template.variables:
        return {}
    names = CompiledTemplate.of(template, limits).names
    found = {part: tuple(sorted(used - template.variables.keys())) for part, used in names.items()}
    return {part: undeclared for part, undeclared in found.items() if undeclared}


def _rendered(
    compiled: Compiled, variables: Mapping[str, Any], budget: Budget, bytes_max: int, localization: Localization = NEUTRAL
) -> str:
    text = compiled.run(variables, budget, bytes_max, localization)
    if not text.isascii():
        try:
            size = len(text.encode())
        except UnicodeEncodeError:  # half of a surrogate pair
            raise TemplateError("template_output_invalid") from None
        if size > bytes_max:
            raise TemplateError("template_output_too_large")
    if "\0" in text:  # Postgres stores every character but this one
        raise TemplateError("template_output_invalid")
    return text


def _check_subject(subject: str) -> None:
    if _CONTROL.search(subject):
        raise TemplateError("template_subject_line_break")
    if not subject.strip():
        raise TemplateError("template_empty")
