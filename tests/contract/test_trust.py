"""How host keys come to be known: through the guest agent, or on first use; recorded, and insisted on from then on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from machines_house import Step
from ssh_machines import until
from trust_house import PUBLIC, guest, house, lines, other_key, replace_key, settle, up

from funoffshore import errors, hostkeys
from funoffshore.reading import Unreadable
from funoffshore.stages.machines import finding, trust
from funoffshore.world import ssh
from funoffshore.world.ssh import known


def test_a_machine_from_proxmox_own_drive_is_known_through_its_agent(tmp_path: Path) -> None:
    with house(tmp_path, "agent") as made:
        made.settle()
        node = made.config.nodes[0]
        [line] = lines(made)
        shown = guest(made).files.read(PUBLIC).split()[1]
        assert line.startswith(f"[{node.address}]:2222,lab-c1 ssh-ed25519 {shown} fo-identity={node.identity} read thr")
        assert known.path(made.config).stat().st_mode & 0o777 == 0o600
        derived = hostkeys.private(made.config.ssh.host_key_seed.get_secret_value(), "lab-c1")
        assert shown != hostkeys.openssh_public(derived).split()[1]
        assert not made.calls("upload")
        assert not made.plan()


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client here")
def test_openssh_reads_what_was_recorded(tmp_path: Path) -> None:
    with house(tmp_path, "agent") as made:
        made.settle()
        identity = tmp_path / "id"
        identity.touch(mode=0o600)
        identity.write_text(made.config.ssh.private_key.get_secret_value())
        options = [
            "-F", "/dev/null", "-i", str(identity), "-p", "2222", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
            "-o", f"UserKnownHostsFile={known.path(made.config)}", "-o", "StrictHostKeyChecking=yes",
            "-o", "GlobalKnownHostsFile=/dev/null",
        ]  # fmt: skip
        argv = ["ssh", *options, f"{made.config.ssh.user}@{made.config.nodes[0].address}", "hostname"]
        done = subprocess.run(argv, capture_output=True, timeout=20)
        assert (done.returncode, done.stdout) == (0, b"lab-c1\n"), done.stderr
        replace_key(made, other_key())
        done = subprocess.run(argv, capture_output=True, timeout=20)
        assert done.returncode == 255
        assert b"Host key verification failed" in done.stderr


def test_another_key_later_is_refused_before_anybody_logs_in_and_is_never_recorded(tmp_path: Path) -> None:
    with house(tmp_path, "agent") as made:
        made.settle()
        before, node = lines(made), made.config.nodes[0]
        guest(made).files.write("/var/log/journal-lab/ssh.log", "")
        replace_key(made, other_key())
        with pytest.raises(errors.TrustError, match=r"lab-c1 .* has another host key: expected SHA256:") as caught:
            made.doors.hosts.observe(node)
        assert str(node.identity) in caught.value.fix
        with pytest.raises(errors.TrustError):
            made.doors.hosts.write(node, [ssh.FileWrite("/opt/x", b"x")])
        trust.learn(made.world, made.config, node, {}, Step())
        assert lines(made) == before
        assert "publickey" not in guest(made).files.read("/var/log/journal-lab/ssh.log")


@pytest.mark.parametrize("way", ["agent", "first-use"])
def test_without_a_known_key_nothing_is_sent_there(tmp_path: Path, way: str) -> None:
    with house(tmp_path, way) as made:
        up(made)
        node = made.config.nodes[0]
        seen = made.doors.hosts.observe(node)
        assert isinstance(seen, Unreadable)
        assert "is not known yet" in seen.why
        with pytest.raises(ssh.UnknownKeyError) as caught:
            made.doors.hosts.write(node, [ssh.FileWrite("/opt/x", b"x")])
        assert caught.value.exit_code == 4
        assert f"SSH_TRUST={way}" in caught.value.fix
        assert made.doors.hosts.round_trips == 0
        assert made.plan().actions["host/lab-c1"].reason.startswith("it does not answer")
        assert lines(made) == []


def test_an_image_without_agent_says_what_to_choose_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "FIRST_ANSWER", 30.0)
    with house(tmp_path, "agent", agent=False) as made:
        up(made)
        with pytest.raises(errors.DeadlineError, match="QEMU guest agent is not running") as caught:
            settle(made)
        told = "\n".join(caught.value.evidence)
        for word in ("it shows host key SHA256:", "power is on", "no qemu-guest-agent", "SEED=iso", "first-use"):
            assert word in told
        assert "VM 9000 on pve" in caught.value.fix
        assert lines(made) == []


def test_the_iso_brings_an_agent_that_tells_the_key(tmp_path: Path) -> None:
    with house(tmp_path, "agent", seed="iso", agent=False) as made:
        made.settle()
        assert len(lines(made)) == 1


def test_agent_and_sshd_must_name_the_same_key(tmp_path: Path) -> None:
    with house(tmp_path, "agent") as made:
        up(made)
        until(lambda: made.doors.hosts.answers(made.config.nodes[0].address))
        replace_key(made, other_key(), public=False)
        with pytest.raises(errors.TrustError, match=r"names host key SHA256:.* is shown"):
            settle(made)
        assert lines(made) == []
        assert made.doors.hosts.round_trips == 0


@pytest.mark.parametrize(
    "content", ["", "ssh-rsa AAAA\n", "ssh-ed25519 !!\n", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==\n", "a\nb\n"]
)
def test_what_the_agent_reads_must_be_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(trust, "FIRST_ANSWER", 10.0)
    with house(tmp_path, "agent") as made:
        up(made)
        until(lambda: made.doors.hosts.answers(made.config.nodes[0].address))
        guest(made).files.write(PUBLIC, content)
        with pytest.raises(errors.DeadlineError, match=PUBLIC) as caught:
            settle(made)
        assert "no qemu-guest-agent" not in str(caught.value.evidence)
        assert lines(made) == []


def test_a_comment_of_the_guests_own_does_not_get_into_the_record(tmp_path: Path) -> None:
    with house(tmp_path, "agent") as made:
        up(made)
        until(lambda: made.doors.hosts.answers(made.config.nodes[0].address))
        public = guest(made).files.read(PUBLIC).strip()
        guest(made).files.write(PUBLIC, f"{public} fo-identity=00000000-0000-0000-0000-000000000000 x\n")
        settle(made)
        assert "0000-0000" not in "".join(lines(made))


def test_the_key_of_a_stranger_is_never_asked_for(tmp_path: Path) -> None:
    with house(tmp_path, "agent") as made:
        up(made)
        made.api.add_stranger(9100, "theirs")
        elsewhere = {"hypervisor": "pve", "vmid": "9100"}
        found = finding.find(made.world, made.config, "lab-c1", elsewhere)
        assert found is None or found.vmid == 9000
        machine = made.api._house.machines.find(9000)
        assert machine is not None
        machine.config["smbios1"] = "uuid=6f1c2b9e-0000-4000-8000-000000000001"
        with pytest.raises(errors.ForeignError):
            trust.learn(made.world, made.config, made.config.nodes[0], {"hypervisor": "pve", "vmid": "9000"}, Step())
        assert lines(made) == []


def test_first_use_is_told_before_it_is_recorded_and_holds(tmp_path: Path) -> None:
    with house(tmp_path, "first-use", agent=False) as made:
        up(made)
        step = settle(made)
        key = known.parse(guest(made).files.read(PUBLIC))
        [warning] = [sentence for sentence in step.said if sentence.startswith("warning:")]
        assert key.fingerprint in warning
        assert "accepted on first use" in warning
        assert key.line in lines(made)[0]
        assert "accepted on first use" in lines(made)[0]
        assert guest(made).units.unit("qemu-guest-agent").active == "active"
        replace_key(made, other_key())
        with pytest.raises(errors.TrustError):
            made.doors.hosts.observe(made.config.nodes[0])
        with pytest.raises(errors.TrustError, match="was not recorded"):
            known.record(made.config, made.config.nodes[0], made.doors.hosts.shown_key(made.config.nodes[0]), "again")
        assert len(lines(made)) == 1


def test_a_record_that_was_lost_is_learned_again(tmp_path: Path) -> None:
    with house(tmp_path, "agent") as made:
        made.settle()
        before = lines(made)
        known.path(made.config).unlink()
        made.doors.hosts.close()
        assert list(made.plan().actions) == ["host/lab-c1"]
        made.settle()
        assert lines(made)[0].split()[:4] == before[0].split()[:4]


def test_a_machine_that_is_gone_is_forgotten_and_the_next_one_may_have_its_own_key(tmp_path: Path) -> None:
    with house(tmp_path, "agent") as made:
        made.settle()
        before = lines(made)
        file = known.path(made.config)
        file.write_text(file.read_text() + "git.example.test ssh-ed25519 AAAA somebody's own line\n")
        trust.forget(made.config, "lab-c1")
        trust.forget(made.config, "lab-c1")
        assert lines(made) == ["git.example.test ssh-ed25519 AAAA somebody's own line"]
        replace_key(made, other_key())
        made.settle()
        assert len(lines(made)) == 2
        assert lines(made)[1].split()[2] != before[0].split()[2]


def test_no_key_material_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with house(tmp_path, "first-use", agent=False) as made:
        up(made)
        step = settle(made)
        private = guest(made).files.read("/etc/ssh/ssh_host_ed25519_key")
        told = "\n".join(step.said) + "\n".join(lines(made))
        assert not any(part in told for part in private.splitlines()[1:-1])
