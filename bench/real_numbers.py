"""Prints the numbers of the bench: what it takes to build, and the road on real servers. Nothing is asserted.

Usage: python -m bench.real_numbers
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from bench import control, paths
from bench.hosts import cgroup, names
from funoffshore import journal, timeline

for _folder in ("tests", "tests/real"):
    sys.path.insert(0, str(paths.project() / _folder))

SERVERS = (
    "kube-apiserver", "apiserver", "kube-controller-manager", "controller-manager", "kube-scheduler", "scheduler",
    "kubelet", "kube-proxy", "proxy", "etcd", "containerd", "k3s", "source-controller", "kustomize-controller",
    "helm-controller", "notification-controller", "coredns",
)  # fmt: skip


def main() -> None:
    """All of them; minutes."""
    if why := control.obstacles():
        print(f"the bench's numbers cannot be had here: {'; '.join(why)}")
        return
    began = time.monotonic()
    control.prepare(lambda line: print(f"  {line}", flush=True))
    line("building what was missing (cold: all; warm: nothing)", time.monotonic() - began, "s")
    sizes()
    with control.alone():
        try:
            began = time.monotonic()
            control.up()
            line("bench up: namespaces, Proxmox, name server, internet", time.monotonic() - began, "s")
            with tempfile.TemporaryDirectory(prefix="fo-bench-") as folder:
                road(Path(folder) / "home")
        finally:
            control.down()


def line(what: str, number: float, unit: str) -> None:
    print(f"{what:56} {number:9.2f} {unit}", flush=True)


def sizes() -> None:
    """Of what was built."""
    from bench import build

    for name in build.NAMES:
        line(f"size of {name}", build.binary(name).stat().st_size / 1e6, "MB")
    for image in (paths.cache() / "image").glob("*.qcow2"):
        line("size of the Debian image", image.stat().st_size / 1e6, "MB")


def road(folder: Path) -> None:
    """3+2 from nothing, and again."""
    from real_home import RealOperator

    operator = RealOperator(folder)
    for what in ("from nothing", "second run"):
        elapsed, cpu, peak = run(operator)
        line(f"3+2 {what}: elapsed", elapsed, "s")
        line(f"3+2 {what}: fo's own CPU", cpu, "s")
        line(f"3+2 {what}: fo's own share of the elapsed time", 100 * cpu / elapsed, "%")
        line(f"3+2 {what}: peak memory of fo", peak, "MB")
        stages(timeline.spans(journal.read(journal.runs(folder / "ai" / "state")[-1])), elapsed)
    for name, found in sorted(resident().items()):
        line(f"resident: {name}, each ({len(found)} of it)", sum(found) / len(found), "MB")


def run(operator: object) -> tuple[float, float, float]:
    """One bootstrap that must end well: seconds, CPU seconds, and peak MB of ``fo`` alone."""
    from real_home import RealOperator

    assert isinstance(operator, RealOperator)  # noqa: S101 - for the type checker; the import is late
    began = time.monotonic()
    with operator.start("bootstrap") as process:
        said = process.stderr.read() if process.stderr else ""
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise SystemExit(f"bootstrap ended with {process.returncode}:\n{said[-4000:]}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def stages(spans: list[timeline.Span], elapsed: float) -> None:
    """Time of each stage, from its first action to its last, and what was between the actions."""
    if not spans:
        return
    by_stage: dict[str, list[timeline.Span]] = defaultdict(list)
    for span in spans:
        by_stage[span.stage].append(span)
    for stage, found in by_stage.items():
        line(f"  stage {stage}", max(s.end for s in found) - min(s.start for s in found), "s")
    line("  looking, planning, verifying: not within any action", elapsed - covered(spans), "s")


def covered(spans: Iterable[timeline.Span]) -> float:
    """Seconds in which at least one action was at work."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted((span.start, span.end) for span in spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def resident() -> dict[str, list[float]]:
    """Resident MB of the servers on all machines, by program."""
    found: dict[str, list[float]] = defaultdict(list)
    for pid in cgroup.processes(cgroup.hierarchies()[0] / names.CGROUP):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        name = next((Path(word).name for word in words[:2] if Path(word).name in SERVERS), "")
        kib = next((row.split()[1] for row in status.splitlines() if row.startswith("VmRSS")), "0")
        if name:
            found[name.removeprefix("kube-")].append(int(kib) / 1024)
    return found


if __name__ == "__main__":
    main()
