"""The cloud-init drive on the lab's Proxmox, as recorded from a real 8.4 API, and a machine that boots from it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pve_bench
import pytest
from pve_bench import SECRET, Bench
from test_lab_pve_machines import NODE

from funoffshore.lab.hosts.hosts import Hosts

Q = "/nodes/pve/qemu"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMq me@host"
USER = f"""#cloud-config
hostname: node-1
manage_etc_hosts: true
fqdn: node-1.lan
user: debian
password: secret
ssh_authorized_keys:
  - {KEY}
chpasswd:
  expire: False
users:
  - default
"""
NETWORK = """version: 1
config:
    - type: physical
      name: eth0
      mac_address: 'bc:24:11:0a:0b:0c'
      subnets:
      - type: static
        address: '10.0.0.11'
        netmask: '255.255.255.0'
        gateway: '10.0.0.1'
    - type: nameserver
      address:
      - '10.0.0.1'
      - '1.1.1.1'
      search:
      - 'lan'
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path) as made:
        assert made.done("POST", Q, vmid=120, **NODE) == "OK"
        yield made


def dump(bench: Bench, vmid: int, kind: str) -> str:
    return str(bench.call("GET", f"{Q}/{vmid}/cloudinit/dump", type=kind).data)


def test_what_the_drive_holds_is_as_recorded(bench: Bench) -> None:
    assert dump(bench, 120, "user") == USER
    assert dump(bench, 120, "network") == NETWORK
    instance = dump(bench, 120, "meta")
    assert instance.startswith("instance-id: ")
    assert len(instance) == len("instance-id: \n") + 40
    assert bench.done("POST", Q, vmid=115, name="Upper.Case", ciuser="a b") == "OK"
    assert dump(bench, 115, "user") == (
        "#cloud-config\nhostname: Upper\nmanage_etc_hosts: true\nfqdn: Upper.Case\nuser: a b\nchpasswd:\n"
        "  expire: False\nusers:\n  - default\npackage_upgrade: true\n"
    )
    assert bench.call("PUT", f"{Q}/120/config", ipconfig0="ip=dhcp").data is None
    assert "      - type: dhcp4\n" in dump(bench, 120, "network")
    assert dump(bench, 120, "meta") != instance


def test_pending_changes_of_the_drive_are_shown(bench: Bench) -> None:
    rows = {row.pop("key"): row for row in bench.call("GET", f"{Q}/120/cloudinit").data}
    assert rows == {
        "sshkeys": {"value": NODE["sshkeys"]},
        "searchdomain": {"value": "lan"},
        "cipassword": {"value": "**********"},
        "nameserver": {"value": "10.0.0.1 1.1.1.1"},
        "ciuser": {"value": "debian"},
    }
    assert bench.call("PUT", f"{Q}/120/cloudinit").data is None
    assert bench.call("PUT", f"{Q}/120/config", ciuser="root", delete="searchdomain").data is None
    rows = {row.pop("key"): row for row in bench.call("GET", f"{Q}/120/cloudinit").data}
    assert rows["ciuser"] == {"value": "debian", "pending": "root"}
    assert rows["searchdomain"] == {"value": "lan", "delete": 1}
    assert "disable_root: False" in dump(bench, 120, "user")
    assert bench.call("PUT", f"{Q}/120/cloudinit").data is None
    rows = {row.pop("key"): row for row in bench.call("GET", f"{Q}/120/cloudinit").data}
    assert rows["ciuser"] == {"value": "root"}
    weak = bench.call("PUT", f"{Q}/120/cloudinit", "weak@pve!t1")
    assert weak.reason == "Permission check failed (/vms/120, VM.Config.Cloudinit)"


def test_the_drive_is_written_anew_by_a_cold_start(bench: Bench) -> None:
    upid = bench.call("POST", f"{Q}/120/status/start").data
    assert "generating cloud-init ISO" in bench.log(upid)
    seed = bench.guests.on[120].seed
    assert seed is not None
    assert (seed / "user-data").read_text() == USER
    bench.call("PUT", f"{Q}/120/config", ciuser="other")
    assert "user: debian\n" in (seed / "user-data").read_text()
    assert bench.done("POST", f"{Q}/120/status/reboot") == "OK"
    assert "user: other\n" in (seed / "user-data").read_text()
    assert bench.done("POST", f"{Q}/120/status/stop") == "OK"
    assert bench.done("DELETE", f"{Q}/120") == "OK"
    assert not seed.exists()


def test_a_snippet_that_is_missing_is_found_out_at_start(bench: Bench) -> None:
    path = f"{Q}/120/config"
    assert bench.call("PUT", path, cicustom="vendor=local:snippets/agent.yaml").data is None
    assert bench.done("POST", f"{Q}/120/status/start") == "volume 'local:snippets/agent.yaml' does not exist"
    bench.put_file("snippets/agent.yaml", b"#cloud-config\npackages: [qemu-guest-agent]\n")
    assert bench.done("POST", f"{Q}/120/status/start") == "OK"
    seed = bench.guests.on[120].seed
    assert seed is not None
    assert (seed / "vendor-data").read_text().endswith("[qemu-guest-agent]\n")


