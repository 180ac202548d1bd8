"""Wrong values, and exactly what is said about each."""

from __future__ import annotations

import base64

import pytest
from config_samples import LAB, edit, expect, home, lab, problems
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from funoffshore.config import new, proxmox


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> str:
    lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, lock).decode()


_ED = ed25519.Ed25519PrivateKey.generate()
_URL = "the value is not a URL like"
_USER = "holds a user or password; a URL here never does, secrets have keys of their own"

SINGLE: list[tuple[str, str | None, str]] = [
    ("CLUSTER_NAME", "other", "differs from the name of the file, which is <CLUSTER_NAME>.env"),
    (
        "CLUSTER_NAME",
        "Home",
        '"Home" is not a DNS label in lower case of at most 20 characters, starting with a letter',
    ),
    ("CLUSTER_NAME", None, "is required and missing"),
    ("CLUSTER_NAME", "", "is empty, and required"),
    ("LAB", "yes", '"yes" is not "embedded"'),
    ("DOMAIN", "home", '"home" is not a domain in lower case, like home.example.org'),
    ("DOMAIN", "a..org", '"a..org" is not a domain in lower case, like home.example.org'),
    ("TIMEZONE", "Europe/Berlln", '"Europe/Berlln" is not a time zone of the IANA database, like Europe/Berlin'),
    ("TIMEZONE", "../etc/passwd", '"../etc/passwd" is not a time zone of the IANA database, like Europe/Berlin'),
    ("TIMEZONE", "Europe", '"Europe" is not a time zone of the IANA database, like Europe/Berlin'),
    ("TIMEZONE", "", "is empty; leave the line out to get Etc/UTC"),
    ("PROXMOX_URL", "http://192.168.7.5:8006", f"{_URL} https://host:8006, without a path"),
    ("PROXMOX_URL", "https://192.168.7.5:8006/api2", f"{_URL} https://host:8006, without a path"),
    ("PROXMOX_URL", "https://192.168.7.500:8006", f"{_URL} https://host:8006, without a path"),
    ("PROXMOX_URL", "https://192.168.7.5:800600", f"{_URL} https://host:8006, without a path"),
    ("PROXMOX_URL", "https://root:geheim@192.168.7.5", _USER),
    ("PROXMOX_TOKEN_ID", "fo!pve", "the value is not a Proxmox token ID, like fo@pve!fo"),
    (
        "PROXMOX_TOKEN_ID",
        "root@pam",
        (
            f"is a user and not a token, and fo logs in with tokens alone: {proxmox.ONLY_TOKENS}. "
            "pveum user token add <user@realm> fo makes one, and its ID is <user@realm>!fo"
        ),
    ),
    (
        "PROXMOX_PASSWORD",
        "geheim",
        (
            "there is no such key; fo logs in with an API token alone (PROXMOX_TOKEN_ID, PROXMOX_TOKEN_SECRET): "
            f"{proxmox.ONLY_TOKENS}"
        ),
    ),
    (
        "PROXMOX_TOKEN_ID",
        "fo@pve!fo=6f1d2c3b-0a1b-4c2d-8e3f-001122334455",
        "holds more than the ID; what stands behind the = belongs in PROXMOX_TOKEN_SECRET",
    ),
    ("PROXMOX_TOKEN_SECRET", "geheim", "the value is not a Proxmox token secret (a UUID in lower case)"),
    (
        "PROXMOX_TOKEN_SECRET",
        "fo@pve!fo=6f1d2c3b-0a1b-4c2d-8e3f-001122334455",
        "holds more than the secret; what stands before the = belongs in PROXMOX_TOKEN_ID",
    ),
    ("PROXMOX_FINGERPRINT", "AB:CD", '"AB:CD" is not a SHA-256 fingerprint: 64 hex digits, with or without colons'),
    ("PROXMOX_NODES", "pve,", "has an empty item"),
    ("PROXMOX_NODES", "pve,pve", "names an item twice"),
    ("PROXMOX_NODES", "", "is empty; leave the line out to get pve"),
    ("PROXMOX_NODES", ",".join(f"n{n}" for n in range(17)), "names more than 16"),
    ("HIGH_AVAILABILITY", "true", "needs 3 PROXMOX_NODES, as a vote needs 3; there are 1"),
    ("VMID_LAST", "99", '"99" is not a whole number between 100 and 999999999'),
    ("VMID_LAST", "8999", "8999 is less than VMID_FIRST, 9000"),
    ("VMID_LAST", "9010", "is 9010, and home-w2 would have 9011; give at least that"),
    ("CONTROLLER_DATA_DISK_GIB", "9", '"9" is not 0, or a whole number between 10 and 65536'),
    ("CPU_TYPE", "Haswel", '"Haswel" is not a 64-bit CPU type of Proxmox, like x86-64-v3 or host, or custom-<name>'),
    ("CPU_TYPE", "host,flags=+aes", "holds more than the type; flags belong in a custom-<name> type of Proxmox"),
    ("CPU_TYPE", "kvm32", "is a 32-bit type, and K3s needs 64"),
    ("UEFI", "yes", '"yes" is not true or false'),
    ("STARTUP_ORDER", "first", '"first" is not a startup order of Proxmox, like order=2,up=30'),
    ("STARTUP_ORDER", "2,order=3", "sets order twice"),
    ("MACHINE_TAGS", "Prod", '"Prod" is not tags of Proxmox in lower case, with commas between them'),
    ("MACHINE_TAGS", "k8s,fo-home", "holds a tag that begins with fo; those are fo's own"),
    ("SEED", "usb", '"usb" is not "iso" or "drive"'),
    ("SSH_TRUST", "none", '"none" is not "seed" or "agent" or "first-use" or "known"'),
    ("VM_BACKUP_STORAGE", "a/b", '"a/b" is not the ID of a Proxmox storage'),
    (
        "VM_BACKUP_SCHEDULE",
        "25:00",
        (
            '"25:00" is not a Proxmox schedule: a time like 02:30, "sat 02:30", "mon..fri 22:00" or */6:00, or daily, '
            "weekly or monthly"
        ),
    ),
    ("VM_BACKUP_KEEP", "7", '"7" is not a retention of Proxmox, like keep-daily=7,keep-weekly=4'),
    ("VM_BACKUP_KEEP", "keep-all=1,keep-last=2", "takes keep-all only as keep-all=1, and alone"),
    ("VM_BACKUP_KEEP", "keep-last=0", "would keep no backup at all"),
    ("STORAGE_DISK", "a/b", '"a/b" is not the ID of a Proxmox storage'),
    ("BRIDGE", "vmbr0,tag=3", '"vmbr0,tag=3" is not the name of a Proxmox bridge, like vmbr0'),
    ("VLAN", "4095", '"4095" is not a whole number between 1 and 4094'),
    ("VMID_FIRST", "99", '"99" is not a whole number between 100 and 999999000'),
    ("IMAGE_URL", "https://x.org/image.iso", "the value is not a URL of a .qcow2 or .img file"),
    ("IMAGE_URL", "http://x.org/i.qcow2", "is an http:// one, which is only for LAB=embedded"),
    ("IMAGE_URL", "", "is empty, and there is no config/lock/home.yaml that names one"),
    (
        "IMAGE_URL",
        "https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2",
        "leads to another image after each release; give a dated one, or leave it empty and run `fo lock update`",
    ),
    (
        "IMAGE_SHA512",
        None,
        (
            "is required and missing: run `fo lock update -c home`, which writes config/lock/home.yaml, or give it or "
            "IMAGE_SHA256 here"
        ),
    ),
    (
        "K3S_SHA256",
        "",
        "is required and missing: run `fo lock update -c home`, which writes config/lock/home.yaml, or give it here",
    ),
    ("IMAGE_TEMPLATE", "a_b", '"a_b" is not the name of a VM template'),
    ("IMAGE_SHA512", "AB" * 64, "the value is not 128 hex digits in lower case"),
    ("SUBNET", "192.168.7.1/24", "has bits set behind its prefix; the network is 192.168.7.0/24"),
    ("SUBNET", "192.168.7.0", "has no prefix length, like /24"),
    ("SUBNET", "192.168.7.0/255.255.255.0", "the value is not an IPv4 network, like 192.168.1.0/24"),
    ("GATEWAY", "192.168.8.1", "the gateway would have 192.168.8.1, which is outside SUBNET 192.168.7.0/24"),
    (
        "GATEWAY",
        "192.168.7.255",
        "the gateway would have 192.168.7.255, the broadcast address of SUBNET 192.168.7.0/24",
    ),
    ("GATEWAY", "192.168.07.1", '"192.168.07.1" is not an IPv4 address'),
    ("VIP", "192.168.7.0", "the VIP would have 192.168.7.0, the network address of SUBNET 192.168.7.0/24"),
    ("VIP", "192.168.7.1", "the VIP would have 192.168.7.1, which the gateway has already (GATEWAY)"),
    ("DNS_SERVERS", "192.168.7.42", "192.168.7.42 is the address of home-c2 (CONTROLLER_FIRST_IP)"),
    ("DNS_SERVERS", "192.168.7.40", "192.168.7.40 is the address of the VIP (VIP)"),
    ("DNS_SERVERS", "1.1.1.1,9.9.9.9,8.8.8.8,8.8.4.4", "names more than 3 servers; resolv.conf(5) takes no more"),
    ("DNS_SERVERS", "127.0.0.53", "127.0.0.53 is on loopback, which is only for LAB=embedded"),
    ("CONTROLLERS", "2", "2 is an even number: etcd would survive no more losses than with 1"),
    ("CONTROLLERS", "4", "4 is an even number: etcd would survive no more losses than with 3"),
    ("CONTROLLERS", "7", '"7" is not 1, 3 or 5'),
    ("WORKERS", "many", '"many" is not a whole number between 0 and 100'),
    ("WORKERS", "101", '"101" is not a whole number between 0 and 100'),
    ("WORKERS", "007", '"007" is not a whole number between 0 and 100'),
    ("WORKERS", "٣", '"٣" is not a whole number between 0 and 100'),
    ("WORKER_FIRST_IP", "", "is required when WORKERS is 2"),
    ("CONTROLLER_MEMORY_MIB", "2047", '"2047" is not a whole number between 2048 and 4194304'),
    ("WORKER_MEMORY_MIB", "1023", '"1023" is not a whole number between 1024 and 4194304'),
    ("SSH_USER", "root", "is root; on machines that it makes fo logs in as a user with sudo"),
    ("SSH_PORT", "0", '"0" is not a whole number between 1 and 65535'),
    ("SSH_PRIVATE_KEY", "geheim!", "is not base64 of a private key file, on one line"),
    ("SSH_PRIVATE_KEY", _b64("ssh-ed25519 AAAA"), "is base64, but not of a private key file"),
    (
        "SSH_PRIVATE_KEY",
        _b64("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
        "is not an OpenSSH private key file (ssh-keygen -t ed25519 makes one)",
    ),
    (
        "SSH_PRIVATE_KEY",
        _b64(_pem(ec.generate_private_key(ec.SECP256R1()))),
        "is not an ed25519 key (ssh-keygen -t ed25519 makes one)",
    ),
    ("SSH_PRIVATE_KEY", _b64(_pem(_ED).replace("AAAA", "AAAB", 1)), "is a damaged OpenSSH private key"),
    ("HOST_KEY_SEED", "5" * 63, "the value is not 64 hex digits in lower case"),
    ("K3S_VERSION", "1.36.4", '"1.36.4" is not a K3s release, like v1.36.4+k3s1'),
    ("K3S_DOWNLOAD_URL", "https://x.org/a?b=c", "has a query or fragment"),
    ("K3S_SHA256", "x", '"x" is not 64 hex digits in lower case'),
    ("K3S_TOKEN", "short", "the value is not 16 to 128 letters and digits"),
    ("CLUSTER_CIDR", "192.168.0.0/16", "192.168.0.0/16 overlaps with SUBNET 192.168.7.0/24"),
    ("CLUSTER_CIDR", "10.42.0.0/22", "10.42.0.0/22 has room for 4 machines (a /24 each), not for 5"),
    ("CLUSTER_CIDR", "10.42.0.0/26", "10.42.0.0/26 has room for 0 machines (a /24 each), not for 5"),
    ("SERVICE_CIDR", "10.42.0.0/16", "10.42.0.0/16 overlaps with CLUSTER_CIDR 10.42.0.0/16"),
    ("SERVICE_CIDR", "10.64.0.0/11", "has a prefix outside /12 to /24"),
    ("SECRETS_ENCRYPTION", "yes", '"yes" is not true or false'),
    ("K3S_EXTRA_CONFIG", "token=geheim", "sets token, which fo sets itself (K3S_TOKEN)"),
    ("K3S_EXTRA_CONFIG", "a=1;a=2", "sets a key twice"),
    ("K3S_EXTRA_CONFIG", "a", 'the value is not key=value pairs with ";" between them'),
    ("GIT_URL", "http://git.example.org/x", "is an http:// one, which is only for LAB=embedded"),
    ("GIT_URL", "https://you:geheim@git.example.org/x", _USER),
    ("GIT_URL", "https://localhost/x", "its host is on loopback, which is only for LAB=embedded"),
    ("GIT_PATH", "../infra", '"../infra" is not a path inside the repository'),
    ("GIT_PATH", "/infra", '"/infra" is not a path inside the repository'),
    ("GIT_BRANCH", "a..b", '"a..b" is not a Git branch'),
    ("GIT_SSH_KEY", _b64(_pem(_ED)), "is given, and GIT_URL is not an ssh:// one"),
    ("SOPS_AGE_KEY", "geheim", "is not an age identity (AGE-SECRET-KEY-1…)"),
    (
        "SOPS_AGE_KEY",
        "AGE-SECRET-KEY-1" + "Q" * 58,
        "is not an age identity: its checksum is wrong, so a character is missing or mistyped",
    ),
    ("NFS_SERVER", "nas_1", '"nas_1" is not a host name in lower case or an IPv4 address'),
    ("ACME_EMAIL", "you", '"you" is not a mail address'),
    ("CLOUDFLARED_ENABLED", "1", '"1" is not true or false'),
    ("CF_TUNNEL_TOKEN", "", "is required while CLOUDFLARED_ENABLED is true"),
    ("CF_API_TOKEN", "abc", "the value is not at least 6 characters without spaces around them"),
    ("NODE_W3_IP", "192.168.7.99", "there is no worker 3, as WORKERS is 2"),
    ("NODE_C4_VMID", "500", "there is no controller 4, as CONTROLLERS is 3"),
    ("NODE_C1_MEMORY_MIB", "1024", "1024 is less than the 2048 MiB that a controller needs"),
    ("NODE_W1_PROXMOX_NODE", "pve9", "is not one of PROXMOX_NODES"),
    ("NODE_W1_PCI", "0000:01:00.0", '"0000:01:00.0" is not names of resource mappings with commas between them'),
    ("NODE_W1_USB", ",".join(f"stick{n}" for n in range(15)), "names more than 14"),
    ("NODE_W1_VMID", "9000", "home-w1 would have 9000, which home-c1 has already (VMID_FIRST)"),
    ("NODE_W2_IP", "192.168.7.51", "home-w2 would have 192.168.7.51, which home-w1 has already (WORKER_FIRST_IP)"),
    (
        "NODE_W2_NAME",
        "x",
        (
            "there is no such key; for one machine: NODE_C1_ or NODE_W1_ with MACHINE, IP, IPV6, LABELS, TAINTS, VMID, "
            "CORES, MEMORY_MIB, DISK_GIB, DATA_DISK_GIB, PROXMOX_NODE, PCI, USB"
        ),
    ),
    ("WORKRES", "3", "there is no such key; did you mean WORKERS?"),
    ("ZZZ", "geheim", "there is no such key"),
]


@pytest.mark.parametrize(("name", "value", "problem"), SINGLE)
def test_one_wrong_value(name: str, value: str | None, problem: str) -> None:
    text = edit(home(), {name: value})
    expect(text, f"{name}: {problem}")
    assert "geheim" not in str(problems(text))


def test_right_files_have_no_problems() -> None:
    assert problems(home()) == []
    assert problems(lab(), "lab") == []


def test_everything_at_once_in_the_order_of_the_lines() -> None:
    text = edit(home(), {"WORKERS": "many", "DOMAIN": "", "K3S_TOKEN": "x y", "GATEWAY": None, "ZZZ": "1", "VLAN": "x"})
    said = problems(text + "VLAN=3\n")
    numbers = [int(line.split()[1].rstrip(":")) for line in said if line.startswith("line ")]
    assert len(said) == 7
    assert numbers == sorted(numbers)
    assert said[-1] == "GATEWAY: is required and missing"


def test_a_machine_range_that_leaves_the_subnet() -> None:
    text = edit(home(), {"WORKER_FIRST_IP": "192.168.7.254"})
    expect(
        text,
        "WORKER_FIRST_IP: home-w2 would have 192.168.7.255, the broadcast address of SUBNET 192.168.7.0/24",
    )
    text = edit(home(), {"WORKER_FIRST_IP": "255.255.255.255"})
    assert all("255.255.255.255, which is outside SUBNET" in line for line in problems(text))


def test_ranges_that_meet_name_both_keys() -> None:
    expect(
        edit(home(), {"WORKER_FIRST_IP": "192.168.7.43"}),
        "WORKER_FIRST_IP: home-w1 would have 192.168.7.43, which home-c3 has already (CONTROLLER_FIRST_IP)",
    )


def test_scp_like_git_url() -> None:
    expect(
        edit(home(), {"GIT_URL": "git@github.com:you/homelab.git"}),
        "GIT_URL: is written as for scp; write it as ssh://git@host/path",
    )


def test_k3s_parts() -> None:
    expect(
        edit(home(), {"K3S_DISABLE": "treafik"}),
        'K3S_DISABLE: "treafik" is not parts out of coredns, servicelb, traefik, local-storage, metrics-server, with '
        "commas between them",
    )
    assert problems(edit(home(), {"K3S_DISABLE": ""})) == []


def test_flux_url_of_another_release() -> None:
    expect(
        edit(home(), {"FLUX_VERSION": "v2.9.5"}),
        "FLUX_INSTALL_URL: is of release v2.9.4, and FLUX_VERSION is v2.9.5",
    )


def test_lab_keys_outside_a_lab() -> None:
    expect(
        edit(home(), {"LAB_WEB_URL": "http://127.77.0.3:8088"}),
        "LAB_WEB_URL: is only for a lab, and LAB is empty",
        "LAB_WEB_URL: its host is on loopback, which is only for LAB=embedded",
    )


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("PROXMOX_URL", "https://192.168.1.5:8006", "its host"),
        ("GIT_URL", "https://github.com/x/y", "its host"),
        ("IMAGE_URL", "https://cloud.debian.org/x.qcow2", "its host"),
        ("DNS_SERVERS", "1.1.1.1", "1.1.1.1"),
    ],
)
def test_a_lab_leads_nowhere_else(name: str, value: str, what: str) -> None:
    wanted = f"{name}: {what} is not on loopback (127.0.0.0/8), and LAB=embedded lives there alone"
    expect(edit(lab(), {name: value}), wanted, name="lab")


