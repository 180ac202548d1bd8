"""What else holds a node up, when its journal does not say: closed ports between hosts, images that do not come."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.config.model import Role as NodeRole
from funoffshore.reading import Present
from funoffshore.world.ssh import Look

if TYPE_CHECKING:
    from funoffshore.world import kube
    from funoffshore.world.world import World

API, ETCD = 6443, (2379, 2380)
"""TCP ports of K3s documentation, "Inbound Rules for K3s Nodes"."""
_STUCK = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")


def between(world: World, config: ClusterConfig, node: Node) -> str:
    """Names the first server that ``node`` cannot reach although the server listens; empty when there is none.

    A port that nobody listens on is no obstacle in between, so the servers are asked what they listen on.
    """
    others = [one for one in config.controllers if one != node]
    ports = (API, *ETCD) if node.role is NodeRole.CONTROLLER else (API,)
    wanted = tuple((str(one.address), port) for one in others for port in ports)
    if not wanted:
        return ""
    nothing = Look(files=(), units=(), commands=(), space=(), file_systems=())
    seen = world.hosts.observe(node, dataclasses.replace(nothing, connect=wanted))
    if not isinstance(seen, Present):
        return ""
    listening = world.hosts.observe_all(others, nothing)
    for one in others:
        host = listening.get(one.name)
        if not isinstance(host, Present):
            continue
        for port in ports:
            tried = seen.value.connect.get(f"{one.address}:{port}")
            if isinstance(tried, Present) and not tried.value.open and port in host.value.listening:
                said = f"{node.name} cannot reach {one.name} on TCP {port} ({tried.value.said})"
                return f"{said}, although it listens there: look for a firewall between them"
    return ""


def of_images(api: kube.Kube, namespace: str) -> str:
    """The first pod of ``namespace`` whose image does not come; empty when there is none, or nobody can tell."""
    try:
        pods = api.list("v1/Pod", namespace)
    except errors.FoError:
        return ""
    for pod in pods.value if isinstance(pods, Present) else []:
        for status in (pod.get("status") or {}).get("containerStatuses") or []:
            waiting = (status.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in _STUCK:
                name = pod["metadata"]["name"]
                return f"the image {status.get('image')} of {name} cannot be pulled ({waiting['reason']})"
    return ""
