"""House rules that no linter knows."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.config import describe

ROOT = Path(__file__).parent.parent
SOURCES = ("dispatcher", "actors", "http/dispatcher_http", "http/dispatcher_sandbox", "migrations")
PROGRAM = sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BENCH = sorted((ROOT / "bench").rglob("*.py"))
LINES_MAX = 450
TEXTS = {".py", ".md", ".toml", ".txt", ".sql", ".lua", ".yml", ".yaml", ".html", ""}


def texts() -> Iterator[tuple[str, str]]:
    """Every text file that belongs to the project, with its path."""
    folders = [ROOT / name for name in (*SOURCES, "bench", "docs", "tests", ".ci")]
    for path in [*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))]:
        ours = path.is_file() and path.suffix in TEXTS and not path.name.startswith(".coverage")
        if ours and "__pycache__" not in path.parts and path.name != ".git":
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def found(pattern: str) -> list[str]:
    """Where a pattern occurs, this file aside."""
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        if name != "tests/test_tidy.py"
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]


def calls(path: Path) -> Iterator[tuple[int, str]]:
    """Calls of attributes, as ``line, "value.attribute"``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.lineno, ast.unparse(node.func)


def test_http_is_a_folder_and_never_a_package() -> None:
    assert not (ROOT / "http" / "__init__.py").exists()


def test_tests_are_no_packages_and_have_names_of_their_own() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert [name for name, times in Counter(path.name for path in TESTS if path.name != "conftest.py").items() if times > 1] == []


@pytest.mark.parametrize("path", PROGRAM, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for_and_stays_readable(path: Path) -> None:
    text = path.read_text()

    assert ast.get_docstring(ast.parse(text)), "a module begins with what it is for"
    assert text.count("\n") <= LINES_MAX, "look for a second noun in it"


def test_decisions_never_look_at_a_clock() -> None:
    looks = re.compile(r"\.(now|utcnow|today|monotonic|perf_counter|time_ns)$")
    seen = [(path.name, *call) for path in PROGRAM if path.parts[len(ROOT.parts)] == "dispatcher" for call in calls(path)]

    assert [call for call in seen if looks.search(call[2])] == []


def test_only_the_surface_reads_the_environment() -> None:
    """And the warden, a program of its own, which passes it on."""
    readers = {str(path.relative_to(ROOT)) for path in PROGRAM if re.search(r"os\.(environ|getenv)", path.read_text())}

    assert {name for name in readers if not name.startswith("http/dispatcher_http/")} == {"actors/embedded/warden.py"}


def test_nothing_that_runs_on_trio_imports_asyncio() -> None:
    assert [path.name for path in PROGRAM if re.search(r"^\s*(import|from) asyncio\b", path.read_text(), re.MULTILINE)] == []


def test_no_test_skips_or_may_fail_or_waits_on_the_real_clock() -> None:
    pattern = re.compile(r"mark\.(skip|xfail)|pytest\.(skip|xfail|importorskip)\(|\btime\.sleep\(")

    assert [path.name for path in TESTS if path != Path(__file__) and pattern.search(path.read_text())] == []


def test_nothing_is_left_over() -> None:
    assert found(r"\b(TODO|FIXME|XXX|HACK)\b") == []
    assert [path.name for path in PROGRAM if "NotImplementedError" in path.read_text()] == []


def test_no_package_index_is_named() -> None:
    """Where packages come from is the user's choice."""
    assert found(r"(pypi|npmjs|debian|pythonhosted)\.org|--(extra-)?index-url") == []


def test_every_requirement_is_pinned() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith(("#", "-r "))]
        assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+(; .*)?", line)] == []


def test_every_dependency_is_among_the_pins() -> None:
    def plain(requirement: str) -> str:
        return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = {plain(line) for line in (ROOT / "requirements.txt").read_text().splitlines()}
    everything = runtime | {plain(line) for line in (ROOT / "requirements-dev.txt").read_text().splitlines()}

    assert {plain(name) for name in project["dependencies"]} <= runtime
    assert {plain(name) for name in project["optional-dependencies"]["development"]} <= everything


def test_every_migration_has_a_rollback_and_numbers_rise_without_gaps() -> None:
    names = sorted(path.name for path in (ROOT / "migrations").glob("*.sql"))
    forward = [name for name in names if not name.endswith(".rollback.sql")]

    assert names == sorted(forward + [name.replace(".sql", ".rollback.sql") for name in forward])
    assert [int(name[:4]) for name in forward] == list(range(1, len(forward) + 1))


def test_the_readme_names_every_setting_and_no_other() -> None:
    named = set(re.findall(r"DISPATCHER_[A-Z0-9_]+", (ROOT / "README.md").read_text()))

    assert named == {row.variable for row in describe()}


def test_the_guarantees_name_every_scenario_and_only_tests_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|[^|]*\|$", text, re.MULTILINE)
    named = [(number, *test) for number, tests in rows for test in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)]

    assert [int(number) for number, _ in rows] == list(range(1, 41))
    assert {number for number, _, _ in named} == {number for number, _ in rows}
    assert [f"{path}::{name}" for _, path, name in named if not re.search(rf"def {name}\(", (ROOT / path).read_text())] == []


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = []
    for name, text in texts():
        if name.endswith(".md"):
            targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
            broken += [f"{name}: {target}" for target in targets if not ((ROOT / name).parent / target).exists()]

    assert broken == []
