"""New env files: complete, fresh, and read back as what was answered."""

from __future__ import annotations

import base64
import hashlib
import stat
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from config_samples import HOME, LAB, ROOT, home, lab, private, problems, secrets_of
from hypothesis import given, settings
from hypothesis import strategies as st

from funoffshore import config, errors, hostkeys
from funoffshore.config import age, keys, lockfile, new, pins, sshkey


def _parse(name: str, text: str) -> config.ClusterConfig:
    return config.parse(text, name, ROOT)


def test_a_lab_has_the_lab_s_addresses() -> None:
    found = _parse("lab", lab())
    assert found.network == config.Network(
        IPv4Network("127.77.0.0/24"),
        IPv4Address("127.77.0.1"),
        (IPv4Address("127.77.0.1"),),
        IPv4Address("127.77.0.10"),
    )
    assert found.proxmox.url == "https://127.77.0.2:8006"
    assert found.proxmox.pool == "fo-lab"
    assert found.lab == config.Lab(ROOT / ".lab" / "lab", "http://127.77.0.3:8088")
    assert found.state == ROOT / ".lab" / "lab" / "state"
    assert found.git.url == "http://127.77.0.3:8088/git/home.git"
    assert found.k3s.download_url == "http://127.77.0.3:8088/k3s"
    assert found.flux.install_url == "http://127.77.0.3:8088/flux/v2.9.4/install.yaml"
    assert found.image == config.Image("http://127.77.0.3:8088/images/debian-13-genericcloud-amd64.qcow2", "4" * 64)
    assert found.ssh.port == 2222
    assert [(n.name, str(n.address), n.vmid) for n in found.nodes] == [
        ("lab-c1", "127.77.0.11", 9000),
        ("lab-c2", "127.77.0.12", 9001),
        ("lab-c3", "127.77.0.13", 9002),
        ("lab-w1", "127.77.0.21", 9010),
        ("lab-w2", "127.77.0.22", 9011),
    ]


def test_everything_in_a_lab_follows_its_subnet() -> None:
    answers = {**LAB, "SUBNET": "127.88.3.0/24", "CONTROLLERS": "5", "WORKERS": "100", "FLUX_VERSION": "v2.10.0"}
    found = _parse("other", new.generate("other", answers, lab=True))
    assert found.proxmox.url == "https://127.88.3.2:8006"
    assert found.lab is not None
    assert found.lab.web_url == "http://127.88.3.3:8088"
    assert found.network.vip == IPv4Address("127.88.3.10")
    assert found.flux.install_url == "http://127.88.3.3:8088/flux/v2.10.0/install.yaml"
    assert {n.address for n in found.nodes} <= set(IPv4Network("127.88.3.0/24").hosts())
    assert len({n.address for n in found.nodes}) == 105


def test_a_lab_leaves_open_only_what_the_lab_knows() -> None:
    said = problems(new.generate("lab", {}, lab=True), "lab")
    names = sorted(line.split(": ")[1] for line in said)
    assert names == ["FLUX_INSTALL_SHA256", "IMAGE_SHA512", "K3S_SHA256", "PROXMOX_FINGERPRINT"]


def test_a_home_follows_its_answers() -> None:
    found = _parse("home", home())
    assert found.lab is None
    assert found.state == ROOT / "ai" / "state"
    assert found.proxmox.fingerprint == "ab" * 32
    assert found.image.algorithm == "sha512"
    assert found.image.digest == "3" * 128
    assert found.image.filename.endswith("-333333333333.qcow2")
    assert found.settings["TRAEFIK_LB_ADDRESS"] == found.settings["VIP"] == "192.168.7.40"
    assert found.settings["CLUSTER_NAME"] == "home"
    assert all(found.settings.values())
    assert found.switches["CLOUDFLARED_ENABLED"] is True
    assert found.app_secrets["CF_TUNNEL_TOKEN"].get_secret_value() == HOME["CF_TUNNEL_TOKEN"]
    assert "ALERTMANAGER_WEBHOOK_URL" not in found.app_secrets
    assert found.git.token is None


def test_another_flux_release_has_its_own_url() -> None:
    text = new.generate("home", {**HOME, "FLUX_VERSION": "v2.10.1"}, lab=False)
    assert _parse("home", text).flux.install_url.endswith("/v2.10.1/install.yaml")


