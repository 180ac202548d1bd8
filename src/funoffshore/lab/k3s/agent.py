"""``k3s agent``: once it has a token it never gives up, it only says why it is not in yet."""

from __future__ import annotations

from funoffshore.lab.hosts import circumstances
from funoffshore.lab.hosts.api import Machine
from funoffshore.lab.k3s import certificates, files, join, log, nodes, troubles
from funoffshore.lab.k3s.plane import Plane
from funoffshore.lab.k3s.process import Process

_BALANCER = "127.0.0.1:6444"
_STRANGER = "tls: failed to verify certificate: x509: certificate signed by unknown authority"


def rejected(host: str) -> str:
    """The line of a node whose name is taken."""
    return (
        "Waiting to retrieve agent configuration; server is not ready: "
        f"https://{host}:6443/v1-k3s/serving-kubelet.crt: Node password rejected, duplicate hostname or "
        "contents of '/etc/rancher/node/password' may not match server "
        "node-passwd entry, try enabling a unique node name with the --with-node-id flag"
    )


def kubelet_of(process: Process, plane: Plane, etcd_name: str = "") -> nodes.Kubelet:
    """What the process's Node tells."""
    machine = process.machine
    hardware = getattr(machine, "hardware", None)
    return nodes.Kubelet(
        name=process.node,
        address=process.address,
        uuid=machine.uuid,
        version=process.version,
        settings=process.settings,
        cores=int(getattr(hardware, "cores", 2)),
        memory_mib=int(getattr(hardware, "memory_mib", 4096)),
        disk_gib=float(getattr(hardware, "disk_gib", 20)),
        etcd_name=etcd_name,
        boot_id=_line(machine, "/proc/sys/kernel/random/boot_id"),
        machine_id=_line(machine, "/etc/machine-id"),
        others=tuple(process.addresses[1:]),
        architecture=circumstances.architecture(machine),
        cidrs=plane.settings["cluster-cidr"],
    )


def prepare(process: Process) -> None:
    """What an agent, also a server's own, needs before its kubelet runs. Raises Shutdown, or waits for ever."""
    while True:
        try:
            document = troubles.registries(process.machine)
            break
        except ValueError as why:
            process.say("info", f"Waiting to retrieve agent configuration; server is not ready: {why}")
            process.pause(5)
    troubles.write_hosts(process.machine, document)
    troubles.kubelet(process)


def _line(machine: Machine, path: str) -> str:
    """Of a file that a boot made; empty without one."""
    file = machine.path(path)
    return file.read_text().strip() if file.exists() else ""


