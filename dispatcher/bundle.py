"""A whole set-up as one document: what it holds, how two of them differ, and what changing one by another means.

    {"rules": {name: body}, "topics": {…}, "layouts": {…}, "catalogues": {…}, "policy": body,
     "templates": [{"name", "channel", "locale", …}]}

A document may have some of the sections only; it then speaks of nothing else. Invariant: two set-ups that mean the same JSON have
the same document, byte for byte, and so the same digest, wherever their numbers and the order of their fields come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple

import orjson
from attrs import field, frozen

from dispatcher.definitions import POLICY_NAME, Kind
from dispatcher.problems import Problem

TEMPLATE: Final = "template"
SECTIONS: Final[Mapping[str, str]] = {
    "rules": Kind.RULE.value,
    "topics": Kind.TOPIC.value,
    "layouts": Kind.LAYOUT.value,
    "catalogues": Kind.CATALOGUE.value,
    "policy": Kind.POLICY.value,
    "templates": TEMPLATE,
}
"""What the sections of a document are called, and the kind of what is in them."""
KEY_FIELDS: Final = ("name", "channel", "locale")
"""Which fields of a template tell it from the others."""

_TITLE = "The set-up can not be used"
_INTEGER_MAX = 2**53


class Key(NamedTuple):
    """What one thing of a set-up is told by. ``channel`` and ``locale`` are of templates only."""

    kind: str
    name: str
    channel: str = ""
    locale: str = ""

    def document(self) -> dict[str, str]:
        """As it is shown."""
        named = {"kind": self.kind, "name": self.name}
        return named | {"channel": self.channel, "locale": self.locale} if self.kind == TEMPLATE else named


POLICY_KEY: Final = Key(Kind.POLICY.value, POLICY_NAME)
Contents = Mapping[Key, Mapping[str, Any]]
"""Everything of a set-up. The bodies of templates lack the fields of their key; the policy is always there, perhaps empty."""


@frozen
class Bundle:
    """A document as it was read: its sections, what is in them, and where in the document each stands."""

    sections: frozenset[str]
    contents: Contents = field(repr=False)
    places: Mapping[Key, str] = field(repr=False)
    prune: bool = False
    """Whether what the sections do not have is to go."""

    def place(self, key: Key) -> str:
        """Where this stands; for what the document does not have, where it would."""
        return self.places.get(key) or f"/{_SECTION_OF[key.kind]}"


class Verb(StrEnum):
    """What becomes of one thing."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    UNCHANGED = "unchanged"
    KEPT = "kept"
    """The document does not have it, and nothing was to be pruned."""


@frozen
class Change:
    """What becomes of one thing; for an update, which of its fields differ and how."""

    verb: Verb
    key: Key
    fields: tuple[tuple[str, str], ...] = ()

    def document(self) -> dict[str, Any]:
        """As it is shown."""
        fields = [{"pointer": pointer, "change": change} for pointer, change in self.fields]
        return {**self.key.document(), **({"fields": fields} if fields else {})}


