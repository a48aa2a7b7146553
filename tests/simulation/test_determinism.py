"""A seed that can not be replayed is worth nothing: the same seed must run the same way, in any process, on any day."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio._core._run as scheduler

from system_plan import run_seed
from system_trio import UnknownTrio, check_seams

ROOT = Path(__file__).parent.parent.parent
SEEDS = (3, 5, 11)
PRINT = (
    f"import sys; sys.path[:0] = ['.', 'http', 'tests']; from system_plan import run_seed; "
    f"print(*[run_seed(seed).digest for seed in {SEEDS}])"
)


def digests(hash_seed: str) -> list[str]:
    """The traces of some seeds as another process with other hashes sees them."""
    run = subprocess.run(
        [sys.executable, "-c", PRINT], cwd=ROOT, env={"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
    )
    return run.stdout.split()


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    first, again = run_seed(3, trace=True), run_seed(3, trace=True)

    assert first == again
    assert len(first.lines) > 100
    assert run_seed(4).digest != first.digest


def test_neither_the_process_nor_the_hashes_of_strings_decide_anything() -> None:
    here = [run_seed(seed).digest for seed in SEEDS]

    assert digests("1") == here
    assert digests("4242") == here


@pytest.mark.parametrize("name", ["_ALLOW_DETERMINISTIC_SCHEDULING", "_r"])
def test_a_trio_that_renames_what_orders_its_tasks_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_seams()
    monkeypatch.delattr(scheduler, name)

    with pytest.raises(UnknownTrio, match="system_trio"):
        check_seams()


def test_the_replay_command_ends_well_for_a_seed_that_holds() -> None:
    run = subprocess.run(
        [sys.executable, "tests/simulation/replay.py", "3"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr
    assert run_seed(3).digest in run.stdout.splitlines()[-1]
