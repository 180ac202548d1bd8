"""``fo kubeconfig``: the way to the API for the operator's own tools."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from funoffshore import errors
from funoffshore.cli import common


def kubeconfig(
    cluster: common.Cluster = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Also put it into your own kubeconfig ($KUBECONFIG, else ~/.kube/config).")
    ] = False,
) -> None:
    """Fetch the administrator's kubeconfig, prove that it opens the API, and print where it lies (0600).

    Its cluster, user and context bear the cluster's name. --merge replaces what bears that name in your own and
    leaves everything else, your current context too.

    Example: fo kubeconfig -c home --merge
    """
    from funoffshore import kubeconfig as kubeconfigs
    from funoffshore import lock
    from funoffshore.stages import k3s

    config = common.load(cluster)
    with lock.hold(config.state, "fo kubeconfig"), common.world(config) as world:
        k3s.fetch(world, config, common.Said())
        if merge:
            target = own()
            kubeconfigs.merge(config.kubeconfig, target)
            common.say(f"{target} has the context {config.name} now: kubectl --context {config.name} get nodes")
    print(config.kubeconfig)


def own() -> Path:
    """The operator's own kubeconfig, as kubectl would write it: the first of $KUBECONFIG, else ~/.kube/config."""
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    if listed and not Path(listed[0]).is_absolute():
        raise errors.ConfigError("$KUBECONFIG is a relative path", fix="make it absolute")
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"