def plain(value: Any) -> Any:
    """The same JSON with every whole number an integer, as which the store does not tell 1.0 from 1 either."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _INTEGER_MAX:
        return int(value)
    return value


def canonical(value: Any) -> bytes:
    """One text for one JSON value."""
    return orjson.dumps(plain(value), option=orjson.OPT_SORT_KEYS)


def document_of(contents: Contents) -> dict[str, Any]:
    """Everything as one document, in order."""
    document: dict[str, Any] = {section: {} for section in SECTIONS} | {"templates": []}
    for key in sorted(contents):
        body = plain(dict(contents[key]))
        if key.kind == TEMPLATE:
            document["templates"].append({**dict(zip(KEY_FIELDS, key[1:], strict=True)), **body})
        elif key.kind == Kind.POLICY:
            document["policy"] = body
        else:
            document[_SECTION_OF[key.kind]][key.name] = body
    return document


def digest(contents: Contents) -> str:
    """What tells this set-up from any other, as 32 hexadecimal digits."""
    return sha256(canonical(document_of(contents))).hexdigest()[:32]


def read_bundle(document: Mapping[str, Any]) -> tuple[Bundle, list[Problem]]:
    """Take a document apart, and every fault of its shape. What is at fault is left out of the bundle."""
    faults: list[Problem] = []
    contents: dict[Key, Mapping[str, Any]] = {}
    places: dict[Key, str] = {}

    def fault(pointer: str, detail: str, code: str = "field_invalid") -> None:
        faults.append(Problem(422, code, _TITLE, detail, pointer))

    def take(key: Key, place: str, body: Any) -> None:
        if not isinstance(body, dict):
            fault(place, "This must be an object.")
        elif key in contents:
            fault(place, f"This is a second one of what is at {places[key]}.", "template_twice")
        else:
            contents[key], places[key] = body, place

    known = (*SECTIONS, "prune", "default_locale")
    if not document.keys() <= set(known):
        fault("", f"It has an unknown field; known are {', '.join(known)}.", "field_unknown")
    prune = document.get("prune", False)
    if not isinstance(prune, bool):
        fault("/prune", "This must be true or false.")
    sections = frozenset(section for section in SECTIONS if section in document)
    for section in sorted(sections):
        value, kind = document[section], SECTIONS[section]
        if kind == Kind.POLICY:
            take(POLICY_KEY, "/policy", value)
        elif kind == TEMPLATE:
            if not isinstance(value, list):
                fault("/templates", "This must be a list of objects.")
                continue
            for index, each in enumerate(value):
                place = f"/templates/{index}"
                if not isinstance(each, dict):
                    fault(place, "This must be an object.")
                    continue
                named = [each.get(name) for name in KEY_FIELDS]
                for name, text in zip(KEY_FIELDS, named, strict=True):
                    if not isinstance(text, str):
                        fault(f"{place}/{name}", "This must be a string.", "field_missing" if text is None else "field_invalid")
                texts = [text for text in named if isinstance(text, str)]
                if len(texts) == len(named):
                    take(Key(TEMPLATE, *texts), place, {name: each[name] for name in each if name not in KEY_FIELDS})
        elif not isinstance(value, dict):
            fault(f"/{section}", "This must be an object of names to documents.")
        else:
            for name, body in value.items():
                take(Key(kind, name), f"/{section}/{escaped(name)}", body)
    return Bundle(sections, contents, places, prune is True), faults


def merged(current: Contents, bundle: Bundle) -> Contents:
    """What there will be once the bundle is applied."""
    kinds = {SECTIONS[section] for section in bundle.sections}
    after = {key: body for key, body in current.items() if not (bundle.prune and key.kind in kinds and key != POLICY_KEY)}
    return {**after, **bundle.contents}


def changes(current: Contents, bundle: Bundle) -> list[Change]:
    """What applying the bundle will do, in order: everything in its sections once."""
    kinds = {SECTIONS[section] for section in bundle.sections}
    found: list[Change] = []
    for key in sorted(current.keys() | bundle.contents.keys()):
        if key.kind not in kinds:
            continue
        before, after = current.get(key), bundle.contents.get(key)
        if after is None:
            found.append(Change(Verb.DELETED if bundle.prune and key != POLICY_KEY else Verb.KEPT, key))
        elif before is None:
            found.append(Change(Verb.CREATED, key))
        elif canonical(dict(before)) == canonical(dict(after)):
            found.append(Change(Verb.UNCHANGED, key))
        else:
            found.append(Change(Verb.UPDATED, key, tuple(differences(plain(dict(before)), plain(dict(after))))))
    return found


def differences(before: Any, after: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Pointers to what differs, each ``added``, ``removed`` or ``changed``. Lists of different lengths differ as a whole."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            place = f"{pointer}/{escaped(name)}"
            if name not in after:
                yield place, "removed"
            elif name not in before:
                yield place, "added"
            else:
                yield from differences(before[name], after[name], place)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{pointer}/{index}")
    elif canonical(before) != canonical(after):
        yield pointer, "changed"


def escaped(name: str) -> str:
    """A name as one step of a pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


_SECTION_OF = {kind: section for section, kind in SECTIONS.items()}
