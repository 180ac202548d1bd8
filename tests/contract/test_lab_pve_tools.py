"""Other people's tools against the lab's Proxmox: curl, Ansible, Prometheus, a Go client. None knows of the lab.

curl is tried where there is one. The others are no dependency of this project, so they are tried where FO_TOOLS names
the folder that ``scripts/tools-env`` made (``make test-tools``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pve_bench
import pytest
import requests
from pve_bench import ROOT, SECRET, Bench, qcow2

HERE = Path(__file__).parent / "tools"
PASSWORD = "toor-toor"
MINUTES = 600
_FOREIGN = ("PROXY", "CA_BUNDLE", "SSL_CERT", "ANSIBLE_", "PROXMOX_")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes a lab with a password for root@pam, a second storage and one for all nodes."""
    opened = []

    def make(release: str = "9.1", nodes: tuple[str, ...] = ("pve",)) -> Bench:
        holder = pve_bench.bench(tmp_path / f"lab-{release}", release=release, nodes=nodes)
        (tmp_path / f"lab-{release}").mkdir()
        bench = holder.__enter__()
        opened.append(holder)
        bench.api.add_user("root@pam", PASSWORD)
        bench.api.add_storage("other", "dir", ("images",))
        bench.api.add_storage("shared", "nfs", ("images",), shared=True)
        return bench

    yield make
    for holder in opened:
        holder.__exit__(None, None, None)


def certificate(bench: Bench) -> str:
    return str(bench.kit.directory / "pve" / "tls.pem")


