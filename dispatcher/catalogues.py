"""Catalogues: an organization's words by key, one document for each locale, and how they fit together.

A catalogue is written as ``{"messages": {key: {"text": "Hello {name}"}}}``; a message with a plural has ``"plural": {"one": …,
"other": …}`` instead, by the categories that CLDR gives the locale. A translation may carry its ``source``, the words of the
default locale it was made of (a text, or ``{"one", "other"}``): when those change it is *stale*, and it goes on being used. It is
also stale while it is marked ``fuzzy``. Invariant: :func:`parse_catalogue` names every fault of a document at once, and none by
its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from dispatcher.bidi import balanced
from dispatcher.documents import FAULTS_MAX, pointer_to
from dispatcher.locales import normalize
from dispatcher.localization import babel_locale
from dispatcher.problems import Problem
from dispatcher.translations import COUNT, OTHER, Catalogue, Message, Parts, parts_of

MESSAGES_MAX: Final = 2_000
"""Reading one takes some twenty microseconds, and nothing else happens meanwhile."""
TEXT_LENGTH_MAX: Final = 4_000
NOTE_LENGTH_MAX: Final = 1_000
KEY_RULE: Final = "must be 1 to 200 of a-z, A-Z, 0-9, dot, hyphen, underscore, colon and slash, beginning with a letter or digit"
"""What the key of a message must be."""

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}", re.ASCII)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FIELDS: Final = frozenset({"text", "plural", "source", "note", "fuzzy"})
_TITLE: Final = "The catalogue can not be used"

Origin = tuple[str, str]
"""The words a translation was made of: for one, and otherwise. The same text twice without a plural."""


class _Faults(list[Problem]):
    def note(self, pointer: str, detail: str, code: str = "field_invalid") -> None:
        if len(self) < FAULTS_MAX:
            self.append(Problem(422, code, _TITLE, detail, pointer))


def categories_of(locale: str) -> tuple[str, ...]:
    """The plural categories that CLDR gives a locale, in CLDR's order."""
    used = babel_locale(locale).plural_form.tags | {OTHER}
    return tuple(category for category in ("zero", "one", "two", "few", "many", OTHER) if category in used)


def parse_catalogue(name: str, body: Mapping[str, Any]) -> Catalogue | Problem:
    """The catalogue that a document describes; or every fault of it, with pointers into it. ``name`` is its locale."""
    faults = _Faults()
    if normalize(name) != name:
        faults.note("", "its name must be a BCP 47 language tag in its usual spelling, such as pt-BR", "name_invalid")
        categories: tuple[str, ...] = (OTHER,)
    else:
        categories = categories_of(name)
    if not body.keys() <= {"messages"}:
        faults.note("", "has an unknown field; known is messages", "field_unknown")
    given = body.get("messages")
    found: dict[str, Message] = {}
    if not isinstance(given, Mapping):
        faults.note("/messages", "must be an object of messages by key", "field_missing" if given is None else "field_invalid")
    elif len(given) > MESSAGES_MAX:
        faults.note("/messages", f"has at most {MESSAGES_MAX} messages")
    else:
        for key, entry in given.items():
            if not isinstance(key, str) or _KEY.fullmatch(key) is None:
                faults.note("/messages", f"each key {KEY_RULE}", "name_invalid")
                continue
            message = _message(entry, pointer_to("/messages", key), categories, faults)
            if message is not None:
                found[key] = message
    if faults:
        first = faults[0]
        return Problem(422, first.code, _TITLE, first.detail, first.pointer, errors=tuple(faults) if len(faults) > 1 else ())
    return Catalogue(name, MappingProxyType(found), body)


