"""A set-up as files: which path holds what, and back. Contents only; the disk is :mod:`dispatcher_http.files.folder`'s.

    rules/<name>.json  topics/<name>.json  policy.json  catalogues/<locale>.po
    layouts/<name>/{text.txt, html.html}
    templates/<name>/<channel>/<locale>/{template.json, subject.txt, body.txt, body.html, …}

A text file ends in a line break that is not part of the text, as editors like it. A catalogue that this program can not read is
JSON. Invariant: reading what was written gives the same document, and writing what was read gives the same files, but for the
spelling of JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson
from attrs import define, field, frozen

from dispatcher.bundle import KEY_FIELDS, SECTIONS, Key, escaped
from dispatcher.catalogues import parse_catalogue
from dispatcher.definitions import Kind
from dispatcher.locales import normalize
from dispatcher.po_files import from_po, to_po
from dispatcher.problems import Problem
from dispatcher.translations import Catalogue
from dispatcher_http.files.names import file_name, name_of

TEMPLATE_TEXTS: Final[Mapping[str, str]] = {
    "subject": "subject.txt",
    "body_template": "body.txt",
    "html_template": "body.html",
    "title": "title.txt",
}
"""Which fields of a template have a file of their own."""
LAYOUT_TEXTS: Final[Mapping[str, str]] = {"text": "text.txt", "html": "html.html"}
POLICY_FILE: Final = "policy.json"
FOLDERS: Final = tuple(section for section in SECTIONS if section != "policy")

_LINE = re.compile(r"Line (\d+): ")
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

Files = Mapping[str, bytes]
"""Contents by path, relative to the folder, with slashes."""


@frozen
class Fault:
    """What is wrong with a file. ``line`` counts from 1."""

    path: str
    detail: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.path}{'' if self.line is None else f':{self.line}'}: {self.detail}"


@define
class Reading:
    """What files say: a document with some sections, the file that each part of it stands in, and faults."""

    document: dict[str, Any] = field(factory=dict)
    places: dict[str, str] = field(factory=dict)
    """Pointers into the document to paths; what is below a pointer is in the same file, unless it has one of its own."""
    faults: list[Fault] = field(factory=list)


class Unwritable(ValueError):
    """Something can not be a file. The text says what and why, for the user."""


def files_of(document: Mapping[str, Any], default_locale: str = "en") -> dict[str, bytes]:
    """The files of a document. Raises Unwritable."""
    catalogues = {locale: parse_catalogue(locale, body) for locale, body in document.get("catalogues", {}).items()}
    default = catalogues.get(default_locale)
    files: dict[str, bytes] = {}
    for section, kind in SECTIONS.items():
        value = document.get(section)
        if not value:
            continue
        if kind == Kind.POLICY:
            files[POLICY_FILE] = _json(value)
        elif section == "templates":
            for body in value:
                files |= _template_files(body)
        else:
            for name, body in value.items():
                key = Key(kind, name)
                if kind == Kind.LAYOUT:
                    files |= dict(_parts(f"{section}/{_quoted(key, name)}", "layout.json", LAYOUT_TEXTS, body, whole=False))
                elif isinstance(catalogue := catalogues.get(name) if kind == Kind.CATALOGUE else None, Catalogue):
                    po = to_po(catalogue, default if isinstance(default, Catalogue) else None)
                    files[f"{section}/{_quoted(key, name)}.po"] = po
                else:
                    files[f"{section}/{_quoted(key, name)}.json"] = _json(body)
    return files


def place_of(key: Key) -> str:
    """The folder of one thing, or its file without what that ends in."""
    if key.kind == Kind.POLICY:
        return "policy"
    section = next(section for section, kind in SECTIONS.items() if kind == key.kind)
    steps = key[1:] if section == "templates" else (key.name,)
    return "/".join((section, *(file_name(step) or "" for step in steps)))


def is_ours(path: str) -> bool:
    """Whether a path is one that a set-up may have, so that it may be replaced and removed."""
    if path == POLICY_FILE:
        return True
    section, *steps = path.split("/")
    if section not in FOLDERS or not steps:
        return False
    *folders, last = steps
    if any(name_of(folder) is None for folder in folders):
        return False
    if section == "templates":
        return len(folders) == 3 and last in ("template.json", *TEMPLATE_TEXTS.values())
    if section == "layouts":
        return len(folders) == 1 and last in ("layout.json", *LAYOUT_TEXTS.values())
    name, _, ending = last.rpartition(".")
    endings = ("po", "json") if section == "catalogues" else ("json",)
    return not folders and ending in endings and name_of(name) is not None


def read_files(
    files: Files, sections: Collection[str], default_locale: str = "en", standing: Mapping[str, Any] = _NOTHING
) -> Reading:
    """The document that files make, with every fault. Files of other sections are passed over.

    A section is in the document when there is a file in it; what is neither ours nor hidden nor a README is a fault. A catalogue
    whose file says no other than what is ``standing`` is that one: a PO file tells of every translation what it was made of, also
    of those that do not say.
    """
    written = files_of({"catalogues": standing.get("catalogues", {})}, default_locale)
    reading = Reading()
    templates: dict[Key, dict[str, Any]] = {}
    places: dict[Key, dict[str, str]] = {}
    for path in sorted(files):
        section, *steps = path.split("/")
        section = "policy" if path == POLICY_FILE else section
        if section not in sections or steps[-1:] == ["README.md"] or any(step.startswith(".") for step in steps):
            continue
        if not is_ours(path):
            reading.faults.append(Fault(path, "no such file belongs here; docs/files.md says which do"))
            continue
        value = _value_in(path, files[path], reading.faults)
        if path == POLICY_FILE:
            reading.document["policy"], reading.places["/policy"] = value, path
        elif section in ("templates", "layouts"):
            key = Key(SECTIONS[section], *(name_of(step) or "" for step in steps[:-1]))
            _put_part(steps[-1], value, path, templates.setdefault(key, {}), places.setdefault(key, {}), reading.faults)
        else:
            name = name_of(steps[-1].rpartition(".")[0]) or ""
            if path.endswith(".po"):
                same = written.get(path) == files[path]
                value = standing["catalogues"][name] if same else _po(path, files[path], name, default_locale, reading.faults)
            if name in reading.document.setdefault(section, {}):
                reading.faults.append(Fault(path, "there is another file of this name"))
            reading.document[section][name] = value
            reading.places[f"/{section}/{escaped(name)}"] = path
    for key, body in templates.items():
        if key.kind == Kind.LAYOUT:
            place = f"/layouts/{escaped(key.name)}"
            reading.document.setdefault("layouts", {})[key.name] = body
        else:
            place = f"/templates/{len(reading.document.setdefault('templates', []))}"
            reading.document["templates"].append({**dict(zip(KEY_FIELDS, key[1:], strict=True)), **body})
        for below, path in places[key].items():
            reading.places[place + below] = path
        reading.places.setdefault(place, next(iter(places[key].values())))
    return reading


def _put_part(file: str, value: Any, path: str, body: dict[str, Any], places: dict[str, str], faults: list[Fault]) -> None:
    """Add what one file of a template or a layout has to the rest."""
    if file in _FIELD_OF:
        found = {_FIELD_OF[file]: value}
        places[f"/{_FIELD_OF[file]}"] = path
    else:
        told = set(KEY_FIELDS) & value.keys() if file == "template.json" else set()
        faults.extend(Fault(path, f"'{name}' is told by the folders the file is in") for name in sorted(told))
        found = {name: value[name] for name in value.keys() - told}
        places[""] = path
    faults.extend(
        Fault(path, f"'{name}' is in another file of this folder as well") for name in sorted(found.keys() & body.keys())
    )
    body |= found


def _template_files(body: Mapping[str, Any]) -> dict[str, bytes]:
    key = Key("template", *(body[name] for name in KEY_FIELDS))
    folder = "/".join(("templates", *(_quoted(key, step) for step in key[1:])))
    rest = {name: body[name] for name in body if name not in KEY_FIELDS}
    return dict(_parts(folder, "template.json", TEMPLATE_TEXTS, rest, whole=True))


def _parts(
    folder: str, json_file: str, texts: Mapping[str, str], body: Mapping[str, Any], *, whole: bool
) -> Iterator[tuple[str, bytes]]:
    """The texts of a thing in files of their own, and the rest in one of JSON."""
    own = {name for name in texts if isinstance(body.get(name), str)}
    rest = {name: body[name] for name in body if name not in own}
    if rest or whole or not own:
        yield f"{folder}/{json_file}", _json(rest)
    for name in texts:
        if name in own:
            yield f"{folder}/{texts[name]}", body[name].encode() + b"\n"


def _po(path: str, content: bytes, locale: str, default_locale: str, faults: list[Fault]) -> dict[str, Any]:
    """The document of a catalogue."""
    if normalize(locale) != locale:
        faults.append(Fault(path, "it must be named as a BCP 47 language tag in its usual spelling, such as pt-BR.po"))
        return {"messages": {}}
    made = from_po(content, locale, default_locale)
    if not isinstance(made, Problem):
        return made
    for problem in made.errors or (made,):
        line = _LINE.match(problem.detail)
        faults.append(Fault(path, problem.detail[line.end() :], int(line[1])) if line else Fault(path, problem.detail))
    return {"messages": {}}


def _value_in(path: str, content: bytes, faults: list[Fault]) -> Any:
    """What a file holds: an object, or a text without its last line break."""
    if path.endswith(".po"):
        return {}
    read: Callable[[bytes], Any] = orjson.loads if path.endswith(".json") else bytes.decode
    try:
        value = read(content)
    except orjson.JSONDecodeError as error:
        faults.append(Fault(path, f"it stops being JSON at column {error.colno}: {error.msg}", error.lineno))
        return {}
    except UnicodeDecodeError as error:
        faults.append(Fault(path, "it is not UTF-8", content.count(b"\n", 0, error.start) + 1))
        return ""
    if isinstance(value, str) and not path.endswith(".json"):
        return value.removesuffix("\n")
    if not isinstance(value, dict):
        faults.append(Fault(path, "it must be a JSON object", 1))
        return {}
    return value


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _quoted(key: Key, step: str) -> str:
    quoted = file_name(step)
    if quoted is None:
        raise Unwritable(f"the {key.kind} '{key.name[:60]}…' can not be a file: its name is too long")
    return quoted


_FIELD_OF = {file: name for texts in (TEMPLATE_TEXTS, LAYOUT_TEXTS) for name, file in texts.items()}
