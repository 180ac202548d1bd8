"""Which components a cluster is expected to have; light, for the gate asks it without any world."""

from __future__ import annotations

from funoffshore import stage1
from funoffshore.config import ClusterConfig


def wanted(config: ClusterConfig) -> tuple[stage1.Component, ...]:
    """The Stage 1 components that are not switched off in ``config``."""
    return tuple(c for c in stage1.COMPONENTS if c.switch is None or config.switches.get(c.switch, False))


def components(config: ClusterConfig) -> tuple[str, ...]:
    """The IDs of ``wanted``."""
    return tuple(c.id for c in wanted(config))
