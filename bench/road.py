"""Prints the numbers of the road, medians of RUNS. Nothing is asserted: machines are noisy.

Usage: python bench/road.py [--quick]
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from operator_home import Operator

from funoffshore import journal, run, timeline

QUICK = "--quick" in sys.argv
RUNS = 1 if QUICK else 5


def main() -> None:
    """All of them, from quick to slow."""
    with tempfile.TemporaryDirectory(prefix="fo-bench-") as folder:
        home = Operator(Path(folder) / "home")
        if "--only-large" in sys.argv:
            realistic(5, 50, 4, 8)
            return
        show("fo --help, CPU", "ms", lambda: 1000 * cpu(home, "--help"))
        show("fo status, CPU", "ms", lambda: 1000 * cpu(home, "status"))
        show("3+2 without latency, from nothing", "s", lambda: fresh(home))
        before = home.mutations()
        show("3+2 second run", "s", lambda: wall(home, "bootstrap"))
        print(f"{'mutating calls of the second runs':48} {home.mutations() - before}")
        show("fo postcheck, 3+2", "s", lambda: wall(home, "postcheck"))
    for workers, controllers, speed, imports in ((2, 3, 10, 3), (10, 3, 10, 3), (50, 5, 4, 3), (50, 5, 4, 8)):
        realistic(controllers, workers, speed, imports)


def show(what: str, unit: str, measure: Callable[[], float]) -> None:
    """Measures RUNS times and prints the median."""
    values = [measure() for _ in range(RUNS)]
    print(
        f"{what:48} {statistics.median(values):8.2f} {unit}   (of {', '.join(f'{v:.2f}' for v in values)})", flush=True
    )


def cpu(home: Operator, *argv: str) -> float:
    """CPU seconds of one command, imports and all."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    home.fo(*argv)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def wall(home: Operator, *argv: str) -> float:
    """Seconds of one command that must end well."""
    start = time.monotonic()
    ended = home.fo(*argv, timeout=900)
    if ended.code:
        raise SystemExit(f"fo {' '.join(argv)} ended with {ended.code}:\n{ended.err}")
    return time.monotonic() - start


def fresh(home: Operator) -> float:
    """Seconds of a bootstrap from an empty Proxmox."""
    home.fo("lab", "reset", "--yes")
    return wall(home, "bootstrap")


def realistic(controllers: int, workers: int, speed: float, imports: int) -> None:
    """Elapsed against the critical path, and fo's own memory, with the lab in a process of its own."""
    paths, ratios, peaks = [], [], []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory(prefix="fo-bench-") as folder:
            home = Operator(Path(folder) / "home", CONTROLLERS=controllers, WORKERS=workers, STORAGE_PARALLEL=imports)
            path, ratio, peak = _served(home, speed, imports)
        paths.append(path)
        ratios.append(ratio)
        peaks.append(peak)
    name = f"{controllers}+{workers} realistic, {imports} imports"
    print(f"{name + ', elapsed / longest path':48} {statistics.median(paths):8.3f}")
    print(f"{name + ', elapsed / path within the lanes':48} {statistics.median(ratios):8.3f}")
    print(f"{name + ', peak memory of fo':48} {statistics.median(peaks):8.0f} MB", flush=True)


def _served(home: Operator, speed: float, imports: int) -> tuple[float, float, float]:
    with home.start("lab", "serve", "--latency", "realistic", "--speed", str(speed)) as lab:
        while not (home.lab / "running.json").exists():
            time.sleep(0.05)
        try:
            with home.start("bootstrap", "--until", "flux") as fo:
                talk = fo.stderr.read() if fo.stderr else ""
                _, code, usage = os.wait4(fo.pid, 0)
                fo.returncode = os.waitstatus_to_exitcode(code)
            if fo.returncode:
                raise SystemExit(f"bootstrap ended with {fo.returncode}:\n{talk}")
        finally:
            lab.terminate()
            lab.communicate()
    spans = timeline.spans(journal.read(journal.runs(home.lab / "state")[-1]))
    elapsed = max(s.end for s in spans) - min(s.start for s in spans)
    path, lanes = (
        timeline.critical_path(spans).seconds,
        timeline.lane_bound(spans, {**run.CAPACITY, "storage": imports}),
    )
    print(
        f"  {len(spans)} actions in lab seconds: elapsed {elapsed:.1f}, longest path {path:.1f}, lanes need {lanes:.1f}"
    )
    return elapsed / path, elapsed / max(path, lanes), usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
