"""``k3s server``: founds a cluster, joins one, or comes back to the one whose data lies on its disk."""

from __future__ import annotations

import secrets
from typing import Any

from funoffshore.lab.k3s import agent, files, join, log, manifests, nodes, pki, settings, tokens
from funoffshore.lab.k3s.plane import Plane
from funoffshore.lab.k3s.process import Process, membership

_PORTS = (6443, 6444, 2379, 2380, 10250)
_DUPLICATE = "etcd cluster join failed: duplicate node name found, please use a unique name for this node"


class Server(Process):
    """One server. ``stage``: refused, starting, ping, ready, as seen on port 6443."""

    unit = "k3s"
    plane: Plane
    serving: pki.Pair
    stage = "refused"

    def live(self) -> None:
        for key in self.settings.skipped:
            self.say("warning", settings.SKIPPING.format(key))
        if not self.resumed:
            self.say("info", f"Starting k3s {self.version}")
        total = self._enter()
        self.start_up(total * 0.15)
        self._listen()
        self.start_up(total * 0.1)
        self.stage = "ping"
        self._await_quorum()
        self.start_up(total * 0.55)
        self._serve()
        self._register(ready=False)
        self.start_up(total * 0.2)
        self._register(ready=True)
        self.running()
        self._watch_manifests()

    def plane_identity(self) -> str:
        return self.plane.identity

    def _enter(self) -> float:
        """Gets a plane and the files of it. Returns how long this kind of start takes, in lab seconds."""
        token = join.server_token(self)
        silent = self.kit.faults.hits("node-no-join", node=self.machine.name)
        identity = files.database(self.machine)
        files.unpack(self.machine, self.version)
        if identity:
            self._come_back(identity, token)
            return self.kit.latencies.k3s_first / 2
        url = self.settings.text("server")
        if silent:
            self._stay_alone(url)
        if url and token:
            self._join()
            return self.kit.latencies.k3s_join
        self._found(token, etcd=self.settings.flag("cluster-init"))
        return self.kit.latencies.k3s_first

    def _stay_alone(self, url: str) -> None:
        if url:
            raise join.silent_server(url)
        while True:
            self.say("info", "Waiting for containerd startup: rpc error: code = Unavailable desc = no disk space left")
            self.pause(5)

    def _found(self, token: str, *, etcd: bool) -> None:
        if not etcd:
            self.say("info", "Kine available at unix://kine.sock")
        agent_token = self.settings.text("agent-token")
        facts: dict[str, Any] = {
            "password": tokens.password_of(token) if token else secrets.token_hex(16),
            "agent_password": tokens.password_of(agent_token) if agent_token else None,
            "settings": join.critical(self.settings),
            "etcd": etcd,
            "version": self.version,
            "address": self.address,
        }
        self.plane = self.planes.found(facts)
        self._own_member(voter=True)
        self._write()
        if etcd:
            self.say("info", "Bootstrapping new etcd cluster, managed etcd cluster initializing")

    def _join(self) -> None:
        other = join.as_server(self)
        plane = self.plane = other.plane
        with plane.lock:
            mine = self._is_mine(plane.members.get(self.node))
            duplicate = self.node in plane.members and not mine
            learners = [n for n, m in plane.members.items() if not m["voter"] and not (mine and n == self.node)]
            if not duplicate and not learners:
                self._own_member(voter=False)
        if duplicate or learners:
            files.write_server(self.machine, plane, self.settings.flag("secrets-encryption"))
            self.pause(1.5 if self.kit.latencies.k3s_join else 0)
            many = "etcd cluster join failed: etcdserver: too many learner members in cluster"
            raise log.Shutdown(_DUPLICATE if duplicate else many)
        peers = [f"{m['etcd_name']}=https://{m['address']}:2380" for m in plane.members.values()]
        self.say("info", f"Adding member {peers[-1]} to etcd cluster [{','.join(peers[:-1])}]")
        self._write()

    def _is_mine(self, member: dict[str, Any] | None) -> bool:
        """Whether the lab's process died while this very machine was joining: real disks lose no such write."""
        return member is not None and not member["voter"] and member.get("vmid") == self.machine.vmid

    def _come_back(self, identity: str, token: str) -> None:
        plane = self.planes.get(identity)
        if plane is None:
            raise log.Fatal(
                "Error: preparing server: failed to bootstrap cluster data: database disk image is malformed"
            )
        self.plane = plane
        if token and tokens.password_of(token) != plane.password:
            problem = "bootstrap data already found and encrypted with different token"
            raise log.Fatal(
                "Error: preparing server: failed to bootstrap cluster data: "
                f"failed to reconcile with local datastore: {problem}"
            )
        if plane.etcd and self.node not in plane.members:
            raise log.Shutdown("this server has been removed from the cluster, its etcd member is gone")
        if plane.etcd:
            plane.set_member(self.node, address=self.address)
        agent_token = self.settings.text("agent-token")
        if agent_token:
            plane.remember(agent_password=tokens.password_of(agent_token))
        self._write()

    def _own_member(self, *, voter: bool) -> None:
        if self.plane.etcd:
            name = f"{self.node}-{secrets.token_hex(4)}"
            self.plane.set_member(self.node, etcd_name=name, address=self.address, voter=voter, vmid=self.machine.vmid)

    def _write(self) -> None:
        plane = self.plane
        files.write_server(self.machine, plane, self.settings.flag("secrets-encryption"))
        files.write_database(self.machine, plane, self.node, self.address)
        files.node_password(self.machine)
        if not self.settings.flag("disable-agent"):
            files.write_agent(self.machine, plane, self.node, [])
        manifests.write_packaged(self.machine, self.settings)
        names = {
            "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
            "localhost", "127.0.0.1", "10.43.0.1", self.node, self.address, *self.settings.many("tls-san"),
        }  # fmt: skip
        sans = plane.add_names(names)
        path = f"{files.SERVER}/tls/serving-kube-apiserver"
        kept = self.machine.path(path + ".crt"), self.machine.path(path + ".key")
        if kept[0].is_file() and kept[1].is_file() and pki.names_in(kept[0].read_bytes()) >= set(sans):
            self.serving = pki.Pair(kept[0].read_bytes(), kept[1].read_bytes())
            return
        self.serving = pki.leaf(plane.authority("server-ca"), "k3s", uses=["server"], organization="k3s", names=sans)
        files.write(self.machine, path + ".crt", self.serving.certificate, 0o644)
        files.write(self.machine, path + ".key", self.serving.key, 0o600)

    def _listen(self) -> None:
        with self.plane.lock:
            self._check()
            self.stage = "starting"
            self.doors.open(self.address, self)
            for port in _PORTS:
                self.machine.listen_port(port)
            self.plane.enter(self)

    def _await_quorum(self) -> None:
        plane = self.plane
        with plane.lock:
            while not plane.quorate():
                self._check()
                plane.changed.wait(0.2)
        self._check()

    def _serve(self) -> None:
        with self.plane.lock:
            self._check()
            self.stage = "ready"
            self.plane.changed.notify_all()
            manifests.apply(self)
            self.plane.find_vip()
        self.say("info", "k3s is up and running")

    def _register(self, *, ready: bool) -> None:
        plane = self.plane
        if self.settings.flag("disable-agent"):
            if plane.etcd and ready:
                plane.set_member(self.node, voter=True)
            return
        password = files.node_password(self.machine)
        while not nodes.password_accepted(plane.kube, self.node, password):
            self.say("info", agent.rejected(self.address))
            self.pause(5)
        with plane.lock:
            self._check()
            if plane.etcd and ready:
                plane.set_member(self.node, voter=True)
            kubelet = self.kubelet()
            nodes.register(plane.kube, kubelet)
            voter = membership(plane, self.node)
            nodes.report(plane.kube, kubelet, self.kit.clock.now(), ready=ready or self.resumed, voter=voter)
            plane.kubelets.add(self.node)
        if ready and not self.resumed:
            plane.sweep()

    def kubelet(self) -> nodes.Kubelet:
        """What this server's Node tells."""
        etcd_name = str(self.plane.members[self.node]["etcd_name"]) if self.plane.etcd else ""
        return agent.kubelet_of(self, etcd_name)

    def _watch_manifests(self) -> None:
        while True:
            self.pause(15)
            manifests.apply(self)

    def _check(self) -> None:
        if self.stopped.is_set():
            raise log.Stopped

    def expelled(self) -> None:
        """Its etcd member was removed: the process ends by itself, with exit 0."""
        self.say("error", 'Shutdown request received: "etcd member has been removed from the cluster"')
        self.end(0)

    def gone(self) -> None:
        plane = getattr(self, "plane", None)
        if plane is None:
            return
        with plane.lock:
            mine = plane.servers.get(self.node) is self
            opened, self.stage = self.stage != "refused", "refused"
            if not mine:
                joined = plane.members.get(self.node)
                if joined and not joined["voter"] and not opened and not files.database(self.machine):
                    plane.members.pop(self.node)
        if opened:
            self.doors.shut(self.address)
            for port in _PORTS:
                self.machine.unlisten_port(port)
        if mine:
            plane.leave(self.node)
