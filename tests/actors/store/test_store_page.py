"""Paging: nothing twice, nothing left out, and an end that is known to be one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.store.page import page_of


@given(st.integers(0, 30), st.integers(1, 10))
def test_following_the_cursor_sees_everything_once(total: int, size: int) -> None:
    everything = [f"{number:03}" for number in range(total, 0, -1)]

    seen: list[str] = []
    after = "999"
    pages = 0
    while True:
        rows = [id for id in everything if id < after][: size + 1]
        page = page_of(rows, rows, size)
        assert len(page.items) <= size
        seen += page.items
        pages += 1
        if page.next is None:
            break
        after = page.next

    assert seen == everything
    assert pages == max(1, -(-total // size))
