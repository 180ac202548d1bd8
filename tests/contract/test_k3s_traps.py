"""What a real K3s does that nobody expects, and what fo does about it. ``docs/reference/k3s-traps.md`` lists all of
them with the tests that hold each defence; here are those that no other test holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from k3s_homelab import Homelab, _config
from k3s_trouble import clusters, fails, members, only, ready_nodes, settle, short, told, untouched, with_k3s, without

from funoffshore import errors
from funoffshore.lab.base import Latencies
from funoffshore.plan import Verb
from funoffshore.reading import Present
from funoffshore.stages import k3s
from funoffshore.stages.k3s import drain, facts, files, kube_vip, work
from funoffshore.world import supervisor

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "reference" / "k3s-traps.md"
SOURCES = PROJECT / "src" / "funoffshore"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Homelab]:
    """One controller and one worker, booted."""
    lab = Homelab(tmp_path, 1, 1)
    lab.boot()
    yield lab
    lab.close()


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Homelab]:
    """Three controllers and a worker with K3s on them."""
    lab = Homelab(tmp_path, 3, 1)
    lab.boot()
    settle(lab)
    yield lab
    lab.close()


def sources() -> Iterator[tuple[Path, str]]:
    """Everything of fo but its lab, without comments and docstrings."""
    for path in SOURCES.rglob("*.py"):
        if "lab" not in path.relative_to(SOURCES).parts:
            yield path, re.sub(r'""".*?"""|#[^\n]*', "", path.read_text(), flags=re.DOTALL)


# --------------------------------------------------------------------------------------------------------- the page


def named() -> list[tuple[str, str]]:
    """Every ``module::test`` of the page."""
    return re.findall(r"`(\w+)::(\w+)`", PAGE.read_text())


def test_every_trap_of_the_page_names_a_test_that_there_is() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| trap")]
    assert len(rows) >= 45
    assert not [row for row in rows if not re.search(r"`\w+::\w+`", row)]
    files_of = {path.stem: path.read_text() for path in (PROJECT / "tests").rglob("test_*.py")}
    missing = [
        f"{module}::{name}" for module, name in named() if f"\ndef {name}(" not in files_of.get(module, "")
    ]  # fmt: skip
    assert missing == []


# ----------------------------------------------------------------------------------------------- starts and their ends


def test_a_start_that_ends_with_exit_0_is_no_success(pair: Homelab) -> None:
    """K3s ends by itself after it was up for a moment, with exit status 0 (a Shutdown request)."""
    config = with_k3s(pair.config, extra_config={"kube-apiserver-arg": "audit-policy-file=/etc/nowhere.yaml"})
    with short():
        why = fails(pair, only(pair.plan(config), "k3s/lab-c1"), config)
    lines = pair.host("lab-c1").journal_lines("k3s", 100)
    assert any("Shutdown request received" in line for line in lines)
    assert not any("level=fatal" in line for line in lines)
    assert "audit" in told(why)


def test_a_slow_start_is_waited_for_through_all_its_states(tmp_path: Path) -> None:
    """Refused, starting, /ping without /readyz, /readyz without a Node: none is taken for the next one."""
    lab = Homelab(tmp_path, 1, 1, latencies=Latencies(k3s_first=24.0, k3s_agent=12.0))
    lab.boot()
    try:
        lab.carry_out(lab.plan())
        said = [sentence for sentence in lab.voice.sentences if "waiting for lab-c1" in sentence]
        rungs = ("its supervisor to answer /ping", "its API server to be ready", "its Node to be Ready")
        firsts = [next(i for i, sentence in enumerate(said) if rung in sentence) for rung in rungs[:2]]
        assert firsts == sorted(firsts)
        assert not [s for s in said[: firsts[1]] if rungs[2] in s]
        assert ready_nodes(lab) == {"lab-c1", "lab-w1"}
    finally:
        lab.close()


def test_cgroup_v1_is_refused_before_anything_is_written(pair: Homelab) -> None:
    """Its kubelet would refuse, and K3s end with exit status 0 after ten seconds."""
    node = pair.config.node("lab-c1")
    seen = pair.facts().host("lab-c1")
    assert isinstance(seen, Present)
    with pytest.raises(errors.PreflightError, match="lab-c1 has no cgroup v2"):
        work._check(pair.config, node, replace(seen.value, cgroup2=False))
    work._check(pair.config, node, seen.value)


def test_nothing_that_fo_applies_is_a_bare_pod(tmp_path: Path) -> None:
    """Right after the first Ready a Pod is refused; what has a controller is made again by it."""
    kinds = set(re.findall(r"^kind: *(\w+)", kube_vip.manifest(_config(tmp_path, 1, 0)), re.MULTILINE))
    for path in (PROJECT / "infra").rglob("*.yaml"):
        kinds |= set(re.findall(r"^kind: *(\w+)", path.read_text(), re.MULTILINE))
    assert "HelmRelease" in kinds or "Kustomization" in kinds
    assert "Pod" not in kinds


# ------------------------------------------------------------------------------------------------- tokens and secrets


@pytest.mark.parametrize("token", ["", "0123456789abcdef0123456789abcdef", f"K10{'a' * 40}::server:x", "K10::server:x"])
def test_nobody_joins_without_naming_the_authority(pair: Homelab, token: str) -> None:
    """Without a token K3s founds a cluster of its own on SQLite; with a bare one it believes whoever answers."""
    with pytest.raises(ValueError, match="must name the authority"):
        files.entry_keys(pair.config, files.Entry(facts.Role.JOIN, token))


def test_every_config_on_every_host_names_the_authority(three: Homelab) -> None:
    """The founder's, too, as soon as there is a cluster: with its disk lost it would found another one."""
    (authority,) = clusters(three)
    for node in three.config.nodes:
        settings = yaml.safe_load(three.host(node.name).path(files.CONFIG).read_text())
        assert settings["server"] == f"https://{three.config.network.vip}:6443"
        assert settings["token"].startswith(f"K10{authority}::")
        assert "cluster-init" not in settings