def surroundings(**more: str) -> dict[str, str]:
    """An environment without what would lead a client elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not any(part in name.upper() for part in _FOREIGN)}
    return {**kept, **more}


def run(command: list[str], **more: str) -> str:
    """What a command prints; fails with all that it said."""
    result = subprocess.run(
        command, env=surroundings(**more), capture_output=True, text=True, timeout=MINUTES, check=False
    )
    assert result.returncode == 0, f"{command[0]} ended with {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


class Curl:
    """curl as the wiki page "Proxmox VE API" uses it."""

    def __init__(self, bench: Bench) -> None:
        found = shutil.which("curl")
        if found is None:
            pytest.skip("there is no curl")
        self.url = f"https://{bench.address}:8006/api2/json"
        self.start = [found, "--silent", "--show-error", "--cacert", certificate(bench)]

    def __call__(self, path: str, *arguments: str) -> Any:
        return json.loads(run([*self.start, *arguments, self.url + path]))["data"]

    def status(self, path: str, *arguments: str) -> str:
        """The first line of the answer."""
        return run([*self.start, "--include", *arguments, self.url + path]).splitlines()[0].strip()


def test_curl_as_the_wiki_of_proxmox_teaches(made: Callable[..., Bench], tmp_path: Path) -> None:
    bench = made("8.4")
    curl = Curl(bench)
    ticket = curl("/access/ticket", "-d", "username=root@pam", "--data-urlencode", f"password={PASSWORD}")
    assert ticket["username"] == "root@pam"
    cookie = ["-b", f"PVEAuthCookie={ticket['ticket']}"]
    names = {row["subdir"] for row in curl("/", *cookie)}
    assert names == {"access", "cluster", "nodes", "pools", "storage", "version"}
    create = ["-d", "vmid=601", "-d", "name=wiki", "-d", "memory=1024", "-d", "scsi0=vmstore:2"]
    create += ["--data-urlencode", "net0=virtio,bridge=vmbr0", "--data-urlencode", "description=a b & c"]
    refused = curl.status("/nodes/pve/qemu", *cookie, *create)
    assert refused == "HTTP/1.1 401 Permission denied - invalid csrf token"
    write = [*cookie, "-H", f"CSRFPreventionToken: {ticket['CSRFPreventionToken']}"]
    assert bench.wait(curl("/nodes/pve/qemu", *write, *create)) == "OK"
    assert curl("/nodes/pve/qemu/601/config", *cookie)["description"] == "a b & c"
    body = ["-H", "Content-Type: application/json", "--data-raw", '{"cores": 2, "onboot": true}', "-X", "PUT"]
    assert curl("/nodes/pve/qemu/601/config", *write, *body) is None
    assert bench.config(601)["onboot"] == 1
    assert bench.wait(curl("/nodes/pve/qemu/601/status/start", *write, "-X", "POST")) == "OK"
    assert bench.wait(curl("/nodes/pve/qemu/601/status/stop", *write, "-X", "POST")) == "OK"
    disc = tmp_path / "wiki.iso"
    disc.write_bytes(bytes(4096))
    sent = curl("/nodes/pve/storage/local/upload", *write, "-F", "content=iso", "-F", f"filename=@{disc}")
    assert bench.wait(sent) == "OK"
    token = ["-H", f"Authorization: PVEAPIToken={ROOT}={SECRET}"]
    assert "local:iso/wiki.iso" in {row["volid"] for row in curl("/nodes/pve/storage/local/content", *token)}
    assert bench.wait(curl("/nodes/pve/qemu/601?purge=1", *token, "-X", "DELETE")) == "OK"
    assert curl("/nodes/pve/qemu", *token) == []


def test_curl_makes_the_user_role_and_token_that_fo_needs(made: Callable[..., Bench]) -> None:
    bench = made("9.1")
    curl = Curl(bench)
    ticket = curl("/access/ticket", "-d", "username=root@pam", "-d", f"password={PASSWORD}")
    write = ["-b", f"PVEAuthCookie={ticket['ticket']}", "-H", f"CSRFPreventionToken: {ticket['CSRFPreventionToken']}"]
    assert curl("/access/roles", *write, "-d", "roleid=Look", "-d", "privs=VM.Audit,Pool.Audit") is None
    assert curl("/access/users", *write, "-d", "userid=robot@pve") is None
    given = curl("/access/users/robot@pve/token/lab", *write, "-d", "privsep=1")
    assert given["full-tokenid"] == "robot@pve!lab"
    right = ["-X", "PUT", "-d", "path=/vms", "-d", "roles=Look"]
    token = ["-H", f"Authorization: PVEAPIToken=robot@pve!lab={given['value']}"]
    assert curl("/access/acl", *write, *right, "-d", "tokens=robot@pve!lab") is None
    assert "/vms" not in curl("/access/permissions", *token), "a token has no more rights than its user"
    assert curl("/access/acl", *write, *right, "-d", "users=robot@pve") is None
    assert curl("/access/permissions", *token)["/vms"] == {"VM.Audit": 1, "Pool.Audit": 1}
    rows = [row for row in curl("/access/acl", *write) if row["path"] == "/vms" and row["roleid"] == "Look"]
    assert {(row["type"], row["ugid"]) for row in rows} == {("user", "robot@pve"), ("token", "robot@pve!lab")}
    assert curl("/access/roles/Look", *write, "-X", "PUT", "-d", "privs=VM.Console", "-d", "append=1") is None
    assert "VM.Console" in curl("/access/permissions", *token)["/vms"]
    assert curl("/access/users/robot@pve", *write, "-X", "DELETE") is None
    assert curl.status("/version", *token) == "HTTP/1.1 401 no such user ('robot@pve')"


@pytest.fixture
def tools() -> Path:
    """Where the tools are."""
    named = os.environ.get("FO_TOOLS", "")
    if not named:
        pytest.skip("FO_TOOLS names no folder with the tools: scripts/tools-env makes one (make test-tools)")
    return Path(named).resolve()


def play(tools: Path, bench: Bench, book: str, tmp_path: Path, **values: str) -> None:
    """Runs a playbook, which fails by itself where a module reports what it should not."""
    spoken = {"address": bench.address, "user": "root@pam", "token": "full", "secret": SECRET, "password": PASSWORD}
    ansible(tools, bench, tmp_path, "ansible-playbook", str(HERE / book), "-e", json.dumps({**spoken, **values}))


def ansible(tools: Path, bench: Bench, tmp_path: Path, program: str, *arguments: str) -> str:
    """One of Ansible's programs, which must ask for nothing that the lab does not play."""
    told = run(
        [str(tools / "bin" / program), *arguments],
        ANSIBLE_COLLECTIONS_PATH=str(tools / "collections"),
        ANSIBLE_HOME=str(tmp_path / "ansible"),
        ANSIBLE_LOCALHOST_WARNING="false",
        ANSIBLE_PIPELINING="true",
        ANSIBLE_INVENTORY_UNPARSED_WARNING="false",
        REQUESTS_CA_BUNDLE=certificate(bench),
        LC_ALL="C.UTF-8",
    )
    all_is_played(bench)
    return told


def all_is_played(bench: Bench) -> None:
    log = bench.kit.directory / "pve" / "unknown.log"
    assert not log.exists(), log.read_text()


@pytest.mark.parametrize("release", ["8.4", "9.1"])
def test_ansible_makes_changes_and_deletes_machines(
    tools: Path, made: Callable[..., Bench], release: str, tmp_path: Path
) -> None:
    bench = made(release)
    bench.guests.talking.add(310)
    play(tools, bench, "machines.yml", tmp_path)
    assert bench.call("GET", "/nodes/pve/qemu").data == []
    assert bench.call("GET", "/nodes/pve/storage/vmstore/content").data == []