def test_every_secret_is_fresh() -> None:
    one, other = (new.generate("lab", LAB, lab=True) for _ in range(2))
    first, second = secrets_of(one), secrets_of(other)
    assert len(first) == len(second) == len({*first, *second}) / 2


def test_generated_secrets_work() -> None:
    found = _parse("lab", lab())
    pem = found.ssh.private_key.get_secret_value()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    assert isinstance(load_ssh_private_key(pem.encode(), None), Ed25519PrivateKey)
    hostkeys.private(found.ssh.host_key_seed.get_secret_value(), "lab-c1")
    assert len(found.k3s.token.get_secret_value()) == 32
    assert len(bytes.fromhex(found.evidence_key.get_secret_value())) == 32
    assert found.sops_age_key is not None
    assert f".sops.yaml: {age.recipient(found.sops_age_key.get_secret_value())}\n" in lab()


def test_one_secret_alone() -> None:
    assert len(new.secret("PROXMOX_TOKEN_SECRET")) == 36
    assert new.secret("K3S_TOKEN") != new.secret("K3S_TOKEN")
    with pytest.raises(KeyError):
        new.secret("CF_API_TOKEN")


def test_answers_to_no_key_and_impossible_names() -> None:
    with pytest.raises(errors.ConfigError, match=r"^there is no such key: AAA, ZZZ$"):
        new.generate("home", {"ZZZ": "1", "AAA": "2"}, lab=False)
    for name in ("", "Home", "../x", "a b", "x" * 21, "1st", "-a", "a-"):
        with pytest.raises(errors.ConfigError, match="a cluster's name is"):
            new.generate(name, {}, lab=False)
    with pytest.raises(errors.ConfigError, match=r"^SUBNET: is not"):
        new.generate("home", {"SUBNET": "x"}, lab=False)
    with pytest.raises(errors.ConfigError, match="SOPS_AGE_KEY"):
        new.generate("home", {"SOPS_AGE_KEY": "x"}, lab=False)


def test_write_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "config" / "env" / "lab.env"
    new.write(path, lab())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config.load(path).name == "lab"
    with pytest.raises(errors.ConfigError, match=r"^config/env/lab.env exists already"):
        new.write(path, "other")
    assert path.read_text() == lab()
    private(tmp_path / "file", b"")
    with pytest.raises(errors.ConfigError, match="cannot be written"):
        new.write(tmp_path / "file" / "lab.env", lab())


_COUNTS = {"CONTROLLERS": st.sampled_from(["1", "3", "5"]), "WORKERS": st.integers(0, 100).map(str)}


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        _COUNTS,
        optional={
            "PROXMOX_NODES": st.lists(st.sampled_from(["pve1", "pve2", "pve3", "pve4"]), min_size=1, unique=True).map(
                ",".join
            ),
            "VMID_FIRST": st.integers(100, 999_999_000).map(str),
            "CONTROLLER_MEMORY_MIB": st.integers(2048, 9999).map(str),
            "WORKER_DISK_GIB": st.integers(10, 999).map(str),
            "VLAN": st.integers(1, 4094).map(str),
            "CF_API_TOKEN": st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=6),
        },
    ),
    st.integers(1, 250),
    st.booleans(),
)
def test_what_is_generated_reads_back(answers: dict[str, str], third: int, is_lab: bool) -> None:
    if {"'", '"'} <= set(answers.get("CF_API_TOKEN", "")):
        return
    subnet = f"127.{third}.9.0/24" if is_lab else f"192.168.{third}.0/24"
    answers = {**(LAB if is_lab else HOME), "SUBNET": subnet, **answers}
    if not is_lab:
        answers["PROXMOX_URL"] = "https://10.0.0.1:8006"
    found = _parse("any", new.generate("any", answers, lab=is_lab))
    controllers, workers = int(answers["CONTROLLERS"]), int(answers["WORKERS"])
    assert [n.name for n in found.controllers] == [f"any-c{n}" for n in range(1, controllers + 1)]
    assert [n.name for n in found.workers] == [f"any-w{n}" for n in range(1, workers + 1)]
    assert found.nodes == found.controllers + found.workers
    assert len({n.address for n in found.nodes} | {found.network.vip, found.network.gateway}) == len(found.nodes) + 2
    assert len({n.vmid for n in found.nodes}) == len(found.nodes)
    assert all(n.address in found.network.subnet for n in found.nodes)
    assert all(n.identity == config.identity("any", n.name) for n in found.nodes)
    assert found.proxmox.nodes == tuple(answers.get("PROXMOX_NODES", "pve").split(","))
    assert {n.hypervisor for n in found.nodes} == {""}
    assert all(found.proxmox.vmid_first <= n.vmid <= found.proxmox.vmid_last for n in found.nodes)
    for group in (found.controllers, found.workers):
        assert [int(n.address) - int(group[0].address) for n in group] == list(range(len(group)))
    assert found.app_secrets["CF_API_TOKEN"].get_secret_value() == answers.get(
        "CF_API_TOKEN", found.app_secrets["CF_API_TOKEN"].get_secret_value()
    )


