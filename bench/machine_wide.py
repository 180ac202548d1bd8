"""Settings of this machine's kernel that the bench's machines change, as they share it: kept before, put back after."""

from __future__ import annotations

import json
from pathlib import Path

SHARED = (
    "fs/inotify/max_user_instances", "fs/inotify/max_user_watches", "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys", "kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom",
    "net/netfilter/nf_conntrack_max",
)  # fmt: skip
"""Written by fo's seed and by the kubelet; not kept apart by namespaces."""
NEEDED = {"fs/inotify/max_user_instances": 8192, "fs/inotify/max_user_watches": 524288}
"""Five machines with systemd and containers share one user's limits."""
_PROC = Path("/proc/sys")


def keep(file: Path) -> None:
    """Writes down what is set now, unless a last run's note is still there, and sets what the machines need."""
    if not file.exists():
        now = {name: (_PROC / name).read_text().strip() for name in SHARED if (_PROC / name).exists()}
        file.write_text(json.dumps(now))
    for name, least in NEEDED.items():
        if int((_PROC / name).read_text()) < least:
            (_PROC / name).write_text(str(least))


def restore(file: Path) -> None:
    """Puts everything back as the note says, and removes the note."""
    if not file.exists():
        return
    for name, value in json.loads(file.read_text()).items():
        if (_PROC / name).exists() and (_PROC / name).read_text().strip() != value:
            (_PROC / name).write_text(value)
    file.unlink()
