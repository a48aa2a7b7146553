"""Most tests of this folder need no server and much time: see ``tests/beside.py``."""

from __future__ import annotations

import pytest

from beside import Result, begin, end, put_last, result_of


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    put_last(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    if not session.config.option.collectonly:
        begin(session.items, session.config)


def pytest_sessionfinish(session: pytest.Session) -> None:
    end(session.config)


@pytest.fixture
def result(request: pytest.FixtureRequest) -> Result:
    """What came of the work of a test that is marked as ``beside``."""
    return result_of(request.node)