def test_single_machines_differ() -> None:
    single = {
        "NODE_C1_MEMORY_MIB": "16384",
        "NODE_W2_IP": "192.168.7.99",
        "NODE_W2_CORES": "16",
        "NODE_W2_DISK_GIB": "500",
        "NODE_W2_PROXMOX_NODE": "big",
        "NODE_W2_DATA_DISK_GIB": "0",
        "NODE_W2_PCI": "gpu,gpu-audio",
        "NODE_C1_USB": "zigbee",
        "NODE_C1_VMID": "4242",
        "NODE_C1_DATA_DISK_GIB": "40",
        "WORKER_DATA_DISK_GIB": "200",
        "PROXMOX_NODES": "small,big",
    }
    found = _parse("home", new.generate("home", {**HOME, **single}, lab=False))
    first, other, second = found.node("home-c1"), found.node("home-w1"), found.node("home-w2")
    assert (first.memory_mib, first.vmid, first.vmid_pinned, first.hypervisor) == (16384, 4242, True, "")
    assert (first.data_disk_gib, first.pci, first.usb) == (40, (), ("zigbee",))
    assert (second.cores, second.disk_gib, second.hypervisor, str(second.address)) == (16, 500, "big", "192.168.7.99")
    assert (second.data_disk_gib, second.pci, second.vmid_pinned) == (0, ("gpu", "gpu-audio"), False)
    assert (other.memory_mib, other.data_disk_gib, other.hypervisor) == (8192, 200, "")
    assert found.node("home-c2").data_disk_gib == 0


def test_what_all_machines_have_in_common() -> None:
    plain = _parse("home", home())
    assert plain.shape == config.Shape()
    assert plain.backup is None
    assert (plain.proxmox.vmid_first, plain.proxmox.vmid_last) == (9000, 9199)
    assert (plain.proxmox.high_availability, plain.proxmox.seed, plain.ssh.trust) == (False, "iso", "seed")
    chosen = {
        "CPU_TYPE": "host",
        "UEFI": "true",
        "FIREWALL": "true",
        "ONBOOT": "false",
        "STARTUP_ORDER": "up=30,2",
        "WATCHDOG": "true",
        "MACHINE_TAGS": "k8s,lab_1",
        "PROXMOX_NODES": "a,b,c",
        "HIGH_AVAILABILITY": "true",
        "VMID_LAST": "9011",
        "SEED": "drive",
        "SSH_TRUST": "agent",
        "VM_BACKUP_STORAGE": "pbs",
        "VM_BACKUP_SCHEDULE": "sat 03:00",
        "VM_BACKUP_KEEP": "keep-last=3",
    }
    found = _parse("home", new.generate("home", {**HOME, **chosen}, lab=False))
    assert found.shape == config.Shape("host", True, True, False, "order=2,up=30", True, ("k8s", "lab_1"))
    assert found.backup == config.Backup("pbs", "sat 03:00", "keep-last=3")
    assert (found.proxmox.vmid_last, found.proxmox.high_availability) == (9011, True)
    assert (found.proxmox.seed, found.ssh.trust) == ("drive", "agent")


def test_a_template_needs_no_digest() -> None:
    answers = {**HOME, "IMAGE_SHA512": "", "IMAGE_TEMPLATE": "debian-13"}
    assert _parse("home", new.generate("home", answers, lab=False)).image.template == "debian-13"


