"""What the token must be allowed: by config and release, told exactly, granted by the lines that are printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import config_samples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore import pveapi
from funoffshore.config import Backup, ClusterConfig, parse
from funoffshore.stages.machines import privileges
from funoffshore.stages.machines.facts import Missing
from funoffshore.stages.machines.preflight_calls import needs
from funoffshore.world.proxmox import Grants

NEW, OLD = (9, 1), (8, 4)
BASE = parse(config_samples.home(), "home", config_samples.ROOT)


def config(
    *, lent: Mapping[str, Any] | None = None, node: Mapping[str, Any] | None = None, **changed: Any
) -> ClusterConfig:
    nodes = (replace(BASE.nodes[0], **(node or {})), *BASE.nodes[1:])
    return replace(BASE, proxmox=replace(BASE.proxmox, **(lent or {})), nodes=nodes, **changed)


def changed(part: str, **values: Any) -> ClusterConfig:
    return replace(BASE, **{part: replace(getattr(BASE, part), **values)})


BACKUP = config(backup=Backup("pbs"))
HA = config(lent={"high_availability": True, "nodes": ("pve1", "pve2", "pve3")})
VARIANTS: dict[str, ClusterConfig] = {
    "plain": BASE,
    "vlan": config(lent={"vlan": 10}),
    "drive": config(lent={"seed": "drive"}),
    "template": changed("image", template="debian"),
    "template and drive": replace(changed("image", template="debian"), proxmox=replace(BASE.proxmox, seed="drive")),
    "one storage": config(lent={"disk_storage": "tank", "image_storage": "tank"}),
    "backup": BACKUP,
    "backup on the image storage": config(backup=Backup(BASE.proxmox.image_storage)),
    "high availability": HA,
    "firewall": changed("shape", firewall=True),
    "startup": changed("shape", startup="order=2"),
    "watchdog and UEFI": changed("shape", watchdog=True, uefi=True),
    "custom CPU": changed("shape", cpu="custom-fast"),
    "devices": config(node={"pci": ("gpu",), "usb": ("zigbee",)}),
    "agent": changed("ssh", trust="agent"),
    "no pool": config(lent={"pool": ""}),
}


def granted(config: ClusterConfig, release: tuple[int, int]) -> dict[str, dict[str, bool]]:
    """What the printed lines leave behind, as Proxmox lists it."""
    nothing = privileges.missing(config, Grants({}), release)
    return run(privileges.remedy(config, nothing, release))


def run(lines: tuple[str, ...]) -> dict[str, dict[str, bool]]:
    """pveum, as far as these lines need it."""
    roles: dict[str, set[str]] = {}
    paths: dict[str, dict[str, bool]] = {}
    for line in lines:
        for command in re.split(r";|&&|\|\|", line.replace("2>/dev/null", "")):
            words = shlex.split(command)
            assert words[0] == "pveum"
            options = dict(zip(words[4::2], words[5::2], strict=True))
            if words[1] == "role":
                given = set(options.get("--privs", "").split(",")) - {""}
                assert re.fullmatch(r"[A-Za-z0-9.\-_]+", words[3])
                roles[words[3]] = (
                    roles.get(words[3], set()) | given if words[2] == "modify" else roles.get(words[3], given)
                )
                assert words[2] == "add" or options["--append"] == "1"
            else:
                assert words[1:3] == ["acl", "modify"]
                assert options["--users"] == "fo@pve"
                assert options["--tokens"] == "fo@pve!fo"
                passed_on = options.get("--propagate", "1") == "1"
                paths.setdefault(words[3], {}).update(dict.fromkeys(roles[options["--roles"]], passed_on))
    return paths


@pytest.mark.parametrize("release", [OLD, NEW, (8, 3), (10, 0)])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_token_with_what_the_lines_grant_lacks_nothing(name: str, release: tuple[int, int]) -> None:
    config = VARIANTS[name]
    held = granted(config, release)
    assert {path: set(wanted) for path, wanted in held.items()} == {
        path: set(wanted) for path, wanted in privileges.needed(config, release).items()
    }
    assert privileges.missing(config, Grants(held), release) == ()


@pytest.mark.parametrize("release", [OLD, NEW])
@pytest.mark.parametrize("name", VARIANTS)
def test_each_one_taken_away_is_named_alone(name: str, release: tuple[int, int]) -> None:
    config = VARIANTS[name]
    held = granted(config, release)
    for path, wanted in held.items():
        for privilege in wanted:
            without = held | {path: {p: reach for p, reach in wanted.items() if p != privilege}}
            lacking = privileges.missing(config, Grants(without), release)
            assert [(lack.path, lack.privilege) for lack in lacking] == [(path, privilege)]
            assert lacking[0].purpose


@pytest.mark.parametrize("release", [OLD, NEW])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_privilege_exists_in_the_release(name: str, release: tuple[int, int]) -> None:
    used = {privilege for wanted in privileges.needed(VARIANTS[name], release).values() for privilege in wanted}
    agent = {"VM.Monitor"} if release == OLD else {"VM.GuestAgent.Audit", "VM.GuestAgent.FileRead"}
    assert {privilege for privilege in used if "Monitor" in privilege or "GuestAgent" in privilege} <= agent
    assert "Sys.Modify" not in used or name in ("startup", "backup", "backup on the image storage")
    assert "Permissions.Modify" not in used


WANTED = [
    ("vlan", "/sdn/zones/localnetwork/vmbr0/10", {"SDN.Use"}),
    ("plain", "/sdn/zones/localnetwork/vmbr0", {"SDN.Use"}),
    ("plain", "/", {"Sys.Audit"}),
    ("plain", "/nodes", {"Sys.Audit", "Sys.AccessNetwork"}),
    ("plain", "/storage/local-lvm", {"Datastore.AllocateSpace"}),
    ("plain", "/storage/local", {"Datastore.Allocate", "Datastore.AllocateTemplate", "Datastore.Audit"}),
    ("drive", "/storage/local", {"Datastore.AllocateTemplate", "Datastore.Audit"}),
    ("template and drive", "/storage/local", set()),
    ("template and drive", "/nodes", {"Sys.Audit"}),
    ("one storage", "/storage/tank", {"Datastore.Allocate", "Datastore.AllocateTemplate", "Datastore.AllocateSpace"}),
    ("backup", "/storage/pbs", {"Datastore.Allocate", "Datastore.AllocateSpace"}),
    ("backup", "/", {"Sys.Audit", "Sys.Modify"}),
    ("high availability", "/", {"Sys.Audit", "Sys.Console"}),
    ("startup", "/", {"Sys.Audit", "Sys.Modify"}),
    ("devices", "/mapping/pci/gpu", {"Mapping.Use"}),
    ("devices", "/mapping/usb/zigbee", {"Mapping.Use"}),
    ("plain", "/pool/fo-home", {"Pool.Allocate", "Pool.Audit"}),
]


@pytest.mark.parametrize(("name", "path", "wanted"), WANTED)
def test_what_a_path_needs(name: str, path: str, wanted: set[str]) -> None:
    assert set(privileges.needed(VARIANTS[name], NEW).get(path, {})) == wanted


ON_MACHINES = [
    ("plain", NEW, {"VM.GuestAgent.Audit", "VM.Config.CDROM"}, {"VM.Clone", "VM.Backup", "VM.Config.Cloudinit"}),
    ("plain", OLD, {"VM.Monitor"}, {"VM.GuestAgent.Audit"}),
    ("template", NEW, {"VM.Clone"}, set()),
    ("backup", NEW, {"VM.Backup"}, set()),
    ("drive", NEW, {"VM.Config.Network"}, {"VM.Config.Cloudinit", "VM.Config.CDROM"}),
    ("agent", NEW, {"VM.GuestAgent.FileRead"}, {"VM.GuestAgent.Unrestricted"}),
    ("agent", OLD, {"VM.Monitor"}, {"VM.GuestAgent.FileRead"}),
]


@pytest.mark.parametrize(("name", "release", "there", "absent"), ON_MACHINES)
def test_what_machines_need(name: str, release: tuple[int, int], there: set[str], absent: set[str]) -> None:
    wanted = set(privileges.needed(VARIANTS[name], release)["/vms"])
    assert there <= wanted
    assert not absent & wanted


@pytest.mark.parametrize("name", VARIANTS)
def test_every_option_of_a_machine_is_covered(name: str) -> None:
    """No option that fo sets may be one that only root@pam can set."""
    from funoffshore.stages.machines import shape
    from funoffshore.stages.machines.placing import Place

    config = VARIANTS[name]
    for node in config.nodes:
        body = shape.body(config, node, Place("pve", node.vmid, ""), NEW)
        options = set(body) - {"vmid", "pool"}
        assert {option for option in options if pveapi.privileges.of_option(option) is None} == set()


# Alternatives, inheritance, exceptions


def test_a_dearer_alternative_is_enough() -> None:
    held = granted(BASE, NEW)
    download = held | {
        "/": {"Sys.Audit": False, "Sys.Modify": False},
        "/nodes": {"Sys.Audit": True},
        "/storage/local": dict.fromkeys(
            ("Datastore.Allocate", "Datastore.AllocateTemplate", "Datastore.AllocateSpace"), True
        ),
    }
    assert privileges.missing(BASE, Grants(download), NEW) == ()


def test_everything_on_the_root_is_enough() -> None:
    every = {privilege for wanted in privileges.needed(BASE, NEW).values() for privilege in wanted}
    # Proxmox lists its roots with all that they inherit.
    listed = {path: dict.fromkeys(every, True) for path in ("/", "/nodes", "/pool", "/sdn", "/storage", "/vms")}
    assert privileges.missing(BASE, Grants(listed), NEW) == ()


def test_a_rule_on_one_vmid_of_ours_that_takes_something_away() -> None:
    held = granted(BASE, NEW) | {"/vms/9000": {"VM.Audit": True}, "/vms/100": {"VM.Audit": True}}
    lacking = privileges.missing(BASE, Grants(held), NEW)
    assert {lack.path for lack in lacking} == {"/vms/9000"}
    assert "VM.Allocate" in {lack.privilege for lack in lacking}
    mended = held | run(privileges.remedy(BASE, lacking, NEW))
    assert privileges.missing(BASE, Grants(mended), NEW) == ()


def test_rights_on_some_proxmox_nodes_only() -> None:
    several = config(lent={"nodes": ("pve1", "pve2", "pve3")})
    held = granted(several, NEW)
    some = {path: wanted for path, wanted in held.items() if path != "/nodes"} | {"/nodes/pve2": held["/nodes"]}
    lacking = privileges.missing(several, Grants(some), NEW)
    assert {lack.path for lack in lacking} == {"/nodes/pve1", "/nodes/pve3"}
    mended = some | run(privileges.remedy(several, lacking, NEW))
    assert privileges.missing(several, Grants(mended), NEW) == ()


def test_a_rule_on_a_proxmox_node_hides_what_its_folder_has() -> None:
    held = granted(BASE, NEW) | {"/nodes/pve": {"Sys.Audit": True}}
    assert [(lack.path, lack.privilege) for lack in privileges.missing(BASE, Grants(held), NEW)] == [
        ("/nodes/pve", "Sys.AccessNetwork")
    ]


def test_the_lines_only_touch_paths_that_lack_something() -> None:
    lacking = (Missing("/storage/local", "Datastore.Allocate", "delete the seeds"),)
    lines = privileges.remedy(BASE, lacking, NEW)
    assert set(run(lines)) == {"/storage/local"}
    assert set(run(lines)["/storage/local"]) == set(privileges.needed(BASE, NEW)["/storage/local"])


PRIVILEGES = sorted({p for wanted in privileges.needed(BACKUP, NEW).values() for p in wanted} | {"VM.Console"})
PATHS = ("/", "/vms", "/vms/9000", "/storage", "/storage/local", "/storage/local-lvm", "/nodes", "/nodes/pve", "/sdn")


@given(
    st.dictionaries(
        st.one_of(st.sampled_from(PATHS), st.text("/vms0-", max_size=12)),
        st.dictionaries(st.sampled_from(PRIVILEGES), st.booleans()),
    )
)
def test_whatever_is_granted_the_lines_mend_it(paths: dict[str, dict[str, bool]]) -> None:
    for _ in range(2):  # what is granted on a folder can show that a path in it has less
        lacking = privileges.missing(BACKUP, Grants(paths), NEW)
        lines = run(privileges.remedy(BACKUP, lacking, NEW))
        # A role on a path joins those that are there.
        paths = {path: paths.get(path, {}) | lines.get(path, {}) for path in paths.keys() | lines.keys()}
    assert privileges.missing(BACKUP, Grants(paths), NEW) == ()


def test_every_need_has_a_way() -> None:
    for release in (OLD, NEW):
        for config in VARIANTS.values():
            assert all(need.ways and all(need.ways) for need in needs(config, release))
