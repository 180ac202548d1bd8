"""The table of the Proxmox VE API: the same as the official description, and its texts those of the real API."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funoffshore import pveapi

Q = "/nodes/pve/qemu"
OFFICIAL = {"8.0": "pve-8.0.3.json", "8.4": "pve-8.4.0.json", "9.1": "pve-9.1.3.json"}


def official(release: str) -> dict[str, Any]:
    """The official description's paths; skips where it is not at hand."""
    shared = Path(os.environ.get("FO_SHARED", Path(__file__).parents[2].parent / "shared"))
    path = shared / "pve-api" / OFFICIAL[release]
    if not path.is_file():
        pytest.skip("the official API description is not at hand")
    paths: dict[str, Any] = json.loads(path.read_text())["paths"]
    return paths


def differences(ours: pveapi.Parameter, theirs: dict[str, Any], name: str) -> list[str]:
    """What our parameter says differently, recursively."""
    if "alias" in theirs:
        same = (ours.alias, ours.key_alias) == (theirs["alias"], theirs.get("keyAlias", ""))
        return [] if same else [f"{name}: alias"]
    pairs: dict[str, tuple[object, object]] = {
        "type": (ours.type, theirs.get("type", "string")),
        "optional": (ours.optional, bool(theirs.get("optional"))),
        "maxLength": (ours.max_length, theirs.get("maxLength")),
        "pattern": (ours.pattern, theirs.get("pattern", "")),
        "enum": (list(ours.enum), theirs.get("enum") or []),
        "requires": (ours.requires, theirs.get("requires", "")),
        "default_key": (ours.default_key, bool(theirs.get("default_key"))),
        "minimum": (ours.minimum, float(theirs["minimum"]) if "minimum" in theirs else None),
        "maximum": (ours.maximum, float(theirs["maximum"]) if "maximum" in theirs else None),
    }
    found = [f"{name}: {what}: {a!r} is not {b!r}" for what, (a, b) in pairs.items() if a != b]
    shape = theirs.get("format", "")
    if not isinstance(shape, dict):
        return found if ours.format == shape else [*found, f"{name}: format {shape}"]
    parts = ours.parts or {}
    if set(parts) != set(shape):
        return [*found, f"{name}: keys {set(parts) ^ set(shape)}"]
    return found + [text for key in parts for text in differences(parts[key], shape[key], f"{name}.{key}")]


