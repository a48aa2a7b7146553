"""Deciding about a whole set-up that somebody hands in: what it changes, or every fault of it at once.

Everything is checked as it will stand afterwards, together with what the document does not touch: documents by their kinds,
templates with the layouts there will be, then what all of them say of each other. Invariant: a push that comes out of here leaves
a set-up in which nothing that the document has names what is not there, and every pointer leads into the document.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final

from attrs import define, evolve, field, frozen

from dispatcher.bundle import KEY_FIELDS, TEMPLATE, Bundle, Change, Contents, Key, Verb, changes, merged, read_bundle
from dispatcher.bundle_templates import body_of, new_of
from dispatcher.definitions import Kind
from dispatcher.documents import FAULTS_MAX, TITLE, storage_fault
from dispatcher.layouts import Layout
from dispatcher.locales import normalize
from dispatcher.problems import Problem
from dispatcher.setup import parsed
from dispatcher.setup_checks import layout_faults, name_faults, template_set_faults, translation_faults, word_faults
from dispatcher.template_documents import parse_template
from dispatcher.template_surroundings import Surroundings
from dispatcher.translations import Catalogue

COUNT_MAX: Final = 1000
"""Definitions of one kind an organization may have: they are compiled together."""
TEMPLATES_MAX: Final = 5000
"""Templates an organization may have in force when it pushes some, each channel and locale counted."""

_UNKNOWN_LAYOUT: Final = frozenset({"template_layout_unknown", "template_include_unknown"})


@frozen
class Push:
    """What is to be done. ``after`` is everything there will be. With ``faults`` nothing is to be done."""

    changes: tuple[Change, ...] = ()
    after: Contents = field(factory=dict, repr=False)
    faults: tuple[Problem, ...] = ()

    @property
    def is_change(self) -> bool:
        """Whether anything will be different."""
        return any(change.verb in (Verb.CREATED, Verb.UPDATED, Verb.DELETED) for change in self.changes)


def decide(current: Contents, document: Mapping[str, Any], default_locale: str) -> Generator[None, None, Push]:
    """Check a document against what there is. Yields now and then, because to compile a set-up takes a while."""
    return _Deciding(current, default_locale).push(document)


@define
class _Deciding:
    """One push being decided about: faults are gathered, and what is sound by itself is kept by its key."""

    _current: Contents
    _default_locale: str
    _faults: list[Problem] = field(init=False, factory=list)
    _records: dict[Key, Any] = field(init=False, factory=dict)

    def push(self, document: Mapping[str, Any]) -> Generator[None, None, Push]:
        bundle, shape = read_bundle(document)
        for problem in shape:
            self._note(problem, "")
        if document.get("default_locale", self._default_locale) != self._default_locale:
            detail = f"That of the organization is {self._default_locale}, and is not changed here."
            self._add("/default_locale", "field_invalid", detail)
        layouts_sound = yield from self._definitions(bundle)
        after = merged(self._current, bundle)
        for key, problem in name_faults(self._current, after, bundle.contents):
            self._note(problem, bundle.place(key))
        layouts = {
            key.name: made for key in after if key.kind == Kind.LAYOUT and isinstance(made := self._record(key, after), Layout)
        }
        sound = yield from self._templates(bundle, layouts, layouts_sound)
        # What is at fault is missing from here on, and would be missed by everything that is looked at together with it.
        unsound = {key.kind for key in bundle.contents.keys() - sound.keys()}
        bundle = evolve(bundle, contents=sound)
        after = merged(self._current, bundle)
        if self._are_few(after, bundle):
            yield from self._together(bundle, after, layouts, unsound)
        if self._faults:
            return Push(faults=tuple(self._faults))
        return Push(tuple(changes(self._current, bundle)), after)

    def _definitions(self, bundle: Bundle) -> Generator[None, None, bool]:
        """Everything but templates, each by itself. Whether all layouts are sound."""
        layouts_sound = True
        for key, body in bundle.contents.items():
            yield
            fault = storage_fault([key.name, key.channel, key.locale, body])
            made = Problem(422, "field_invalid", TITLE, fault, "") if fault is not None else None
            if made is None and key.kind != TEMPLATE:
                made = parsed(Kind(key.kind), key.name, body)
            if isinstance(made, Problem):
                self._note(made, bundle.places[key])
                layouts_sound &= key.kind != Kind.LAYOUT
            self._records[key] = made
        return layouts_sound

    def _templates(
        self, bundle: Bundle, layouts: Mapping[str, Layout], layouts_sound: bool
    ) -> Generator[None, None, dict[Key, Mapping[str, Any]]]:
        """Templates, each with its layouts. All that is sound, templates in the form in which they will be stored."""
        sound: dict[Key, Mapping[str, Any]] = {}
        for key, body in bundle.contents.items():
            if isinstance(self._records[key], Problem):
                continue
            if key.kind != TEMPLATE:
                sound[key] = body
                continue
            yield
            place = bundle.places[key]
            usual = normalize(key.locale)
            if usual not in (None, key.locale):
                self._add(f"{place}/locale", "field_invalid", f"The usual spelling is {usual}.")
            if "draft" in body:
                self._add(f"{place}/draft", "field_invalid", "What is in a set-up is published.")
            made = parse_template({**dict(zip(KEY_FIELDS, key[1:], strict=True)), **body}, layouts)
            if not isinstance(made, Problem):
                template = made.template()
                sound[key], self._records[key] = body_of(template), template
                continue
            for each in made.errors or (made,):
                # That it misses a layout that is at fault is no fault of its own.
                if layouts_sound or each.code not in _UNKNOWN_LAYOUT:
                    self._note(each, place)
        return sound

    def _together(
        self, bundle: Bundle, after: Contents, layouts: Mapping[str, Layout], unsound: set[str]
    ) -> Generator[None, None, None]:
        """What the parts say of each other, and of what the document does not touch; parts of ``unsound`` kinds are not asked."""
        words = self._catalogues(after)
        touched = {key.name for key in bundle.contents if key.kind == Kind.CATALOGUE}
        if Kind.CATALOGUE not in unsound:
            for key, problem in translation_faults(words, touched, self._default_locale):
                self._note(problem, bundle.place(key))
        if TEMPLATE in unsound:
            return
        templates = {key: self._record(key, after) for key in after if key.kind == TEMPLATE}
        changed = {each.key for each in changes(self._current, bundle) if each.verb not in (Verb.UNCHANGED, Verb.KEPT)}
        words_stay = not any(key.kind == Kind.CATALOGUE for key in changed)
        for key, problem in template_set_faults(templates, changed):
            self._note(problem, bundle.place(key))
        if unsound & {Kind.CATALOGUE, Kind.LAYOUT}:
            return
        now = Surroundings(layouts, words if words_stay else self._catalogues(self._current), self._default_locale)
        around = Surroundings(layouts, words, self._default_locale)
        for key, problem in (yield from word_faults(templates, changed, now, around)):
            self._note(problem, bundle.place(key))
        if any(key.kind == Kind.LAYOUT for key in changed):
            untouched = [template for key, template in templates.items() if key not in bundle.contents]
            for problem in (yield from layout_faults(layouts, untouched)):
                self._note(problem, "/layouts")

    def _record(self, key: Key, contents: Contents) -> Any:
        """What a document means, if it is sound; of one that is at fault, or that nobody handed in, what stands there now."""
        made = self._records.get(key)
        if made is None or isinstance(made, Problem):
            body = self._current.get(key) if isinstance(made, Problem) else contents[key]
            made = None
            if body is not None and key.kind == TEMPLATE:
                made = new_of(key, body).template()
            elif body is not None:
                made = parsed(Kind(key.kind), key.name, body)
        return made

    def _catalogues(self, contents: Contents) -> dict[str, Catalogue]:
        """The catalogues of a set-up by their locales, those that can be used."""
        found = {key.name: body for key, body in contents.items() if key.kind == Kind.CATALOGUE}
        mine = contents is not self._current
        made = {
            locale: self._record(Key(Kind.CATALOGUE, locale), contents) if mine else parsed(Kind.CATALOGUE, locale, body)
            for locale, body in found.items()
        }
        return {locale: catalogue for locale, catalogue in made.items() if isinstance(catalogue, Catalogue)}

    def _are_few(self, after: Contents, bundle: Bundle) -> bool:
        """Whether there are so few of each kind that they can be looked at together."""
        known = len(self._faults)
        for kind in {key.kind for key in bundle.contents}:
            most = TEMPLATES_MAX if kind == TEMPLATE else COUNT_MAX
            if sum(key.kind == kind for key in after) > most:
                detail = f"There may be at most {most} of the kind {kind}."
                self._add(bundle.place(Key(kind, "")), "too_many_definitions", detail)
        return len(self._faults) == known

    def _note(self, problem: Problem, place: str) -> None:
        found = problem.errors or (problem,)
        self._faults.extend(each.below(place) for each in found[: FAULTS_MAX - len(self._faults)])

    def _add(self, pointer: str, code: str, detail: str) -> None:
        self._note(Problem(422, code, TITLE, detail, ""), pointer)
