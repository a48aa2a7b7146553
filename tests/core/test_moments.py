"""When something is sent: what an event's date means, what a window and quiet hours make of it, and when it is too late."""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Any

import pytest

from dispatcher.conditions import compile_expression
from dispatcher.decisions import Code
from dispatcher.moments import instant_of, moment_of
from dispatcher.people import QuietHours
from dispatcher.planned import Timing
from dispatcher.rules import Relative, Window

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0
BERLIN = "Europe/Berlin"  # 13:00 there
NIGHT = QuietHours(time(22), time(7))
MORNING = Window(time(9), time(11))


def decided(timing: Timing, quiet: QuietHours | None = None, *, critical: bool = False) -> tuple[list[str], Any, Any]:
    found, at_s, expires_at_s = moment_of(timing, NOW, BERLIN, quiet, critical=critical)
    return [decision.code.value for decision in found], at_s, expires_at_s


def relative(date: Any, offset_s: float) -> Timing:
    return Timing(relative=Relative(compile_expression("data.date"), offset_s), date=date)


@pytest.mark.parametrize(
    ("timing", "codes", "at_s"),
    [
        (Timing(), ["time_now"], None),
        (Timing(delay_s=60), ["time_delayed"], NOW + 60),
        (Timing(send_at_s=NOW + 5), ["time_send_at"], NOW + 5),
        (Timing(send_at_s=NOW - 5), ["time_send_at"], None),
        (relative("2026-03-12T13:00:00+01:00", -DAY), ["time_relative"], NOW + DAY),
        (relative("2026-03-12T13:00:00", -DAY), ["time_relative"], NOW + DAY),
        (relative("2026-03-10T11:00:00Z", 0), ["time_relative"], None),
        (relative(None, 0), ["time_missing"], None),
        (relative("soon", 0), ["time_missing"], None),
        (relative("2999-01-01", 0), ["time_missing"], None),
        (Timing(window=MORNING), ["time_window"], NOW + 20 * 3600),
        (Timing(delay_s=DAY - 3 * 3600, window=MORNING), ["time_delayed"], NOW + DAY - 3 * 3600),
    ],
)
def test_each_kind_of_time_has_its_code(timing: Timing, codes: list[str], at_s: float | None) -> None:
    assert decided(timing)[:2] == (codes, at_s)


def test_quiet_hours_come_after_the_delay_and_on_the_persons_clock() -> None:
    assert decided(Timing(delay_s=10 * 3600), NIGHT)[:2] == (["time_delayed", "time_quiet_hours"], NOW + 18 * 3600)


def test_what_is_critical_passes_both() -> None:
    late = Timing(delay_s=10 * 3600, window=MORNING)

    assert decided(late, NIGHT, critical=True)[:2] == (["time_delayed", "time_critical"], NOW + 10 * 3600)
    assert decided(Timing(), NIGHT, critical=True)[:2] == (["time_now"], None)


def test_it_expires_after_the_moment_it_was_meant_for_and_not_after_the_one_it_was_put_off_to() -> None:
    assert decided(Timing(delay_s=60, expires_in_s=600)) == (["time_delayed"], NOW + 60, NOW + 660)
    assert decided(Timing(window=MORNING, expires_in_s=3600))[0] == ["time_window", "time_expired"]
    assert decided(Timing(relative=relative("x", 0).relative, date="2026-03-10T11:00:00Z", expires_in_s=1800))[0] == [
        "time_relative",
        "time_expired",
    ]
    assert decided(Timing(expires_at_s=NOW))[0] == ["time_expired"]
    assert Code.TIME_EXPIRED.value == "time_expired"


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("2026-03-29T02:30:00", datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),  # jumped over: as if the clocks had not changed yet
        ("2026-10-25T02:30:00", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),  # comes twice: the first
        ("2026-03-10", datetime(2026, 3, 9, 23, tzinfo=UTC)),
        (1_773_144_000, datetime(2026, 3, 10, 12, tzinfo=UTC)),
    ],
)
def test_a_date_without_an_offset_is_read_on_the_recipients_clock(value: Any, meant: datetime) -> None:
    assert instant_of(value, BERLIN) == meant.timestamp()


@pytest.mark.parametrize("value", [None, True, "", "12:00", "2026-13-01", "0001-01-01T00:00:00", -1, 1e300, [], "x" * 50])
def test_what_is_no_date_is_none(value: Any) -> None:
    assert instant_of(value, BERLIN) is None
