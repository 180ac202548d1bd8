"""The real Proxmox client and the machines stage against the lab's Proxmox, its hosts and its web server."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from pydantic import SecretStr

from funoffshore import clock as clocks
from funoffshore import errors
from funoffshore.config import ClusterConfig, loader, new
from funoffshore.lab.base import Faults, Kit, LabClock, Latencies, Ledger, Routes, Store
from funoffshore.lab.hosts.hosts import Hosts as LabHosts
from funoffshore.lab.pve import ProxmoxApi, certificate, lab_fingerprint
from funoffshore.lab.web import offers
from funoffshore.lab.web.server import Web
from funoffshore.plan import Action, Plan, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages import machines
from funoffshore.stages.machines import hardware, privileges
from funoffshore.world import proxmox, routes, ssh

if TYPE_CHECKING:
    from funoffshore.world.world import World

SECRET = "6f1c2b9e-0000-4000-8000-1f2e3d4c5b6a"
STRANGER = "11111111-2222-3333-4444-555555555555"
_subnets = itertools.count()


def subnet() -> str:
    """A /24 of loopback that no other test of any run uses."""
    number = os.getpid() * 17 + next(_subnets)
    return f"127.{160 + number % 60}.{number // 60 % 256}.0/24"


@dataclass
class Step:
    """What an action tells, kept; and what an earlier run is said to have recorded."""

    earlier: Mapping[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    def record(self, **ids: str) -> None:
        self.kept |= ids

    def recorded(self, name: str) -> str | None:
        return self.earlier.get(name)

    def checkpoint(self) -> None:
        """Nobody stops it."""


@dataclass(frozen=True)
class Doors:
    """The doors that this stage knows."""

    clock: clocks.Clock
    proxmox: proxmox.Proxmox
    hosts: ssh.Hosts


@dataclass
class House:
    """A lab with a Proxmox, and a cluster of one controller and one worker that is to live in it."""

    config: ClusterConfig
    kit: Kit
    api: ProxmoxApi
    doors: Doors

    @property
    def world(self) -> World:
        return cast("World", self.doors)

    def look(self) -> tuple[machines.MachineFacts, dict[str, Reading[ssh.HostFacts]]]:
        seen = machines.observe(self.world, self.config)
        hosts: dict[str, Reading[ssh.HostFacts]] = {node.name: Absent() for node in self.config.nodes}
        alive = [node for node in self.config.nodes if machines.is_running(seen, node.name)]
        return seen, hosts | self.doors.hosts.observe_all(alive)

    def plan(self) -> Plan:
        seen, hosts = self.look()
        if found := machines.problems(self.config, seen):
            raise found[0]
        return Plan.of(machines.plan(self.config, seen, hosts))

    def run(self, plan: Plan, earlier: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Step]:
        steps = {}
        for action in plan.in_order():
            steps[action.key] = Step((earlier or {}).get(action.key, {}))
            machines.apply(self.world, self.config, action, steps[action.key])
        return steps

    def calls(self, word: str = "") -> list[str]:
        """What Proxmox was asked to change."""
        return [e["what"] for e in self.kit.ledger.entries() if e["door"] == "pve" and word in e["what"]]

    def creations(self) -> list[str]:
        return [call for call in self.calls("POST /nodes/pve/qemu ") if call]

    def another_client(self, **changed: Any) -> proxmox.Proxmox:
        config = replace(self.config.proxmox, **changed)
        return proxmox.Proxmox(config, routes.Routes(self.kit.directory / "routes.json"), self.kit.clock)

    def seen_by(self, **changed: Any) -> machines.MachineFacts:
        """Facts as a client with another token, pin or URL gets them."""
        world = cast("World", replace(self.doors, proxmox=self.another_client(**changed)))
        return machines.observe(world, replace(self.config, proxmox=replace(self.config.proxmox, **changed)))


def config_of(tmp: Path) -> ClusterConfig:
    pins = dict.fromkeys(("PROXMOX_FINGERPRINT", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "a" * 64)
    answers = {**pins, "IMAGE_SHA256": offers.image_sha256(), "SUBNET": subnet()}
    whole = loader.parse(new.generate("lab", answers, lab=True), "lab", tmp)
    address = str(whole.network.subnet[2])
    lent = replace(whole.proxmox, fingerprint=lab_fingerprint(SECRET, address), token_secret=SecretStr(SECRET))
    return replace(whole, proxmox=lent, nodes=(whole.node("lab-c1"), whole.node("lab-w1")))


def spread(config: ClusterConfig, nodes: tuple[str, ...]) -> ClusterConfig:
    """The machines in turn on the Proxmox nodes."""
    placed = tuple(replace(node, hypervisor=nodes[n % len(nodes)]) for n, node in enumerate(config.nodes))
    return replace(config, proxmox=replace(config.proxmox, nodes=nodes), nodes=placed)


@contextlib.contextmanager
def built(
    tmp: Path, *, release: str = "9.1", latencies: Latencies | None = None, nodes: tuple[str, ...] = ("pve",)
) -> Iterator[House]:
    config = spread(config_of(tmp), nodes)
    store = Store(tmp / "lab.sqlite")
    kit = Kit(tmp, LabClock(100.0), store, latencies or Latencies(), Faults(store), Ledger(store), Routes(tmp))
    hosts = LabHosts(kit, config.ssh.port)
    web = Web(kit, str(config.network.subnet[3]))
    api = ProxmoxApi(
        kit, hosts, address=str(config.network.subnet[2]), release=release, nodes=nodes, secret_for_tls=SECRET
    )
    api.add_token(config.proxmox.token_id, SECRET)
    ways = routes.Routes(tmp / "routes.json")
    doors = Doors(kit.clock, proxmox.Proxmox(config.proxmox, ways, kit.clock), ssh.Hosts(config, ways, kit.clock))
    web.start()
    api.start()
    try:
        yield House(config, kit, api, doors)
    finally:
        doors.hosts.close()
        for stop in (api.stop, web.stop, hosts.stop, kit.clock.stop, store.close):
            stop()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with built(tmp_path) as made:
        yield made


# The stage, end to end


@pytest.mark.parametrize("release", ["8.4", "9.1"])
def test_from_nothing_to_hosts_with_just_the_privileges_that_are_asked_for(tmp_path: Path, release: str) -> None:
    with built(tmp_path, release=release) as house:
        needed = {path: list(wanted) for path, wanted in privileges.needed(house.config).items()}
        house.api.add_token(house.config.proxmox.token_id, SECRET, needed)
        plan = house.plan()
        assert len(plan.actions) == 10
        house.run(plan)
        before = house.calls()
        assert not house.plan()
        assert house.calls() == before
        volumes = house.doors.proxmox.content("pve", house.config.proxmox.image_storage)
        assert [v.content for v in volumes] == ["import"], "a seed was left behind"
        node = house.config.node("lab-w1")
        made = house.doors.proxmox.config("pve", node.vmid)
        assert made is not None
        assert (made.identity, made.cores, made.memory_mib, made.disk_gib, made.cdrom) == (
            str(node.identity), node.cores, node.memory_mib, node.disk_gib, "",
        )  # fmt: skip
        house.run(Plan.of(machines.destroy_plan(house.config, house.look()[0])))
        assert machines.destroy_plan(house.config, house.look()[0]) == []
        assert house.doors.proxmox.guests() == []


def test_two_hypervisors_each_get_the_image(tmp_path: Path) -> None:
    with built(tmp_path, nodes=("pve", "pve2")) as house:
        plan = house.plan()
        (image,) = (a for a in plan.actions.values() if a.key.startswith("image/"))
        assert image.reason == "it is absent on pve, pve2"
        house.run(plan)
        assert not house.plan()
        assert {row.node for row in house.doors.proxmox.guests()} == {"pve", "pve2"}
        assert len(house.calls("download-url")) == 2
        house.run(Plan.of(machines.destroy_plan(house.config, house.look()[0])))
        assert house.doors.proxmox.guests() == []


def test_a_machine_that_was_moved_to_another_hypervisor_is_still_ours(tmp_path: Path) -> None:
    with built(tmp_path, nodes=("pve", "pve2")) as house:
        house.run(house.plan())
        house.config = spread(house.config, ("pve2", "pve"))
        assert not house.plan()
        house.run(Plan.of(machines.destroy_plan(house.config, house.look()[0])))
        assert house.doors.proxmox.guests() == []


def test_our_machine_under_another_vmid_is_found(house: House) -> None:
    house.run(house.plan())
    renumbered = tuple(replace(node, vmid=node.vmid + 100) for node in house.config.nodes)
    house.config = replace(house.config, nodes=renumbered)
    with pytest.raises(errors.PreflightError, match="lab-c1 exists as VM 9000"):
        house.plan()


def test_a_plan_changes_nothing(house: House) -> None:
    assert house.plan()
    assert house.calls() == []


def test_a_failed_creation_shows_its_log_and_is_begun_again(house: House) -> None:
    house.kit.faults.on("task-fail", type="qmcreate", vmid=str(house.config.node("lab-c1").vmid), times="1")
    with pytest.raises(errors.TaskFailedError) as failed:
        house.run(house.plan())
    assert "lab-c1 to be created failed" in failed.value.message
    assert failed.value.evidence[0].startswith("UPID:pve:")
    assert "TASK ERROR" in failed.value.evidence[-1]
    house.run(house.plan())
    assert not house.plan()


def test_a_lost_creation_needs_root(house: House) -> None:
    house.kit.faults.on("task-lost", type="qmcreate", times="1")
    with pytest.raises(errors.TaskFailedError, match="its worker died"):
        house.run(house.plan())
    before = house.calls()
    with pytest.raises(errors.PreflightError, match="locked by a creation") as locked:
        house.plan()
    assert "qm unlock 9000" in locked.value.fix
    with pytest.raises(errors.PreflightError, match="locked by a creation"):
        machines.destroy_plan(house.config, house.look()[0])
    assert house.calls() == before


def test_a_creation_that_an_earlier_run_began_is_waited_for(tmp_path: Path) -> None:
    with built(tmp_path, latencies=Latencies(create=20.0)) as house:
        prepared = Plan({k: a for k, a in house.plan().actions.items() if k.split("/")[0] in ("pool", "image")})
        house.run(prepared)
        node = house.config.node("lab-c1")
        machines.effects._upload(house.world, house.config, node, Step())
        house.doors.proxmox.create_vm("pve", hardware.body(house.config, node))
        plan = house.plan()
        assert plan.actions["machine/lab-c1"].verb is Verb.WAIT
        house.run(plan)
        assert not house.plan()
        assert len([c for c in house.creations() if c.endswith(f" {node.vmid}")]) == 1


@pytest.mark.parametrize("delay", [0.0, 20.0])
def test_a_lost_reply_is_looked_up_and_never_repeated(tmp_path: Path, delay: float) -> None:
    class Losing(proxmox.Proxmox):
        """The line is cut right after the request was carried out."""

        def create_vm(self, node: str, body: Mapping[str, Any]) -> str:
            super().create_vm(node, body)
            raise errors.UnreachableError("596 Connection timed out")

    with built(tmp_path, latencies=Latencies(create=delay)) as house:
        client = Losing(house.config.proxmox, routes.Routes(), house.kit.clock)
        house.doors = replace(house.doors, proxmox=client)
        house.run(house.plan())
        assert not house.plan()
        assert len(house.creations()) == 2


def test_a_reply_that_was_lost_before_anything_happened(house: House) -> None:
    class Deaf(proxmox.Proxmox):
        def create_vm(self, node: str, body: Mapping[str, Any]) -> str:
            raise errors.UnreachableError("cut before it arrived")

    house.doors = replace(house.doors, proxmox=Deaf(house.config.proxmox, routes.Routes(), house.kit.clock))
    with pytest.raises(errors.UnreachableError, match="cut before it arrived"):
        house.run(house.plan())
    assert house.creations() == []


def test_a_recorded_task_is_waited_for_first(tmp_path: Path) -> None:
    with built(tmp_path, latencies=Latencies(create=20.0)) as house:
        plan = house.plan()
        house.run(Plan({k: a for k, a in plan.actions.items() if k.split("/")[0] in ("pool", "image")}))
        node = house.config.node("lab-c1")
        machines.effects._upload(house.world, house.config, node, Step())
        upid = house.doors.proxmox.create_vm("pve", hardware.body(house.config, node))
        step = Step({"upid": upid})
        machines.apply(house.world, house.config, plan.actions["machine/lab-c1"], step)
        assert len(house.creations()) == 1
        assert any(upid not in said and "waiting for lab-c1 to be created" in said for said in step.said)


def test_a_recorded_task_that_is_forgotten_does_not_matter(house: House) -> None:
    plan = house.plan()
    gone = "UPID:pve:00000B88:0006E38A:6B05104E:qmcreate:9000:fo@pve!fo:"
    house.run(plan, {"machine/lab-c1": {"upid": gone}, "machine/lab-w1": {"upid": "nonsense"}})
    assert not house.plan()


# Ours only


def test_a_stranger_in_our_vmid_is_never_touched(house: House) -> None:
    house.api.add_stranger(house.config.node("lab-w1").vmid, "pbx")
    with pytest.raises(errors.ForeignError, match="pbx"):
        house.plan()
    assert machines.destroy_plan(house.config, house.look()[0]) == []
    assert house.calls() == []


def test_a_stranger_that_comes_between_plan_and_creation(house: House) -> None:
    plan = house.plan()
    vmid = house.config.node("lab-c1").vmid
    house.api.add_stranger(vmid, "pbx")
    before = house.doors.proxmox.config("pve", vmid)
    with pytest.raises(errors.ForeignError, match="not touched"):
        house.run(plan)
    assert house.doors.proxmox.config("pve", vmid) == before


def test_destroying_looks_at_the_identity_again(house: House) -> None:
    house.api.add_stranger(house.config.node("lab-c1").vmid, "pbx")
    for action in (Action(Verb.DELETE, "machine/lab-c1", "x"), Action(Verb.CHANGE, "power/lab-c1", "x")):
        with pytest.raises(errors.ForeignError):
            machines.apply(house.world, house.config, action, Step())
    assert house.calls() == []


def test_protection_is_honoured(house: House) -> None:
    house.run(house.plan())
    node = house.config.node("lab-c1")
    facts = house.look()[0]
    house.doors.proxmox.wait_task(house.doors.proxmox.set_config("pve", node.vmid, {"protection": True}), Step(), "it")
    with pytest.raises(errors.PreflightError, match="protected"):
        machines.destroy_plan(house.config, house.look()[0])
    with pytest.raises(errors.PreflightError, match="protected"):
        house.run(Plan.of(machines.destroy_plan(house.config, facts)))
    assert house.calls("DELETE /nodes/pve/qemu/") == []


def test_sizes_change_and_disks_only_grow(house: House) -> None:
    house.run(house.plan())
    node = house.config.node("lab-w1")
    grown = replace(node, cores=node.cores + 1, memory_mib=node.memory_mib * 2, disk_gib=node.disk_gib + 8)
    house.config = replace(house.config, nodes=(house.config.node("lab-c1"), grown))
    plan = house.plan()
    assert list(plan.actions) == ["machine/lab-w1"]
    house.run(plan)
    assert not house.plan()
    house.config = replace(house.config, nodes=(house.config.node("lab-c1"), node))
    with pytest.raises(errors.PreflightError, match="never shrinks"):
        house.plan()


def test_an_address_that_already_answers(house: House) -> None:
    address = str(house.config.node("lab-w1").address)
    listener = house.kit.routes.listen(address, house.config.ssh.port)
    with contextlib.closing(listener), pytest.raises(errors.PreflightError, match=address):
        house.plan()
    assert house.calls() == []


# The door


def test_the_pin_is_checked_before_the_token_is_sent(tmp_path: Path) -> None:
    address = subnet().replace(".0/24", ".2")
    _, pem = certificate.make("somebody else", address)
    (tmp_path / "tls.pem").write_bytes(pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "tls.pem")
    heard: list[bytes] = []
    with contextlib.closing(socket.create_server((address, 8006))) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError), tls.wrap_socket(listener.accept()[0], server_side=True) as line:
                heard.append(line.recv(4096))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        config = replace(config_of(tmp_path).proxmox, url=f"https://{address}:8006")
        with pytest.raises(errors.TrustError) as refused:
            proxmox.Proxmox(config, routes.Routes(), clocks.WallClock()).version()
        thread.join(5)
    assert b"".join(heard) == b""
    assert config.fingerprint in refused.value.message
    assert lab_fingerprint("somebody else", address) in refused.value.message
    assert "PROXMOX_FINGERPRINT" in refused.value.fix


def test_a_wrong_pin_is_the_one_problem(house: House) -> None:
    (problem,) = machines.problems(house.config, house.seen_by(fingerprint="b" * 64))
    assert type(problem) is errors.TrustError


def test_a_wrong_secret_names_the_keys(house: House) -> None:
    (problem,) = machines.problems(house.config, house.seen_by(token_secret=SecretStr("no")))
    assert type(problem) is errors.PreflightError
    assert "PROXMOX_TOKEN_ID" in problem.fix
    assert "PROXMOX_TOKEN_SECRET" in problem.fix


def test_nobody_there(house: House) -> None:
    seen = house.seen_by(url=f"https://{house.config.network.subnet[9]}:8006")
    (problem,) = machines.problems(house.config, seen)
    assert type(problem) is errors.UnreachableError
    assert "Connection refused" in problem.message
    assert all(isinstance(reading, Unreadable) for reading in seen.machines.values())


def test_every_privilege_that_is_missing_is_named(house: House) -> None:
    token = house.config.proxmox.token_id
    needed = {path: list(wanted) for path, wanted in privileges.needed(house.config).items()}
    for path, wanted in needed.items():
        for privilege in wanted:
            house.api.add_token(token, SECRET, {**needed, path: [p for p in wanted if p != privilege]})
            (problem,) = machines.problems(house.config, machines.observe(house.world, house.config))
            assert type(problem) is errors.PreflightError
            assert f"lacks {privilege} on {path}" in problem.message
            assert f"pveum acl modify {path} " in problem.fix
    house.api.add_token(token, SECRET, needed)
    assert machines.problems(house.config, machines.observe(house.world, house.config)) == []
    assert house.calls() == []


def test_a_refusal_carries_proxmoxs_own_words(house: House) -> None:
    with pytest.raises(errors.RefusedError) as refused:
        house.doors.proxmox.create_vm("pve", {"vmid": 9100, "name": "under_score"})
    assert refused.value.status == 400
    assert "name: invalid format - value does not look like a valid DNS name" in refused.value.evidence[0]


def test_a_forbidden_call_names_path_and_privilege(house: House) -> None:
    house.api.add_token("weak@pve!weak", SECRET, {"/vms": ["VM.Audit"]})
    house.api.add_stranger(9100, "pbx")
    weak = house.another_client(token_id="weak@pve!weak")
    with pytest.raises(errors.PreflightError) as refused:
        weak.start("pve", 9100)
    assert "VM.PowerMgmt on /vms/9100" in refused.value.message
    assert "pveum acl modify /vms/9100 --users 'weak@pve' --tokens 'weak@pve!weak'" in refused.value.fix


def test_a_missing_vm_is_absent(house: House) -> None:
    assert house.doors.proxmox.config("pve", 9100) is None


def test_a_hanging_task_runs_into_its_deadline(house: House) -> None:
    house.run(Plan({k: a for k, a in house.plan().actions.items() if k.split("/")[0] in ("pool", "image")}))
    house.kit.faults.on("task-hang", type="qmcreate")
    node = house.config.node("lab-c1")
    machines.effects._upload(house.world, house.config, node, Step())
    upid = house.doors.proxmox.create_vm("pve", hardware.body(house.config, node))
    with pytest.raises(errors.DeadlineError, match="gave up waiting for lab-c1") as gone:
        house.doors.proxmox.wait_task(upid, Step(), "lab-c1 to be created", deadline=5.0)
    assert gone.value.evidence[0] == upid
    house.kit.faults.off("task-hang")


def test_no_secret_is_in_any_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    house.run(house.plan())
    assert SECRET not in caplog.text
    assert "smbios1" not in caplog.text


def test_reads_side_by_side_keep_their_own_errors(house: House) -> None:
    client = house.doors.proxmox
    found = client.gather({"good": client.version, "bad": lambda: client.config("pve", 1)})
    assert isinstance(found["good"], proxmox.Version)
    assert isinstance(found["bad"], errors.RefusedError)


def test_pool_and_seed_are_seen(house: House) -> None:
    house.run(Plan({k: a for k, a in house.plan().actions.items() if k.startswith("pool/")}))
    seen = house.look()[0]
    assert seen.pool == Present("fo-lab")
    assert seen.seed("lab-c1") == Absent()
    machines.effects._upload(house.world, house.config, house.config.node("lab-c1"), Step())
    assert isinstance(house.look()[0].seed("lab-c1"), Present)
