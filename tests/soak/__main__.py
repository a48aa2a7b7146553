"""``python -m soak`` (with ``.:http:tests`` on the path; ``make soak`` does that): break everything for a while, then count.

Ends with 0 when nothing was lost, nothing doubled where keys are honoured, every other double marked and explained, every
transition legal, nothing left over, and what was asked for reached; else with 1.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
import trio

from soak.plan import Kind
from soak.report import document, header, table
from soak.run import Options, run


def base() -> Path | None:
    """Servers in memory, if there is room: a soak is about processes that die, not about disks."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30 else None


@click.command("soak")
@click.option("--minutes", default=5.0, show_default=True, help="How long things go wrong; the end waits for mending.")
@click.option("--kills", type=int, help="Stop after so many kills; with fewer in all the minutes it fails.")
@click.option("--seed", type=int, help="Deals the same faults again. Default: a new one, which is printed.")
@click.option("--processes", default=3, show_default=True, help="Dispatchers at the same time.")
@click.option("--organizations", default=6, show_default=True, help="Half of them at a provider that honours keys.")
@click.option("--rate", default=100.0, show_default=True, help="Notifications per second.")
@click.option("--pace", default=1.0, show_default=True, help="Multiplies the pauses between faults.")
@click.option(
    "--only", type=click.Choice([kind.name.lower() for kind in Kind]), multiple=True, help="Leave out all other faults."
)
@click.option("--recovery-unjudged", is_flag=True, help="Slow recoveries are no fault: for a machine that is busy otherwise.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep logs and the producers' book there.")
@click.option("--json", "as_json", is_flag=True, help="Print a document instead of the table.")
def main(
    minutes: float,
    kills: int | None,
    seed: int | None,
    processes: int,
    organizations: int,
    rate: float,
    pace: float,
    only: Sequence[str],
    recovery_unjudged: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Kill, stop and confuse real dispatcher processes and their servers, then check from outside what became of everything."""
    options = Options(
        seed=secrets.randbelow(1_000_000) if seed is None else seed,
        minutes=minutes,
        kills_max=float("inf") if kills is None else kills,
        processes=processes,
        organizations=organizations,
        rate_per_s=rate,
        pace=pace,
        only=[kind for kind in Kind if kind.name.lower() in only],
        judge_recovery=not recovery_unjudged,
    )
    print(header(options), file=sys.stderr if as_json else sys.stdout, flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=base(), ignore_cleanup_errors=True) as temporary:
        place = Path(temporary)
        try:
            outcome = trio.run(partial(run, options, place))
        finally:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                for file in [*place.glob("*.log"), *place.glob("*.jsonl")]:
                    shutil.copy(file, folder)
    print(document(outcome) if as_json else table(outcome))
    sys.exit(0 if outcome.sound else 1)


if __name__ == "__main__":
    main()
