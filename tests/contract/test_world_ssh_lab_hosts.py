"""Life of a lab machine: boot, cloud-init, guest agent, shutdown, and the lab's own process going away."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pycdlib
import pytest
import yaml
from ssh_machines import Bench, bench, hardware_of, until

from funoffshore import seed
from funoffshore.lab.base import Latencies
from funoffshore.lab.guests import AgentSilentError, Hardware
from funoffshore.lab.hosts.hosts import Hosts
from funoffshore.reading import Present, Unreadable
from funoffshore.world import ssh


def observed(made: Bench) -> ssh.HostFacts:
    seen = made.hosts.observe(made.node)
    assert isinstance(seen, Present), seen
    return seen.value


def test_a_boot_takes_its_time_and_cloud_init_some_more(tmp_path: Path) -> None:
    with bench(tmp_path, latencies=Latencies(boot=20, cloud_init=40), speed=100) as made:
        begun = made.kit.clock.now()
        made.boot(wait=False)
        assert isinstance(made.hosts.observe(made.node), Unreadable)
        with pytest.raises(AgentSilentError):
            made.lab.agent(made.node.vmid, "ping", {})
        until(lambda: made.hosts.answers(made.node.address))
        assert 20 <= made.kit.clock.now() - begun < 55
        assert observed(made).cloud_init == "running"
        until(lambda: observed(made).cloud_init == "done")
        assert made.kit.clock.now() - begun >= 60
        assert made.lab.agent(made.node.vmid, "ping", {}) == {}


def test_the_guest_agent_tells_the_address(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.boot()
        answer: Any = made.lab.agent(made.node.vmid, "network-get-interfaces", {})
        assert answer[1]["name"] == "eth0"
        assert answer[1]["hardware-address"] == seed.mac(made.node.identity).lower()
        assert answer[1]["ip-addresses"][0]["ip-address"] == str(made.node.address)
        assert made.lab.agent(made.node.vmid, "get-host-name", {}) == {"host-name": "lab-c1"}
        made.lab.shut_down(made.node.vmid)
        until(lambda: not made.lab.is_on(made.node.vmid))
        with pytest.raises(AgentSilentError):
            made.lab.agent(made.node.vmid, "ping", {})


def test_without_the_agents_channel_there_is_no_agent(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.lab.power_on(hardware_of(made.config, made.node, agent=False))
        made.settle(made.node)
        with pytest.raises(AgentSilentError):
            made.lab.agent(made.node.vmid, "ping", {})


def test_cloud_init_runs_once_per_instance_and_not_at_all_once_disabled(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.boot()
        made.hosts.write(made.node, [ssh.FileWrite("/etc/hostname", b"renamed\n")])
        made.lab.power_off(made.node.vmid)
        made.boot()
        assert observed(made).hostname == "renamed"
        made.hosts.write(made.node, [ssh.FileWrite("/etc/cloud/cloud-init.disabled", b"")])
        assert observed(made).cloud_init == "disabled"
        made.lab.power_off(made.node.vmid)
        made.lab.power_on(hardware_of(made.config, made.node, blank=True))
        until(lambda: made.hosts.answers(made.node.address))
        assert observed(made).cloud_init == "disabled"


def test_destroy_leaves_nothing_and_the_next_machine_starts_afresh(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.boot()
        made.hosts.write(made.node, [ssh.FileWrite("/opt/x", b"x", owner="ops:ops")])
        made.lab.destroy(made.node.vmid)
        assert not made.root().exists()
        assert not made.lab.is_on(made.node.vmid)
        made.boot()
        assert not (made.root() / "opt/x").exists()


def test_a_lab_that_comes_back_brings_back_its_machines(tmp_path: Path) -> None:
    with bench(tmp_path, latencies=Latencies(boot=30, cloud_init=5), speed=50) as made:
        made.boot()
        before = observed(made)
        unit = b"[Service]\nExecStart=/opt/thing\n[Install]\nWantedBy=multi-user.target\n"
        starts: list[str] = []

        class Thing:
            def start(self, machine: Any, argv: list[str], ready: Any, ended: Any) -> None:
                starts.append(machine.name)

            def stop(self, machine: Any) -> None:
                starts.append("stopped")

        made.lab.register_service("thing", Thing())
        made.hosts.write(
            made.node,
            [
                ssh.FileWrite("/etc/systemd/system/thing.service", unit),
                ssh.FileWrite("/opt/thing", b"#!funoffshore-lab thing\n", 0o750, owner="ops:ops"),
            ],
        )
        made.hosts.change(made.node, {"units": [{"name": "thing", "action": "enable"}]})
        made.lab.stop()
        made.lab = Hosts(made.kit, services={"thing": Thing()})
        assert not made.lab.is_on(made.node.vmid)
        asked = made.kit.clock.now()
        made.lab.power_on(hardware_of(made.config, made.node))
        until(lambda: made.hosts.answers(made.node.address))
        assert made.kit.clock.now() - asked < 25
        after = observed(made)
        assert (after.boot_id, after.cloud_init) == (before.boot_id, "done")
        assert starts == ["lab-c1"]
        look = ssh.Look(files=(ssh.FileLook("/opt/thing"),))
        seen = made.hosts.observe(made.node, look)
        assert isinstance(seen, Present)
        fact = seen.value.file("/opt/thing")
        assert isinstance(fact, Present)
        assert (fact.value.mode, fact.value.owner) == (0o750, "1000:1000")


def test_a_lab_killed_within_cloud_init_finishes_it(tmp_path: Path) -> None:
    with bench(tmp_path, latencies=Latencies(cloud_init=1000)) as made:
        made.boot(wait=False)
        until(lambda: made.hosts.answers(made.node.address))
        made.lab.stop()
        made.kit = dataclasses.replace(made.kit, latencies=Latencies())
        made.lab = Hosts(made.kit)
        made.lab.power_on(hardware_of(made.config, made.node))
        made.settle(made.node)
        assert observed(made).cloud_init == "done"


def test_an_address_that_is_taken_is_not_answered_by_sshd(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        listener = made.kit.routes.listen(str(made.node.address), 2222)
        made.boot()
        listener.close()
        log = (made.root() / "var/log/journal-lab/ssh.log").read_text()
        assert "Address already in use" in log
        assert "Cannot bind any address" in log
        assert not made.hosts.answers(made.node.address)


def with_user_data(made: Bench, user_data: str) -> Hardware:
    """The node's machine with other user-data on its seed."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09")
    texts = {
        "meta-data": yaml.safe_dump(seed.meta_data(made.node)),
        "network-config": yaml.safe_dump(seed.network_config(made.config, made.node)),
        "user-data": user_data,
    }
    for name, text in texts.items():
        data = text.encode()
        short = name.upper().replace("-", "_")
        image.add_fp(io.BytesIO(data), len(data), f"/{short}.;1", rr_name=name, joliet_path=f"/{name}")
    iso = made.config.root / "other.iso"
    image.write(str(iso))
    image.close()
    return dataclasses.replace(hardware_of(made.config, made.node), seed=iso)


