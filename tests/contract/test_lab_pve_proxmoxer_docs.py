"""What the documentation of proxmoxer teaches, done to the lab's Proxmox with proxmoxer as it is installed.

https://proxmoxer.github.io/docs: authentication, basic usage, files, tasks, cloud-init, and the tools. The calls are
those that a reader would write: nothing of the client is patched, and it checks the certificate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import proxmoxer
import pve_bench
import pytest
from proxmoxer.core import AuthenticationError
from proxmoxer.tools import Files, Tasks
from pve_bench import SECRET, Bench, qcow2

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBmC6TJUnAIHLCmrmNlQOR0PpGOEAQJcQkrY8Z5B9JTi me@example"
AT_ONCE = {"polling_interval": 0.002}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with pve_bench.bench(tmp_path, release="9.1") as made:
        made.api.add_user("root@pam", "toor-toor")
        made.api.add_user("testing@pve", "secret-123")
        yield made


def certificate(bench: Bench) -> str:
    """The file that makes the client trust the lab."""
    return str(bench.kit.directory / "pve" / "tls.pem")


@pytest.fixture
def prox(bench: Bench) -> Any:
    """Somebody who logged in."""
    return proxmoxer.ProxmoxAPI(bench.address, user="root@pam", password="toor-toor", verify_ssl=certificate(bench))


def done(prox: Any, upid: str) -> dict[str, Any]:
    status = Tasks.blocking_status(prox, upid, **AT_ONCE)
    assert status["exitstatus"] == "OK", status
    return dict(status)


def test_a_password_makes_a_ticket_that_reads_and_writes(bench: Bench, prox: Any) -> None:
    ticket, csrf = prox.get_tokens()
    assert ticket.startswith("PVE:root@pam:")
    assert csrf.count(":") == 1
    assert prox.version.get()["release"] == "9.1"
    assert prox.pools.post(poolid="docs") is None
    assert [row["poolid"] for row in prox.pools.get()] == ["docs"]
    again = proxmoxer.ProxmoxAPI(bench.address, user="root@pam", password=ticket, verify_ssl=certificate(bench))
    assert again.version.get()["release"] == "9.1"


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_token_needs_no_ticket(bench: Bench) -> None:
    user, _, name = pve_bench.FO.partition("!")
    how: dict[str, Any] = {"user": user, "token_name": name, "token_value": SECRET}
    for host in (bench.address, f"{bench.address}:8006"):
        prox = proxmoxer.ProxmoxAPI(host, **how, verify_ssl=certificate(bench), timeout=20)
        assert [row["node"] for row in prox.nodes.get()] == ["pve"]
    unsafe = proxmoxer.ProxmoxAPI(bench.address, **how, verify_ssl=False, port=8006)
    assert unsafe.version.get()["release"] == "9.1"


def test_a_wrong_password_and_a_wrong_token_are_said_to_be_so(bench: Bench) -> None:
    with pytest.raises(AuthenticationError, match="Couldn't authenticate user: root@pam"):
        proxmoxer.ProxmoxAPI(bench.address, user="root@pam", password="wrong", verify_ssl=certificate(bench))
    user, _, name = pve_bench.FO.partition("!")
    prox = proxmoxer.ProxmoxAPI(
        bench.address, user=user, token_name=name, token_value="wrong", verify_ssl=certificate(bench)
    )
    with pytest.raises(proxmoxer.ResourceException) as caught:
        prox.version.get()
    assert (caught.value.status_code, caught.value.content) == (401, "invalid token value!")


def test_dotted_and_string_notation_mean_the_same(prox: Any) -> None:
    users = prox.access.users.get()
    assert {row["userid"] for row in users} >= {"root@pam", "testing@pve"}
    assert {row["realm-type"] for row in users} == {"pam", "pve"}
    assert prox("access/users").get() == users
    for node in prox.nodes.get():
        assert (node["node"], node["type"], node["id"], node["status"]) == ("pve", "node", "node/pve", "online")
        assert prox.nodes(node["node"]).lxc.get() == []
        assert prox("nodes/{}/qemu".format(node["node"])).get() == []
    assert prox.nodes("pve").get() == prox("nodes/pve").get() == prox.get("nodes/pve")
    assert {"name": "qemu"} in prox.nodes.pve.get()
    assert {"subdir": "users"} in prox.access.get()


def test_a_machine_is_made_changed_listed_and_deleted(prox: Any) -> None:
    node = prox.nodes("pve")
    created = node.qemu.create(
        vmid=202,
        name="test2",
        memory=1024,
        cores=2,
        scsi0="vmstore:2",
        net0="virtio,bridge=vmbr0",
        description="made here",
    )
    done(prox, created)
    for vm in prox.cluster.resources.get(type="vm"):
        assert "{}. {} => {}".format(vm["vmid"], vm["name"], vm["status"]) == "202. test2 => stopped"
    assert node.qemu(202).config.set(cores=4, description="changed") is None
    assert node.qemu("202").config.get()["cores"] == 4
    done(prox, node.qemu(202).config.post(memory=2048))
    assert node.qemu(202)("config").get()["description"] == "changed"
    done(prox, node.qemu(202).status.start.post())
    assert node.qemu(202).status.current.get()["status"] == "running"
    done(prox, node.qemu(202).status("stop").create())
    done(prox, node("qemu")(202).delete())
    assert node.qemu.get() == []


def test_a_name_with_a_hyphen_is_asked_for_as_a_string(bench: Bench, prox: Any) -> None:
    machine = prox.nodes("pve").qemu("103")
    done(prox, prox.nodes("pve").qemu.post(vmid=103, agent="enabled=1"))
    done(prox, machine.status.start.post())
    with pytest.raises(proxmoxer.ResourceException) as caught:
        machine.agent("network-get-interfaces").get()
    assert caught.value.content == "QEMU guest agent is not running"
    bench.guests.talking.add(103)
    assert machine.agent("network-get-interfaces").get()["result"][0]["name"] == "eth0"


def test_files_are_sent_and_fetched(prox: Any, tmp_path: Path) -> None:
    disc, image = tmp_path / "docs.iso", qcow2(1 << 20)
    disc.write_bytes(b"disc" * 5000)
    storage = prox.nodes("pve").storage("local")
    digest = hashlib.sha256(disc.read_bytes()).hexdigest()
    checked = {"checksum-algorithm": "sha256", "checksum": digest}
    with disc.open("rb") as file:
        done(prox, storage.upload.post(content="iso", filename=file, **checked))
    with disc.open("rb") as file:
        wrong = storage.upload.post(content="iso", filename=file, **{**checked, "checksum": "0" * 64})
    assert "checksum mismatch" in Tasks.blocking_status(prox, wrong, **AT_ONCE)["exitstatus"]
    with pve_bench.web({"docs.qcow2": image}) as web:
        fetch = {"checksum-algorithm": "sha256", "checksum": hashlib.sha256(image).hexdigest()}
        url = f"{web}/docs.qcow2"
        upid = storage("download-url").post(url=url, content="import", filename="docs.qcow2", **fetch)
        done(prox, upid)
    found = {row["volid"]: row["size"] for row in storage.content.get()}
    assert found["local:iso/docs.iso"] == 20000
    assert found["local:import/docs.qcow2"] == len(image)
    assert storage.content.get(content="iso")[0]["format"] == "iso"
    done(prox, storage.content("local:iso/docs.iso").delete())


def test_the_tool_for_files(prox: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the tool looks once a second
    disc = tmp_path / "tool.iso"
    disc.write_bytes(b"disc" * 500)
    files = Files(prox, "pve", "local")
    assert files.upload_local_file_to_storage(str(disc))["exitstatus"] == "OK"
    body = b"other" * 500
    sums = f"{hashlib.sha512(body).hexdigest()}  fetched.iso\n".encode()
    with pve_bench.web({"fetched.iso": body, "SHA512SUMS": sums}) as web:
        url = f"{web}/fetched.iso"
        assert files.get_file_info(url)["size"] == len(body)
        assert files.get_checksums_from_file_url(url, "fetched.iso")[0] == hashlib.sha512(body).hexdigest()
        assert files.download_file_to_storage(url)["exitstatus"] == "OK"
    volumes = [row["volid"] for row in prox.nodes("pve").storage("local").content.get(content="iso")]
    assert {"local:iso/tool.iso", "local:iso/fetched.iso"} <= set(volumes)


def test_tasks_are_listed_awaited_and_read(prox: Any) -> None:
    node = prox.nodes("pve")
    upid = node.qemu.post(vmid=123, scsi0="vmstore:1")
    status = done(prox, upid)
    parts = Tasks.decode_upid(upid)
    assert (parts["node"], parts["type"], parts["id"], parts["user"]) == ("pve", "qmcreate", "123", "root@pam")
    assert {key: status[key] for key in ("pid", "pstart", "starttime")} == {
        key: parts[key] for key in ("pid", "pstart", "starttime")
    }
    text = Tasks.decode_log(node.tasks(upid).log.get())
    assert text.splitlines()[-1] == "TASK OK"
    done(prox, node.qemu(123).status.start.post())
    rows = node.tasks.get(limit=3, source="all")
    assert [row["type"] for row in rows] == ["qmstart", "qmcreate"]
    assert {row["status"] for row in rows} == {"OK"}
    assert Tasks.blocking_status(prox, node.qemu(123).status.shutdown.post(), timeout=0, **AT_ONCE) is None


def test_cloud_init_is_set_on_a_copy_of_a_template(prox: Any) -> None:
    node = prox.nodes("pve")
    disk = {"scsi0": "vmstore:0,import-from=local:import/deb.qcow2", "ide2": "vmstore:cloudinit"}
    done(prox, node.qemu.post(vmid=200, name="template", net0="virtio,bridge=vmbr0", boot="order=scsi0", **disk))
    done(prox, node.qemu(200).template.post())
    fresh = int(prox.cluster.nextid.get())
    assert fresh == 100
    done(prox, node.qemu(200).clone.create(newid=fresh))
    node.qemu(fresh).config.set(
        ciuser="somebody",
        cipassword="something",
        sshkeys=quote(KEY, safe=""),
        ciupgrade=0,
        ipconfig0="ip=192.168.125.25/32,gw=192.168.0.1",
        nameserver="1.1.1.1",
        searchdomain="example.com",
    )
    user = node.qemu(fresh).cloudinit.dump.get(type="user")
    assert "user: somebody" in user
    assert KEY in user
    assert node.qemu(fresh).config.get()["cipassword"] == "**********"
    done(prox, node.qemu(fresh).status.start.post())


def test_a_refusal_tells_everything(prox: Any) -> None:
    with pytest.raises(proxmoxer.ResourceException) as caught:
        prox.nodes("pve").qemu(4711).status.current.get()
    why = caught.value
    assert (why.status_code, why.status_message) == (500, "Internal Server Error")
    assert why.content == "Configuration file 'nodes/pve/qemu-server/4711.conf' does not exist"
    with pytest.raises(proxmoxer.ResourceException) as caught:
        prox.nodes("pve").qemu.post(vmid=104, ciupgrade=False)
    assert (caught.value.status_code, caught.value.status_message) == (400, "Bad Request")
    assert caught.value.errors == {"ciupgrade": "type check ('boolean') failed - got 'False'"}
    with pytest.raises(proxmoxer.ResourceException) as caught:
        prox.nodes("elsewhere").qemu.get()
    assert caught.value.content.startswith("hostname lookup 'elsewhere' failed")
