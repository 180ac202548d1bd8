"""Journals and what they tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from funoffshore.config import loader, new
from funoffshore.stages.k3s import causes

PINS = dict.fromkeys(("PROXMOX_FINGERPRINT", "IMAGE_SHA256", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "a" * 64)
START = 'time="2026-11-24T02:57:25Z" level=fatal msg="Error: preparing server: failed to bootstrap cluster data: '

LINES = [
    (START + "not authorized\"", "does not accept its token", True),
    (START + 'failed to validate token: token CA hash does not match the Cluster CA certificate hash: a != b"',
     "another authority", True),
    (START + 'failed to validate token: invalid token CA hash length"', "malformed", True),
    (START + 'failed to validate server configuration: critical configuration value mismatch between servers"',
     "all servers must share", True),
    (START + 'failed to get CA certs: Get \\"https://x:6443/cacerts\\": dial tcp x:6443: connect: connection refused"',
     "does not answer", False),
    (START + 'failed to get CA certs: Get \\"https://x:6443/cacerts\\": dial tcp x:6443: i/o timeout"',
     "no packet", False),
    ("... Node password rejected, duplicate hostname or contents of", "its name is taken", True),
    ('level=error msg="Shutdown request received: \\"etcd cluster join failed: duplicate node name found, please"',
     "member of that name", True),
    ('level=fatal msg="yaml: line 2: mapping values are not allowed in this context"', "not understood", True),
    ("write /var/lib/rancher/k3s/x: no space left on device", "disk is full", False),
    ("x509: certificate has expired or is not yet valid: current time", "clock is wrong", False),
]  # fmt: skip


@pytest.mark.parametrize(("line", "says", "hopeless"), LINES)
def test_recorded_lines_have_a_cause(line: str, says: str, hopeless: bool) -> None:
    cause = causes.find(["k3s.service: Main process exited", line, "k3s.service: Scheduled restart job"])
    assert cause is not None
    assert says in cause.says
    assert cause.hopeless is hopeless


def test_a_skipped_validation_is_not_the_refusal_itself() -> None:
    line = 'level=warning msg="Skipping cluster configuration validation: not authorized"'
    assert causes.find([line]) is None
    assert causes.find(["Starting k3s", "k3s is up and running"]) is None


def test_lines_of_an_earlier_attempt_do_not_count() -> None:
    old = ["a", "b"]
    assert causes.fresh(["a", "b", "c"], old) == ["c"]
    assert causes.fresh(["a", "b"], old) == []
    assert causes.fresh(["x"], old) == ["x"]
    assert causes.fresh(["x"], []) == ["x"]


def test_evidence_holds_no_token() -> None:
    whole = loader.parse(new.generate("lab", PINS, lab=True), "lab", Path("/nowhere"))
    config = replace(whole, k3s=replace(whole.k3s, token=SecretStr("canary-one"), agent_token=SecretStr("canary-two")))
    lines = ["token canary-one", f"x K10{'a' * 64}::server:canary-three", "y canary-two", "abcdef.0123456789abcdef"]
    told = " ".join(causes.redacted(config, lines))
    assert "canary" not in told
    assert "0123456789abcdef" not in told