@pytest.mark.parametrize(
    "user_data",
    [
        "#cloud-config\n{broken",
        "#cloud-config\n- a\n- list\n",
        "nothing at all",
        "#cloud-config\nusers: [{nameless: true}]\n",
        "#cloud-config\nwrite_files: [{path: /x, content: '%', encoding: b64, permissions: 'rw'}]\n",
        "#cloud-config\nruncmd: [[nosuch, program]]\n",
    ],
)
def test_bad_user_data_is_an_error_of_cloud_init_not_of_the_lab(tmp_path: Path, user_data: str) -> None:
    with bench(tmp_path) as made:
        made.lab.power_on(with_user_data(made, user_data))
        made.settle(made.node)
        host = made.lab.host("lab-c1") or made.lab.host("localhost")
        assert host is not None
        result = host.run(["cloud-init", "status", "--format", "json"])
        assert result.code == 1
        assert yaml.safe_load(result.out)["errors"]


def test_files_and_users_are_as_the_seed_says(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        user_data = {
            "users": [{"name": "ops"}, {"name": "two", "sudo": ["ALL=(ALL) NOPASSWD:ALL"]}],
            "write_files": [
                {"path": "/etc/a", "content": "aGk=", "encoding": "b64", "permissions": "0600"},
                {"path": "/etc/a", "content": "!", "append": True, "permissions": "0640"},
            ],
            "runcmd": ["echo one > /opt/one", ["sh", "-c", "echo two >> /opt/one"]],
        }
        made.lab.power_on(with_user_data(made, "#cloud-config\n" + yaml.safe_dump(user_data)))
        made.settle(made.node)
        host = made.lab.host("lab-c1")
        assert host is not None
        assert host.files.read("/etc/a") == "hi!"
        assert host.files.stat("/etc/a").st_mode & 0o7777 == 0o640
        assert host.files.read("/opt/one") == "one\ntwo\n"
        assert host.files.stat("/home/two").st_uid == 1001
        assert host.files.read("/etc/sudoers.d/90-cloud-init-users") == "two ALL=(ALL) NOPASSWD:ALL\n"
