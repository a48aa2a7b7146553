"""Catalogues as gettext's PO files, which translators' programs read and write. Babel reads and writes them.

A message's key is its ``msgctxt``, the words of the default locale its ``msgid``, and a stale translation is ``fuzzy`` with the
words it was made of as the previous ``msgid``. Plural forms stand in the order of CLDR's categories; a file that numbers them in
another way says so in its header, and is read by that. Invariant: a catalogue that is written and read is the same one again, and
what is read is a document that :func:`~dispatcher.catalogues.parse_catalogue` takes, or a problem that tells the lines at fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from gettext import c2py
from io import BytesIO
from typing import Any, Final

from attrs import evolve
from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import PoFileError, PoFileParser, unescape, write_po
from babel.plural import to_gettext

from dispatcher.acceptance import together
from dispatcher.catalogues import MESSAGES_MAX, Origin, categories_of, is_stale, origin_of, parse_catalogue, words_of
from dispatcher.documents import FAULTS_MAX
from dispatcher.locales import normalize
from dispatcher.localization import babel_locale
from dispatcher.problems import Problem
from dispatcher.translations import OTHER, Catalogue

MEDIA_TYPE: Final = "text/x-gettext-translation"

_TITLE: Final = "The PO file can not be used"
_WIDTH: Final = 1_000_000
"""No text is folded: folding comments would lose spaces, and a text of one line shows better what has changed."""
_PLURALS_MAX: Final = 6
_SAMPLES: Final = (*range(201), 1_000, 10_000, 100_000, 1_000_000)
"""Numbers that meet every plural category that whole numbers have in any locale."""
_STRINGS: Final = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'
_PREVIOUS: Final = re.compile(rf"(?:msgctxt {_STRINGS})?msgid {_STRINGS}(?:msgid_plural {_STRINGS})?")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


class _Written(Catalog):
    """Babel's catalogue with a header that is the same whenever it is written."""

    def __init__(self, locale: str) -> None:
        super().__init__(header_comment="", creation_date="", fuzzy=False)
        self._tag = locale

    @property
    def num_plurals(self) -> int:
        return len(categories_of(self._tag))

    @property
    def header_comment(self) -> str:
        return "#"

    @property
    def mime_headers(self) -> list[tuple[str, str]]:
        return [
            ("Language", self._tag.replace("-", "_")),
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Transfer-Encoding", "8bit"),
            ("Plural-Forms", plural_forms_of(self._tag) + "\n"),
        ]


class _Read(Catalog):
    """Babel's catalogue, which also remembers what stood in the file twice, and believes no number of plural forms."""

    def __init__(self, locale: str) -> None:
        super().__init__(babel_locale(locale), creation_date="")
        self.entries: list[Message] = []
        self.language = ""

    @property
    def num_plurals(self) -> int:
        found = super().num_plurals
        if not 1 <= found <= _PLURALS_MAX:
            raise ValueError
        return found

    def __setitem__(self, id: Any, message: Message) -> None:
        if id == "" and message.context is None:
            language = re.search(r"^language:[ \t]*(\S*)", str(message.string), re.IGNORECASE | re.MULTILINE)
            self.language = language[1] if language else ""
        else:
            self.entries.append(message)
        super().__setitem__(id, message)


def plural_forms_of(locale: str) -> str:
    """A locale's plural rule as a header tells it, the forms being numbered in the order of CLDR's categories."""
    # Rules of Romance languages ask for the exponent of compact numbers ("2M"), which gettext has no name for. Here it is 0.
    return re.sub(r"\b[ce]\b", "0", to_gettext(babel_locale(locale).plural_form))


def to_po(catalogue: Catalogue, default: Catalogue | None) -> bytes:
    """A catalogue as a file in UTF-8. ``default`` is that of the organization's default locale, which it translates.

    Messages that are not translated yet stand in it, empty.
    """
    written = _Written(catalogue.locale)
    own = default is None or default.locale == catalogue.locale
    keys = dict.fromkeys([*(() if default is None else default.messages), *catalogue.messages])
    for key in keys:
        entry = catalogue.source["messages"].get(key)
        notes = "" if default is None or own else default.source["messages"].get(key, {}).get("note", "")
        note = "" if entry is None else entry.get("note", "")
        now = (
            words_of(default, key)
            or (origin_of(catalogue, key) if entry is not None else None)
            or words_of(catalogue, key)
            or ("", "")
        )
        is_plural = (catalogue if entry is not None or default is None else default).messages[key].is_plural
        stale = entry is not None and not own and is_stale(catalogue, key, default)
        origin = origin_of(catalogue, key) if stale else None
        written.add(
            now if is_plural else now[1],
            _translation(entry, catalogue.locale, is_plural),
            flags=["fuzzy"] if stale or (entry is not None and entry.get("fuzzy", False)) else [],
            auto_comments=[text for text in ((note,) if own else (notes,)) if text],
            user_comments=[text for text in (() if own else (note,)) if text],
            previous_id=() if origin is None or origin == now else (origin if is_plural else origin[1]),
            context=key,
        )
    file = BytesIO()
    write_po(file, written, width=_WIDTH, no_location=True, include_previous=True)
    return file.getvalue()


def _translation(entry: Mapping[str, Any] | None, locale: str, is_plural: bool) -> Any:
    if not is_plural:
        return "" if entry is None else entry["text"]
    forms = {} if entry is None else entry["plural"]
    return tuple(forms.get(category, "") for category in categories_of(locale))


