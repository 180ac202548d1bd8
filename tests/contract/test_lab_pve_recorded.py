"""The lab's Proxmox against answers recorded from a real 8.4 API: status, reason phrase, body.

The key order of the real bodies is random, so bodies are compared parsed. Every case stands alone on one prepared API.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pve_bench
import pytest
from pve_bench import FO, ROOT, Bench

Q = "/nodes/pve/qemu"
WEAK = "weak@pve!t1"
VERIFY = "Parameter verification failed."
UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path_factory.mktemp("pve")) as made:
        made.call("POST", "/pools", poolid="fo")
        assert made.done("POST", Q, vmid=101, balloon=4096, memory=1024) == "OK"
        made.api.add_token("pool@pve!t1", pve_bench.SECRET, POOL_RIGHTS)
        assert made.done("POST", Q, vmid=112, scsi0="tiny:100") == "OK"
        assert made.done("POST", Q, vmid=115, scsi0="vmstore:1", net0="virtio,bridge=vmbr0", cores=2) == "OK"
        assert made.done("POST", Q, vmid=126, startup="order=1,up=30", protection=1) == "OK"
        yield made


_VM = (
    "Allocate Audit PowerMgmt Monitor Config.CPU Config.Memory Config.Disk Config.Network Config.HWType Config.Options"
)
POOL_RIGHTS = {
    "/pool/fo": [f"VM.{name}" for name in _VM.split()] + ["VM.Config.Cloudinit", "VM.Config.CDROM", "Pool.Audit"],
    "/sdn/zones/localnetwork/vmbr0": ["SDN.Use"],
    "/nodes": ["Sys.AccessNetwork", "Sys.Audit"],
    "/storage/local": ["Datastore.AllocateTemplate", "Datastore.Audit"],
    "/storage/vmstore": ["Datastore.AllocateSpace", "Datastore.Audit"],
}
POOL = "pool@pve!t1"


def message(text: str) -> dict[str, Any]:
    return {"data": None, "message": f"{text}\n"}


def errors(**found: str) -> tuple[int, str, dict[str, Any]]:
    return 400, VERIFY, {**message(VERIFY), "errors": found}


def die(text: str) -> tuple[int, str, dict[str, Any]]:
    return 500, text, message(text)


def deny(what: str = "") -> tuple[int, str, dict[str, Any]]:
    text = f"Permission check failed ({what})" if what else "Permission check failed"
    return 403, text, message(text)


def good(data: object) -> tuple[int, str, dict[str, Any]]:
    return 200, "OK", {"data": data}


def unknown(what: str) -> tuple[int, str, dict[str, Any]]:
    text = f"Method '{what}' not implemented"
    return 501, text, {"data": None, "message": text}


EIGHT = (
    "VM.Config.Disk|VM.Config.CDROM|VM.Config.CPU|VM.Config.Memory|VM.Config.Network|VM.Config.HWType"
    "|VM.Config.Options|VM.Config.Cloudinit"
)
LOOKUP = "hostname lookup 'other' failed - failed to get address info for: other: Temporary failure in name resolution"
SPECIAL = "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>"
PATHS = "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 569."
GONE = "Configuration file 'nodes/pve/qemu-server/900.conf' does not exist"

Case = tuple[str, str, str, dict[str, object], tuple[int, str, dict[str, Any]]]
CASES: list[Case] = [
    (ROOT, "GET", "/version", {}, good({"version": "8.4.1", "release": "8.4", "repoid": "2a5fa54a8503f96d"})),
    (ROOT, "GET", "/version/", {}, good({"version": "8.4.1", "release": "8.4", "repoid": "2a5fa54a8503f96d"})),
    (ROOT, "GET", "/nope", {}, unknown("GET /nope")),
    (ROOT, "PUT", "/version", {}, unknown("PUT /version")),
    (ROOT, "DELETE", "/nodes", {}, unknown("DELETE /nodes")),
    (ROOT, "POST", "/cluster/nextid", {}, unknown("POST /cluster/nextid")),
    (ROOT, "GET", "/version", {"foo": 1}, errors(foo=UNKNOWN)),
    (ROOT, "GET", f"{Q}/900/config", {}, die(GONE)),
    (ROOT, "GET", "/nodes/other/qemu/900/config", {}, die(LOOKUP)),
    (WEAK, "GET", f"{Q}/900/config", {}, deny("/vms/900, VM.Audit")),
    (WEAK, "GET", f"{Q}/101/config", {}, deny("/vms/101, VM.Audit")),
    (WEAK, "GET", f"{Q}/900/status/current", {}, deny("/vms/900, VM.Audit")),
    (WEAK, "GET", Q, {}, good([])),
    (WEAK, "GET", "/nodes/pve/storage", {}, good([])),
    (WEAK, "GET", "/pools", {}, good([])),
    (WEAK, "GET", "/access/permissions", {}, good({})),
    (WEAK, "GET", "/cluster/status", {}, deny("/, Sys.Audit")),
    (WEAK, "GET", "/nodes/pve/status", {}, deny("/nodes/pve, Sys.Audit")),
    (
        WEAK,
        "GET",
        "/nodes/pve/storage/nosuch/content",
        {},
        deny("/storage/nosuch, Datastore.Audit|Datastore.AllocateSpace"),
    ),
    (
        WEAK,
        "GET",
        "/cluster/resources",
        {},
        good([{"type": "node", "status": "unknown", "node": "pve", "id": "node/pve"}]),
    ),
    (WEAK, "POST", Q, {"vmid": 100, "name": "x"}, deny()),
    (WEAK, "POST", Q, {"vmid": 100, "name": "x", "pool": "fo"}, deny()),
    (WEAK, "POST", Q, {"vmid": 100, "bogus": 1}, errors(bogus=UNKNOWN)),
    (WEAK, "DELETE", f"{Q}/4711", {}, deny("/vms/4711, VM.Allocate")),
    (WEAK, "PUT", f"{Q}/4711/config", {"tags": "x"}, deny(f"/vms/4711, {EIGHT}")),
    (WEAK, "POST", f"{Q}/115/status/start", {}, deny("/vms/115, VM.PowerMgmt")),
    (ROOT, "GET", "/cluster/nextid", {}, good("100")),
    (WEAK, "GET", "/cluster/nextid", {}, good("100")),
    (ROOT, "GET", "/cluster/nextid", {"vmid": 900}, good("900")),
    (ROOT, "GET", "/cluster/nextid", {"vmid": 101}, errors(vmid="VM 101 already exists")),
    (
        ROOT,
        "GET",
        "/cluster/nextid",
        {"vmid": 50},
        errors(vmid="invalid format - value does not look like a valid VM ID\n"),
    ),
    (ROOT, "GET", "/cluster/nextid", {"vmid": "abc"}, errors(vmid="type check ('integer') failed - got 'abc'")),
    (ROOT, "POST", Q, {"vmid": 101}, die("unable to create VM 101 - VM 101 already exists on node 'pve'")),
    (ROOT, "POST", Q, {"vmid": 102, "net0": "virtio"}, die("no sdn vnet ID specified")),
    (ROOT, "POST", Q, {"vmid": 102, "sshkeys": "not%20a%20key"}, die("SSH public key validation error")),
    (ROOT, "POST", Q, {"vmid": 102, "args": "-foo"}, die("only root can set 'args' config")),
    (ROOT, "POST", Q, {"vmid": 102, "hookscript": "local:snippets/x.pl"}, die("only root can set 'hookscript' config")),
    (
        ROOT,
        "POST",
        Q,
        {"vmid": 102, "hostpci0": "0000:00:02.0"},
        die("only root can set 'hostpci0' config for non-mapped devices"),
    ),
    (ROOT, "POST", Q, {"vmid": 102, "pool": "nope"}, deny("pool 'nope' does not exist")),
    (ROOT, "POST", Q, {"vmid": 102, "scsi0": "vmstore:10G"}, die("unable to parse directory volume name '10G'")),
    (ROOT, "POST", Q, {"vmid": 102, "scsi0": "vmstore:abc"}, die("unable to parse directory volume name 'abc'")),
    (ROOT, "POST", Q, {"vmid": 102, "scsi0": "nosuch:10"}, die("storage 'nosuch' does not exist")),
    (ROOT, "POST", Q, {"vmid": 102, "scsi0": "local:10"}, errors(storage="storage 'local' does not support vm images")),
    (ROOT, "POST", Q, {"vmid": 102, "scsi0": "vmstore:1,import-from=local:import/deb.qcow2"}, errors(scsi0=SPECIAL)),
    (
        ROOT,
        "POST",
        Q,
        {"vmid": 102, "scsi0": "vmstore:0,import-from=local:import/x.img"},
        die("unable to parse directory volume name 'import/x.img'"),
    ),
    (
        ROOT,
        "POST",
        Q,
        {"vmid": 102, "scsi0": "vmstore:0,import-from=local:iso/a.iso"},
        errors(scsi0="local:iso/a.iso has wrong type 'iso' - needs to be 'images' or 'import'"),
    ),
    (
        ROOT,
        "POST",
        Q,
        {"vmid": 102, "scsi0": "vmstore:0,import-from=nosuch:import/x.qcow2"},
        die("storage 'nosuch' does not exist"),
    ),
    (ROOT, "POST", Q, {"vmid": 102, "scsi0": "vmstore:0,import-from=/var/lib/vz/import/deb.qcow2"}, die(PATHS)),
    (POOL, "POST", Q, {"vmid": 150, "pool": "fo", "startup": "order=1"}, deny("/, Sys.Modify")),
    (
        POOL,
        "POST",
        Q,
        {"vmid": 150, "pool": "fo", "net0": "virtio,bridge=vmbr1"},
        deny("/sdn/zones/localnetwork/vmbr1, SDN.Use"),
    ),
    (POOL, "POST", Q, {"vmid": 150, "pool": "fo", "scsi0": "tiny:1"}, deny("/storage/tiny, Datastore.AllocateSpace")),
    (
        POOL,
        "POST",
        Q,
        {"vmid": 150, "pool": "fo", "scsi0": "nosuch:1"},
        deny("/storage/nosuch, Datastore.AllocateSpace"),
    ),
    (
        POOL,
        "POST",
        Q,
        {"vmid": 150, "pool": "fo", "scsi0": "vmstore:0,import-from=tiny:112/vm-112-disk-0.raw"},
        deny("/vms/112, VM.Clone"),
    ),
    (
        POOL,
        "POST",
        Q,
        {"vmid": 150, "pool": "fo", "scsi0": "vmstore:115/vm-115-disk-0.raw"},
        deny("/vms/115, VM.Config.Disk"),
    ),
    (
        POOL,
        "POST",
        Q,
        {"vmid": 150, "pool": "fo", "usb0": "host=1234:5678"},
        die("only root can set 'usb0' config for real devices"),
    ),
    (
        POOL,
        "POST",
        Q,
        {"vmid": 150, "pool": "fo", "serial0": "/dev/ttyS0"},
        die("only root can set 'serial0' config for real devices"),
    ),
    (POOL, "POST", Q, {"vmid": 150, "pool": "fo", "ha-managed": 1}, errors(**{"ha-managed": UNKNOWN})),
    (POOL, "POST", Q, {"vmid": 150, "pool": "fo", "lock": "backup"}, die("only root can set 'lock' config")),
    (POOL, "POST", Q, {"vmid": 150, "pool": "fo", "skiplock": 1}, errors(skiplock=UNKNOWN)),
    (POOL, "POST", Q, {"vmid": 151}, deny()),
    (POOL, "GET", "/access/permissions", {"path": "/vms/115"}, good({"/vms/115": {}})),
    (POOL, "GET", "/access/permissions", {"path": "nope"}, good({"nope": {}})),
    (
        POOL,
        "GET",
        "/access/permissions",
        {"path": "/storage/vmstore"},
        good({"/storage/vmstore": {"Datastore.Audit": 1, "Datastore.AllocateSpace": 1}}),
    ),
    (
        POOL,
        "GET",
        "/access/permissions",
        {"path": "/sdn/zones/localnetwork/vmbr0/20"},
        good({"/sdn/zones/localnetwork/vmbr0/20": {"SDN.Use": 1}}),
    ),
    (POOL, "GET", "/access/permissions", {"userid": "weak@pve"}, deny("/access, Sys.Audit")),
    (ROOT, "PUT", f"{Q}/115/config", {}, die("no options specified")),
    (ROOT, "POST", f"{Q}/115/config", {}, die("no options specified")),
    (
        ROOT,
        "PUT",
        f"{Q}/115/config",
        {"cores": 2, "digest": "00"},
        die("checksum mismatch (file change by other user?)"),
    ),
    (ROOT, "PUT", f"{Q}/115/config", {"delete": "cores,nosuch"}, errors(delete="unknown option 'nosuch'")),
    (ROOT, "PUT", f"{Q}/999/config", {"delete": "cores,nosuch"}, errors(delete="unknown option 'nosuch'")),
    (
        ROOT,
        "PUT",
        f"{Q}/115/config",
        {"delete": "cores", "cores": 3},
        errors(delete="you can't use '-cores' and -delete cores' at the same time"),
    ),
    (ROOT, "PUT", f"{Q}/115/config", {"delete": "lock"}, die("only root can set 'lock' config")),
    (
        ROOT,
        "PUT",
        f"{Q}/115/config",
        {"scsi0": "vmstore:115/vm-115-disk-9.raw"},
        die("volume 'vmstore:115/vm-115-disk-9.raw' does not exist"),
    ),
    (ROOT, "PUT", f"{Q}/900/config", {"cores": 1}, die(GONE)),
    (
        ROOT,
        "PUT",
        f"{Q}/115/resize",
        {"disk": "scsi0", "size": "bad"},
        errors(size="value does not match the regex pattern"),
    ),
    (ROOT, "PUT", f"{Q}/115/resize", {"disk": "scsi0"}, errors(size="property is missing and it is not optional")),
    (ROOT, "DELETE", f"{Q}/126", {}, die("can't remove VM 126 - protection mode enabled")),
    (ROOT, "DELETE", f"{Q}/126", {"skiplock": 1}, errors(skiplock="Only root may use this option.")),
    (ROOT, "DELETE", f"{Q}/900", {}, die(GONE)),
    (ROOT, "POST", f"{Q}/115/status/reboot", {}, die("VM 115 not running")),
    (ROOT, "POST", f"{Q}/115/status/reset", {}, die("VM 115 not running")),
    (ROOT, "GET", f"{Q}/115/agent/network-get-interfaces", {}, die("No QEMU guest agent configured")),
    (ROOT, "POST", f"{Q}/900/agent/ping", {}, die(GONE)),
    (ROOT, "POST", "/pools", {"poolid": "fo"}, die("create pool failed: pool 'fo' already exists")),
    (ROOT, "DELETE", "/pools", {"poolid": "new"}, die("delete pool failed: pool 'new' does not exist")),
    (
        ROOT,
        "GET",
        "/cluster/resources",
        {"type": "bogus"},
        errors(type="value 'bogus' does not have a value in the enumeration 'vm, storage, node, sdn'"),
    ),
    (ROOT, "GET", "/nodes/pve/tasks/garbage/status", {}, errors(upid="unable to parse worker upid")),
    (
        ROOT,
        "GET",
        "/nodes/pve/tasks/UPID:pve:00000001:00000001:6B0511B2:qmstop:130:root@pam:/status",
        {},
        errors(upid="no such task"),
    ),
    (ROOT, "GET", "/nodes/pve/storage/nosuch/status", {}, errors(storage="No such storage.")),
    (
        ROOT,
        "GET",
        "/nodes/pve/storage/local/content/local:iso/none.iso",
        {},
        die("volume_size_info on 'local:iso/none.iso' failed - no format"),
    ),
    (
        ROOT,
        "GET",
        "/nodes/pve/storage/local/content/iso/a.iso",
        {},
        good({"path": "/var/lib/vz/template/iso/a.iso", "format": "raw", "size": 2048, "used": 2048}),
    ),
    (ROOT, "GET", "/nodes/pve/storage/local/content", {"content": "images"}, good([])),
    (
        POOL,
        "DELETE",
        "/nodes/pve/storage/local/content/local:iso/a.iso",
        {},
        deny("/storage/local, Datastore.Allocate"),
    ),
    (
        WEAK,
        "POST",
        "/nodes/pve/storage/local/download-url",
        {"content": "import", "url": "http://x/i.qcow2", "filename": "i.qcow2"},
        deny("/storage/local, Datastore.AllocateTemplate"),
    ),
    (
        ROOT,
        "POST",
        "/nodes/pve/storage/local/download-url",
        {"content": "import", "url": "ftp://x/i.qcow2", "filename": "i.qcow2"},
        errors(url="value does not match the regex pattern"),
    ),
    (
        ROOT,
        "POST",
        "/nodes/pve/storage/local/download-url",
        {"content": "import", "url": "http://x/i.img", "filename": "i.img"},
        errors(filename="invalid filename or wrong extension"),
    ),
    (
        FO,
        "GET",
        "/cluster/status",
        {},
        good(
            [
                {
                    "id": "node/pve",
                    "nodeid": 0,
                    "local": 1,
                    "online": 1,
                    "ip": "ADDRESS",
                    "type": "node",
                    "level": "",
                    "name": "pve",
                }
            ]
        ),
    ),
]


@pytest.mark.parametrize(
    ("token", "method", "path", "sent", "expected"), CASES, ids=[f"{n}-{c[1]}-{c[2]}" for n, c in enumerate(CASES)]
)
def test_answer_is_the_recorded_one(
    bench: Bench, token: str, method: str, path: str, sent: dict[str, object], expected: tuple[int, str, dict[str, Any]]
) -> None:
    how = {"params" if method in ("GET", "DELETE") else "data": sent}
    answer = bench.raw(method, path, token, **how)
    status, reason, body = expected
    for row in body["data"] if isinstance(body["data"], list) else []:
        if row.get("ip") == "ADDRESS":
            row["ip"] = bench.address
    assert (answer.status, answer.reason, answer.body) == (status, reason.split("\n")[0], body)
    assert answer.headers["Server"] == "pve-api-daemon/3.0"
    if status >= 400:
        assert answer.headers["Connection"] == "close"
