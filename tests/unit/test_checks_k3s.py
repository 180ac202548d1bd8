"""What postcheck makes of files' modes, certificates and snapshots: the pure parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from doctor_kit import host
from preflight_kit import BASE, C1, W1

from funoffshore.checks import k3s, k3s_certificates, k3s_etcd, k3s_files, postcheck
from funoffshore.checks.hosts import Tally
from funoffshore.config import Backup
from funoffshore.findings import Outcome
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.k3s import certificates, copies
from funoffshore.world.ssh import HostFacts, ModeFact, UnitFact

NOW = 1_795_492_695.0
DATA = "/var/lib/rancher/k3s"

# Files


def folder(mode: int = 0o700, owner: str = "0:0") -> Reading[ModeFact]:
    return Present(ModeFact("directory", mode, owner, 0, 0.0))


def file(mode: int = 0o600, owner: str = "0:0") -> Reading[ModeFact]:
    return Present(ModeFact("file", mode, owner, 0, 0.0))


def server(**changed: Reading[ModeFact]) -> dict[str, Reading[ModeFact]]:
    """A server's files as a real K3s leaves them; ``changed`` by the last word of their path."""
    seen: dict[str, Reading[ModeFact]] = {
        "/etc/rancher/k3s/config.yaml": file(), "/etc/rancher/k3s/k3s.yaml": file(),
        "/etc/rancher/k3s/registries.yaml": Absent(), f"{DATA}/server": folder(), f"{DATA}/server/token": file(),
        f"{DATA}/server/agent-token": Present(ModeFact("other", 0o777, "0:0", 0, 0.0)), f"{DATA}/server/cred": folder(),
        f"{DATA}/server/cred/passwd": file(), f"{DATA}/server/tls": folder(),
        f"{DATA}/server/tls/server-ca.key": file(), f"{DATA}/server/tls/etcd/peer-ca.key": file(),
        f"{DATA}/server/db/etcd": folder(), f"{DATA}/server/db/snapshots/*": Absent(),
    }  # fmt: skip
    return {
        path: changed.get(path.rsplit("/", 1)[1].split(".")[0].replace("-", "_"), fact) for path, fact in seen.items()
    }


def test_files_as_k3s_leaves_them_are_well() -> None:
    assert list(k3s_files.faults(C1, server())) == []


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"config": file(0o644)}, "/etc/rancher/k3s/config.yaml has mode 0644, 0600 is the widest"),
        ({"k3s": file(0o640)}, "/etc/rancher/k3s/k3s.yaml has mode 0640, 0600 is the widest"),
        ({"registries": file(0o604)}, "/etc/rancher/k3s/registries.yaml has mode 0604, 0600 is the widest"),
        ({"token": file(0o1600)}, f"{DATA}/server/token has mode 1600, 0600 is the widest"),
        ({"passwd": file(0o660)}, f"{DATA}/server/cred/passwd has mode 0660, 0600 is the widest"),
        ({"server_ca": file(0o644)}, f"{DATA}/server/tls/server-ca.key has mode 0644, 0600 is the widest"),
        ({"peer_ca": file(0o640)}, f"{DATA}/server/tls/etcd/peer-ca.key has mode 0640, 0600 is the widest"),
        ({"etcd": folder(0o755)}, f"{DATA}/server/db/etcd has mode 0755, 0700 is the widest"),
        ({"cred": folder(0o710)}, f"{DATA}/server/cred has mode 0710, 0700 is the widest"),
        ({"token": file(owner="1000:1000")}, f"{DATA}/server/token belongs to 1000:1000, not to root"),
        ({"token": Absent()}, f"{DATA}/server/token is absent"),
    ],
)
def test_whatever_is_wider_is_told_with_path_and_mode(changed: dict[str, Reading[ModeFact]], line: str) -> None:
    assert list(k3s_files.faults(C1, server(**changed))) == [(True, line)]


def test_tighter_is_well_and_what_could_not_be_seen_is_told_apart() -> None:
    assert list(k3s_files.faults(C1, server(token=file(0o400)))) == []
    dark = list(k3s_files.faults(C1, server(config=Unreadable("an I/O error"))))
    assert dark == [(False, "/etc/rancher/k3s/config.yaml could not be looked at (an I/O error)")]


def test_a_look_that_saw_nothing_is_not_fine() -> None:
    assert {line for _, line in k3s_files.faults(C1, {})} >= {f"{path} is absent" for path in k3s_files.SERVER_NEEDS}
    assert {line for _, line in k3s_files.faults(W1, {})} == {f"{path} is absent" for path in k3s_files.AGENT_NEEDS}


