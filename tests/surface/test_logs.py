"""What is said about failures: types and places, never texts."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import orjson
import pytest

from dispatcher_http import logs
from dispatcher_http.server import hypercorn_config

CANARY = "canary@example.org"


@pytest.fixture(autouse=True)
def restored_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def caught() -> BaseException:
    """An exception as it comes out of real code: with a text, a cause and a place."""
    try:
        try:
            raise KeyError(CANARY)
        except KeyError as error:
            raise ValueError(f"bad recipient {CANARY}") from error
    except ValueError as error:
        return error


def test_an_exception_is_described_by_types_and_places() -> None:
    description = logs.describe(caught())

    assert description.startswith("ValueError at test_logs.py:")
    assert " from KeyError at test_logs.py:" in description
    assert CANARY not in description


def test_members_of_a_group_are_described_and_bounded() -> None:
    group = ExceptionGroup(CANARY, [ValueError(CANARY), ExceptionGroup(CANARY, [KeyError(CANARY)]), *[OSError(CANARY)] * 50])

    description = logs.describe(group)

    assert description.startswith("ExceptionGroup[ValueError, ExceptionGroup[KeyError], OSError")
    assert description.count("OSError") < 10
    assert CANARY not in description


def test_a_suppressed_context_stays_out() -> None:
    def fail() -> None:
        try:
            raise KeyError(CANARY)
        except KeyError:
            raise ValueError from None

    with pytest.raises(ValueError) as error:  # noqa: PT011
        fail()

    assert "KeyError" not in logs.describe(error.value)


def test_only_the_innermost_places_are_told() -> None:
    def deep(n: int) -> None:
        if n == 0:
            raise ValueError
        deep(n - 1)

    with pytest.raises(ValueError) as error:  # noqa: PT011
        deep(100)

    assert logs.describe(error.value).count("test_logs.py") == 8


@pytest.mark.parametrize("json_lines", [False, True])
def test_even_a_library_that_logs_an_exception_cannot_log_its_text(json_lines: bool) -> None:
    stream = io.StringIO()
    logs.configure("info", json_lines=json_lines, stream=stream)

    logging.getLogger("some.library").error("it broke", exc_info=caught())

    line = stream.getvalue()
    assert line.count("\n") == 1
    assert "it broke" in line
    assert "ValueError at test_logs.py" in line
    assert CANARY not in line


@pytest.mark.parametrize("name", ["httpx", "httpcore.connection"])
def test_urls_that_a_client_library_calls_are_not_logged(name: str) -> None:
    """The query of a webhook's URL holds the word by which it makes sure of its caller."""
    stream = io.StringIO()
    logs.configure("debug", stream=stream)

    logging.getLogger(name).info("HTTP Request: GET http://127.0.0.1/webhook?hub.verify_token=%s", CANARY)

    assert stream.getvalue() == ""


def test_json_lines_are_json() -> None:
    stream = io.StringIO()
    logs.configure("info", json_lines=True, stream=stream)

    logging.getLogger("a").warning("said %s", "it")
    logging.getLogger("a").debug("unsaid")

    (line,) = stream.getvalue().splitlines()
    record = orjson.loads(line)
    assert {name: record[name] for name in ("level", "logger", "message")} == {
        "level": "warning",
        "logger": "a",
        "message": "said it",
    }
    assert record["at"].endswith("Z")


def test_configuring_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("debug", stream=first)
    logs.configure("error", stream=second)

    logging.getLogger("a").warning("no")
    logging.getLogger("a").error("yes")

    assert (first.getvalue(), second.getvalue().count("\n")) == ("", 1)


async def test_hypercorn_has_no_access_log_and_describes_exceptions(caplog: pytest.LogCaptureFixture) -> None:
    log = hypercorn_config().log
    assert isinstance(log, logs.ServerLog)

    await log.access({"path": CANARY}, {"status": 200, "headers": []}, 0.1)  # type: ignore[arg-type]
    try:
        raise ValueError(CANARY)
    except ValueError:
        await log.exception("Error in ASGI Framework")

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "ValueError at test_logs.py" in caplog.text
    assert CANARY not in caplog.text
