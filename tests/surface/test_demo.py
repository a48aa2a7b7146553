"""The demo: it tells the whole story, says when something is not as promised, and leaves nothing behind however it ends."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dispatcher_http import demo
from dispatcher_http.cli import main
from dispatcher_http.demo_story import TEMPLATES, Expected, Group, groups, purchase
from running import own_root_logger, program

SETTINGS = {
    **demo.SETTINGS,
    "DISPATCHER_RETRY_BASE_S": "0.2",
    "DISPATCHER_RETRY_CAP_S": "0.5",
    "DISPATCHER_BREAKER_OPEN_BASE_S": "0.3",
    "DISPATCHER_BREAKER_OPEN_CAP_S": "0.5",
}


def servers() -> set[int]:
    """Processes that a demo could have left running: every one whose command line names a demo's folder."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"dispatcher-demo-" in entry.read_bytes():
                found.add(int(entry.parts[2]))
        except OSError:
            continue  # it has ended meanwhile
    return found


@pytest.fixture
def scratch(servers_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made. It must be empty afterwards, and no server may be left."""
    path = servers_folder / tmp_path.name
    path.mkdir(mode=0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    before = servers()
    with own_root_logger():
        yield path
    assert list(path.iterdir()) == []
    assert servers() <= before


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SETTINGS", SETTINGS)
    monkeypatch.setattr(demo, "OUTAGE_S", 0.1)


def tell(monkeypatch: pytest.MonkeyPatch, story: Sequence[Group]) -> None:
    monkeypatch.setattr(demo, "groups", lambda _: list(story))


@pytest.mark.usefixtures("scratch", "impatient")
def test_it_tells_the_story_and_everything_becomes_what_it_should(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["demo"])
    told = capsys.readouterr().out

    assert status == 0, told
    table = {line[:14].strip(): line[14:].split() for line in told[told.index("group  ") :].splitlines()[1:15]}
    story = groups("http://127.0.0.1:8025")
    assert list(table) == [group.name for group in story]
    for group in story:
        e = group.expected
        row = table[group.name]
        promised = [e.accepted, e.duplicates, e.rejected, e.delivered, e.failed, e.canceled]
        assert [int(number) for number in row[:6]] == promised
        assert row[7:] == [str(e.effects), "as", "promised"]
    for said in ("order-1001 became 3: Seus ingressos para The Nocturnes", "time_relative", "1 reminder canceled"):
        assert said in told
    for said in ("breaker opened", "the provider is back", "failed over", "every group as promised"):
        assert said in told
    for said in ("bounced", "diverted: the sms contact is unsubscribed", "invalid"):
        assert said in told


@pytest.mark.usefixtures("scratch", "impatient")
def test_what_is_not_as_promised_is_said_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    one = purchase("bounce@sandbox.test", 1)
    tell(monkeypatch, [Group("one", "a purchase", [one], Expected(1, delivered=1, effects=1))])

    assert main(["demo"]) == 1
    told = capsys.readouterr().out
    assert "WRONG" in told
    assert "NOT as promised" in told


@pytest.mark.usefixtures("scratch", "impatient")
def test_a_refused_request_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tell(monkeypatch, [Group("one", "a purchase", [{"channel": "email"}], Expected(1), batch=False)])

    assert main(["demo"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: POST notifications was answered 422: ")
    assert error.count("\n") == 1


async def test_interrupted_it_cleans_up_as_well(scratch: Path) -> None:
    async with program("demo", settings={"TMPDIR": str(scratch)}) as running:
        await running.said("batch: ")
        running.signal(signal.SIGINT)
        status = await running.ended()

    assert status == 130
    assert running.err.strip() == "Interrupted."


def test_the_story_is_told_in_two_languages() -> None:
    assert [template["locale"] for template in TEMPLATES] == ["en", "pt"]
