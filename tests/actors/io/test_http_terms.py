from __future__ import annotations

from math import inf, nan

import pytest

from actors.io.http_terms import Deadlines, ExchangeFailed, MaybeSent, NotSent, PoolLimits
from dispatcher.errors import DispatcherError


def test_a_failure_says_what_was_under_way_and_nothing_else() -> None:
    assert str(NotSent("connect", "refused")) == "connect: refused"
    assert str(MaybeSent("limit", "body_too_large", 202)) == "limit: body_too_large"


def test_not_sent_and_maybe_sent_exclude_each_other_and_leave_no_third() -> None:
    assert ExchangeFailed.__subclasses__() == [NotSent, MaybeSent]
    assert not issubclass(NotSent, MaybeSent)
    assert not issubclass(MaybeSent, NotSent)
    assert issubclass(ExchangeFailed, DispatcherError)


def test_the_status_is_kept_when_the_peer_had_answered() -> None:
    assert MaybeSent("read", "truncated", 202).status == 202
    assert MaybeSent("read", "closed").status is None


@pytest.mark.parametrize("field", ["pool_s", "connect_s", "write_s", "read_s", "total_s"])
@pytest.mark.parametrize("value", [-1.0, nan])
def test_a_deadline_is_a_time(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Deadlines(**{field: value})


@pytest.mark.parametrize("value", [0.0, inf])
def test_a_deadline_may_be_now_or_never(value: float) -> None:
    assert Deadlines(value, value, value, value, value).total_s == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("connections_per_origin_max", 0),
        ("connections_max", 0),
        ("waiting_max", -1),
        ("idle_s", 0),
        ("body_bytes_max", -1),
        ("header_bytes_max", 0),
    ],
)
def test_a_limit_leaves_room_for_something(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        PoolLimits(**{field: value})