def test_a_lab_needs_its_web_and_a_loopback_subnet() -> None:
    expect(edit(lab(), {"LAB_WEB_URL": ""}), "LAB_WEB_URL: is required in a lab", name="lab")
    text = new.generate("lab", {**LAB, "SUBNET": "10.1.2.0/24"}, lab=True)
    assert any("SUBNET: 10.1.2.0/24 is not on loopback" in line for line in problems(text, "lab"))
    text = edit(lab(), {"LAB": "", "LAB_WEB_URL": ""})
    assert any("SUBNET: 127.77.0.0/24 is on loopback" in line for line in problems(text, "lab"))


@pytest.mark.parametrize("subnet", ["224.0.0.0/24", "169.254.1.0/24", "0.0.0.0/8", "240.0.0.0/8"])
def test_networks_that_no_machine_lives_in(subnet: str) -> None:
    text = edit(home(), {"SUBNET": subnet})
    assert any(f"SUBNET: {subnet} is not a network for machines" in line for line in problems(text))


def test_subnet_sizes() -> None:
    assert any("SUBNET: has a prefix outside" in line for line in problems(edit(home(), {"SUBNET": "192.168.7.0/30"})))


def test_tokens_must_differ() -> None:
    same = {"K3S_TOKEN": "a" * 32, "K3S_AGENT_TOKEN": "a" * 32}
    expect(edit(home(), same), "K3S_AGENT_TOKEN: is the same as K3S_TOKEN; a worker could join as a server")


