"""``k3s agent``: once it has a token it never gives up, it only says why it is not in yet."""

from __future__ import annotations

from funoffshore.lab.hosts.api import Machine
from funoffshore.lab.k3s import files, join, log, nodes
from funoffshore.lab.k3s.plane import Plane
from funoffshore.lab.k3s.process import Process

_BALANCER = "127.0.0.1:6444"


def rejected(host: str) -> str:
    """The line of a node whose name is taken."""
    return (
        "Waiting to retrieve agent configuration; server is not ready: "
        f"https://{host}:6443/v1-k3s/serving-kubelet.crt: Node password rejected, duplicate hostname or "
        "contents of '/etc/rancher/node/password' may not match server "
        "node-passwd entry, try enabling a unique node name with the --with-node-id flag"
    )


def kubelet_of(process: Process, etcd_name: str = "") -> nodes.Kubelet:
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
        boot_id=_boot_id(machine),
    )


def _boot_id(machine: Machine) -> str:
    """As the kernel tells it: another one at every boot."""
    file = machine.path("/proc/sys/kernel/random/boot_id")
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
        files.unpack(self.machine, self.version)
        self.plane = self._get_in(url, token)
        files.write_agent(self.machine, self.plane, self.node, [url, *self.plane.addresses()])
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
            servers = self.plane.addresses()
            if servers and servers != files.known_servers(self.machine):
                files.write_balancer(self.machine, url, servers)

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
            kubelet = kubelet_of(self)
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
