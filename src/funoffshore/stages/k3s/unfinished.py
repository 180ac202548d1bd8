"""What was begun with K3s and has not ended: until it has, nobody else may start, stop or join a node."""

from __future__ import annotations

from funoffshore.config import ClusterConfig
from funoffshore.errors import FoError
from funoffshore.stages.k3s import restore, rotation


def begun(config: ClusterConfig) -> tuple[FoError, ...]:
    """The problems that a restore or a rotation of tokens in the middle is to everybody else; reads only our disk."""
    return tuple(problem for problem in (restore.problem(config.state), rotation.problem(config)) if problem)