class Booted:
    """A Proxmox whose machines are hosts, and one of them, made from ``image`` with a cloud-init drive."""

    def __init__(self, directory: Path, image: str) -> None:
        kit = pve_bench.kit(directory)
        self.net = pve_bench.subnet()
        self.hosts = Hosts(kit, 2222)
        self.bench = Bench(kit, self.hosts, self.net, "9.1")  # type: ignore[arg-type]
        pve_bench.prepare(self.bench)
        self.bench.put_file(f"import/{image}", pve_bench.qcow2(300 << 20))
        self.bench.api.start()
        disk = {"scsi0": f"vmstore:0,import-from=local:import/{image}"}
        made = {
            **NODE,
            **disk,
            "ipconfig0": f"ip={self.net}.9/24,gw={self.net}.1",
            "ciuser": "fo",
            "boot": "order=scsi0",
        }
        assert self.bench.done("POST", Q, vmid=120, **made) == "OK"
        assert self.bench.done("POST", f"{Q}/120/status/start") == "OK"
        self.until(lambda: self.hosts.host("node-1") is not None)

    def until(self, true: Callable[[], object]) -> None:
        pause = threading.Event()
        for _ in range(4000):
            if true():
                return
            pause.wait(0.002)
        raise AssertionError("it does not come to pass")

    def close(self) -> None:
        self.bench.session.close()
        self.bench.api.stop()
        self.hosts.stop()
        self.bench.kit.clock.stop()
        self.bench.kit.store.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Booted]:
    made = Booted(tmp_path, "debian-13.qcow2")
    yield made
    made.close()


@pytest.fixture
def with_agent(tmp_path: Path) -> Iterator[Booted]:
    made = Booted(tmp_path, "debian-13-agent.qcow2")
    yield made
    made.close()


def test_a_machine_boots_from_the_drive(plain: Booted) -> None:
    host = plain.hosts.host("node-1")
    assert host is not None
    assert (host.address, host.prefix) == (f"{plain.net}.9", 24)
    assert host.files.read("/home/fo/.ssh/authorized_keys") == KEY + "\n"
    assert "fo ALL=(ALL) NOPASSWD:ALL" in host.files.read("/etc/sudoers.d/90-cloud-init-users")
    assert host.files.read("/etc/resolv.conf") == "nameserver 10.0.0.1\nnameserver 1.1.1.1\nsearch lan\n"
    first = host.files.read("/etc/ssh/ssh_host_ed25519_key.pub")
    assert first.startswith("ssh-ed25519 ")
    silent = plain.bench.call("GET", f"{Q}/120/agent/network-get-interfaces")
    assert silent.reason == "QEMU guest agent is not running"
    plain.until(lambda: host.files.exists("/run/cloud-init/result.json"))
    assert plain.bench.done("POST", f"{Q}/120/status/reboot", timeout=20) == "OK"
    plain.until(lambda: plain.hosts.host("node-1") not in (None, host))
    again = plain.hosts.host("node-1")
    assert again is not None
    assert again.files.read("/etc/ssh/ssh_host_ed25519_key.pub") == first


def test_an_image_that_brings_the_agent_along(with_agent: Booted) -> None:
    bench = with_agent.bench
    path = f"{Q}/120/agent"
    with_agent.until(lambda: bench.call("POST", f"{path}/ping").status == 200)
    found: list[dict[str, Any]] = bench.call("GET", f"{path}/network-get-interfaces").data["result"]
    assert found[1]["ip-addresses"][0]["ip-address"] == f"{with_agent.net}.9"
    read = bench.call("GET", f"{path}/file-read", file="/etc/ssh/ssh_host_ed25519_key.pub").data
    assert read["content"].startswith("ssh-ed25519 ")
    assert "truncated" not in read
    assert read["bytes-read"] == len(read["content"])
    part = bench.call("GET", f"{path}/file-read", file="/etc/hostname", count=2, offset=1, decode=0).data
    assert (base64.b64decode(part["content"]), part["truncated"]) == (b"od", 1)
    missing = bench.call("GET", f"{path}/file-read", file="/nope")
    assert missing.reason == "Agent error: failed to open file '/nope' (mode: 'r'): No such file or directory"
    pid = bench.raw("POST", f"{path}/exec", data=[("command", "hostname"), ("command", "-s")]).data["pid"]
    assert bench.call("GET", f"{path}/exec-status", pid=pid).data["exited"] == 1
    assert bench.call("GET", f"{path}/exec-status", pid=4711).reason.startswith("Agent error: Invalid parameter")
    bench.api.add_token("eye@pve!t1", SECRET, {"/vms": ["VM.GuestAgent.Audit"]})
    refused = bench.call("GET", f"{path}/file-read", "eye@pve!t1", file="/etc/hostname")
    assert refused.reason == "Permission check failed (/vms/120, VM.GuestAgent.FileRead|VM.GuestAgent.Unrestricted)"