def test_an_agent_is_not_asked_for_a_servers_files() -> None:
    seen = {
        "/etc/rancher/k3s/config.yaml": file(),
        f"{DATA}/agent": folder(),
        f"{DATA}/agent/kubelet.kubeconfig": file(),
    }
    assert list(k3s_files.faults(W1, seen)) == []
    wide = {**seen, f"{DATA}/agent/client-kubelet.key": file(0o644)}
    assert [line for _, line in k3s_files.faults(W1, wide)] == [
        f"{DATA}/agent/client-kubelet.key has mode 0644, 0600 is the widest"
    ]
    assert not [path for path in k3s_files.patterns(BASE, W1) if "/server" in path]


# Certificates

OK = (
    'time="2026-11-24T04:58:13Z" level=info msg="client-admin.crt: certificate system:admin (ClientAuth) is ok, '
    'expires at 2027-11-24T02:57:25Z"\n'
)
SOON = (
    'level=warning msg="peer.crt: certificate CN=etcd-peer (ServerAuth,ClientAuth) will expire within 90 days at {}"\n'
)
OVER = 'level=error msg="server.crt: certificate CN=x,O=y (ServerAuth) expired at 2026-01-01T00:00:00Z"\n'
EARLY = 'level=error msg="server.crt: certificate CN=x (ServerAuth) is not valid before 2036-01-01T00:00:00Z"\n'


def test_a_recorded_line_is_understood() -> None:
    (found,) = certificates.parse("home-c1", OK)
    assert (found.file, found.subject, found.valid) == ("client-admin.crt", "system:admin", True)
    assert found.until == 1_827_025_045.0


def test_words_that_nobody_knows_make_a_certificate_no_good() -> None:
    (odd,) = certificates.parse("home-c1", OK.replace("is ok, expires at", "is being looked into since"))
    (when,) = certificates.parse("home-c1", EARLY.replace("is not valid before 2036-01", "is ok, expires at 2036-13"))
    assert (odd.valid, when.valid) == (False, False)


@pytest.mark.parametrize(
    ("text", "outcome", "line"),
    [
        (OK, Outcome.PASS, ""),
        (OK + SOON.format("2027-01-10T00:00:00Z"), Outcome.WARN, "home-c1: peer.crt ends in 47 days"),
        (OK + SOON.format("2026-12-01T00:00:00Z"), Outcome.FAIL, "home-c1: peer.crt ends in 7 days"),
        (OK + OVER, Outcome.FAIL, "home-c1: server.crt has ended"),
        (EARLY + OK, Outcome.FAIL, "home-c1: server.crt is not valid yet"),
    ],
)
def test_certificates_are_judged_by_their_end(text: str, outcome: Outcome, line: str) -> None:
    tally = Tally()
    left, which = k3s_certificates.judge(tally, "home-c1", certificates.parse("home-c1", text), NOW)
    answer = tally.answer("soon", "fine")
    assert answer[0] is outcome
    assert list(answer[2]) == ([line] if line else [])
    assert which.endswith("of home-c1")
    assert left < 366 * certificates.DAY


# Flags, taints


def test_flags_are_compared_whatever_their_form() -> None:
    tally = Tally()
    first: dict[str, tuple[str, ...]] = {
        "disable": ("traefik", "servicelb"),
        "token": ("********",),
        "node-name": ("a",),
        "embedded-registry": ("false",),
    }
    second: dict[str, tuple[str, ...]] = {"disable": ("servicelb,traefik",), "token": ("other",), "node-name": ("b",)}
    k3s._compare(tally, {"a": first, "b": second})
    assert (tally.bad, tally.odd) == ([], [])


def test_a_critical_difference_fails_and_another_warns() -> None:
    tally = Tally()
    first: dict[str, tuple[str, ...]] = {"flannel-backend": ("vxlan",), "kubelet-arg": ("max-pods=110",)}
    k3s._compare(tally, {"a": first, "b": {"kubelet-arg": ("max-pods=99",)}})
    assert tally.bad == ["flannel-backend: vxlan on a, unset on b"]
    assert tally.odd == ["kubelet-arg differs between a and b"]


@pytest.mark.parametrize("text", ["gpu=:NoSchedule", "gpu:NoSchedule"])
def test_a_taint_without_a_value_has_two_forms(text: str) -> None:
    assert k3s._plain(text) == k3s._taint({"key": "gpu", "effect": "NoSchedule"})


# Snapshots


def snapshot(**changed: Any) -> dict[str, Any]:
    """As K3s writes them (k3s.cattle.io/v1)."""
    item: dict[str, Any] = {
        "metadata": {"name": "local-etcd-snapshot-c1-1795492695-abc"},
        "spec": {"snapshotName": "etcd-snapshot-c1-1795492695", "nodeName": "c1", "location": f"file://{DATA}/x"},
        "status": {"readyToUse": True, "size": "4096", "creationTime": "2026-11-24T02:58:15Z"},
    }
    return {key: {**value, **changed.get(key, {})} for key, value in item.items()}