@pytest.mark.parametrize("wrong", ["no token", "a bare token", "a short hash", "another authority", "an agent's"])
def test_a_way_in_that_somebody_changed_is_put_right(three: Homelab, wrong: str) -> None:
    path = three.host("lab-c2").path(files.CONFIG)
    settings = yaml.safe_load(path.read_text())
    secret = three.config.k3s.token.get_secret_value()
    (authority,) = clusters(three)
    settings["token"] = {
        "a bare token": secret, "a short hash": f"K10abc::server:{secret}",
        "another authority": f"K10{'0' * 64}::server:{secret}", "an agent's": f"K10{authority}::node:{secret}",
    }.get(wrong)  # fmt: skip
    if wrong == "no token":
        del settings["token"]
    path.write_text(yaml.safe_dump(settings))
    if wrong == "a short hash":
        with untouched(three):
            assert "another token" in told(fails(three))
        return
    settle(three)
    assert yaml.safe_load(path.read_text())["token"] == f"K10{authority}::server:{secret}"
    assert list(members(three).values()) == [{"lab-c1", "lab-c2", "lab-c3"}]


def test_no_secret_is_in_an_environment_or_on_a_command_line(three: Homelab) -> None:
    """No env file that a rerun could empty, no K3S_ variable, no argument: config.yaml alone."""
    secrets = [three.config.k3s.token.get_secret_value(), three.config.k3s.agent_token.get_secret_value()]
    for node in three.config.nodes:
        root = three.host(node.name)
        unit = root.path(files.unit_path(node)).read_text()
        assert not re.search(r"Environment|K3S_|--", unit.split("[Service]")[1])
        assert not list(root.path("/etc/systemd/system").glob("*.env"))
        reading = three.world.kube.get("v1/Node", "", node.name)
        assert isinstance(reading, Present)
        notes = reading.value["metadata"]["annotations"]
        assert notes["k3s.io/node-env"] == "{}"
        assert not [secret for secret in secrets if secret in notes["k3s.io/node-args"]]
        holding = {str(p.relative_to(root.path("/"))) for p in _texts(root.path("/")) if _holds(p, secrets)}
        assert {p for p in holding if not p.startswith("var/lib/rancher/k3s/server/")} == {files.CONFIG[1:]}


