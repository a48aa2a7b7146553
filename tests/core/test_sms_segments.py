"""How many segments a text message takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.sms_segments import Encoding, segments_of

GSM, UCS = Encoding.GSM7, Encoding.UCS2


@pytest.mark.parametrize(
    ("text", "encoding", "units", "count"),
    [
        ("", GSM, 0, 1),
        ("a" * 160, GSM, 160, 1),
        ("a" * 161, GSM, 161, 2),
        ("a" * 306, GSM, 306, 2),
        ("a" * 307, GSM, 307, 3),
        ("é" * 160, GSM, 160, 1),
        ("ê", UCS, 1, 1),
        ("ã" * 70, UCS, 70, 1),
        ("ã" * 71, UCS, 71, 2),
        ("ã" * 134, UCS, 134, 2),
        ("ã" * 135, UCS, 135, 3),
        ("€" * 80, GSM, 160, 1),
        ("€" * 81, GSM, 162, 2),
        ("😀" * 35, UCS, 70, 1),
        ("😀" * 36, UCS, 72, 2),
        ("a" * 69 + "ñ", GSM, 70, 1),
        ("`", UCS, 1, 1),
        ("ç", UCS, 1, 1),
        ("[a|b]{c}~^\\\f", GSM, 3 + 16 + 2, 1),
    ],
)
def test_segments_are_those_of_the_standard(text: str, encoding: Encoding, units: int, count: int) -> None:
    found = segments_of(text)

    assert (found.encoding, found.units, found.count) == (encoding, units, count)


def test_no_pair_is_cut_in_two() -> None:
    assert segments_of("a" * 152 + "€" + "a" * 152).count == 3, "a pair that does not fit any more begins the next segment"
    assert segments_of("a" * 153 + "€" + "a" * 151).count == 2
    assert segments_of("ã" * 66 + "😀" + "ã" * 66).count == 3
    assert segments_of("ã" * 67 + "😀" + "ã" * 65).count == 2


@given(st.text(max_size=500), st.text(max_size=50))
def test_a_longer_text_never_takes_fewer_segments(text: str, more: str) -> None:
    assert segments_of(text + more).count >= segments_of(text).count


@given(st.text(max_size=500))
def test_units_fit_into_the_segments(text: str) -> None:
    found = segments_of(text)
    room = (160, 153) if found.encoding is GSM else (70, 67)

    assert found.units <= (room[0] if found.count == 1 else room[1] * found.count)
    assert found.document() == {"encoding": found.encoding.value, "units": found.units, "segments": found.count}