def _message(entry: Any, pointer: str, categories: tuple[str, ...], faults: _Faults) -> Message | None:
    if not isinstance(entry, Mapping):
        faults.note(pointer, "must be an object with text or plural")
        return None
    if not entry.keys() <= _FIELDS:
        faults.note(pointer, f"has an unknown field; known are {', '.join(sorted(_FIELDS))}", "field_unknown")
    _check_origin(entry.get("source"), f"{pointer}/source", faults)
    note = entry.get("note", "")
    if not (isinstance(note, str) and len(note) <= NOTE_LENGTH_MAX and note == " ".join(note.split())):
        faults.note(f"{pointer}/note", f"must be a text of at most {NOTE_LENGTH_MAX} characters on one line, with single spaces")
    elif not (note.isprintable() and balanced(note) == note and not note.startswith("|")):
        faults.note(f"{pointer}/note", "must have visible characters only, and not begin with a bar")
    if not isinstance(entry.get("fuzzy", False), bool):
        faults.note(f"{pointer}/fuzzy", "must be true or false")
    if ("text" in entry) == ("plural" in entry):
        faults.note(pointer, "must have one of text and plural", "field_missing" if "text" not in entry else "field_invalid")
        return None
    texts = {OTHER: entry["text"]} if "text" in entry else entry["plural"]
    if not isinstance(texts, Mapping):
        faults.note(f"{pointer}/plural", "must be an object of texts by plural category")
        return None
    forms = {}
    for category, text in texts.items():
        where = f"{pointer}/text" if "text" in entry else pointer_to(f"{pointer}/plural", str(category))
        if "plural" in entry and category not in categories:
            faults.note(f"{pointer}/plural", f"plural categories of this locale are {', '.join(categories)}", "plural_unknown")
            continue
        parts = _parts(text, where, faults)
        if parts is not None:
            forms[category] = parts
    if OTHER not in texts:
        faults.note(f"{pointer}/plural/other", "the form other is needed in every locale", "field_missing")
    return Message(MappingProxyType(forms), "plural" in entry)


def _parts(text: Any, pointer: str, faults: _Faults) -> Parts | None:
    parts = None
    if not isinstance(text, str) or not 1 <= len(text) <= TEXT_LENGTH_MAX or not text.strip():
        faults.note(pointer, f"must be a text of 1 to {TEXT_LENGTH_MAX} characters, not all of them spaces")
    elif _CONTROL.search(text):
        faults.note(pointer, "has a control character that is neither a line break (\\n) nor a tab")
    elif balanced(text) != text:
        faults.note(pointer, "has a direction control without its counterpart in the same paragraph")
    else:
        parts = parts_of(text)
        if parts is None:
            faults.note(pointer, "has a brace that is no {placeholder}; write {{ or }} for a brace", "placeholder_invalid")
    return parts


def _check_origin(source: Any, pointer: str, faults: _Faults) -> None:
    texts = source.values() if isinstance(source, Mapping) else () if source is None else (source,)
    if isinstance(source, Mapping) and not {OTHER} <= source.keys() <= {"one", OTHER}:
        faults.note(pointer, "must be a text, or an object with other and perhaps one")
    elif not all(isinstance(each, str) and 0 < len(each) <= TEXT_LENGTH_MAX and not _CONTROL.search(each) for each in texts):
        faults.note(pointer, f"must be of texts of 1 to {TEXT_LENGTH_MAX} characters, without control characters")


def _pair(words: Any) -> Origin | None:
    """Words as they are compared: of a text, or of forms by category."""
    if isinstance(words, str):
        return words, words
    return None if words is None else (words.get("one", words[OTHER]), words[OTHER])


def words_of(catalogue: Catalogue | None, key: str) -> Origin | None:
    """What a translation of this message into another locale is made of; None when there is no such message."""
    entry = None if catalogue is None else catalogue.source["messages"].get(key)
    return None if entry is None else _pair(entry.get("text", entry.get("plural")))


def origin_of(catalogue: Catalogue, key: str) -> Origin | None:
    """The words that a translation says it was made of; None when it does not say."""
    return _pair(catalogue.source["messages"][key].get("source"))