@pytest.mark.parametrize("release", pveapi.RELEASES)
def test_table_is_what_the_official_description_says(release: str) -> None:
    theirs = official(release)
    wrong: list[str] = []
    for (method, path), operation in pveapi.table(release).items():
        there = theirs[path][method]
        wrong += [f"{method} {path} protected"] if operation.protected != bool(there.get("protected")) else []
        wrong += [f"{method} {path} returns"] if operation.returns != there["returns"].get("type", "") else []
        for name, parameter in operation.parameters.items():
            if name == "description":  # its key is among those that the description's extract leaves out
                continue
            if name not in there["parameters"]:
                wrong.append(f"{method} {path} {name} is not there")
            else:
                wrong += differences(parameter, there["parameters"][name], f"{method} {path} {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("release", pveapi.RELEASES)
def test_permission_checks_are_the_official_ones(release: str) -> None:
    def plain(tree: object) -> object:
        if not isinstance(tree, list | tuple):
            return tree
        return [plain(part) for part in tree if part not in (1, "require_param", "pool")]

    theirs = official(release)
    for (method, path), operation in pveapi.table(release).items():
        check = theirs[path][method]["permissions"].get("check", [])
        assert plain(operation.allowed) == plain(check), (method, path)


UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"
MISSING = "property is missing and it is not optional"
REGEX = "value does not match the regex pattern"


def wrong(text: str) -> str:
    """What a failed format says."""
    return f"invalid format - {text}\n"


def nested(text: str) -> str:
    """What a failed property string says."""
    return f"invalid format - format error\n{text}\n"


CREATE_REFUSALS: list[tuple[dict[str, str], dict[str, str]]] = [
    ({"bogus": "1"}, {"bogus": UNKNOWN}),
    ({"onboot": "True"}, {"onboot": "type check ('boolean') failed - got 'True'"}),
    ({"cores": "0"}, {"cores": "value must have a minimum value of 1"}),
    ({"memory": "abc"}, {"memory": nested("memory.current: type check ('integer') failed - got 'abc'")}),
    ({"memory": "current=8"}, {"memory": nested("memory.current: value must have a minimum value of 16")}),
    ({"name": "under_score"}, {"name": wrong("value does not look like a valid DNS name")}),
    ({"name": ""}, {"name": wrong("value does not look like a valid DNS name")}),
    ({"net0": "virtio,brige=vmbr0"}, {"net0": nested(f"net0.brige: {UNKNOWN}")}),
    ({"net0": "virtio,virtio"}, {"net0": wrong("duplicate key in comma-separated list property: model")}),
    ({"net0": "bridge=vmbr0"}, {"net0": nested("net0.model: " + MISSING)}),
    (
        {"net0": "virtio=zz:zz,bridge=vmbr0"},
        {"net0": nested("net0.macaddr: " + wrong("value does not look like a valid unicast MAC address"))},
    ),
    ({"scsi31": "vmstore:1"}, {"scsi31": UNKNOWN}),
    ({"scsi0": "vmstore:0,foo=bar"}, {"scsi0": nested(f"scsi0.foo: {UNKNOWN}")}),
    ({"scsi0": "vmstore:0,import-from"}, {"scsi0": wrong("duplicate key in comma-separated list property: file")}),
    (
        {"ipconfig0": "ip=10.0.0.300/24"},
        {"ipconfig0": nested("ipconfig0.ip: " + wrong("value does not look like a valid ipv4 network configuration"))},
    ),
    (
        {"ipconfig0": "ip=10.0.0.3"},
        {"ipconfig0": nested("ipconfig0.ip: " + wrong("value does not look like a valid ipv4 network configuration"))},
    ),
    (
        {"ipconfig0": "ip=10.0.0.3/24,gw=nope"},
        {"ipconfig0": nested("ipconfig0.gw: " + wrong("value does not look like a valid IPv4 address"))},
    ),
    (
        {"ipconfig0": "gw=10.0.0.1"},
        {"ipconfig0": nested("ipconfig0.ip: missing property - 'ipconfig0.gw' requires this property")},
    ),
    ({"ipconfig0": "10.0.0.3/24"}, {"ipconfig0": wrong("value without key, but schema does not define a default key")}),
    (
        {"sshkeys": "ssh-ed25519 AAAA me@host"},
        {"sshkeys": wrong("invalid urlencoded string: ssh-ed25519 AAAA me@host")},
    ),
    ({"tags": "bad tag;x=y"}, {"tags": wrong("invalid characters in tag")}),
    ({"tags": "-x"}, {"tags": wrong("invalid characters in tag")}),
    ({"smbios1": "uuid=nope"}, {"smbios1": nested("smbios1.uuid: " + REGEX)}),
    ({"boot": "order=foo"}, {"boot": nested("boot.order: " + wrong("invalid boot device 'foo'"))}),
    (
        {"cpu": "nosuchmodel"},
        {"cpu": wrong("Built-in cputype 'nosuchmodel' is not defined (missing 'custom-' prefix?)")},
    ),
    ({"machine": "q36"}, {"machine": nested("machine.type: " + REGEX)}),
    ({"agent": "maybe"}, {"agent": nested("agent.enabled: type check ('boolean') failed - got 'maybe'")}),
    ({"serial0": "foo"}, {"serial0": REGEX}),
    ({"startup": "x"}, {"startup": wrong("unable to parse startup options")}),
    ({"bios": "uefi"}, {"bios": "value 'uefi' does not have a value in the enumeration 'seabios, ovmf'"}),
    ({"cicustom": "user=local:snippets/a.yaml,foo=1"}, {"cicustom": nested(f"cicustom.foo: {UNKNOWN}")}),
    ({"hostpci0": "mapping=x"}, {"hostpci0": nested("hostpci0.mapping: " + wrong("invalid configuration ID 'x'"))}),
    ({"description": "x" * 9000}, {"description": "value may only be 8192 characters long"}),
]
"""Recorded from a real 8.4 API: what was sent, and ``errors`` of the answer."""


@pytest.mark.parametrize(("sent", "errors"), CREATE_REFUSALS, ids=lambda value: next(iter(value)))
@pytest.mark.parametrize("release", ["8.4", "9.1"])
def test_refusals_have_the_recorded_texts(release: str, sent: dict[str, str], errors: dict[str, str]) -> None:
    assert pveapi.check(release, "POST", Q, {"vmid": "101", **sent}) == errors


@pytest.mark.parametrize(
    ("vmid", "text"),
    [
        ("abc", "type check ('integer') failed - got 'abc'"),
        ("99", "invalid format - value does not look like a valid VM ID\n"),
        (["1", "2"], "type check ('integer') failed - got ARRAY"),
    ],
)
def test_vmid_refusals(vmid: object, text: str) -> None:
    assert pveapi.check("8.4", "POST", Q, {"vmid": vmid}) == {"vmid": text}
    assert pveapi.check("8.4", "POST", Q, {"name": "x"}) == {"vmid": "property is missing and it is not optional"}


def test_fo_create_call_passes_in_both_releases() -> None:
    call = {
        "vmid": 901, "name": "lab-c1", "ostype": "l26", "machine": "q35", "cpu": "x86-64-v2-AES", "cores": 2,
        "memory": 4096, "balloon": 0, "scsihw": "virtio-scsi-single", "agent": "enabled=1", "onboot": 1,
        "scsi0": "local-lvm:0,import-from=local:import/x.qcow2,discard=on,ssd=1,iothread=1",
        "ide2": "local:iso/seed.iso,media=cdrom", "boot": "order=scsi0", "serial0": "socket", "vga": "serial0",
        "net0": "virtio=BC:24:11:0A:0B:0C,bridge=vmbr0,tag=10,firewall=1", "tags": "fo;fo-lab", "pool": "fo",
        "smbios1": "uuid=8c6b5a3e-1111-4222-8333-abcdefabcdef,serial=YWJj,base64=1", "description": "ü\n#",
        "ipconfig0": "ip=10.0.0.11/24,gw=10.0.0.1", "nameserver": "10.0.0.1 1.1.1.1", "sshkeys": "ssh-ed25519%20AAAA",
    }  # fmt: skip
    for release in pveapi.RELEASES:
        assert pveapi.check(release, "POST", Q, call) == {}


def test_releases_differ_where_they_do() -> None:
    sent = {"vmid": "101", "ha-managed": "1"}
    assert pveapi.check("9.1", "POST", Q, sent) == {}
    assert pveapi.check("8.4", "POST", Q, sent) == {"ha-managed": UNKNOWN}
    drive = {"vmid": "101", "scsi0": "a-store:1,secs=5"}
    assert pveapi.check("8.4", "POST", Q, drive) == {}
    assert "scsi0.secs" in pveapi.check("9.1", "POST", Q, drive)["scsi0"]
    assert pveapi.privileges.role("8.4")["/vms"][-1] == "VM.Monitor"


def test_lists_may_repeat_their_key_and_requires_is_mutual() -> None:
    assert pveapi.check("9.1", "PUT", f"{Q}/101/config", {"delete": ["agent", "net1"]}) == {}
    sent = {"content": "iso", "filename": "a.iso", "url": "http://x/a.iso", "checksum": "00"}
    errors = pveapi.check("9.1", "POST", "/nodes/pve/storage/local/download-url", sent)
    assert errors == {"checksum-algorithm": "missing property - 'checksum' requires this property"}


def test_find_reads_parameters_from_the_path() -> None:
    operation, values = pveapi.find("9.1", "DELETE", "/nodes/pve/storage/local/content/local:iso/seed.iso")
    assert operation.path.endswith("/content/{volume}")
    assert values == {"node": "pve", "storage": "local", "volume": "local:iso/seed.iso"}
    for method, path in (("PUT", "/version"), ("GET", "/nope"), ("POST", f"{Q}/900/status/current"), ("GET", "")):
        with pytest.raises(pveapi.UnknownOperationError):
            pveapi.find("9.1", method, path)
    with pytest.raises(ValueError, match=r"no table for Proxmox VE 7\.4"):
        pveapi.table("7.4")


def test_privileges_are_refused_as_proxmox_words_it() -> None:
    def held(path: str) -> set[str]:
        return {"/storage/local": {"Datastore.AllocateTemplate"}, "/nodes/pve": {"Sys.AccessNetwork"}}.get(path, set())

    table = pveapi.table("9.1")
    download = table["POST", "/nodes/{node}/storage/{storage}/download-url"].allowed
    assert pveapi.privileges.denied(download, {"storage": "local", "node": "pve"}, held) is None
    assert pveapi.privileges.denied(download, {"storage": "local", "node": "other"}, held) == ""
    why = pveapi.privileges.denied(download, {"storage": "x", "node": "pve"}, held)
    assert why == "/storage/x, Datastore.AllocateTemplate"
    content = table["GET", "/nodes/{node}/storage/{storage}/content"].allowed
    why = pveapi.privileges.denied(content, {"storage": "nosuch"}, held)
    assert why == "/storage/nosuch, Datastore.Audit|Datastore.AllocateSpace"


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("cores", ("VM.Config.CPU",)),
        ("net3", ("VM.Config.Network",)),
        ("ipconfig0", ("VM.Config.Cloudinit", "VM.Config.Network")),
        ("scsi0", ()),
        ("tags", ()),
        ("args", None),
        ("lock", None),
    ],
)
def test_privilege_behind_an_option(option: str, wanted: tuple[str, ...] | None) -> None:
    assert pveapi.privileges.of_option(option) == wanted


def test_parse_turns_aliases_into_keys() -> None:
    parameter = pveapi.table("9.1")["POST", "/nodes/{node}/qemu"].parameter("net0")
    assert parameter is not None
    assert parameter.parts is not None
    found = pveapi.parse(parameter.parts, "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=yes")
    assert found == {"model": "virtio", "macaddr": "BC:24:11:00:00:01", "bridge": "vmbr0", "firewall": "1"}
    with pytest.raises(pveapi.FormatError, match="missing key"):
        pveapi.parse(parameter.parts, "=x")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_check_never_raises_whatever_is_sent(data: st.DataObject) -> None:
    release = data.draw(st.sampled_from(pveapi.RELEASES))
    operation = data.draw(st.sampled_from(list(pveapi.table(release).values())))
    names = [name.replace("[n]", "0") for name in operation.parameters] + ["bogus", "scsi99", ""]
    value = st.one_of(st.text(), st.integers(), st.lists(st.text(), max_size=2), st.dictionaries(st.text(), st.text()))
    sent = data.draw(st.dictionaries(st.sampled_from(names), value, max_size=5))
    errors = pveapi.check_parameters(operation, sent)
    assert all(isinstance(text, str) and text for text in errors.values())
