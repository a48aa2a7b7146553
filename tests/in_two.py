"""All tests, in two runs side by side: what needs servers of its own beside what mostly computes. ``make test`` calls it.

Half of the time that tests with servers take is waiting, and the other half is one processor's. So everything else is tested
meanwhile, in a run of lower priority: tests that speak to servers have deadlines to meet. What the second run says follows the
first. Both count for the coverage, and both have to be well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from beside import NICENESS

ROOT = Path(__file__).parent.parent
ASIDE = ("tests/core", "tests/simulation", "tests/soak", "tests/test_tidy.py")
"""What is tested in the second run; the soak waits for programs that it starts, and none of its waits is judged."""
COVERED = ("--cov", "--cov-report=", "--cov-fail-under=0")


def begin(data: Path, *arguments: str, output: int | None = None, niceness: int = 0) -> subprocess.Popen[bytes]:
    """Begin a run, whose coverage is written into ``data``."""
    command = ["nice", "-n", str(niceness), sys.executable, "-m", "pytest", *COVERED, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"COVERAGE_FILE": str(data)}, stdout=output, stderr=output)


def covered(*arguments: str) -> int:
    """What the tool for coverage says."""
    return subprocess.run([sys.executable, "-m", "coverage", *arguments], cwd=ROOT, check=False).returncode


def main() -> int:
    """Run everything, then say what was covered; returns the status of the process."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        data = [Path(folder) / name for name in ("aside", "servers")]
        aside = begin(data[0], "-q", *ASIDE, output=said.fileno(), niceness=NICENESS)
        servers = begin(data[1], *(f"--ignore={path}" for path in ASIDE))
        try:
            statuses = [servers.wait(), aside.wait()]
        except KeyboardInterrupt:  # a terminal interrupts the runs as well: they end on their own, and say where they were
            return max(130, servers.wait(), aside.wait())
        said.seek(0)
        sys.stdout.write(f"\n=== Beside: {' '.join(ASIDE)}\n{said.read().decode(errors='replace')}")
        sys.stdout.flush()
        combined = covered("combine", *(str(path) for path in data if path.exists()))
        reported = covered("report")
    return max(*map(abs, statuses), combined, reported)


if __name__ == "__main__":
    sys.exit(main())
