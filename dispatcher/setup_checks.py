"""What the parts of a set-up say about each other: who names a topic or a template, and whether it is there.

Each definition is valid in itself before it gets here. What is named is read from documents, not records, so that a pointer leads
to the very place; what another version of the program stored may have any shape and is passed over. Invariant: nothing here is
refused; who calls decides whether a name that leads nowhere is a fault or a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from typing import Any

from attrs import evolve

from dispatcher.bundle import POLICY_KEY, TEMPLATE, Contents, Key
from dispatcher.bundle_templates import key_of
from dispatcher.catalogue_checks import word_faults as lacking_words
from dispatcher.catalogues import set_faults
from dispatcher.definitions import Kind
from dispatcher.model import Template
from dispatcher.problems import Problem
from dispatcher.template_checks import dependents_broken, incomplete, needs_library, template_faults
from dispatcher.template_includes import Library
from dispatcher.template_limits import TemplateError
from dispatcher.template_surroundings import Surroundings
from dispatcher.translations import Catalogue

_TITLE = "Something is named that is not there"

TemplateName = tuple[str, str]
"""A template's name and channel."""


def topics_named(kind: str, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Topics that a rule or a policy names, each with the pointer to where."""
    if kind == Kind.RULE and isinstance(body.get("topic"), str):
        yield "/topic", body["topic"]
    if kind == Kind.POLICY:
        for index, cap in enumerate(_list(body.get("caps"))):
            if isinstance(cap, dict) and isinstance(cap.get("topic"), str):
                yield f"/caps/{index}/topic", cap["topic"]


def templates_named(kind: str, body: Mapping[str, Any]) -> Iterator[tuple[str, TemplateName]]:
    """Templates that a rule sends, each with the pointer to where."""
    if kind == Kind.RULE:
        for index, send in enumerate(_list(body.get("send"))):
            if isinstance(send, dict) and isinstance(send.get("template"), str) and isinstance(send.get("channel"), str):
                yield f"/send/{index}/template", (send["template"], send["channel"])


def unknown_names(
    kind: str, body: Mapping[str, Any], topics: Collection[str], templates: Collection[TemplateName]
) -> Iterator[Problem]:
    """Every name in a document that leads nowhere, with pointers into it."""
    for pointer, topic in topics_named(kind, body):
        if topic not in topics:
            yield Problem(422, "topic_unknown", _TITLE, f"There is no topic '{topic}'.", pointer)
    for pointer, (name, channel) in templates_named(kind, body):
        if (name, channel) not in templates:
            detail = f"There is no published template '{name}' for {channel}."
            yield Problem(422, "template_unknown", _TITLE, detail, pointer)


def namers_of_topic(contents: Contents, topic: str) -> list[Key]:
    """What names this topic: rules, and the policy."""
    return [key for key in sorted(contents) if any(named == topic for _, named in topics_named(key.kind, contents[key]))]


def name_faults(current: Contents, after: Contents, touched: Collection[Key]) -> Iterator[tuple[Key, Problem]]:
    """Names that will lead nowhere: in what is ``touched`` any; elsewhere those that lead somewhere now.

    The latter are a fault of whoever takes away what is named, of no thing in particular: the name in their key is empty.
    """
    topics, templates = topics_of(after), template_names_of(after)
    topics_now, templates_now = topics_of(current), template_names_of(current)
    takes_away = not (topics_now <= topics and templates_now <= templates)
    for key in sorted(after):
        if key not in touched and not takes_away:
            continue
        for problem in unknown_names(key.kind, after[key], topics, templates):
            if key in touched:
                yield key, problem
            elif problem not in unknown_names(key.kind, after[key], topics_now, templates_now):
                detail = f"{spoken(key).capitalize()} names what would be gone. {problem.detail}"
                kind = Kind.TOPIC.value if problem.code == "topic_unknown" else TEMPLATE
                yield Key(kind, ""), Problem(422, "definition_in_use", _TITLE, detail, "")


def translation_faults(records: Mapping[str, Any], touched: Collection[str], default: str) -> Iterator[tuple[Key, Problem]]:
    """Catalogues that do not fit that of the default locale; if only that one is ``touched``, it is at fault."""
    catalogues = {locale: record for locale, record in records.items() if isinstance(record, Catalogue)}
    for problem in set_faults(catalogues, default):
        locale, _, rest = (problem.pointer or "").removeprefix("/").partition("/")
        if locale in touched:
            yield Key(Kind.CATALOGUE, locale), evolve(problem, pointer=f"/{rest}")
        elif default in touched:
            key = rest.rpartition("/")[2]
            detail = f"That of {locale} would not fit its message '{key}': {problem.detail}."
            yield Key(Kind.CATALOGUE, default), evolve(problem, pointer=f"/messages/{key}", detail=detail)


def template_set_faults(templates: Mapping[Key, Template], changed: Collection[Key]) -> Iterator[tuple[Key, Problem]]:
    """Parts that some locales of a template have and others lack, of every template that is ``changed`` in some locale."""
    groups: dict[TemplateName, list[Key]] = {}
    for key in sorted(templates):
        groups.setdefault((key.name, key.channel), []).append(key)
    for (name, channel), keys in groups.items():
        if any(key in changed for key in keys):
            for locale, problem in incomplete(templates[key] for key in keys):
                yield Key(TEMPLATE, name, channel, locale), problem


def layout_faults(layouts: Library, templates: Iterable[Template]) -> Generator[None, None, list[Problem]]:
    """What would not compile any more with these layouts: themselves, or templates that nobody handed in."""
    broken = dependents_broken(layouts, ())
    found = [] if broken is None else list(broken.errors)
    for template in templates:
        if needs_library(template):
            yield
            faults = template_faults(template, layouts)
            if faults:
                detail = f"{spoken(key_of(template)).capitalize()} would be broken. {faults[0].detail}"
                found.append(Problem(422, "layout_in_use", _TITLE, detail, ""))
    return found


def word_faults(
    templates: Mapping[Key, Template], changed: Collection[Key], now: Surroundings, after: Surroundings
) -> Generator[None, None, list[tuple[Key, Problem]]]:
    """Words that templates will lack in the catalogues: any of those that are ``changed``, and of others those they have now.

    The latter are a fault of the catalogues: the name in their key is empty.
    """
    found: list[tuple[Key, Problem]] = []
    for key in sorted(templates):
        if key not in changed and now.catalogues == after.catalogues:
            continue
        yield
        try:
            compiled = after.compiled(templates[key])
        except TemplateError:  # which is told elsewhere
            continue
        faults = lacking_words(compiled, after.catalogues, after.default_locale)
        if key in changed:
            found += [(key, fault) for fault in faults]
        else:
            known = lacking_words(compiled, now.catalogues, now.default_locale)
            name = spoken(key).capitalize()
            found += [
                (Key(Kind.CATALOGUE, ""), evolve(fault, detail=f"{name} would lack words. {fault.detail}", pointer=None))
                for fault in faults
                if fault not in known
            ]
    return found


def topics_of(contents: Contents) -> set[str]:
    """The names of all topics."""
    return {key.name for key in contents if key.kind == Kind.TOPIC}


def template_names_of(contents: Contents) -> set[TemplateName]:
    """The names and channels of all templates."""
    return {(key.name, key.channel) for key in contents if key.kind == TEMPLATE}


def spoken(key: Key) -> str:
    """What a person calls it."""
    if key == POLICY_KEY:
        return "the policy"
    return f"the {key.kind} '{key.name}'" + (f" ({key.channel}, {key.locale})" if key.kind == TEMPLATE else "")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