def test_ssh_git_needs_its_key_and_the_host_s() -> None:
    text = edit(home(), {"GIT_URL": "ssh://git@github.com/you/homelab", "GIT_TOKEN": "geheim-geheim"})
    expect(
        text,
        "GIT_TOKEN: is given, and GIT_URL is an ssh:// one; it takes GIT_SSH_KEY",
        "GIT_SSH_KEY: is required when GIT_URL is an ssh:// one",
        "GIT_KNOWN_HOSTS: is required when GIT_URL is an ssh:// one",
    )
    good = {"GIT_TOKEN": "", "GIT_SSH_KEY": _b64(_pem(_ED)), "GIT_KNOWN_HOSTS": f'"github.com ssh-ed25519 {"A" * 68}"'}
    assert problems(edit(text, good)) == []


def test_the_drive_of_proxmox_carries_no_host_key() -> None:
    text = edit(home(), {"SEED": "drive"})
    expect(
        text,
        "SSH_TRUST: is seed, and Proxmox' own drive (SEED=drive) carries no host key; give agent, or first-use",
    )
    assert problems(edit(text, {"SSH_TRUST": "first-use"})) == []


def test_five_controllers_need_five_nodes_to_be_apart() -> None:
    text = edit(home(), {"HIGH_AVAILABILITY": "true", "CONTROLLERS": "5", "PROXMOX_NODES": "a,b,c"})
    expect(text, "HIGH_AVAILABILITY: needs 5 PROXMOX_NODES, as no two controllers may share one; there are 3")
    assert problems(edit(text, {"CONTROLLERS": "3"})) == []


def test_a_vmid_of_the_operator_s_own_may_lie_anywhere() -> None:
    assert problems(edit(home(), {"VMID_LAST": "9010", "NODE_W2_VMID": "500"})) == []


def test_image_takes_one_digest() -> None:
    expect(
        edit(home(), {"IMAGE_SHA256": "4" * 64}), "IMAGE_SHA512: is given beside IMAGE_SHA256; give only one of them"
    )


def test_a_passphrase_is_named() -> None:
    pem = _pem(_ED, b"geheim")
    expect(
        edit(home(), {"SSH_PRIVATE_KEY": _b64(pem)}),
        "SSH_PRIVATE_KEY: is protected by a passphrase, and fo cannot ask for one (ssh-keygen -p removes it)",
    )


def test_a_switch_that_is_off_asks_for_nothing() -> None:
    assert problems(edit(home(), {"CLOUDFLARED_ENABLED": "false", "CF_TUNNEL_TOKEN": ""})) == []


def test_a_long_value_is_not_shown_even_of_a_public_key() -> None:
    """It may be a secret that was pasted beside the wrong key."""
    expect(edit(home(), {"WORKERS": "x" * 21}), "WORKERS: the value is not a whole number between 0 and 100")