def from_po(data: bytes, locale: str, default_locale: str) -> dict[str, Any] | Problem:
    """The document of a catalogue that a file holds. What is not translated is left out.

    A Problem names every fault with its line, or the line at which the file stops being one.
    """
    read = _Read(locale)
    problem = _parsed(data, read)
    if problem is not None:
        return problem
    if read.language and normalize(read.language) not in (locale, None):
        return _fault(1, "po_language", "Its header names another language than the one it is stored for.")
    indexes = _indexes(read, locale)
    if indexes is None:
        return _fault(1, "po_plural_forms", "The plural forms of its header can not be used.")
    faults: list[Problem] = []
    messages: dict[str, dict[str, Any]] = {}
    lines: dict[str, int] = {}
    for message in read.entries[: MESSAGES_MAX + 1]:
        line = message.lineno or 1
        if not message.context or not message.id:
            faults.append(_fault(line, "po_key", "It needs a msgctxt, which is the key of the message, and a msgid."))
            continue
        if message.context in lines:
            faults.append(_fault(line, "po_key", f"The same msgctxt stands in line {lines[message.context]}."))
            continue
        lines[message.context] = line
        entry = _entry(message, indexes)
        if isinstance(entry, str):
            faults.append(_fault(line, "po_plural_forms", entry))
        elif entry:
            messages[message.context] = entry | (_described(message, default=locale == default_locale))
    body = {"messages": messages}
    catalogue = parse_catalogue(locale, body)
    if isinstance(catalogue, Problem):
        faults += [_with_line(fault, lines) for fault in catalogue.errors or (catalogue,)]
    return together(faults[:FAULTS_MAX]) if faults else body


def _parsed(data: bytes, read: _Read) -> Problem | None:
    reached = 0

    def lines(text: str) -> Iterator[str]:
        nonlocal reached
        for line in text.split("\n"):
            reached += 1
            yield line

    try:
        PoFileParser(read, ignore_obsolete=True, abort_invalid=True).parse(lines(data.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        return _fault(data.count(b"\n", 0, error.start) + 1, "po_encoding", "It is not UTF-8.")
    except PoFileError as error:
        return _fault(error.lineno + 1, "po_invalid", "It stops being a PO file here.")
    except Exception:  # what Babel leaves to Python in a file that is none: an index, a number, a header
        return _fault(reached, "po_invalid", "It stops being a PO file here.")
    return None


def _indexes(read: _Read, locale: str) -> dict[str, int] | None:
    """Which of the file's forms is for which category. None when its rule can not be evaluated."""
    rule = babel_locale(locale).plural_form
    categories = categories_of(locale)
    if _bare(read.plural_forms) == _bare(plural_forms_of(locale)):
        return {category: index for index, category in enumerate(categories)}
    found: dict[str, int] = {}
    try:
        choose = c2py(read.plural_expr)
        for number in _SAMPLES:
            found.setdefault(rule(number), choose(number))
    except (ValueError, ArithmeticError, RecursionError):
        return None
    found.setdefault(OTHER, max(found.values()))  # of locales in which no whole number is just any other
    return found if all(0 <= index < read.num_plurals for index in found.values()) else None


def _bare(forms: str) -> str:
    return re.sub(r"[\s;]", "", forms)


def _entry(message: Message, indexes: Mapping[str, int]) -> dict[str, Any] | str:
    """The words of a message; nothing when it is not translated, or what is wrong with it."""
    if isinstance(message.string, str):
        return {"text": message.string} if message.string else {}
    strings: tuple[str, ...] = tuple(message.string or ())
    if not any(strings):
        return {}
    forms = {category: strings[index] for category, index in indexes.items() if index < len(strings) and strings[index]}
    return {"plural": forms} if OTHER in forms else "The form for any other number is not translated."


def _described(message: Message, default: bool) -> dict[str, Any]:
    """What else the file says of a message: what it was made of, whether that is doubtful, and notes."""
    comments = [comment for comment in message.user_comments if not comment.startswith("|")]
    note = " ".join(" ".join(message.auto_comments if default else comments).split())
    previous = _previous(message)
    now: Origin = (message.id, message.id) if isinstance(message.id, str) else (message.id[0], message.id[1])
    origin = now if previous is None or not message.fuzzy else previous
    source: Any = {"one": origin[0], OTHER: origin[1]} if not isinstance(message.id, str) else origin[1]
    doubtful = message.fuzzy and (origin == now or default)
    return {
        **({} if default else {"source": source}),
        **({"note": note} if note else {}),
        **({"fuzzy": True} if doubtful else {}),
    }


def _previous(message: Message) -> Origin | None:
    said = " ".join(comment.lstrip("| ") for comment in message.user_comments if comment.startswith("|"))
    match = _PREVIOUS.fullmatch(said)
    if match is None:
        return None
    one, other = ("".join(map(unescape, _STRING.findall(strings or ""))) for strings in match.groups()[1:])
    return one, other or one


def _with_line(fault: Problem, lines: Mapping[str, int]) -> Problem:
    steps = (fault.pointer or "").split("/")
    line = lines.get(steps[2].replace("~1", "/").replace("~0", "~")) if len(steps) > 2 else None
    return fault if line is None else evolve(fault, title=_TITLE, detail=f"Line {line}: {fault.detail}")


def _fault(line: int, code: str, detail: str) -> Problem:
    return Problem(422, code, _TITLE, f"Line {line}: {detail}", f"/lines/{line}")
