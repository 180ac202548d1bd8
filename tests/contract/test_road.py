"""The road as an operator walks it: ``fo`` as a command, the lab behind the real protocols."""

from __future__ import annotations

import json
import random
import signal
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from operator_home import Operator
from road_kit import proxmox_of, served

from funoffshore import config
from funoffshore.world.proxmox import Proxmox
from funoffshore.world.routes import Routes

SECRETS = (
    "PROXMOX_TOKEN_SECRET",
    "K3S_TOKEN",
    "K3S_AGENT_TOKEN",
    "HOST_KEY_SEED",
    "SSH_PRIVATE_KEY",
    "EVIDENCE_KEY",
    "CF_TUNNEL_TOKEN",
    "CF_API_TOKEN",
    "AUTHENTIK_SECRET_KEY",
    "GRAFANA_ADMIN_PASSWORD",
    "SOPS_AGE_KEY",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """A cluster that was bootstrapped once. Tests that change it use their own."""
    home = Operator(tmp_path_factory.mktemp("finished") / "home")
    ended = home.fo("bootstrap")
    assert ended.code == 0, ended.err
    return home


@pytest.fixture
def fresh(tmp_path: Path) -> Operator:
    """An operator with an empty Proxmox and a small cluster."""
    return Operator(tmp_path / "home", CONTROLLERS=1, WORKERS=1)


def status(home: Operator) -> dict[str, object]:
    return json.loads((home.lab / "state" / "status.json").read_text())  # type: ignore[no-any-return]


def test_the_first_bootstrap_proves_stage_1(finished: Operator) -> None:
    seen = status(finished)
    assert seen["stage_1_complete"] is True
    statement = seen["statement"]
    assert isinstance(statement, dict)
    assert statement["commit"] == finished.git("rev-parse", "HEAD")
    assert {f["outcome"] for f in statement["findings"]} <= {"pass", "warn"}
    run = max((finished.lab / "state" / "runs").iterdir())
    assert (run / "report.html").stat().st_size > 10_000


def test_the_second_bootstrap_changes_nothing(finished: Operator) -> None:
    before = finished.mutations()
    again = finished.fo("bootstrap")
    assert again.code == 0, again.err
    assert "nothing to do" in again.err
    assert finished.mutations() == before
    assert finished.fo("plan", "--json").json == {"actions": [], "held": []}


def test_status_says_what_was_proven(finished: Operator) -> None:
    body = finished.fo("status", "--json").json
    assert body["stage_1_complete"] is True
    assert body["gate_open"] is False
    assert body["last_run"]["outcome"] == "done"


def test_the_gate_lacks_only_the_human(finished: Operator) -> None:
    body = finished.fo("gate", "show", "--json").json
    assert body["open"] is False
    assert [r["code"] for r in body["reasons"]] == ["stage-2-locked"]
    assert body["reasons"][0]["clear"] == "fo gate unlock -c lab"
    refused = finished.fo("gate", "unlock")
    assert refused.code == 2
    assert "human" in refused.err


def test_a_new_commit_closes_the_gate_until_it_is_deployed(finished: Operator) -> None:
    (finished.folder / "infra" / "NOTE").write_text("a change\n")
    commit = finished.commit("A change")
    assert "other-commit" in [r["code"] for r in finished.fo("gate", "show", "--json").json["reasons"]]
    again = finished.fo("bootstrap")
    assert again.code == 0, again.err
    statement = status(finished)["statement"]
    assert isinstance(statement, dict)
    assert statement["commit"] == commit


def test_postcheck_writes_junit_and_json(finished: Operator, tmp_path: Path) -> None:
    ended = finished.fo("postcheck", "--json", "--junit", str(tmp_path / "out.xml"))
    assert ended.code == 0, ended.err
    suite = ET.parse(tmp_path / "out.xml").getroot()  # noqa: S314 - written by us a moment ago
    assert suite.attrib["failures"] == suite.attrib["errors"] == "0"
    assert int(suite.attrib["tests"]) == len(ended.json["findings"]) > 30


def test_a_component_that_fails_closes_stage_1_and_recovers(finished: Operator) -> None:
    with served(finished):
        finished.fo("lab", "faults", "-c", "lab", "--on", "component-unready,namespace=media,name=jellyfin")
        kubeconfig = str(finished.lab / "lab.kubeconfig")
        assert Path(kubeconfig).stat().st_mode & 0o777 == 0o600
        ended = finished.fo("postcheck")
        if ended.code == 0:  # the lab notices on its next look at the workload
            finished.touch("media", "jellyfin")
            ended = finished.fo("postcheck")
        assert ended.code == 20, ended.out
        assert "jellyfin" in ended.out
        assert status(finished)["stage_1_complete"] is False
        finished.fo("lab", "faults", "-c", "lab", "--off", "all")
        finished.touch("media", "jellyfin")
        assert finished.fo("bootstrap").code == 0
    assert status(finished)["stage_1_complete"] is True


def test_a_postcheck_waits_for_what_is_on_its_way_when_told_to(finished: Operator) -> None:
    with served(finished):
        finished.fo("lab", "faults", "-c", "lab", "--on", "component-unready,namespace=media,name=jellyfin")
        finished.touch("media", "jellyfin")
        assert 20 in (finished.fo("postcheck").code for _ in range(10))  # the lab notices on its next look
        with finished.start("postcheck", "--wait", "60") as waiting:
            assert waiting.stderr
            assert waiting.stderr.readline().startswith("waiting for ")
            finished.fo("lab", "faults", "-c", "lab", "--off", "all")
            finished.touch("media", "jellyfin")
            out, err = waiting.communicate(timeout=90)
        assert waiting.returncode == 0, out + err
    assert status(finished)["stage_1_complete"] is True


def test_no_secret_is_in_what_a_run_leaves_behind(finished: Operator) -> None:
    secrets = [v for k in SECRETS if len(v := finished.value(k)) > 8]
    assert len(secrets) > 6
    looked = 0
    for path in (finished.lab / "state").rglob("*"):
        if path.is_file():
            text = path.read_text(errors="replace")
            looked += 1
            assert not [s[:4] for s in secrets if s in text], path
    assert looked > 3


def test_a_plan_from_nothing_is_whole_and_changes_nothing(fresh: Operator) -> None:
    body = fresh.fo("plan", "--json").json
    keys = [a["key"] for a in body["actions"]]
    assert {"machine/lab-c1", "machine/lab-w1", "k3s/lab-c1", "k3s/lab-w1", "kubeconfig", "flux/controllers"} <= set(
        keys
    )
    assert any(k.startswith("flux/kustomization/") for k in keys)
    assert all(a["reason"] for a in body["actions"])
    assert fresh.mutations() == 0
    assert "because" in fresh.fo("plan").out


@pytest.mark.parametrize("until", ["machines", "k3s", "flux"])
def test_a_bootstrap_stops_where_it_is_told(fresh: Operator, until: str) -> None:
    ended = fresh.fo("bootstrap", "--until", until)
    assert ended.code == 0, ended.err
    stages = {a["stage"] for a in fresh.fo("plan", "--json").json["actions"]}
    later = {"machines": {"k3s", "flux"}, "k3s": {"flux"}, "flux": set()}
    assert stages == later[until]
    assert not (fresh.lab / "state" / "status.json").exists()


def test_a_wrong_pin_is_refused_before_anything_is_sent(fresh: Operator) -> None:
    fresh.set("PROXMOX_FINGERPRINT", "ab" * 32)
    ended = fresh.fo("bootstrap")
    assert ended.code == 4, ended.err
    assert "PROXMOX_FINGERPRINT" in ended.err
    assert fresh.mutations() == 0


def test_a_token_that_lacks_a_privilege_is_told_which(fresh: Operator) -> None:
    fresh.fo("plan")
    with proxmox_of(fresh) as proxmox:
        proxmox.remove_privilege(fresh.value("PROXMOX_TOKEN_ID"), "VM.Config.HWType")
    ended = fresh.fo("bootstrap")
    assert ended.code == 3, ended.err
    assert "VM.Config.HWType" in ended.err
    assert "pveum" in ended.err
    assert fresh.mutations() == 0


def test_an_address_that_answers_already_is_refused(fresh: Operator) -> None:
    import socket

    address = fresh.fo("plan", "--json")  # makes the lab once
    assert address.code == 0
    config = json.loads(json.dumps(fresh.value("CONTROLLER_FIRST_IP")))
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind((config, int(fresh.value("SSH_PORT"))))
        stranger.listen()
        ended = fresh.fo("bootstrap")
    assert ended.code == 3, ended.err
    assert config in ended.err
    assert fresh.mutations() == 0


def test_a_host_key_that_differs_is_refused(fresh: Operator) -> None:
    assert fresh.fo("bootstrap", "--until", "machines").code == 0
    before = fresh.mutations()
    fresh.set("HOST_KEY_SEED", "cd" * 32)
    ended = fresh.fo("bootstrap")
    assert ended.code == 4, ended.err
    assert "host key" in ended.err
    assert fresh.mutations() == before


def test_an_env_file_that_others_can_read_is_refused(fresh: Operator) -> None:
    fresh.env_file.chmod(0o644)
    ended = fresh.fo("bootstrap")
    assert ended.code == 2
    assert "chmod 600" in ended.err
    assert fresh.value("K3S_TOKEN") not in ended.err


def test_a_failed_task_is_told_and_the_next_run_mends_it(fresh: Operator) -> None:
    fresh.fo("lab", "faults", "-c", "lab", "--on", "task-fail,type=qmstart,times=1")
    ended = fresh.fo("bootstrap")
    assert ended.code == 7, ended.err
    again = fresh.fo("bootstrap")
    assert again.code == 0, again.err


def test_a_cut_connection_does_no_harm(fresh: Operator) -> None:
    fresh.fo("lab", "faults", "-c", "lab", "--on", "ssh-cut,node=lab-c1,times=2")
    for _ in range(4):
        ended = fresh.fo("bootstrap")
        if ended.code == 0:
            break
        assert ended.code in (5, 7, 8), ended.err
    assert ended.code == 0, ended.err


def test_another_lab_with_detours_on_another_release(tmp_path: Path) -> None:
    """As on macOS, where only 127.0.0.1 can be listened on; Proxmox 8.4, no worker, an optional part switched on."""
    home = Operator(tmp_path / "home", CONTROLLERS=1, WORKERS=0, PORTAINER_ENABLED="true")
    home.lab.mkdir(parents=True)
    (home.lab / "settings.json").write_text(json.dumps({"detour": True, "release": "8.4"}))
    ended = home.fo("bootstrap")
    assert ended.code == 0, ended.err
    statement = status(home)["statement"]
    assert isinstance(statement, dict)
    assert "portainer" in statement["components"]


def test_only_one_fo_works_on_a_cluster(fresh: Operator) -> None:
    with served(fresh, "--latency", "realistic", "--speed", "5"), fresh.start("bootstrap") as first:
        assert first.stderr
        first.stderr.readline()
        second = fresh.fo("bootstrap")
        assert second.code == 11
        assert str(first.pid) in second.err
        first.send_signal(signal.SIGINT)
        _, talk = first.communicate(timeout=60)
    assert first.returncode == 130, talk
    assert "resume" in talk or "again" in talk


def test_killed_ten_times_it_ends_in_the_same_state(tmp_path: Path) -> None:
    """SIGKILL at ten random moments against a served lab; then no machine was made twice."""
    home = Operator(tmp_path / "home", CONTROLLERS=3, WORKERS=2)
    chance = random.Random(20261124)  # noqa: S311 - chooses moments, guards nothing
    with served(home, "--latency", "realistic", "--speed", "40"):
        for _ in range(10):
            with home.start("bootstrap") as fo:
                try:
                    fo.wait(timeout=chance.uniform(0.3, 4.0))
                except Exception:
                    fo.kill()
                fo.communicate()
        ended = home.fo("bootstrap", timeout=300)
        assert ended.code == 0, ended.err
    assert home.fo("plan", "--json").json == {"actions": [], "held": []}
    creates = [e for e in _ledger(home) if e.startswith("POST /nodes/") and "/qemu " in e and "/qemu/" not in e]
    assert len(creates) == len(set(creates)) == 5, creates


def _ledger(home: Operator) -> list[str]:
    from funoffshore.lab.base import Ledger, Store

    store = Store(home.lab / "lab.sqlite")
    entries = [e["what"] for e in Ledger(store).entries()]
    store.close()
    return entries


def test_a_proxmox_that_cannot_be_seen_is_not_taken_for_empty(finished: Operator) -> None:
    """With the wrong pin nothing is known of any machine: no plan may found or join anything."""
    good = finished.value("PROXMOX_FINGERPRINT")
    finished.set("PROXMOX_FINGERPRINT", "ab" * 32)
    try:
        ended = finished.fo("plan", "--json")
    finally:
        finished.set("PROXMOX_FINGERPRINT", good)
    assert ended.code == 4
    verbs = {a["key"]: a["verb"] for a in ended.json["actions"]}
    assert not [key for key, verb in verbs.items() if key.startswith(("machine/", "k3s/")) and verb != "wait for"]


def test_git_that_cannot_be_read_stops_a_bootstrap_before_anything_is_made(fresh: Operator) -> None:
    fresh.fo("lab", "faults", "-c", "lab", "--on", "git-unreachable")
    ended = fresh.fo("bootstrap")
    assert ended.code == 5, ended.err
    assert "GIT_URL" in ended.err
    assert fresh.mutations() == 0
    fresh.fo("lab", "faults", "-c", "lab", "--off", "all")
    fresh.set("GIT_BRANCH", "nowhere")
    finished = fresh.fo("bootstrap")  # the lab publishes whatever branch is asked for
    assert finished.code == 0, finished.err


def test_a_machine_that_was_switched_off_is_started_again(fresh: Operator) -> None:
    assert fresh.fo("bootstrap").code == 0
    with served(fresh):
        cluster = config.load(fresh.env_file, fresh.folder)
        _power_off(cluster, cluster.nodes[1].vmid)
        keys = {a["key"]: a["verb"] for a in fresh.fo("plan", "--json").json["actions"]}
        assert keys["power/lab-w1"] == "change"
        assert keys.get("k3s/lab-w1", "wait for") == "wait for"
        ended = fresh.fo("bootstrap")
        assert ended.code == 0, ended.err
        assert fresh.fo("plan", "--json").json == {"actions": [], "held": []}


def _power_off(cluster: config.ClusterConfig, vmid: int) -> None:
    """Stops a machine behind fo's back, as somebody in Proxmox's web page would."""
    from funoffshore.clock import WallClock

    door = Proxmox(cluster.proxmox, Routes(), WallClock())
    upid = door.stop(cluster.proxmox.nodes[0], vmid)
    while door.task(upid).running:
        pass
