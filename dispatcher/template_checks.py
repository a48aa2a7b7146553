"""What must hold before templates, and the layouts they are made of, come into force.

One template is checked by itself with everything it includes, the locales of one against one another, and templates against a
changed library. Invariant: what has no faults here compiles, and renders whenever its variables are as it declares them, within
its limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dispatcher.documents import FAULTS_MAX, TITLE
from dispatcher.model import Template
from dispatcher.problems import Problem
from dispatcher.template_includes import NO_LIBRARY, Library
from dispatcher.template_limits import DEFAULT_LIMITS, TemplateError
from dispatcher.template_parts import part_faults, part_names, part_sources
from dispatcher.template_sandbox import compile_source
from dispatcher.template_schema import Schema, SchemaInvalid, problems
from dispatcher.templates import compile_part, layout_of, undeclared_variables
from dispatcher.whatsapp import template_faults as whatsapp_faults

UNDECLARED: Final = "template_variable_undeclared"
LISTED_MAX: Final = 20
"""How many templates and layouts a refusal names."""


def template_faults(template: Template, library: Library | None = NO_LIBRARY) -> list[Problem]:
    """Everything that is wrong with one template, with pointers into it as it is handed in.

    Without a library, everything but what it includes and is wrapped in.
    """
    errors = list(part_faults(template))
    faults = [error.problem(f"/{error.part}") for error in errors]
    if template.schema is not None:
        try:
            Schema.of(template.schema)
        except SchemaInvalid as invalid:
            faults.extend(problems(tuple(invalid.faults), "/schema"))
    whatsapp = template.parts.get("whatsapp")
    if whatsapp is not None:
        named = {"name": whatsapp.get("name"), "language": whatsapp.get("language")}
        faults.extend(_fault(f"/whatsapp{pointer}", "field_invalid", f"This {said}.") for pointer, said in whatsapp_faults(named))
    layout = None
    try:
        layout = layout_of(template, library)
    except TemplateError as error:
        faults.append(error.problem("/layout"))
    refused = {error.part for error in errors if error.code != "template_part_missing"}
    for source in part_sources(template):
        if source.name.partition("/")[0] not in refused:
            try:
                compile_part(source, layout, DEFAULT_LIMITS, library)
            except TemplateError as error:
                faults.append(error.problem(f"/{source.name}"))
    if not faults:
        declaration = "variables" if template.schema is None else "schema"
        for part, names in undeclared_variables(template, library=library).items():
            listed = ", ".join(f"'{each}'" for each in names)
            detail = f"It uses {listed}, which '{declaration}' does not declare."
            faults.append(_fault(f"/{part}", UNDECLARED, detail))
    return faults[:FAULTS_MAX]


def incomplete(templates: Iterable[Template]) -> list[tuple[str, Problem]]:
    """The parts that some of these locales of one template have and others lack: a fault for each locale and part."""
    names = {template.locale: part_names(template) for template in templates}
    everything = sorted(frozenset[str]().union(*names.values()))
    return [
        (locale, _fault(f"/{part}", "template_part_incomplete", f"The locale '{locale}' lacks this part; other locales have it."))
        for locale, there in sorted(names.items())
        for part in everything
        if part not in there
    ]


def worsened(new: Template, in_force: Sequence[Template]) -> list[Problem]:
    """The parts in which a version that is published alone would differ from other locales, and its predecessor does not.

    So a part comes to all locales, or leaves all, by drafts that are published together; and what was incomplete already keeps
    nobody from mending a word.
    """
    before = next((part_names(template) for template in in_force if template.locale == new.locale), None)
    after = part_names(new)
    faults = []
    for other in sorted(in_force, key=lambda template: template.locale):
        if other.locale == new.locale:
            continue
        there = part_names(other)
        for part in sorted(there ^ after):
            if before is None or (part in before) is not (part in after):
                says = "has this part" if part in there else "does not have this part"
                detail = f"The locale '{other.locale}' {says}. Store drafts of all locales and publish them together."
                faults.append(_fault(f"/{part}", "template_part_incomplete", detail))
    return faults[:FAULTS_MAX]


def needs_library(template: Template) -> bool:
    """Whether anything of the library can matter to a template. Cheap, and rather yes than no."""
    sources = part_sources(template)
    return template.parts.get("layout") is not None or any("include" in part.source for part in sources)


def dependents_broken(layouts: Library, templates: Iterable[Template]) -> Problem | None:
    """What would not compile any more with these layouts in place of those before: None, or a refusal that names it.

    ``templates`` are those in force. What uses no layout costs next to nothing; what does is compiled, so many of them take a
    while: some milliseconds each.
    """
    faults = [*_layouts_broken(layouts)]
    for template in templates:
        if needs_library(template) and len(faults) < LISTED_MAX:
            broken = template_faults(template, layouts)
            if broken:
                what = f"The template '{template.name}' ({template.channel}, {template.locale})"
                faults.append(_fault("", broken[0].code, f"{what} would be broken. {broken[0].detail}"))
    if not faults:
        return None
    detail = faults[0].detail if len(faults) == 1 else f"{faults[0].detail} {len(faults) - 1} more are listed in errors."
    return Problem(409, "layout_in_use", "The layout is in use", detail, errors=tuple(faults))


def _layouts_broken(layouts: Library) -> Iterable[Problem]:
    """Layouts that include what is not there, or one another in a circle."""
    for name, layout in sorted(layouts.items()):
        if not layout.includes:
            continue
        for escapes in (False, True):
            source = layout.source(escapes)
            if source is None:
                continue
            try:
                if layout.wraps:
                    compile_source("", escapes=escapes, limits=DEFAULT_LIMITS, library=layouts, layout=name)
                else:
                    around = "{% include " + _quoted(name) + " %}"
                    compile_source(around, escapes=escapes, limits=DEFAULT_LIMITS, library=layouts)
            except TemplateError as error:
                yield _fault("", error.code, f"The layout '{name}' would be broken. {error.problem().detail}")


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _fault(pointer: str, code: str, detail: str) -> Problem:
    return Problem(422, code, TITLE, detail, pointer)
