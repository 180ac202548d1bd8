"""Which Proxmox nodes there are, which of them are up, and whether the cluster has a quorum. Kept in the store.

Facts from pve-cluster ``PVE/Cluster.pm`` and pve-http-server ``PVE/APIServer/AnyEvent.pm`` (a proxied call to a peer
that does not answer is 595, its only text the reason phrase).
"""

from __future__ import annotations

from typing import Any

from funoffshore.lab.base import Kit
from funoffshore.lab.pve.refusal import RefusalError, die, silent

_BUCKET = "pve/node"
MEMORY = 2 << 40
"""Bytes that a node has unless told otherwise."""
_LOCAL = ("/status/", "/agent/", "/tasks/", "/upload", "/download-url", "/content", "/vzdump")
"""Parts of the paths of operations that need no quorum to begin; what their tasks say is another matter."""
NO_QUORUM = "cluster not ready - no quorum?"


class Cluster:
    """The nodes of the lab's Proxmox. The first one is the one that the API's address belongs to."""

    def __init__(self, kit: Kit, nodes: tuple[str, ...]) -> None:
        self._kit = kit
        self.nodes = nodes
        self._known: dict[str, dict[str, Any]] = dict(kit.store.scan(_BUCKET))

    @property
    def local(self) -> str:
        """The node that answers."""
        return self.nodes[0]

    @property
    def quorate(self) -> bool:
        """Whether more than half of the nodes are up."""
        return 2 * sum(self.online(node) for node in self.nodes) > len(self.nodes)

    def online(self, node: str) -> bool:
        return "down" not in self._known.get(node, {})

    def take_down(self, node: str, why: str) -> None:
        """The node is gone; calls for it end with 595 and ``why``. Raises ValueError for the one that answers."""
        self._check(node)
        if node == self.local:
            raise ValueError(f"{node} is the node that answers: stop the API instead")
        self._put(node, down=why)

    def bring_up(self, node: str) -> None:
        self._check(node)
        self._known.setdefault(node, {}).pop("down", None)
        self._put(node)

    def set_memory(self, node: str, total: int, used: int | None) -> None:
        """Bytes. ``used`` None: what the machines that run there use, and the system."""
        self._check(node)
        self._put(node, total=total, used=used)

    def memory(self, node: str, guests: int) -> tuple[int, int]:
        """Total and used bytes; ``guests`` is what the machines that run there use."""
        known = self._known.get(node, {})
        used = known.get("used")
        return int(known.get("total", MEMORY)), int((2 << 30) + guests if used is None else used)

    def unreachable(self, node: str) -> RefusalError | None:
        """How a call that has to be made by ``node`` fails; None when it does not."""
        if node not in (*self.nodes, "localhost"):
            text = f"hostname lookup '{node}' failed - failed to get address info for: {node}: "
            return die(f"{text}Temporary failure in name resolution")
        why = self._known.get(node, {}).get("down")
        return None if why is None else silent(595, why)

    def need_quorum(self, method: str, path: str) -> None:
        """Refuses with 500 an operation that has to write to /etc/pve while that cannot be written."""
        if method != "GET" and not self.quorate and not any(part in path for part in _LOCAL):
            raise die(NO_QUORUM)

    def _check(self, node: str) -> None:
        if node not in self.nodes:
            raise ValueError(f"no node {node}: {', '.join(self.nodes)}")

    def _put(self, node: str, **what: Any) -> None:
        self._known[node] = {**self._known.get(node, {}), **what}
        self._kit.store.put(_BUCKET, node, self._known[node])
