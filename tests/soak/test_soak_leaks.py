"""The leak check: its arithmetic tells what grows from what only moves, and it runs."""

from __future__ import annotations

import subprocess
import sys
from math import inf, sin
from random import Random

import pytest

from soak.leaks import ENOUGH_MIN, last_line
from soak.processes import PYTHONPATH
from soak.slope import START_UP_S, Verdict, after_start_up, fit

HOUR = [10.0 * i for i in range(360)]
DICE = Random(1)
NOISE = [DICE.gauss(0, 1) for _ in HOUR]


def series(per_hour: float, noise: float = 1.0) -> list[tuple[float, float]]:
    return [(at, 100 + per_hour * at / 3600 + noise * wobble) for at, wobble in zip(HOUR, NOISE, strict=True)]


@pytest.mark.parametrize("per_hour", [0.0, 20.0, -20.0])
def test_a_slope_is_found_within_its_error(per_hour: float) -> None:
    slope = fit(series(per_hour))

    assert abs(slope.per_hour - per_hour) <= slope.error < 1


def test_what_grows_rises_and_what_does_not_is_flat() -> None:
    assert fit(series(20)).verdict(6) is Verdict.RISING
    assert fit(series(2)).verdict(6) is Verdict.FLAT
    assert fit(series(-20)).verdict(6) is Verdict.FLAT
    assert fit([(at, 5.0) for at in HOUR]).verdict(0) is Verdict.FLAT


def test_what_is_too_short_or_too_noisy_is_undecided() -> None:
    assert fit(series(2, noise=60)).verdict(6) is Verdict.UNDECIDED
    assert fit(series(2)[:5]).verdict(6) is Verdict.UNDECIDED
    assert fit([]).error == inf


def test_samples_that_resemble_their_neighbours_make_it_less_sure() -> None:
    waves = [(at, 100 + sin(at / 300)) for at in HOUR]
    shuffled = [value for _, value in waves]
    Random(1).shuffle(shuffled)

    assert fit(waves).error > 3 * fit(list(zip(HOUR, shuffled, strict=True))).error


def test_the_start_is_cut_off() -> None:
    """A cache that fills within ten minutes is no leak."""
    filling = [(at, min(at, 600) / 10) for at in HOUR]

    assert fit(filling).verdict(6) is not Verdict.FLAT
    assert fit(after_start_up(filling)).verdict(6) is Verdict.FLAT
    assert after_start_up(filling[:10])[0][0] == START_UP_S
    assert list(after_start_up([])) == []


@pytest.mark.parametrize(
    ("verdicts", "broken", "minutes", "says", "sound"),
    [
        ({Verdict.FLAT}, False, 0.1, "sound", True),
        ({Verdict.FLAT, Verdict.UNDECIDED}, False, ENOUGH_MIN - 1, "too short to tell", True),
        ({Verdict.FLAT, Verdict.UNDECIDED}, False, ENOUGH_MIN, "UNDECIDED after 45 minutes", False),
        ({Verdict.UNDECIDED, Verdict.RISING}, False, 0.1, "NOT SOUND", False),
        ({Verdict.FLAT}, True, 60.0, "NOT SOUND", False),
        ({Verdict.UNDECIDED}, True, 0.1, "NOT SOUND", False),
    ],
)
def test_what_is_undecided_after_long_enough_is_no_success(
    verdicts: set[Verdict], broken: bool, minutes: float, says: str, sound: bool
) -> None:
    words, ends_well = last_line(verdicts, broken, minutes)

    assert words.startswith(says)
    assert ends_well is sound


def test_it_looks_at_everything_and_finds_no_place_lost() -> None:
    """Seconds only: too short for a slope, long enough to lose a place."""
    done = subprocess.run(
        [sys.executable, "-m", "soak.leaks", "--minutes", "0.1"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=150,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "\ntoo short to tell: nothing is broken" in done.stdout
    names = ("memory", "open files beside them", "connections at Postgres", "calls under way", "listeners", "organizations awake")
    assert all(f"\n{name} (" in done.stdout for name in names), done.stdout
