"""Run seeds of the simulation again, each with its whole trace: ``python tests/simulation/replay.py 1234``.

``--quiet`` leaves the trace out, and ``1-1000`` is a range. Ends with 1 if a rule was broken. The trace holds times, operations,
ids and states, so that two of them can be compared line by line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("", "http", "tests")]

from system_plan import run_seed  # noqa: E402


def seeds_of(text: str) -> range:
    """``7`` or ``7-9``."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    """Replay what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seeds", nargs="+", type=seeds_of, help="a seed such as 7, or a range such as 7-9")
    parser.add_argument("--quiet", action="store_true", help="only what was broken")
    arguments = parser.parse_args()
    out, failed = sys.stdout.write, False
    for seed in (seed for seeds in arguments.seeds for seed in seeds):
        report = run_seed(seed, trace=not arguments.quiet)
        for line in report.lines:
            out(line + "\n")
        for line in report.broken:
            out(f"seed {seed}: {line}\n")
        if not arguments.quiet or report.broken:
            out(
                f"seed {seed}: {len(report.broken)} rules broken, {report.notifications} notifications, {report.calls} calls, "
                f"{report.virtual_s:.0f} virtual seconds, trace {report.digest}\n"
            )
        failed = failed or bool(report.broken)
    return failed


if __name__ == "__main__":
    sys.exit(main())
