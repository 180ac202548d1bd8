"""Kills ``fo`` two hundred times (or as often as is said) beside strangers' VMs, and says what became of them.

Usage: python bench/kills.py [KILLS] [SEED]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from operator_kills import chaos


def main() -> None:
    """Ends with a traceback as soon as a stranger was touched or something was made twice."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fo-bench-") as folder:
        made = chaos(Path(folder), kills, seed)
    print(
        f"{made.killed} kills, {made.ended} runs that ended by themselves, {time.monotonic() - start:.0f} s: "
        f"{len(made.strangers)} strangers' VMs byte-identical, nothing of ours made twice, nothing of ours left"
    )


if __name__ == "__main__":
    main()
