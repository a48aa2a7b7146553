"""The folder of a set-up: what is written is read back, and nothing but files of a set-up is ever touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.bundle import SECTIONS
from dispatcher_http.files import folder
from dispatcher_http.files.json_lines import line_of
from dispatcher_http.files.names import file_name, name_of
from dispatcher_http.files.tree import Unwritable, files_of, is_ours, read_files

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
VALUE = st.none() | st.booleans() | st.integers(-9, 9) | TEXT | st.lists(TEXT, max_size=2)
BODY = st.dictionaries(st.sampled_from(["subject", "body_template", "title", "text", "html", "when", "a/b"]), VALUE, max_size=4)
TEMPLATES = st.dictionaries(
    st.tuples(NAME, st.sampled_from(["email", "sms"]), st.sampled_from(["en", "pt-BR"])), BODY, max_size=3
)
NAMED = st.dictionaries(NAME, BODY, max_size=3)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    keyed = draw(TEMPLATES)
    templates = [{"name": key[0], "channel": key[1], "locale": key[2], **keyed[key]} for key in keyed]
    whole = {section: draw(NAMED) for section in ("rules", "topics", "layouts", "catalogues")}
    return {section: value for section, value in {**whole, "policy": draw(BODY), "templates": templates}.items() if value}


def same(document: dict[str, Any]) -> bytes:
    """A document without the order of its templates."""
    templates = sorted(document.get("templates", []), key=lambda each: (each["name"], each["channel"], each["locale"]))
    return orjson.dumps({**document, "templates": templates}, option=orjson.OPT_SORT_KEYS)


@settings(max_examples=40)
@given(documents())
def test_what_is_written_is_read_back_and_every_part_has_a_place(document: dict[str, Any]) -> None:
    files = files_of(document)

    reading = read_files(files, SECTIONS)

    assert reading.faults == []
    assert same(reading.document) == same(document)
    assert files_of(reading.document) == files
    assert all(is_ours(path) for path in files)
    assert set(reading.places.values()) == set(files)


@given(NAME)
def test_a_name_has_one_file_name_that_leads_nowhere_else(name: str) -> None:
    quoted = file_name(name)

    assert quoted is not None
    assert name_of(quoted) == name
    assert "/" not in quoted
    assert not quoted.startswith(".")
    assert quoted.isascii()


@pytest.mark.parametrize("quoted", ["%61", "a%2f", "..", ".", "%FF", "a b", "%", "é", ""])
def test_what_no_name_is_written_as_is_no_name(quoted: str) -> None:
    assert name_of(quoted) is None


def test_a_text_may_lack_its_last_line_break() -> None:
    files = {"templates/a/sms/en/body.txt": b"Hello", "templates/a/sms/pt/body.txt": "Olá\n".encode()}

    assert [each["body_template"] for each in read_files(files, SECTIONS).document["templates"]] == ["Hello", "Olá"]


@pytest.mark.parametrize("text", ["", "\n", "a\n\n", "\r\n", "a\r", " a "])
def test_every_break_and_blank_of_a_text_is_kept(text: str) -> None:
    document = {"templates": [{"name": "a", "channel": "sms", "locale": "en", "body_template": text}]}

    assert read_files(files_of(document), SECTIONS).document == document


def test_every_file_at_fault_is_named_with_its_line() -> None:
    files = {
        "rules/a.json": b'{\n "event": }',
        "rules/b.jsn": b"{}",
        "topics/c.json": b"[]",
        "templates/x/sms/en/template.json": b'{"body_template": "1", "locale": "pt"}',
        "templates/x/sms/en/body.txt": b"a\n\xff",
        "layouts/l/deep/text.txt": b"",
        "rules/README.md": b"how we name our rules",
        "rules/.gitkeep": b"",
        "elsewhere/x": b"",
    }

    found = {str(fault).partition(": ")[0] for fault in read_files(files, SECTIONS).faults}

    assert found == {
        "rules/a.json:2",
        "rules/b.jsn",
        "topics/c.json:1",
        "templates/x/sms/en/template.json",
        "templates/x/sms/en/body.txt:2",
        "layouts/l/deep/text.txt",
    }


def test_a_name_too_long_for_a_file_is_refused_by_its_kind() -> None:
    with pytest.raises(Unwritable, match="the template 'ééé"):
        files_of({"templates": [{"name": "é" * 100, "channel": "sms", "locale": "en"}]})


def test_a_line_is_found_for_every_pointer() -> None:
    send = '[\n    {"channel": "sms"},\n    {\n      "channel": "sms",\n      "template": 1\n    }\n  ]'
    text = f'{{\n  "when": "x",\n  "send": {send}\n}}\n'

    assert [line_of(text, pointer) for pointer in ("", "/when", "/send", "/send/1", "/send/1/template")] == [1, 2, 3, 5, 7]
    assert line_of(text, "/send/1/nothing") == 5
    assert line_of(text, "/nothing/at/all") == 1
    assert line_of("{", "/a") == 1


def test_writing_replaces_and_removes_only_what_is_a_set_ups(tmp_path: Path) -> None:
    for path in (
        "rules/old.json",
        "rules/README.md",
        "rules/.gitkeep",
        "topics/kept.json",
        "notes.txt",
        "templates/x/sms/en/body.txt",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("old")

    done = folder.write(tmp_path, ["rules", "templates"], {"rules/new.json": b"{}\n"}, is_ours)

    assert done == folder.Written(("rules/new.json",), ("rules/old.json", "templates/x/sms/en/body.txt"))
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"rules/new.json", "rules/README.md", "rules/.gitkeep", "topics/kept.json", "notes.txt"}
    assert not (tmp_path / "templates").exists()
    assert folder.write(tmp_path, ["rules"], {"rules/new.json": b"{}\n"}, is_ours) == folder.Written((), ())


@pytest.mark.parametrize("link", ["rules", "rules/x.json"])
def test_a_symbolic_link_is_neither_read_nor_written_through(tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.json").write_text("{}")
    inside = tmp_path / "inside"
    (inside / link).parent.mkdir(parents=True)
    (inside / link).symlink_to(outside if link == "rules" else outside / "x.json")

    with pytest.raises(folder.Unusable, match="symbolic link"):
        folder.read(inside, ["rules"])
    with pytest.raises(folder.Unusable, match="symbolic link"):
        folder.write(inside, ["rules"], {"rules/x.json": b"new"}, is_ours)
    assert (outside / "x.json").read_text() == "{}"


def test_what_is_no_set_up_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(folder.Unusable, match="no such folder"):
        folder.read(tmp_path / "nowhere", ["rules"])
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "x.json").write_bytes(b"x" * 11)
    monkeypatch.setattr(folder, "FILE_BYTES_MAX", 10)
    with pytest.raises(folder.Unusable, match="rules/x.json: it has more than 10 bytes"):
        folder.read(tmp_path, ["rules"])
    monkeypatch.setattr(folder, "FILES_MAX", 0)
    with pytest.raises(folder.Unusable, match="more than 0 files"):
        folder.read(tmp_path, ["rules"])