def test_a_snapshot_is_read() -> None:
    found = k3s_etcd.snapshot_of(snapshot())
    assert found == k3s_etcd.Snapshot("etcd-snapshot-c1-1795492695", "c1", 1795489095.0, good=True, elsewhere=False)


@pytest.mark.parametrize(
    "changed",
    [
        {"status": {"readyToUse": False}},
        {"status": {"readyToUse": None}},
        {"status": {"creationTime": None}},
        {"status": {"creationTime": "yesterday"}},
        {"status": {"error": {"message": "no space left on device"}}},
    ],
)
def test_a_snapshot_that_is_not_surely_good_is_not_good(changed: dict[str, Any]) -> None:
    assert not k3s_etcd.snapshot_of(snapshot(**changed)).good


@pytest.mark.parametrize("spec", [{"s3": {"bucket": "b"}}, {"location": "s3://b/x"}])
def test_a_snapshot_in_a_bucket_is_elsewhere(spec: dict[str, Any]) -> None:
    assert k3s_etcd.snapshot_of(snapshot(spec=spec)).elsewhere


@pytest.mark.parametrize(
    ("name", "at"), [("etcd-snapshot-c1-1795492695", 1795492695.0), ("x-1795492695.zip", 1795492695.0)]
)
def test_a_copys_name_tells_its_age(name: str, at: float) -> None:
    found = k3s_etcd._named(name, "NFS")
    assert found
    assert found.at == at


@pytest.mark.parametrize("name", ["lost+found", "etcd-snapshot-c1-1795492695.escrow.age", "note.txt"])
def test_other_files_are_no_copies(name: str) -> None:
    assert k3s_etcd._named(name, "NFS") is None


# Copies on NFS

RUNS = UnitFact("active", "waiting", "enabled", "success", 0, 0)
NAME = "etcd-snapshot-c1-1795492695"


def seen(timer: Reading[UnitFact], service: str = "inactive", there: Reading[ModeFact] | None = None) -> HostFacts:
    """A server with such units, and one copy in the folder on NFS."""
    units = {copies.TIMER: timer, copies.SERVICE: Present(replace(RUNS, active=service, result="exit-code"))}
    folder_ = k3s_files.copies_of(BASE).removesuffix("/*")
    modes = {f"{folder_}/*": there} if there else {f"{folder_}/{NAME}": file(), "/mnt/other/x-1795492695": file()}
    return replace(host(), units=units, modes=modes)


@pytest.mark.parametrize(
    ("facts", "bad", "dark", "names"),
    [
        (seen(Present(RUNS)), [], [], {NAME}),
        (seen(Present(RUNS), there=Absent()), [], [], set()),
        (seen(Absent()), ["home-c1: fo-etcd-copies.timer is absent"], [], {NAME}),
        (seen(Present(replace(RUNS, active="failed"))), ["home-c1: fo-etcd-copies.timer is failed"], [], {NAME}),
        (seen(Present(RUNS), "failed"), ["home-c1: fo-etcd-copies.service failed (exit-code)"], [], {NAME}),
        (seen(Unreadable("shut")), [], ["home-c1: shut"], {NAME}),
        (seen(Present(RUNS), there=Unreadable("stale")), [], ["home-c1: stale"], set()),
    ],
)
def test_copies_on_nfs_and_what_keeps_them_from_being_made(
    facts: HostFacts, bad: list[str], dark: list[str], names: set[str]
) -> None:
    tally = Tally()
    assert k3s_etcd.copied(tally, BASE, C1, facts) == names
    assert (tally.bad, tally.dark) == (bad, dark)


# The whole list


def test_every_check_has_an_id_of_its_own_and_asks_only_what_concerns_the_cluster() -> None:
    hard = replace(BASE, k3s=replace(BASE.k3s, cis=True), backup=Backup("saved"))
    ids = [check.id for check in postcheck.checks(hard)]
    assert len(ids) == len(set(ids))
    assert {f"FO-K3S-00{n}" for n in range(1, 10)} | {f"FO-ETCD-00{n}" for n in range(1, 5)} < set(ids)
    soft = replace(hard, k3s=replace(BASE.k3s, secrets_encryption=False, protect_kernel=False))
    gone = set(ids) - {check.id for check in postcheck.checks(soft)}
    assert gone == {"FO-K3S-002", "FO-K3S-006", "FO-K3S-007"}


def test_machines_that_fo_does_not_make_are_not_backed_up_by_it() -> None:
    standing = replace(BASE, nodes=tuple(replace(node, made=False) for node in BASE.nodes), backup=Backup("saved"))
    assert not [check for check in postcheck.checks(standing) if check.id.startswith("FO-BAK")]