def test_adding_controllers_renumbers_no_worker() -> None:
    few, many = (_parse("home", new.generate("home", {**HOME, "CONTROLLERS": n}, lab=False)) for n in "15")
    assert [(n.name, n.vmid, n.address) for n in few.workers] == [(n.name, n.vmid, n.address) for n in many.workers]


# Identities of age


def test_bech32_agrees_with_published_strings() -> None:
    """BIP 173's shortest valid string, and the recipient of age's own README."""
    assert age._encode("a", b"") == "a12uel5l"
    text = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
    values = ["qpzry9x8gf2tvdw0s3jn54khce6mua7l".index(c) for c in text[4:]]
    assert age._encode("age", bytes(age._regroup(values[:-6], 5, 8)[:32])) == text


@given(st.binary(min_size=32, max_size=32), st.integers(0, 73), st.sampled_from("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L1B- "))
def test_an_age_identity_with_a_typo_is_none(secret: bytes, at: int, char: str) -> None:
    text = age.identity(secret)
    assert len(text) == 74
    assert age.check(text) == text
    wrong = text[:at] + char + text[at + 1 :]
    if wrong != text:
        with pytest.raises(ValueError, match="is not an age identity"):
            age.check(wrong)
    with pytest.raises(ValueError, match="is not an age identity"):
        age.check(text.lower())


# SSH keys


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255))
def test_an_ssh_key_that_passes_is_one_that_a_library_takes(at: int, byte: int) -> None:
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    pem = base64.b64decode(new.secret("SSH_PRIVATE_KEY")).decode()
    head, tail = "-----BEGIN OPENSSH PRIVATE KEY-----\n", "\n-----END OPENSSH PRIVATE KEY-----\n"
    raw = bytearray(base64.b64decode(pem.removeprefix(head).removesuffix(tail)))
    raw[at % len(raw)] = byte
    body = base64.b64encode(raw).decode()
    try:
        sshkey.check(head + body + tail)
    except ValueError:
        return
    loaded = load_ssh_private_key((head + body + tail).encode(), None)
    assert loaded is not None


# Pins


def _web(pages: dict[str, bytes]) -> pins.Fetch:
    def get(url: str) -> bytes:
        if url not in pages:
            raise errors.RefusedError(f"{url}: not found", status=404)
        return pages[url]

    return get


_FLUX = "https://github.com/fluxcd/flux2/releases/download/v2.9.4"
_DEBIAN = "https://cloud.debian.org/images/cloud/trixie"
_PAGES = {
    "https://github.com/k3s-io/k3s/releases/download/v1.36.4%2Bk3s1/sha256sum-amd64.txt": (
        b"%s  k3s-airgap-images-amd64.tar\n%s  k3s\n" % (b"0" * 64, b"a" * 64)
    ),
    "https://github.com/k3s-io/k3s/releases/download/v1.36.4%2Bk3s1/sha256sum-arm64.txt": (
        b"%s  k3s-airgap-images-arm64.tar\n%s  k3s-arm64\n" % (b"0" * 64, b"f" * 64)
    ),
    f"{_FLUX}/flux_2.9.4_checksums.txt": b"%s  flux_2.9.4_linux_amd64.tar.gz\n" % (b"0" * 64),
    f"{_FLUX}/install.yaml": b"kind: Namespace\n",
    f"{_DEBIAN}/latest/debian-13-genericcloud-amd64.json": b'{"data": {"info": {"version": "20261101-2650"}}}',
    f"{_DEBIAN}/20261101-2650/SHA512SUMS": (
        b"%s  debian-13-genericcloud-amd64-20261101-2650.qcow2\n%s  debian-13-genericcloud-amd64-20261101-2650.raw\n"
        % (b"b" * 128, b"c" * 128)
    ),
}


