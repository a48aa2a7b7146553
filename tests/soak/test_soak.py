"""A short soak with everything in it, and what holds the long one together: the plan, the pulse, an independent judge."""

from __future__ import annotations

import ast
import json
import sys
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import trio
from click.testing import CliRunner

from soak.__main__ import main
from soak.plan import DECK, GAP_MAX_S, GAP_MIN_S, Kind, deal, faults
from soak.processes import PYTHONPATH
from soak.pulse import rates, recovery_s

FOLDER = Path(__file__).parent
LONGEST_S = 170
"""Just under what ends a test that hangs."""


async def test_nothing_is_lost_or_doubled_however_processes_and_servers_die() -> None:
    """Every kind of fault, a dozen kills, real processes (scenarios 3, 4, 5, 7, 12, 13, 14, 16, 19, 21, 35)."""
    seed = Random().randrange(1_000_000)
    command = [
        "-m",
        "soak",
        "--kills",
        "12",
        "--minutes",
        "1.5",
        "--pace",
        "0.4",
        "--rate",
        "60",
        "--seed",
        str(seed),
        "--json",
        "--recovery-unjudged",
    ]
    with trio.fail_after(LONGEST_S):
        done = await trio.run_process(
            [sys.executable, *command],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": PYTHONPATH},
            cwd="/",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    said = f"{done.stdout.decode()}\n{done.stderr.decode()}\nreplay with: python {' '.join(command)}"
    assert done.returncode == 0, said

    outcome = json.loads(done.stdout)
    assert outcome["sound"], said
    assert outcome["findings"]["accepted"] > 0, said
    assert outcome["quiet_after_s"] is not None, said
    assert outcome["findings"]["doubled_without_key"] == outcome["findings"]["doubles_marked"], said
    assert outcome["rejected"] == {}, said


def test_a_seed_deals_the_same_faults_and_every_deck_has_every_kind() -> None:
    first, again, other = (list(islice(faults(seed), 200)) for seed in (1, 1, 2))

    assert first == again != other
    assert all(GAP_MIN_S <= fault.gap_s <= GAP_MAX_S for fault in first)
    assert sorted(deal(Random(1), 3)) == sorted(kind for kind, count in DECK.items() for _ in range(count))
    assert {fault.kind for fault in first[: sum(DECK.values())]} == set(Kind)
    assert {fault.kind for fault in islice(faults(1, only=[Kind.KILL, Kind.TERM]), 50)} == {Kind.KILL, Kind.TERM}


def test_recovery_is_the_start_of_the_first_window_as_good_as_before() -> None:
    """Ten a second; nothing for three seconds from second 20 on; then as before."""
    seconds = [i / 4 for i in range(160)]
    samples = [(at, round(10 * (at if at < 20 else max(20, at - 3)))) for at in seconds]

    assert recovery_s(rates(samples), 20.0) == pytest.approx(3, abs=0.3)
    assert recovery_s(rates(samples), 10.0) == 0
    assert recovery_s(rates([*samples[:80], *((at, 200) for at in seconds[80:])]), 20.0) is None


@pytest.mark.parametrize("name", ["verdict.py", "checker.py"])
def test_the_judge_imports_nothing_of_what_it_judges(name: str) -> None:
    imported = set()
    for node in ast.walk(ast.parse((FOLDER / name).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")

    ours = {module for module in imported if not module.startswith("soak.")}
    assert {module.split(".")[0] for module in ours} & {"dispatcher", "actors", "dispatcher_http", "dispatcher_sandbox"} == set()
    assert {module for module in imported if module.startswith("soak.")} <= {"soak.verdict"}


def test_it_says_what_it_can_do() -> None:
    said = CliRunner().invoke(main, ["--help"])

    assert said.exit_code == 0
    assert all(option in said.output for option in ("--minutes", "--kills", "--seed", "--processes", "--json"))
