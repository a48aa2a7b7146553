"""What a push would change, and what is wrong with a folder, as lines for people: files and their lines, never pointers alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from typing import Any, Final

import click

from dispatcher.bundle import Key, Verb
from dispatcher.setup_checks import spoken
from dispatcher_http.files.json_lines import line_of
from dispatcher_http.files.tree import TEMPLATE_TEXTS, Fault, Files, Reading, place_of

MARKS: Final[Mapping[Verb, tuple[str, str]]] = {
    Verb.CREATED: ("+", "green"),
    Verb.UPDATED: ("~", "yellow"),
    Verb.DELETED: ("-", "red"),
    Verb.KEPT: ("=", "cyan"),
}
_COLOURS: Final = {"+": "green", "-": "red", "@": "cyan"}
_LINE = re.compile(r"\bLine (\d+)\b")
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def change_lines(report: Mapping[str, Any], before: Files, after: Files) -> Iterator[str]:
    """One line for each thing that is not as it was, and what differs in its files. What only stands there comes last."""
    for verb, (mark, colour) in MARKS.items():
        for told in report[verb.value]:
            key = Key(told["kind"], told["name"], told.get("channel", ""), told.get("locale", ""))
            remark = " (only there; --prune deletes it)" if verb is Verb.KEPT else ""
            yield click.style(f"{mark} {visible(spoken(key).removeprefix('the '))}{remark}", fg=colour)
            if verb is Verb.UPDATED:
                yield from _differences(place_of(key), before, after)


def summary(report: Mapping[str, Any]) -> str:
    """How many of each."""
    counts = [f"{len(report[verb.value])} {verb.value}" for verb in MARKS if verb is not Verb.KEPT and report[verb.value]]
    return ", ".join(counts) or "nothing"


def fault_lines(reading: Reading, files: Files, refused: tuple[tuple[str, str], ...] = ()) -> list[str]:
    """Every fault, of files and of what they say, by file and line. A file that can not be read has no others."""
    unread = {fault.path for fault in reading.faults}
    found = [*reading.faults, *(_fault(reading, files, *each) for each in refused)]
    kept = [fault for index, fault in enumerate(found) if index < len(reading.faults) or fault.path not in unread]
    return [visible(str(fault)) for fault in sorted(kept, key=lambda fault: (fault.path, fault.line or 0, fault.detail))]


def visible(text: str) -> str:
    """A text that does nothing to a terminal."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _fault(reading: Reading, files: Files, pointer: str, detail: str) -> Fault:
    """Where a fault of the document is in the files."""
    place = pointer
    while place and place not in reading.places:
        place = place.rpartition("/")[0]
    inside = pointer[len(place) :]
    if not place:
        return Fault(f"{pointer.split('/')[1]}/" if "/" in pointer else ".", detail)
    path = reading.places[place]
    missing = TEMPLATE_TEXTS.get(inside.removeprefix("/")) if place.startswith("/templates/") else None
    if missing is not None:
        return Fault(f"{path.rpartition('/')[0]}/{missing}", detail)
    if path.endswith(".po"):
        return Fault(path, detail, _message_line(files[path].decode(errors="replace"), inside))
    if not path.endswith(".json"):
        line = _LINE.search(detail)
        return Fault(path, detail, None if line is None else int(line[1]))
    line_number = line_of(files[path].decode(errors="replace"), inside)
    return Fault(path, f"{inside}: {detail}" if inside else detail, line_number)


def _message_line(text: str, inside: str) -> int | None:
    """The line of the message that a pointer into a catalogue leads to."""
    steps = inside.split("/")
    context = f'msgctxt "{steps[2].replace("~1", "/").replace("~0", "~")}"' if len(steps) > 2 else ""
    return next((number for number, line in enumerate(text.splitlines(), 1) if line == context), None)


def _differences(place: str, before: Files, after: Files) -> Iterator[str]:
    for path in sorted({path for path in (*before, *after) if path.rpartition(".")[0] == place or path.startswith(f"{place}/")}):
        old, new = (files.get(path, b"").decode().splitlines() for files in (before, after))
        for line in list(unified_diff(old, new, lineterm="", n=2))[2:]:
            yield click.style(f"    {visible(line)}", fg=_COLOURS.get(line[:1]))
