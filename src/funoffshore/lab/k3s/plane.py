"""One cluster of the lab's K3s: its authorities, its etcd members, the servers that are up, its virtual address."""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from funoffshore.lab.base import Kit
from funoffshore.lab.k3s import nodes, pki, sealed, troubles
from funoffshore.lab.kube.api import Object
from funoffshore.lab.kube.cluster import KubeCluster

if TYPE_CHECKING:
    from funoffshore.lab.k3s.server import Server

BUCKET = "k3s-plane"
SEALED_BUCKET = "k3s-sealed"
"""Identities of databases that nobody had the token for."""
PORT = 6443
GRACE = 40.0
"""Lab seconds without a word from a kubelet until its Node is NotReady."""


class Plane:
    """The control plane of one cluster; kept in the store, so a new process of the lab finds it again."""

    def __init__(self, kit: Kit, identity: str, document: dict[str, Any], doors: Doors) -> None:
        self.kit = kit
        self.identity = identity
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.servers: dict[str, Server] = {}
        """Servers whose etcd is up, by node name."""
        self.kubelets: set[str] = set()
        """Nodes whose kubelet is up."""
        self._silent_since: dict[str, float] = {}
        balancer = "" if document["settings"]["disable-servicelb"] == "true" else str(document["address"])
        self.kube = KubeCluster(
            kit, identity, load_balancer=balancer, ca=document["ca"]["server-ca"]["certificate"],
            version=str(document["version"]),
        )  # fmt: skip
        self._doors = doors
        self._document = document
        self._vip = ""
        self._vip_image = ""
        self._vip_holder: Server | None = None
        self._closed = False
        self.kube.subscribe(self._hear)
        threading.Thread(target=self._finish_deletions, daemon=True).start()

    @classmethod
    def found(cls, kit: Kit, doors: Doors, facts: dict[str, Any]) -> Plane:
        """A new cluster. ``facts``: password, agent_password, settings, version, address, etcd
        (False: SQLite)."""
        identity = "k3s-" + secrets.token_hex(8)
        authorities = {}
        for name in pki.AUTHORITIES:
            pair = pki.authority(name, kit.clock.now())
            authorities[name] = {"certificate": pair.certificate.decode(), "key": pair.key.decode()}
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        document = {**facts, "ca": authorities, "encryption": key, "members": {}, "sans": [],
                    "created": kit.clock.now()}  # fmt: skip
        kit.store.put(BUCKET, identity, document)
        return cls(kit, identity, document, doors)

    def authority(self, name: str) -> pki.Pair:
        """``server-ca``, ``client-ca``, …"""
        kept = self._document["ca"][name]
        return pki.Pair(kept["certificate"].encode(), kept["key"].encode())

    @property
    def ca(self) -> bytes:
        """What ``/cacerts`` serves."""
        return self.authority("server-ca").certificate

    @property
    def password(self) -> str:
        return str(self._document["password"])

    @property
    def agent_password(self) -> str:
        """Equals ``password`` when no agent token was set."""
        return str(self._document["agent_password"] or self.password)

    @property
    def encryption_key(self) -> str:
        """Of secrets at rest, base64; every server has the same."""
        if "encryption" not in self._document:
            self.remember(encryption=base64.b64encode(secrets.token_bytes(32)).decode())
        return str(self._document["encryption"])

    @property
    def created(self) -> float:
        """When its authorities were made, Unix time."""
        return float(self._document.get("created", 0))

    @property
    def superseded(self) -> str:
        """Identity of the cluster that one of its servers was reset into; empty: that never happened."""
        return str((self._document.get("superseded") or {}).get("by", ""))

    @property
    def removed(self) -> bool:
        """Whether that reset was without a snapshot: the same etcd went on, and has put the others out."""
        return bool((self._document.get("superseded") or {}).get("removed"))

    def state(self) -> sealed.State:
        """Everything of the cluster that its datastore holds."""
        with self.lock, self.kube.core.objects.lock:
            return sealed.state_of(self.kit.store, self.identity, json.loads(json.dumps(self._document)))

    def passwords(self) -> str:
        """``cred/passwd``."""
        return f"{self.agent_password},node,node,k3s:agent\n{self.password},server,server,k3s:server\n"

    @property
    def etcd(self) -> bool:
        return bool(self._document["etcd"])

    @property
    def settings(self) -> dict[str, str]:
        """The critical settings, which every server must share."""
        return dict(self._document["settings"])

    @property
    def members(self) -> dict[str, dict[str, Any]]:
        """etcd members by node name: ``etcd_name``, ``address``, ``voter``, ``vmid``."""
        members: dict[str, dict[str, Any]] = self._document["members"]
        return members

    def remember(self, **facts: Any) -> None:
        """Changes facts of the cluster, on disk before this returns."""
        with self.lock:
            self._document.update(facts)
            self._save()

    def add_names(self, names: set[str]) -> list[str]:
        """The serving certificate's names once ``names`` are added: they only ever grow."""
        with self.lock:
            self._document["sans"] = sorted(set(self._document["sans"]) | names)
            self._save()
            return list(self._document["sans"])

    def run_as(self, version: str) -> None:
        """A server of ``version`` has come up: that is what ``/version`` says from now on."""
        self.kube.version = version
        if self._document["version"] != version:
            self.remember(version=version)

    def set_member(self, node: str, **facts: Any) -> None:
        with self.lock:
            self.members[node] = {**self.members.get(node, {}), **facts}
            self._save()

    def forget_member(self, node: str) -> None:
        """Takes it out of etcd."""
        with self.lock:
            if self.members.pop(node, None) is not None:
                self._save()
                self.changed.notify_all()

    def _save(self) -> None:
        self.kit.store.put(BUCKET, self.identity, self._document)

    def is_bootstrap(self, user: str, password: str) -> bool:
        """Whether it is a token of ``k3s token create``."""
        kept = self.kube.get("v1/Secret", "kube-system", f"bootstrap-token-{user}") if len(user) == 6 else None
        return kept is not None and nodes.bootstrap_secret(kept) == password

    def quorate(self) -> bool:
        """Whether a majority of etcd's voting members is up."""
        with self.lock:
            if not self.etcd:
                return bool(self.servers)
            voters = {name for name, member in self.members.items() if member["voter"]}
            return len(self.servers.keys() & voters) * 2 > len(voters)

    def addresses(self) -> list[str]:
        """``address:6443`` of every server that is up."""
        with self.lock:
            return sorted(f"{s.address}:{PORT}" for s in self.servers.values())

    def enter(self, server: Server) -> None:
        """``server``'s etcd is up."""
        with self.lock:
            self.servers[server.node] = server
            self.changed.notify_all()

    def leave(self, node: str) -> None:
        """The process on ``node`` (server or agent) is gone; its Node will be NotReady after a while."""
        with self.lock:
            self.servers.pop(node, None)
            self.kubelets.discard(node)
            self._silent_since[node] = self.kit.clock.now()
            self.changed.notify_all()
            self.place_vip()
        self.sweep()

    def sweep(self) -> None:
        """Marks Nodes without a kubelet NotReady: at once in a lab without latencies, else after the grace."""

        patience = 0.0 if self.kit.latencies == type(self.kit.latencies)() else GRACE

        def mark() -> None:
            with self.lock:
                if not self.quorate() or self._closed:
                    return
                now = self.kit.clock.now()
                fresh = {n for n, since in self._silent_since.items() if now - since < patience}
                nodes.mark_lost(self.kube, self.kubelets | fresh, now)

        if patience:
            self.kit.clock.after(patience, mark)
        else:
            mark()

    def _hear(self, what: str, obj: Object) -> None:
        kind, name = obj.get("kind"), obj["metadata"]["name"]
        if kind == "DaemonSet" and nodes.virtual_address(obj):
            self.kit.clock.after(self.kit.latencies.workload if what == "ADDED" else 0, self.find_vip)
        elif kind == "Node" and (what == "DELETED" or obj["metadata"].get("deletionTimestamp")):
            threading.Thread(target=self._forget_node, args=(name,), daemon=True).start()

    def _forget_node(self, name: str) -> None:
        """Its etcd member and its password go first; only then may the Node."""
        with self.lock:
            member = self.members.pop(name, None)
            server = self.servers.pop(name, None) if member is not None else None
            if member is not None:
                self._save()
                self.changed.notify_all()
                self.place_vip()
        if server is not None:
            server.expelled()
        self.kube.delete("v1/Secret", "kube-system", f"{name}.node-password.k3s")
        nodes.let_go(self.kube, name)

    def _finish_deletions(self) -> None:
        """Those that the end of the lab's process cut short."""
        for node in self.kube.list(nodes.NODE):
            if node["metadata"].get("deletionTimestamp"):
                self._forget_node(str(node["metadata"]["name"]))

    def find_vip(self) -> None:
        """Looks for kube-vip among the DaemonSets and serves its address."""
        if self._closed:
            return
        sets = [d for d in self.kube.list("apps/v1/DaemonSet") if nodes.virtual_address(d)]
        found = [nodes.virtual_address(d) for d in sets]
        with self.lock:
            self._vip_image = str(sets[0]["spec"]["template"]["spec"]["containers"][0]["image"]) if sets else ""
            if self._vip and self._vip not in found:
                self._drop_vip()
            self._vip = found[0] if found else ""
            self.place_vip()

    def place_vip(self) -> None:
        """Keeps the virtual address on a ready server, and nowhere when there is none."""
        with self.lock:
            ready = [s for s in self.servers.values() if s.stage == "ready"]
            if self._vip_holder in ready or self._closed:
                return
            ready = [s for s in ready if self._runs_vip(s)]
            self._drop_vip()
            if self._vip and ready:
                try:
                    self._doors.open(self._vip, ready[0])
                    self._vip_holder = ready[0]
                except OSError:  # somebody else has the address, perhaps not for long
                    self.kit.clock.after(1, self.place_vip)

    def _runs_vip(self, server: Server) -> bool:
        """Whether kube-vip's pod runs there: its image has to be got, once."""
        if not self._vip or self._vip_image in server.pulled or not troubles.pull(server, self._vip_image):
            server.pulled.add(self._vip_image)
            return True
        return False

    def _drop_vip(self) -> None:
        if self._vip_holder is not None:
            self._vip_holder = None
            self._doors.shut(self._vip)

    def close(self) -> None:
        """The lab's process ends: nothing is served any more, the objects stay as they are."""
        with self.lock:
            self._closed = True
            self._drop_vip()
            self._vip = ""
        self.kube.close()


class Doors:
    """Which server answers on which address, for those who join; also opens and closes the real listeners."""

    def __init__(self, answer: Callable[[Server], Callable[..., Any]]) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Server] = {}
        self._answer = answer

    def open(self, host: str, server: Server) -> None:
        plane = server.plane
        plane.kube.listen(
            host, PORT, server.serving.certificate, server.serving.key, plane.authority("client-ca").certificate,
            self._answer(server),
        )  # fmt: skip
        with self._lock:
            self._open[host] = server

    def shut(self, host: str) -> None:
        with self._lock:
            server = self._open.pop(host, None)
        if server is not None:
            server.plane.kube.unlisten(host, PORT)

    def behind(self, host: str, port: int) -> Server | None:
        """The server that answers on ``host:port``; None means connection refused."""
        with self._lock:
            return self._open.get(host) if port == PORT else None
