"""``k3s server``: founds a cluster, joins one, or comes back to the one whose data lies on its disk."""

from __future__ import annotations

import secrets
from typing import Any

from funoffshore.lab.k3s import (
    agent,
    certificates,
    files,
    join,
    log,
    manifests,
    membership,
    nodes,
    pki,
    reset,
    settings,
    snapshots,
    tokens,
    troubles,
)  # fmt: skip
from funoffshore.lab.k3s.plane import SEALED_BUCKET, Plane
from funoffshore.lab.k3s.process import Process

_PORTS = (6443, 6444, 2379, 2380, 10250)
_SPEGEL = 5001
"""Where nodes ask each other for images (embedded-registry)."""
_DUPLICATE = "etcd cluster join failed: duplicate node name found, please use a unique name for this node"


class Server(Process):
    """One server. ``stage``: refused, starting, ping, ready, as seen on port 6443."""

    unit = "k3s"
    plane: Plane
    serving: pki.Pair
    password = ""
    """The servers' token as this process knows it, until it is restarted or asked to rotate it."""
    agent_password = ""
    stage = "refused"

    def live(self) -> None:
        if reset.wanted(self.settings):
            self._reset()
        for key in self.settings.skipped:
            self.say("warning", settings.SKIPPING.format(key))
        if not self.resumed:
            self.say("info", f"Starting k3s {self.version}")
        total = self._enter()
        self.start_up(total * 0.15)
        self._listen()
        self.start_up(total * 0.1)
        self.stage = "ping"
        membership.await_quorum(self)
        membership.await_promotion(self)
        self.start_up(total * 0.55)
        self._serve()
        self._register(ready=False)
        self.start_up(total * 0.2)
        self._register(ready=True)
        self.running()
        self._watch()

    def _reset(self) -> None:
        """``cluster-reset`` in config.yaml: the unit does what should be done by hand."""
        done = reset.run(self.planes, self.machine, self.settings, running=False)
        self.machine.journal(self.unit, done.err.decode())
        raise log.Died(done.code)

    def plane_identity(self) -> str:
        return self.plane.identity

    def _enter(self) -> float:
        """Gets a plane and the files of it. Returns how long this kind of start takes, in lab seconds."""
        if not self.resumed:
            troubles.disk(self)
        token = join.server_token(self)
        silent = self.kit.faults.hits("node-no-join", node=self.machine.name)
        identity = files.database(self.machine)
        files.unpack(self.machine, self.version)
        if identity:
            self._come_back(identity)
            return self.kit.latencies.k3s_first / 2
        url = self.settings.text("server")
        if silent:
            self._stay_alone(url)
        while self.kit.faults.hits("join-hang", node=self.machine.name):
            self.pause(1)
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
        membership.check_clients(self)
        with plane.lock:
            mine = self._is_mine(plane.members.get(self.node))
            duplicate = self.node in plane.members and not mine
            learners = [n for n, m in plane.members.items() if not m["voter"] and not (mine and n == self.node)]
            if not duplicate and not learners:
                self._own_member(voter=False)
        if duplicate or learners:
            self._write_server()
            self.pause(1.5 if self.kit.latencies.k3s_join else 0)
            many = "etcd cluster join failed: etcdserver: too many learner members in cluster"
            raise log.Shutdown(_DUPLICATE if duplicate else many)
        peers = [f"{m['etcd_name']}=https://{m['address']}:2380" for m in plane.members.values()]
        self.say("info", f"Adding member {peers[-1]} to etcd cluster [{','.join(peers[:-1])}]")
        self._write()

    def _is_mine(self, member: dict[str, Any] | None) -> bool:
        """Whether the lab's process died while this very machine was joining: real disks lose no such write."""
        return member is not None and not member["voter"] and member.get("vmid") == self.machine.vmid

    def _come_back(self, identity: str) -> None:
        token = join.own_token(self)
        join.reconcile(self, token)
        if self.kit.store.get(SEALED_BUCKET, identity) is not None:
            raise join.other_token()
        plane = self.planes.get(identity)
        if plane is None:
            raise log.Fatal(
                "Error: preparing server: failed to bootstrap cluster data: database disk image is malformed"
            )
        self.plane = plane
        if token and tokens.password_of(token) != plane.password:
            raise join.other_token()
        if plane.etcd and self.node not in plane.members:
            raise log.Shutdown(membership.REMOVED)
        if plane.etcd:
            plane.set_member(self.node, address=self.address)
        agent_token = self.settings.text("agent-token")
        if agent_token:
            plane.remember(agent_password=tokens.password_of(agent_token))
        reset.clear(self.machine, plane, self.node)
        self._write()

    def _own_member(self, *, voter: bool) -> None:
        if self.plane.etcd:
            name = f"{self.node}-{secrets.token_hex(4)}"
            self.plane.set_member(self.node, etcd_name=name, address=self.address, voter=voter, vmid=self.machine.vmid)

    def _write_server(self) -> None:
        plane = self.plane
        files.write_authorities(self.machine, plane)
        self.password, self.agent_password = plane.password, plane.agent_password
        certificates.ensure(self.machine, plane, certificates.of_server())
        admin = certificates.pair(self.machine, certificates.of_server()[0])
        if admin is not None:
            files.write_server(self.machine, plane, self.settings.flag("secrets-encryption"), admin)

    def _write(self) -> None:
        plane = self.plane
        self._write_server()
        files.write_database(self.machine, plane, self.node, self.address)
        files.node_password(self.machine)
        if not self.settings.flag("disable-agent"):
            files.write_agent(self.machine, plane, [])
            certificates.ensure(self.machine, plane, certificates.of_agent(self.node))
        manifests.write_packaged(self.machine, self.settings)
        names = {
            "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
            "localhost", "127.0.0.1", "10.43.0.1", self.node, *self.addresses, *self.settings.many("tls-san"),
        }  # fmt: skip
        self.serving = certificates.serving(self.machine, plane, plane.add_names(names))

    def role_of(self, user: str, password: str) -> str:
        """``server``, ``node`` or empty (not authorized), by the tokens that this process has read."""
        if user == "server" and secrets.compare_digest(password.encode(), self.password.encode()):
            return "server"
        if user == "node" and secrets.compare_digest(password.encode(), self.agent_password.encode()):
            return "node"
        return "node" if self.plane.is_bootstrap(user, password) else ""

    def rotate(self, password: str) -> None:
        """Another token for servers: this one knows it at once, the others once they are restarted with it."""
        plane = self.plane
        with plane.lock:
            shared = plane.agent_password == plane.password
            plane.remember(password=password, agent_password=None if shared else plane.agent_password)
            self.password = password
            self.agent_password = password if shared else self.agent_password
            files.write_tokens(self.machine, plane)

    def _listen(self) -> None:
        with self.plane.lock:
            self.check()
            self.stage = "starting"
            self.doors.open(self.address, self)
            for port in self._ports():
                self.machine.listen_port(port)
            self.plane.enter(self)

    def _ports(self) -> tuple[int, ...]:
        return (*_PORTS, _SPEGEL) if self.settings.flag("embedded-registry") else _PORTS

    def _serve(self) -> None:
        if not self.resumed:
            troubles.apiserver(self.settings, self.machine)
        with self.plane.lock:
            self.check()
            self.stage = "ready"
            self.plane.changed.notify_all()
            self.plane.run_as(self.version)
            for definition in snapshots.definitions():
                self.plane.kube.apply(definition, "k3s")
            manifests.apply(self)
            self.plane.find_vip()
        self.say("info", "k3s is up and running")

    def _register(self, *, ready: bool) -> None:
        plane = self.plane
        if self.settings.flag("disable-agent"):
            if plane.etcd and ready:
                plane.set_member(self.node, voter=True)
            return
        if not self.resumed:
            agent.prepare(self)
        password = files.node_password(self.machine)
        while not nodes.password_accepted(plane.kube, self.node, password):
            self.say("info", agent.rejected(self.address))
            self.pause(5)
        with plane.lock:
            self.check()
            if plane.etcd and ready:
                plane.set_member(self.node, voter=True)
            kubelet = self.kubelet()
            nodes.register(plane.kube, kubelet)
            nodes.report(plane.kube, kubelet, self.kit.clock.now(), ready=ready or self.resumed, voter=self._voter())
            plane.kubelets.add(self.node)
        if ready and not self.resumed:
            plane.sweep()

    def kubelet(self) -> nodes.Kubelet:
        """What this server's Node tells."""
        etcd_name = str(self.plane.members[self.node]["etcd_name"]) if self.plane.etcd else ""
        return agent.kubelet_of(self, self.plane, etcd_name)

    def _voter(self) -> bool | None:
        """Value of EtcdIsVoter; None where there is no etcd."""
        plane = self.plane
        return bool(plane.members[self.node]["voter"]) if plane.etcd and self.node in plane.members else None

    def _watch(self) -> None:
        """What a server does from time to time, as long as it runs."""
        while not self.plane.kube.known(snapshots.KIND):
            self.pause(0.2)
        if self.plane.etcd:
            snapshots.reconcile(self)
        while True:
            snapshots.scheduled(self)
            manifests.apply(self)
            certificates.age(self.machine, self.plane, self.node)
            self.plane.find_vip()
            membership.probe(self)
            self.pause(min(15, snapshots.pace(self.settings)))

    def check(self) -> None:
        """Raises Stopped once the process is."""
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
            for port in self._ports():
                self.machine.unlisten_port(port)
        if mine:
            plane.leave(self.node)
