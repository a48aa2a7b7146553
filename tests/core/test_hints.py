from __future__ import annotations

from email.utils import formatdate
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import HttpResponse
from dispatcher.providers.hints import hint_s, reset_after_s, retry_after_s

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"120", 120.0),
        (b"1.5", 1.5),
        (formatdate(NOW + 90, usegmt=True).encode(), 90.0),
        (formatdate(NOW - 90, usegmt=True).encode(), 0.0),
        (b"Tue, 14 Nov 2023 22:14:20 -0000", 60.0),
        (b"Tue, 14 Nov 2023 23:14:20 +0100", 60.0),
    ],
)
def test_retry_after_holds_seconds_or_a_date(value: bytes, seconds: float) -> None:
    assert retry_after_s(value, NOW) == seconds


@pytest.mark.parametrize(
    "value", [None, b"", b"-5", b"soon", b"1e9", b"12345678901", b"nan", b"\xff\xfe", b"Tue, 99 Nov 9999 99:99:99 GMT", b"1 2"]
)
def test_what_is_not_understood_is_no_hint(value: bytes | None) -> None:
    assert retry_after_s(value, NOW) is None


def test_a_reset_is_an_instant() -> None:
    assert reset_after_s(b"1700000030", NOW) == 30.0
    assert reset_after_s(b"1600000000", NOW) == 0.0
    assert reset_after_s(None, NOW) is None
    assert reset_after_s(b"-1", NOW) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((), None),
        (((b"retry-after", b"5"),), 5.0),
        (((b"x-ratelimit-reset", b"1700000007"),), 7.0),
        (((b"x-ratelimit-reset", b"1700000007"), (b"retry-after", b"5")), 7.0),
        (((b"x-ratelimit-reset", b"1700000003"), (b"retry-after", b"5")), 5.0),
    ],
)
def test_the_longer_hint_counts(headers: tuple[tuple[bytes, bytes], ...], seconds: float | None) -> None:
    assert hint_s(HttpResponse(429, headers, b""), NOW) == seconds


@given(st.binary(max_size=80), st.binary(max_size=20))
def test_whatever_a_header_says_a_hint_is_finite_and_not_negative(retry_after: bytes, reset: bytes) -> None:
    seconds = hint_s(HttpResponse(429, ((b"retry-after", retry_after), (b"x-ratelimit-reset", reset)), b""), NOW)

    assert seconds is None or (isfinite(seconds) and seconds >= 0)
