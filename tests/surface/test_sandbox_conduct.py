from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.conduct import AT_ONCE, Act, Conduct, conduct
from dispatcher_sandbox.magic import TABLE, Magic, Trick

SHARES = Behaviour(error_mix={503: 0.2, 429: 0.1}, drop_after_accept=0.3, slow_share=0.1, slow_s=9, latency_s=1)


@pytest.mark.parametrize("random01", [0.0, 0.5, 0.999999])
def test_a_good_day_accepts_at_once_whatever_chance_says(random01: float) -> None:
    assert conduct(Behaviour(), None, 0, random01) is AT_ONCE


@pytest.mark.parametrize(
    ("random01", "expected"),
    [
        (0.0, Conduct(Act.REFUSE, 1, 503)),
        (0.19, Conduct(Act.REFUSE, 1, 503)),
        (0.21, Conduct(Act.REFUSE, 1, 429)),
        (0.31, Conduct(Act.DROP, 1)),
        (0.59, Conduct(Act.DROP, 1)),
        (0.61, Conduct(Act.ACCEPT, 10)),
        (0.71, Conduct(Act.ACCEPT, 1)),
        (0.99, Conduct(Act.ACCEPT, 1)),
    ],
)
def test_the_shares_divide_the_interval_in_their_order(random01: float, expected: Conduct) -> None:
    assert conduct(SHARES, None, 0, random01) == expected


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 5), st.sampled_from(sorted(TABLE)))
def test_chance_has_no_say_about_a_magic_recipient(random01: float, sight: int, name: str) -> None:
    assert conduct(SHARES, TABLE[name], sight, random01) == conduct(SHARES, TABLE[name], sight, 0.0)


@pytest.mark.parametrize(
    ("trick", "expected"),
    [
        (Trick.DELIVER, Conduct(Act.ACCEPT, 0.5)),
        (Trick.REFUSE, Conduct(Act.REFUSE, 0.5, 418, "why")),
        (Trick.DROP, Conduct(Act.DROP, 0.5)),
        (Trick.CLOSE, Conduct(Act.CLOSE, 0.5)),
        (Trick.SILENT, Conduct(Act.SILENT)),
        (Trick.SLOW, Conduct(Act.ACCEPT, 7.5)),
    ],
)
def test_a_trick_is_played_as_often_as_its_row_says_and_then_no_more(trick: Trick, expected: Conduct) -> None:
    magic = Magic(trick, times=2, status=418, reason="why", delay_s=7)
    behaviour = Behaviour(latency_s=0.5)

    assert conduct(behaviour, magic, 1, 0) == expected
    assert conduct(behaviour, magic, 2, 0) == expected
    assert conduct(behaviour, magic, 3, 0) == Conduct(Act.ACCEPT, 0.5)
