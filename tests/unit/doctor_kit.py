"""Facts about bare hosts, for tests of what is wrong with them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from pydantic import SecretStr

from funoffshore.doctor import clusters, hosts
from funoffshore.reading import Absent, Present
from funoffshore.world.ssh import FileFact, HostFacts, Space


def text(content: str) -> Present[FileFact]:
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return Present(FileFact("file", 0o600, "0:0", len(content), sha256, SecretStr(content)))


def host(number: int = 1, **changed: Any) -> HostFacts:
    """A bare Debian that nothing is wrong with."""
    files = {
        hosts.MACHINE_ID: text(f"{number:032x}\n"), clusters.TOKEN: Absent(), clusters.SQLITE: Absent(),
        clusters.AGENT_CA: Absent(), **changed.pop("files", {}),
    }  # fmt: skip
    whole = HostFacts(
        hostname=f"host{number}", uuid=f"0000-{number}", boot_id="b", arch="x86_64", os="debian 12", kernel="6.1",
        clock_skew=0.1, clock_synced=True, cloud_init="absent", memory_mib=8192, swap_mib=0, cpus=4, cgroup2=True,
        default_route="10.0.0.1", listening=frozenset({22}), files=files,
        units={"k3s.service": Absent(), "k3s-agent.service": Absent()},
        space={hosts.DATA: Present(Space(50 << 30, 1_000_000))}, systemd=True, memory_cgroup=True,
    )  # fmt: skip
    return replace(whole, **changed)
