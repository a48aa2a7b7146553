"""Layouts as they are handed in: sources that an organization's templates have in common.

A layout either has a place for the content, and templates are wrapped in it, or has none, and is included. Invariant: what is
parsed here compiles by itself; what it includes is looked up when it is stored, together with everything that uses it
(``template_checks``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from dispatcher.definitions import Definition, Kind
from dispatcher.documents import Faults, Fields
from dispatcher.problems import Problem, Refused
from dispatcher.template_includes import NO_LIBRARY, Layout, Library
from dispatcher.template_limits import DEFAULT_LIMITS, TemplateError
from dispatcher.template_sandbox import Compiled, compile_layout

__all__ = ["NO_LIBRARY", "Layout", "Library", "library_of", "parse_layout"]

DESCRIPTION_LENGTH_MAX: Final = 1000
NAME_LENGTH_MAX: Final = 64


def library_of(definitions: Iterable[Definition]) -> Library:
    """The layouts among an organization's definitions. One that this program can not read is left out."""
    parsed = (parse_layout(one.name, one.body) for one in definitions if one.kind is Kind.LAYOUT)
    return {layout.name: layout for layout in parsed if isinstance(layout, Layout)}


def parse_layout(name: str, body: Mapping[str, Any]) -> Layout | Problem:
    """Read a layout: ``{"text", "html", "description"}``, at least one of the first two. All faults are in the Problem.

    What it includes is not looked up: see ``template_checks.dependents_broken``.
    """
    faults = Faults()
    fields = Fields(body, faults)
    fields.optional_text("description", DESCRIPTION_LENGTH_MAX)
    sources = {part: fields.optional_text(part, DEFAULT_LIMITS.source_bytes_max, 0) for part in ("text", "html")}
    fields.finish()
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not name.isprintable():
        faults.add("", "field_invalid", f"The name of a layout has 1 to {NAME_LENGTH_MAX} visible characters.")
    if all(source is None for source in sources.values()) and not faults:
        faults.add("", "field_missing", "A layout needs a text, an html source, or both.")
    compiled: dict[str, Compiled] = {}
    for part, source in sources.items():
        if source is not None and len(source) <= DEFAULT_LIMITS.source_bytes_max:
            try:
                compiled[part] = compile_layout(source, escapes=part == "html", limits=DEFAULT_LIMITS)
            except TemplateError as error:
                faults.extend([error.problem(f"/{part}")])
    wraps = {one.wraps for one in compiled.values()}
    if len(wraps) > 1:
        faults.add("", "template_layout_content", "Either all sources of a layout have a place for the content, or none has.")
    try:
        faults.refuse_if_any()
    except Refused as refused:
        return refused.problem
    includes = frozenset[str]().union(*(one.includes for one in compiled.values()))
    return Layout(name, sources["text"], sources["html"], wraps == {True}, includes)
