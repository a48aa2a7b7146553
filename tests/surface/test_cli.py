"""The command line: what it prints, and how failures look."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from dispatcher.config import describe
from dispatcher.errors import ConfigError, StoreUnavailable
from dispatcher_http import cli

Failing = Callable[[BaseException], int]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("DISPATCHER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def raising(error: BaseException) -> click.Command:
    @click.command("fail")
    def fail() -> None:
        raise error

    return fail


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Run a command that raises."""

    def run(error: BaseException) -> int:
        monkeypatch.setattr(cli.Commands, "get_command", lambda self, context, name: raising(error))
        return cli.main(["fail"])

    return run


def test_help_names_every_command_and_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0

    text = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
    for row in describe():
        assert row.variable in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert f"Usage: dispatcher {name} " in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["frobnicate"]) == 2
    assert "No such command 'frobnicate'" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ConfigError("set this"), StoreUnavailable("it is away")])
def test_a_known_failure_is_one_line_and_a_status(error: Exception, failing: Failing, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(error) == 1

    assert capsys.readouterr() == ("", f"Error: {error}\n")


def test_a_failure_of_several_tasks_is_told_once(failing: Failing, capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("", [StoreUnavailable("away"), ExceptionGroup("", [StoreUnavailable("away"), ConfigError("bad")])])

    assert failing(group) == 1
    assert capsys.readouterr().err == "Error: away\nError: bad\n"


def test_a_fault_of_the_program_is_not_hidden_behind_a_line(failing: Failing) -> None:
    with pytest.raises(ExceptionGroup):
        failing(ExceptionGroup("", [StoreUnavailable("away"), KeyError("bug")]))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort(), BaseExceptionGroup("", [KeyboardInterrupt()])])
def test_an_interruption_has_the_status_shells_expect(
    error: BaseException, failing: Failing, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == 130
    assert capsys.readouterr().err.strip() == "Interrupted."


def test_a_wrong_setting_is_named_with_what_to_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_POSTGRS_URL", "postgresql://hush")

    assert cli.main(["migrate", "status"]) == 1

    error = capsys.readouterr().err
    assert "did you mean DISPATCHER_POSTGRES_URL?" in error
    assert "hush" not in error


def test_it_runs_as_a_module_and_a_closed_pipe_is_no_fault() -> None:
    """Through a real pipe whose reader is gone before anything is written."""
    readable, writable = os.pipe()
    os.close(readable)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "dispatcher_http", "--help"]
    run = subprocess.run(command, stdout=writable, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writable)

    assert (run.returncode, run.stderr) == (1, "")