def test_pins_come_from_the_publishers_lists() -> None:
    found = pins.fetch(_web(_PAGES))
    assert list(found.entries.items()) == [
        ("image.url", f"{_DEBIAN}/20261101-2650/debian-13-genericcloud-amd64-20261101-2650.qcow2"),
        ("image.sha512", "b" * 128),
        ("k3s.version", "v1.36.4+k3s1"),
        ("k3s.sha256.amd64", "a" * 64),
        ("k3s.sha256.arm64", "f" * 64),
        ("flux.version", "v2.9.4"),
        ("flux.url", f"{_FLUX}/install.yaml"),
        ("flux.sha256", hashlib.sha256(b"kind: Namespace\n").hexdigest()),
    ]
    answers = {**HOME, **dict.fromkeys(("IMAGE_URL", "IMAGE_SHA512", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "")}
    read = config.parse(new.generate("home", answers, lab=False), "home", ROOT, lockfile.text(found, "home"))
    assert read.image == config.Image(found.entries["image.url"], sha512="b" * 128)
    assert (read.k3s.sha256, read.flux.install_sha256) == ("a" * 64, found.entries["flux.sha256"])


def test_pins_of_a_list_that_holds_install_yaml_and_of_other_images() -> None:
    listed = {**_PAGES, f"{_FLUX}/flux_2.9.4_checksums.txt": b"%s *install.yaml\n" % (b"d" * 64)}
    ubuntu = "https://cloud-images.ubuntu.com/noble/20260101/noble.img"
    listed["https://cloud-images.ubuntu.com/noble/20260101/SHA256SUMS"] = b"%s *noble.img\n" % (b"e" * 64)
    found = pins.fetch(_web(listed), {"IMAGE_URL": ubuntu})
    assert found.entries["flux.sha256"] == "d" * 64
    assert found.section("image") == {"image.url": ubuntu, "image.sha256": "e" * 64}
    for wanted in ({"IMAGE_URL": "https://mirror.example.org/x.qcow2"}, {"IMAGE_TEMPLATE": "debian-13"}):
        assert not pins.fetch(_web(listed), wanted).has("image")


def test_the_newest_image_is_of_the_publisher_that_is_meant() -> None:
    base = "https://cloud-images.ubuntu.com/releases/noble"
    names = ("release-20260105", "release-20251231.2", "release-20260105.1", "release")
    folders = "".join(f'<a href="{name}/">{name}/</a>\n' for name in names).encode()
    dated = f"{base}/release-20260105.1/ubuntu-24.04-server-cloudimg-amd64.img"
    sums = b"%s *ubuntu-24.04-server-cloudimg-amd64.img\n" % (b"e" * 64)
    pages = {**_PAGES, f"{base}/": folders, f"{base}/release-20260105.1/SHA256SUMS": sums}
    moving = "https://cloud-images.ubuntu.com/noble/current/noble-server-cloudimg-amd64.img"
    before = lockfile.ordered({"image.url": f"{base}/release-20250101/ubuntu-24.04-server-cloudimg-amd64.img"})
    for wanted, old in (({"IMAGE_URL": moving}, None), ({}, before)):
        found = pins.fetch(_web(pages), wanted, ["image"], old)
        assert dict(found.entries) == {"image.url": dated, "image.sha256": "e" * 64}
    debian = f"{_DEBIAN}/latest/debian-13-genericcloud-amd64.qcow2"
    assert "20261101-2650" in pins.fetch(_web(pages), {"IMAGE_URL": debian}, ["image"], before).entries["image.url"]
    with pytest.raises(errors.DigestError, match="changes with each release"):
        pins.fetch(_web(pages), {"IMAGE_URL": debian.replace("trixie", "bookworm")}, ["image"])
    with pytest.raises(errors.DigestError, match="lists no release"):
        pins.fetch(_web({f"{base}/": b"<html>"}), {"IMAGE_URL": moving}, ["image"])


@pytest.mark.parametrize("body", [b"", b"<html>", b"xyz  k3s\n", b"%s  k3s2\n" % (b"a" * 64), b"\xff\xfe"])
def test_a_list_without_the_digest_is_an_error(body: bytes) -> None:
    pages = dict.fromkeys(_PAGES, body)
    with pytest.raises(errors.DigestError, match=r"^sha256sum-amd64.txt holds no digest of k3s$"):
        pins.fetch(_web(pages), sections=["k3s"])


def test_every_key_that_can_be_generated_is() -> None:
    for key in keys.known().keys.values():
        if key.generate:
            key.kind.parse(new.secret(key.name))