def is_stale(catalogue: Catalogue, key: str, default: Catalogue | None) -> bool:
    """Whether a translation was made of other words than the default locale has now, or is marked as doubtful."""
    if catalogue.source["messages"][key].get("fuzzy", False):
        return True
    origin, now = origin_of(catalogue, key), words_of(default, key)
    return origin is not None and now is not None and origin != now


def stale(catalogues: Mapping[str, Catalogue], default_locale: str) -> dict[str, tuple[str, ...]]:
    """The keys of the stale translations by locale, of each locale that has any, in the order of the catalogue."""
    default = catalogues.get(default_locale)
    found = {
        locale: tuple(key for key in catalogue.messages if is_stale(catalogue, key, default))
        for locale, catalogue in catalogues.items()
        if locale != default_locale
    }
    return {locale: keys for locale, keys in found.items() if keys}


def state(catalogues: Mapping[str, Catalogue], default_locale: str, locale: str) -> dict[str, list[str]]:
    """How a translation stands beside the default locale: keys that are ``stale``, ``missing``, ``unused`` (the default has no
    such key) or ``differing`` (other placeholders). Empty lists for the default locale."""
    default, catalogue = catalogues.get(default_locale), catalogues[locale]
    if default is None or locale == default_locale:
        return {"stale": [], "missing": [], "unused": [], "differing": []}
    return {
        "stale": list(stale({locale: catalogue, default_locale: default}, default_locale).get(locale, ())),
        "missing": [key for key in default.messages if key not in catalogue.messages],
        "unused": [key for key in catalogue.messages if key not in default.messages],
        "differing": [key for key in catalogue.messages if _differs(catalogue, default, key)],
    }


def set_faults(catalogues: Mapping[str, Catalogue], default_locale: str) -> tuple[Problem, ...]:
    """What is wrong with catalogues that are set together: placeholders that the default locale's message has not, or lacks.

    Pointers begin with ``/{locale}``.
    """
    default = catalogues.get(default_locale)
    return tuple(
        Problem(
            422,
            "placeholders_differ",
            _TITLE,
            "its placeholders must be those of the default locale's message",
            pointer_to(f"/{locale}/messages", key),
        )
        for locale, catalogue in sorted(catalogues.items())
        if default is not None and locale != default_locale
        for key in catalogue.messages
        if _differs(catalogue, default, key)
    )[:FAULTS_MAX]


def catalogue_faults(
    keys: Iterable[tuple[str, frozenset[str]]], catalogues: Mapping[str, Catalogue], default_locale: str
) -> tuple[Problem, ...]:
    """What a template would miss: ``keys`` are those it uses, each with the names of its arguments.

    The default locale must have each message, and every catalogue's message must find its placeholders among the arguments.
    """
    faults: dict[tuple[str, str, str], Problem] = {}
    for key, given in sorted(keys, key=lambda used: (used[0], sorted(used[1]))):
        if default_locale not in catalogues or key not in catalogues[default_locale].messages:
            faults["", key, ""] = _unusable(
                "template_message_missing", f"Key '{key}' is not in the catalogue of {default_locale}."
            )
        for locale, catalogue in sorted(catalogues.items()):
            message = catalogue.messages.get(key)
            if message is None:
                continue
            needed = message.placeholders | ({COUNT} if message.is_plural else frozenset())
            for name in sorted(needed - given):
                detail = f"Key '{key}' is used without '{name}', which its message in {locale} needs."
                faults[locale, key, name] = _unusable("template_message_argument_missing", detail)
    return tuple(faults.values())[:FAULTS_MAX]


def _differs(catalogue: Catalogue, default: Catalogue, key: str) -> bool:
    """The count need not be printed, but only where there is one."""
    translated, original = catalogue.messages[key], default.messages.get(key)
    if original is None:
        return False
    counts = {COUNT} if original.is_plural else set()
    return bool((translated.placeholders ^ original.placeholders) - counts) or (translated.is_plural and not original.is_plural)


def _unusable(code: str, detail: str) -> Problem:
    return Problem(422, code, "The template can not be used", detail)