@pytest.mark.parametrize("release", ["8.4", "9.1"])
def test_ansible_rules_the_datacenter(tools: Path, made: Callable[..., Bench], release: str, tmp_path: Path) -> None:
    bench = made(release, ("pve", "pve2", "pve3"))
    bench.api.add_stranger(499, "somebody")
    job: dict[str, Any] = {"id": "nightly", "schedule": "02:30", "storage": "local", "vmid": 499, "mode": "snapshot"}
    assert bench.call("POST", "/cluster/backup", **job).data is None
    iso, image = tmp_path / "small.iso", qcow2(1 << 20)
    iso.write_bytes(bytes(4096))
    with pve_bench.web({"cloud.qcow2": image}) as web:
        what = {"iso": str(iso), "image": f"{web}/cloud.qcow2", "digest": hashlib.sha256(image).hexdigest()}
        play(tools, bench, "cluster.yml", tmp_path, release=release, **what)
    assert [row["vmid"] for row in bench.call("GET", "/cluster/resources", type="vm").data] == [499]


def test_ansible_finds_its_hosts_by_itself(tools: Path, made: Callable[..., Bench], tmp_path: Path) -> None:
    bench = made("9.1", ("pve", "pve2"))
    bench.call("POST", "/pools", poolid="web")
    assert bench.done("POST", "/nodes/pve2/qemu", vmid=120, name="found", pool="web", tags="a;b", agent=1) == "OK"
    assert bench.done("POST", "/nodes/pve2/qemu/120/status/start") == "OK"
    bench.guests.talking.add(120)
    inventory = tmp_path / "lab.proxmox.yml"
    source = {"plugin": "community.proxmox.proxmox", "url": f"https://{bench.address}:8006", "user": "root@pam"}
    source |= {"password": PASSWORD}
    inventory.write_text(json.dumps({**source, "validate_certs": True, "want_facts": True}))
    how = ("-i", str(inventory), "--list", "--export")
    groups = json.loads(ansible(tools, bench, tmp_path, "ansible-inventory", *how))
    for group in ("proxmox_all_running", "proxmox_pve2_qemu", "proxmox_pool_web"):
        assert groups[group]["hosts"] == ["found"], group


def test_prometheus_sees_the_datacenter(tools: Path, made: Callable[..., Bench], tmp_path: Path) -> None:
    bench = made("9.1", ("pve", "pve2"))
    assert bench.done("POST", "/nodes/pve2/qemu", vmid=120, name="watched") == "OK"
    assert bench.done("POST", "/nodes/pve2/qemu/120/status/start") == "OK"
    user, _, token = ROOT.partition("!")
    login = {"user": user, "token_name": token, "token_value": SECRET, "verify_ssl": True}
    settings, address = tmp_path / "pve.yml", f"{pve_bench.subnet()}.9:9221"
    settings.write_text(json.dumps({"default": login}))
    command = [str(tools / "bin" / "pve_exporter"), "--config.file", str(settings), "--web.listen-address", address]
    with subprocess.Popen(command, env=surroundings(REQUESTS_CA_BUNDLE=certificate(bench))) as server:
        try:
            text = fetched(f"http://{address}/pve?target={bench.address}&cluster=1&node=1")
        finally:
            server.terminate()
    seen = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for name in ("node/pve", "node/pve2", "qemu/120", "storage/pve/local", "cluster/lab"):
        assert seen[f'pve_up{{id="{name}"}}'] == "1.0", name
    assert seen['pve_not_backed_up_total{id="cluster/lab"}'] == "1.0"
    all_is_played(bench)


def fetched(url: str) -> str:
    """What a server says as soon as it is there."""
    pause, session = threading.Event(), requests.Session()
    session.trust_env = False
    for _ in range(600):
        with contextlib.suppress(requests.ConnectionError), session.get(url, timeout=20) as reply:
            assert reply.status_code == 200, reply.text
            return reply.text
        pause.wait(0.05)
    raise AssertionError(f"nobody listens at {url}")


def test_a_go_client_takes_a_machine_through_its_life(tools: Path, made: Callable[..., Bench], tmp_path: Path) -> None:
    program = tools / "bin" / "go-life"
    if not program.exists():
        pytest.skip(f"{program} was not built: scripts/tools-env found no Go")
    bench = made("9.1")
    bench.guests.talking.add(100)
    iso = tmp_path / "small.iso"
    iso.write_bytes(bytes(4096))
    url = f"https://{bench.address}:8006/api2/json"
    said = json.loads(run([str(program), url, PASSWORD, str(iso), certificate(bench)]))
    assert {name for name, value in said.items() if value is True} == {
        "memory",
        "running",
        "stopped",
        "tagged",
        "refused",
    }
    assert (said["release"], said["nodes"], said["machines"], said["members"]) == ("9.1", 1, 2, 1)
    assert (said["cores"], said["scsi0"]) == (4, "vmstore:100/vm-100-disk-0.qcow2,size=3G")
    assert bench.call("GET", "/nodes/pve/qemu").data == []
