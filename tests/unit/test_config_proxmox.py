"""Kinds with Proxmox' grammar: what is taken is what Proxmox takes, and never more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funoffshore.config import proxmox
from funoffshore.config.kinds import Kind
from funoffshore.pveapi import formats

_32_BIT = {"486", "athlon", "coreduo", "kvm32", "pentium", "pentium2", "pentium3", "qemu32"}


def _takes(kind: Kind, text: str) -> bool:
    try:
        kind.parse(text)
    except ValueError:
        return False
    return True


def test_every_64_bit_cpu_type_of_proxmox_is_taken() -> None:
    known = set(formats._CPUS.split())
    assert {name for name in known if not _takes(proxmox.CPU, name)} == _32_BIT & known
    assert _takes(proxmox.CPU, "custom-mine")


@pytest.mark.parametrize("text", ["", "Host", "x86-64-v5", "x86-64-v2-aes", "custom-", "Haswell,flags=+aes", "EPYC-"])
def test_other_cpu_types_are_not(text: str) -> None:
    assert not _takes(proxmox.CPU, text)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (proxmox.TAGS, "pve-tag-list"),
        (proxmox.STARTUP, "pve-startup-order"),
        (proxmox.PCI, "pve-configid-list"),
        (proxmox.STORAGE, "pve-storage-id"),
        (proxmox.NODES, "pve-node-list"),
        (proxmox.VM_NAME, "dns-name"),
        (proxmox.BRIDGE, "pve-bridge-id"),
    ],
)
def test_what_is_taken_proxmox_takes_too(kind: Kind, name: str) -> None:
    @settings(max_examples=400, deadline=None)
    @given(
        st.text("abfoz019AZ,;.=-_+ :/upder", max_size=24) | st.sampled_from(["order=1,up=2,down=3", "up=1,7", "a,b"])
    )
    def check(text: str) -> None:
        if text and _takes(kind, text):
            formats.verify(name, text)

    check()


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("02:30", True),
        ("2:05", True),
        ("sat 02:30", True),
        ("mon..fri 22:00", True),
        ("mon,wed,fri..sun 1,13:00", True),
        ("*/6:00", True),
        ("daily", True),
        ("monthly", True),
        ("24:00", False),
        ("02:60", False),
        ("*/0:00", False),
        ("*/13:00", False),
        ("sat", False),
        ("Sat 02:30", False),
        ("sat  02:30", False),
        ("02:30:00", False),
        ("*:*", False),
        ("0 3 * * *", False),
        ("*-*-* 02:30", False),
    ],
)
def test_schedules(text: str, right: bool) -> None:
    assert _takes(proxmox.SCHEDULE, text) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("keep-all=1", True),
        ("keep-last=3", True),
        ("keep-last=1,keep-hourly=2,keep-daily=3,keep-weekly=4,keep-monthly=5,keep-yearly=6", True),
        ("keep-daily=0,keep-last=1", True),
        ("keep-all=0", False),
        ("keep-all=1,keep-last=2", False),
        ("keep-last=0", False),
        ("keep-last=3,keep-last=4", False),
        ("keep-last=-1", False),
        ("keep-last=03", False),
        ("keep-last", False),
        ("keep-last=3,", False),
        ("prune=1", False),
    ],
)
def test_retention(text: str, right: bool) -> None:
    assert _takes(proxmox.KEEP, text) is right


@pytest.mark.parametrize(
    ("text", "value"), [("2", "order=2"), ("down=9,order=2", "order=2,down=9"), ("up=30", "up=30"), ("0", "order=0")]
)
def test_a_startup_order_is_always_written_alike(text: str, value: str) -> None:
    assert proxmox.STARTUP.parse(text) == value


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("10", 10), ("65536", 65536)])
def test_data_disks(text: str, value: int) -> None:
    assert proxmox.DATA_DISK.parse(text) == value
    for wrong in ("1", "9", "65537", "00", "010", "-10", "10.5", "10G"):
        assert not _takes(proxmox.DATA_DISK, wrong)