def _texts(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def _holds(path: Path, secrets: list[str]) -> bool:
    content = path.read_bytes()
    return any(secret.encode() in content for secret in secrets)


def test_a_worker_never_holds_the_servers_token(three: Homelab) -> None:
    """With it anybody on that host could ask a server for all keys of the authority."""
    secret = three.config.k3s.token.get_secret_value()
    assert not [path for path in _texts(three.host("lab-w1").path("/")) if _holds(path, [secret])]


# ----------------------------------------------------------------------------------------------- readiness and quorum


def test_a_server_without_a_quorum_is_not_ready_whatever_its_supervisor_says(three: Homelab) -> None:
    for name in ("lab-c1", "lab-c2"):
        three.host(name).units.stop("k3s")
    third = str(three.config.node("lab-c3").address)
    assert isinstance(supervisor.Supervisor(three.config).ping(third), Present)
    three.kit.clock.sleep(60)
    need = three.plan().actions["k3s/lab-c3"]
    assert need.verb is Verb.WAIT
    assert "the API does not answer" in need.reason


def test_nobody_asks_for_the_readyz_that_says_ok_without_a_quorum() -> None:
    """Only whether a password is taken is read from it, where 200 is no answer."""
    assert {path.name for path, code in sources() if "v1-k3s/readyz" in code} == {"supervisor.py"}
    callers = {path.name for path, code in sources() if ".accepts(" in code}
    assert callers <= {"rotation.py", "supervisor.py"}, "what a password is good for is no health"


# ------------------------------------------------------------------------------------------------------- later changes


def test_secrets_encryption_is_never_taken_away(three: Homelab) -> None:
    """A server that restarts without it cannot read what it wrote, and never comes up."""
    config = with_k3s(three.config, secrets_encryption=not three.config.k3s.secrets_encryption)
    with untouched(three):
        assert {problem.message.split(":")[0] for problem in k3s.problems(config, three.facts(config))} >= {
            f"K3s on lab-c{n} is left alone" for n in (1, 2, 3)
        }
        assert "secrets-encryption cannot be changed" in told(fails(three, config=config))


@pytest.mark.parametrize("key", ["cluster_cidr", "service_cidr"])
def test_a_changed_range_of_addresses_is_never_written(three: Homelab, key: str) -> None:
    """K3s takes it without a word, and the cluster's services stay in the old one."""
    other = getattr(three.config.k3s, key).supernet(new_prefix=15)
    config = with_k3s(three.config, **{key: other})
    with untouched(three):
        assert "cannot be changed on a living cluster" in told(fails(three, config=config))


def test_a_token_file_that_is_gone_is_no_new_cluster(three: Homelab) -> None:
    """etcd's data still tells that there is one; K3s writes the file anew when it starts."""
    path = three.host("lab-c2").path(facts.TOKEN)
    path.unlink()
    assert k3s.cluster_exists(three.config, three.facts()) is True
    assert not [a for a in three.plan().actions.values() if a.verb is Verb.CREATE]
    three.host("lab-c2").units.stop("k3s")
    settle(three)
    assert path.exists()
    assert len(clusters(three)) == 1


def test_pods_survive_a_restart_of_k3s(pair: Homelab) -> None:
    """Containers go on when K3s is stopped or killed, so a restart for settings drains nobody."""
    settle(pair)
    for node in pair.config.nodes:
        assert "KillMode=process" in files.unit(node)
    config = with_k3s(pair.config, extra_config={"kubelet-arg": "max-pods=150"})
    assert not [key for key in pair.plan(config).actions if key.startswith("drain/")]


# ------------------------------------------------------------------------------------------------- install and removal


def test_no_script_of_k3s_is_ever_run() -> None:
    """install.sh neither restarts for config.yaml nor keeps a token; k3s-uninstall.sh stops the server beside an agent,
    and takes config.yaml and snapshots with it."""
    for path, code in sources():
        assert not re.search(r"INSTALL_K3S|install\.sh|k3s-(agent-)?uninstall|k3s-killall|get\.k3s\.io", code), path


def test_a_wipe_takes_the_node_password_and_leaves_the_binary(three: Homelab) -> None:
    """With the password of before, a host that shall be new would come back as the old one."""
    assert "/etc/rancher/node" in drain.DATA
    assert files.BINARY not in drain.DATA


# ---------------------------------------------------------------------------------------------------------- one by one


def test_what_a_wrong_server_on_the_vip_says_is_not_believed(pair: Homelab) -> None:
    """Another cluster answers on the VIP; whoever came in by a bare secret would be its member now."""
    pair.carry_out(without(pair.plan(), "k3s/lab-w1"))
    path = pair.host("lab-c1").path(facts.TOKEN)
    path.write_text(f"K10{'ab' * 32}::server:{pair.config.k3s.token.get_secret_value()}\n")
    with short():
        assert "authority" in told(fails(pair, only(pair.plan(), "k3s/lab-w1")))
    assert not pair.host("lab-w1").path(facts.AGENT).exists()


def test_agents_are_told_apart_from_servers_that_only_warn(pair: Homelab) -> None:
    """Whatever the operator adds for servers, an agent gets nothing that it does not know, and comes up."""
    extra = {"kube-apiserver-arg": "request-timeout=90s", "etcd-arg": "quota-backend-bytes=8589934592"}
    config = with_k3s(pair.config, extra_config=extra)
    settings: dict[str, Any] = files.settings(config, config.node("lab-w1"))
    assert not set(extra) & set(settings)
    settle(pair, config)
    assert ready_nodes(pair) == {"lab-c1", "lab-w1"}
