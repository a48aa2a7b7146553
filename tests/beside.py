"""Tests that only compute, in processes beside the run of tests: what they cost passes while others wait for servers.

What ``beside`` names is called with the parameters of its test as soon as tests are collected. The test itself comes after all
others, and takes the fixture ``result``: calling it returns what came of that, or raises what it raised.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import pytest

MARK = "beside"
PROCESSES = 2
NICENESS = 5
"""Tests that speak to servers go first: they have deadlines to meet."""
_FUTURE = pytest.StashKey[Future[Any]]()
_POOL = pytest.StashKey[ProcessPoolExecutor]()

Result = Callable[[], Any]


def beside(function: Callable[..., Any]) -> pytest.MarkDecorator:
    """Mark a test whose work ``function`` is. The function is one of a module, and its parameters can be pickled."""
    return getattr(pytest.mark, MARK).with_args(function)  # type: ignore[no-any-return]


def put_last(items: list[pytest.Item]) -> None:
    """Have everything else tested first."""
    items.sort(key=lambda item: item.get_closest_marker(MARK) is not None)


def begin(items: Sequence[pytest.Item], config: pytest.Config) -> None:
    """Begin what these tests are about, in their order."""
    marked = [(item, mark.args[0]) for item in items if (mark := item.get_closest_marker(MARK)) is not None]
    if not marked:
        return
    context = multiprocessing.get_context("spawn")
    pool = config.stash[_POOL] = ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_begin_process)
    for item, function in marked:
        item.stash[_FUTURE] = pool.submit(function, **_parameters(item))


def result_of(item: pytest.Item) -> Result:
    """What came of a test's work, once there is something."""
    return item.stash[_FUTURE].result


def end(config: pytest.Config) -> None:
    """Leave undone what nobody asks for any more."""
    pool = config.stash.get(_POOL, None)
    if pool is not None:
        pool.shutdown(cancel_futures=True)


def _parameters(item: pytest.Item) -> dict[str, Any]:
    specification = getattr(item, "callspec", None)
    return dict(specification.params) if specification is not None else {}


def _begin_process() -> None:
    os.nice(max(0, NICENESS - os.nice(0)))  # the run itself may be of low priority
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A run of tests that is killed leaves nobody behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
