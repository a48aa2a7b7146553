from __future__ import annotations

from datetime import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.day_spans import EVERY_DAY, Span, parse_span, span_document

clocks = st.builds(time, st.integers(0, 23), st.integers(0, 59))


@given(clocks, clocks, st.frozensets(st.integers(0, 6), min_size=1))
def test_a_span_written_down_is_read_as_the_same(start: time, end: time, days: frozenset[int]) -> None:
    if start != end:
        assert parse_span(span_document(start, end, days)) == Span(start, end, days)


def test_without_days_it_is_of_every_day() -> None:
    assert parse_span({"start": "22:00", "end": "07:00"}) == Span(time(22), time(7), EVERY_DAY)


@pytest.mark.parametrize(
    ("value", "pointers"),
    [
        ("22:00-07:00", [""]),
        ({}, ["/start", "/end"]),
        ({"start": "24:00", "end": "7:00", "days": []}, ["/start", "/end", "/days"]),
        ({"start": "22:00", "end": "22:00"}, ["/end"]),
        ({"start": "22:00", "end": "07:00", "days": ["mon", "mon"]}, ["/days"]),
        ({"start": "22:00", "end": "07:00", "days": [1]}, ["/days"]),
        ({"start": 22, "end": None, "zone": "UTC"}, ["", "/start", "/end"]),
    ],
)
def test_every_fault_has_its_place(value: Any, pointers: list[str]) -> None:
    faults = parse_span(value)

    assert isinstance(faults, list)
    assert [pointer for pointer, _ in faults] == pointers
