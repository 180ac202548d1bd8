"""The findings of postcheck about lab hosts that run K3s, and how one of them is made to differ."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from k3s_homelab import Homelab

from funoffshore.checks import k3s, k3s_etcd, nodes
from funoffshore.checks.base import Sight
from funoffshore.clock import Clock
from funoffshore.config import ClusterConfig
from funoffshore.findings import Finding, Outcome

PASS, WARN, FAIL, UNKNOWN = Outcome.PASS, Outcome.WARN, Outcome.FAIL, Outcome.UNKNOWN
SERVER = "/var/lib/rancher/k3s/server"
DAY = 86400.0


@dataclass(frozen=True)
class Later:
    """The lab's clock, as somebody sees it who lives later."""

    clock: Clock
    seconds: float

    def now(self) -> float:
        return self.clock.now() + self.seconds

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)


def findings(lab: Homelab, config: ClusterConfig | None = None, later: float = 0.0) -> dict[str, Finding]:
    """Every finding about nodes, K3s and etcd; ``later`` seconds from now."""
    wanted = config or lab.config
    sight = Sight(replace(lab.world, clock=Later(lab.kit.clock, later)), wanted)
    found = [check.ask(sight) for check in (*nodes.CHECKS, *k3s.checks(wanted), *k3s_etcd.CHECKS)]
    assert len({finding.id for finding in found}) == len(found)
    return {finding.id: finding for finding in found}


def told(lab: Homelab, id_: str, config: ClusterConfig | None = None, later: float = 0.0) -> tuple[Outcome, str]:
    """Outcome and all words of one finding."""
    found = findings(lab, config, later)[id_]
    return found.outcome, "\n".join((found.said, *found.evidence, found.fix))


@contextlib.contextmanager
def changed(
    lab: Homelab, host: str, path: str, content: bytes | None = None, mode: int | None = None
) -> Iterator[None]:
    """A file on a host's disk with other bytes or another mode, until the end; None and None: it is gone."""
    files = lab.host(host).files
    real, before = files.path(path), files.stat(path).st_mode & 0o7777
    bytes_ = real.read_bytes() if real.is_file() else b""
    if mode is not None:
        files.chmod(real, mode)
    elif content is None:
        files.unlink(path)
    else:
        files.write(path, content, before)
    try:
        yield
    finally:
        if real.is_dir():
            files.chmod(real, before)
        else:
            files.write(path, bytes_, before)


def k3s_with(lab: Homelab, **values: Any) -> ClusterConfig:
    return replace(lab.config, k3s=replace(lab.config.k3s, **values))


def node_with(lab: Homelab, name: str, **values: Any) -> ClusterConfig:
    return replace(lab.config, nodes=tuple(replace(n, **values) if n.name == name else n for n in lab.config.nodes))