class Agent(Process):
    """One agent."""

    unit = "k3s-agent"
    plane: Plane

    def live(self) -> None:
        token = join.server_token(self)
        url = self.settings.text("server")
        if not url:
            raise log.Fatal("Error: --server is required")
        if not token:
            raise log.Fatal("Error: --token is required")
        if not self.resumed:
            self.say("info", f"Starting k3s agent {self.version}")
        if self.kit.faults.hits("node-no-join", node=self.machine.name):
            self._never(url)
        while self.kit.faults.hits("join-hang", node=self.machine.name):
            self.pause(1)
        if not self.resumed:
            troubles.disk(self)
        files.unpack(self.machine, self.version)
        self.plane = self._get_in(url, token)
        files.write_agent(self.machine, self.plane, [url, *self.plane.addresses()])
        certificates.ensure(self.machine, self.plane, certificates.of_agent(self.node))
        if not self.resumed:
            prepare(self)
        self.start_up(self.kit.latencies.k3s_agent * 0.7)
        self._register(ready=False)
        self.start_up(self.kit.latencies.k3s_agent * 0.3)
        self._register(ready=True)
        self.say("info", "k3s agent is up and running")
        self.running()
        self._learn_servers(url)

    def plane_identity(self) -> str:
        return self.plane.identity

    def _learn_servers(self, url: str) -> None:
        """The balancer remembers where API servers answer, as that changes."""
        while True:
            self.pause(5)
            self._follow(url)
            certificates.age(self.machine, self.plane, self.node)
            servers = self.plane.addresses()
            if servers and servers != files.known_servers(self.machine):
                files.write_balancer(self.machine, url, servers)

    def _follow(self, url: str) -> None:
        """After a restore its servers are another cluster with the same authorities: the kubelet goes on there.

        It never registers twice: a Node that the snapshot does not have comes back with a restart only.
        """
        if self.plane.servers:
            return
        for address in [url, *(f"https://{a}" for a in files.known_servers(self.machine))]:
            server = None if self.is_blocked(address) else self.dial(address)
            if server is None or server.stage != "ready" or server.plane is self.plane:
                continue
            if server.plane.ca != self.plane.ca:
                self.say("error", f"Failed to validate connection to cluster at {address}: {_STRANGER}")
                continue
            if server.plane.kube.get(nodes.NODE, "", self.node) is None:
                text = f'"Error updating node status, will retry" err="nodes \\"{self.node}\\" not found"'
                line = troubles.klog(self.kit.clock.now(), "kubelet_node_status.go:548", text)
                self.machine.journal(self.unit, line)
                continue
            self.plane.kubelets.discard(self.node)
            self.plane = server.plane
            self._register(ready=True)
            return

    def _never(self, url: str) -> None:
        while True:
            self.say("error", f"Failed to validate connection to cluster at {url}: {join.silent(url)}")
            self.pause(2)

    def _get_in(self, url: str, token: str) -> Plane:
        """The cluster's plane, as soon as one of its servers takes the token and the node's password."""
        while True:
            for address in [url, *(f"https://{a}" for a in files.known_servers(self.machine))]:
                plane = self._try(address, token, url)
                if plane is not None:
                    return plane

    def _try(self, address: str, token: str, url: str) -> Plane | None:
        waiting = "Waiting to retrieve agent configuration; server is not ready: "
        try:
            server, role = join.reach(self, address, token, "node", seen_as=_BALANCER)
        except join.Refusal as refusal:
            self.say("error", f"Failed to validate connection to cluster at {url}: {refusal.why}")
            self.pause(self._patience(2 if address == url else 0.5))
            return None
        if role != "node":
            self.say("info", waiting + "failed to retrieve configuration from server: not authorized")
            self.pause(5)
            return None
        if server.stage != "ready" or not server.plane.quorate():
            self.say("info", waiting + "failed to retrieve configuration from server: runtime core not ready")
            self.pause(self._patience(2))
            return None
        if self._is_forgotten(server.plane):
            self.say("info", "Node authorization rejected, retrying without client certificate authentication")
            path = f"https://{_BALANCER}/v1-k3s/client-kubelet.crt"
            self.say("info", waiting + f"{path}: http: ContentLength=188 with Body length 0")
            self.pause(self._patience(5))
            return None
        if not nodes.password_accepted(server.plane.kube, self.node, files.node_password(self.machine)):
            self.say("info", rejected(server.address))
            self.pause(5)
            return None
        return server.plane

    def _is_forgotten(self, plane: Plane) -> bool:
        """Its Node was deleted while the certificates of its kubelet stayed on its disk."""
        there = self.machine.path(f"{files.AGENT}/client-kubelet.crt").is_file()
        return there and not self.resumed and plane.kube.get(nodes.NODE, "", self.node) is None

    def _patience(self, seconds: float) -> float:
        """The real pause between two tries, except where nothing in the lab shall take time."""
        return seconds if self.kit.latencies.k3s_agent and not self.resumed else 0.05

    def _register(self, *, ready: bool) -> None:
        plane = self.plane
        with plane.lock:
            if self.stopped.is_set():
                raise log.Stopped
            kubelet = kubelet_of(self, plane)
            nodes.register(plane.kube, kubelet)
            now = self.kit.clock.now()
            nodes.report(plane.kube, kubelet, now, ready=ready or self.resumed, voter=None)
            plane.kubelets.add(self.node)
            self.machine.listen_port(10250)

    def gone(self) -> None:
        plane = getattr(self, "plane", None)
        if plane is None:
            return
        self.machine.unlisten_port(10250)
        plane.leave(self.node)
