"""What of a machine differs, and what it takes: a table of cases, and that spelling never is a difference."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import machines_samples as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore import pveapi, seed
from funoffshore.config import ClusterConfig
from funoffshore.stages.machines import drift, shape, stored
from funoffshore.stages.machines.drift import Difference, How
from funoffshore.stages.machines.facts import Machine

TABLE = json.loads(Path(__file__).with_suffix(".json").read_text())


def case_config(case: dict[str, Any]) -> ClusterConfig:
    return kit.config(**json.loads(json.dumps(case.get("config", {}))))


def case_machine(case: dict[str, Any], config: ClusterConfig) -> Machine:
    node = config.node("lab-c1")
    options = kit.options(config, node)
    spelled = {"MAC": seed.mac(node.identity), "STORE": config.proxmox.disk_storage}
    found: dict[str, str | None] = {}
    for option, value in case["found"].items():
        for word, text in spelled.items():
            value = value and value.replace(word, text)
        found[option] = value
    found |= {option: options[option] + text for option, text in case.get("append", {}).items()}
    return kit.machine(config, node, found | {"lock": case.get("lock")}, running=case.get("running", True))


def line(config: ClusterConfig, difference: Difference) -> str:
    mac = seed.mac(config.node("lab-c1").identity)
    text = f"{difference.how} {difference.option}={difference.wanted}: {difference.sentence}"
    return text.replace(mac, "MAC").replace(mac.lower(), "mac").replace(config.proxmox.disk_storage + ":vm", "STORE:vm")


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case["name"])
def test_differences(case: dict[str, Any]) -> None:
    config = case_config(case)
    node, machine = config.node("lab-c1"), case_machine(case, config)
    net = kit.options(config, node)["net0"]
    pending = {k: tuple(t and t.replace("NET0", net) for t in v) for k, v in case.get("pending", {}).items()}
    found = drift.differences(config, node, machine, kit.NEW, pending)
    assert [line(config, difference) for difference in found] == case["differs"]


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case["name"])
def test_what_is_written_is_taken_and_settles_it(case: dict[str, Any]) -> None:
    config = case_config(case)
    node, machine = config.node("lab-c1"), case_machine(case, config)
    found = drift.differences(config, node, machine, kit.NEW)
    write = {d.option: d.wanted for d in found if d.wanted and d.how in {How.LIVE, How.RESTART}}
    grown = {d.option for d in found if d.how is How.GROW}
    assert pveapi.check("9.1", "PUT", "/nodes/pve1/qemu/9000/config", write) == {}
    if any(d.how is How.HELD for d in found):
        return
    settled = kit.machine(config, node, {**machine.config.options, **taken_away(machine), **write})
    left = drift.differences(config, node, settled, kit.NEW)
    assert [d for d in left if d.how is not How.REBUILD and d.option not in grown | {"efidisk0"}] == []


def taken_away(machine: Machine) -> dict[str, str | None]:
    """Options that the case took away stay away."""
    return {option: None for option in ("scsi0", "scsi1", "net0", "efidisk0") if option not in machine.config.options}


def test_a_description_keeps_the_operators_notes() -> None:
    config = kit.config()
    node = config.node("lab-c1")
    machine = kit.machine(config, node, {"description": "mine\nfo-identity: 0000\nalso mine"})
    [found] = drift.differences(config, node, machine, kit.NEW)
    assert (found.option, found.how) == ("description", How.LIVE)
    assert found.wanted == f"mine\nalso mine\n\n{shape.description(config, node)}"


FULL = kit.config(
    nodes={"lab-c1": {"data_disk_gib": 64, "pci": ("gpu",), "usb": ("stick",)}},
    shape={"uefi": True, "firewall": True, "startup": "order=2,up=30", "watchdog": True, "tags": ("zoo",)},
    proxmox={"vlan": 30},
)
SAID: dict[str, str] = {"scsi0": "ro=0", "net0": "link_down=0", "agent": "fstrim_cloned_disks=0", "vga": "memory=16"}
BOOLEANS = {"1": ("1", "yes", "on", "true", "YES"), "0": ("0", "no", "off", "false")}


def respelled(option: str, value: str, draw: random.Random) -> str:
    """The same value as somebody else might have written it."""
    parts = stored._parts(kit.NEW, option)
    if option == "tags":
        tags = [tag.upper() if draw.random() < 0.5 else tag for tag in value.split(";")]
        draw.shuffle(tags)
        return draw.choice([";", ",", " "]).join(tags)
    if parts is None or option in {"description", "boot"}:
        return value
    found = stored.parsed(kit.NEW, option, value)
    default = next((name for name, part in parts.items() if part.default_key), "")
    pieces = []
    if "macaddr" in found:
        model, mac = found.pop("model"), found.pop("macaddr")
        mac = mac.lower() if draw.random() < 0.5 else mac
        pieces += draw.choice([[f"{model}={mac}"], [f"model={model}", f"macaddr={mac}"], [model, f"macaddr={mac}"]])
    for key, text in found.items():
        if parts[key].type == "boolean":
            text = draw.choice(BOOLEANS[text])
        if key == "size" and text.endswith("G"):
            text = draw.choice([text, f"{int(text[:-1]) * 1024}M"])
        names = [key, *(name for name, part in parts.items() if part.alias == key and not part.key_alias)]
        bare = key == default and draw.random() < 0.5
        pieces.append(text if bare else f"{draw.choice(names)}={text}")
    if option in SAID and SAID[option].split("=")[0] not in found and draw.random() < 0.5:
        pieces.append(SAID[option])
    draw.shuffle(pieces)
    return ",".join(pieces)


@given(st.randoms(use_true_random=False), st.booleans())
def test_no_spelling_is_a_difference(draw: random.Random, running: bool) -> None:
    node = FULL.node("lab-c1")
    options = {o: respelled(o, v, draw) for o, v in kit.options(FULL, node).items()}
    # Proxmox gives numbers or texts, whole or as a property string.
    options["memory"] = draw.choice(["4096", "current=4096"])
    machine = kit.machine(FULL, node, options, running=running)
    assert drift.differences(FULL, node, machine, draw.choice([kit.OLD, kit.NEW])) == []


@given(
    st.dictionaries(st.sampled_from(sorted(kit.options(FULL, FULL.node("lab-c1")))), st.text(max_size=30)),
    st.booleans(),
)
def test_nothing_that_is_stored_breaks_it(changes: dict[str, str], running: bool) -> None:
    node = FULL.node("lab-c1")
    machine = kit.machine(FULL, node, {k: v for k, v in changes.items() if k != "lock"}, running=running)
    for found in drift.differences(FULL, node, machine, kit.NEW):
        assert found.sentence
        assert found.option in shape.wanted(FULL, node, kit.NEW)


def test_a_key_of_a_later_release_is_kept() -> None:
    config = kit.config(proxmox={"bridge": "vmbr0", "vlan": None})
    node = config.node("lab-c1")
    mac = seed.mac(node.identity)
    machine = kit.machine(config, node, {"net0": f"virtio={mac},bridge=vmbr1,shiny=9"})
    [found] = drift.differences(config, node, machine, (10, 0))
    assert found.wanted == f"virtio={mac},bridge=vmbr0,shiny=9"
