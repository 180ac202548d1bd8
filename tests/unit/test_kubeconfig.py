"""The kubeconfig: rewritten as a structure, written privately, read strictly."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from funoffshore import errors, kubeconfig
from funoffshore.reading import Absent, Present, Unreadable

CA = b"-----BEGIN CERTIFICATE-----\nauthority\n-----END CERTIFICATE-----\n"
KEY = b"canary-private-key"


def text(server: str = "https://127.0.0.1:6443", name: str = "default") -> str:
    def encode(data: bytes) -> str:
        return base64.b64encode(data).decode()

    user = {"client-certificate-data": encode(b"cert default 127.0.0.1"), "client-key-data": encode(KEY)}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": encode(CA)}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
    )


def test_names_and_address_change_and_nothing_else() -> None:
    fresh = yaml.safe_load(
        kubeconfig.rewritten(text(), name="home", server="https://10.0.0.10:6443").get_secret_value()
    )
    assert fresh == yaml.safe_load(text("https://10.0.0.10:6443", "home"))


def test_the_hash_is_that_of_a_full_token() -> None:
    assert kubeconfig.parse(text()).ca_hash == hashlib.sha256(CA).hexdigest()


def test_written_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "kube" / "home.kubeconfig"
    before = os.umask(0)
    try:
        kubeconfig.write(path, kubeconfig.rewritten(text(), name="home", server="https://10.0.0.10:6443"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert kubeconfig.read(path) == Present(
        kubeconfig.Kubeconfig("home", "https://10.0.0.10:6443", hashlib.sha256(CA).hexdigest(), 0o600)
    )


def test_read_tells_absent_from_unreadable(tmp_path: Path) -> None:
    assert kubeconfig.read(tmp_path / "x") == Absent()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "big").write_bytes(b"#" * (kubeconfig.MAX_BYTES + 2))
    for name in ("link", "fifo", "folder", "text", "bytes", "big"):
        assert isinstance(kubeconfig.read(tmp_path / name), Unreadable), name


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StateError):
        kubeconfig.write(tmp_path / "file" / "x", kubeconfig.rewritten(text(), name="a", server="https://b"))


@pytest.mark.parametrize(
    "broken",
    ["", "[]", "a: &x [1]\nb: *x\n", text().replace("https://", "http://"), text().replace("users:", "folk:"),
     text() + "\t"],
)  # fmt: skip
def test_what_is_no_kubeconfig_is_refused_without_its_content(broken: str) -> None:
    with pytest.raises(errors.RefusedError) as caught:
        kubeconfig.rewritten(broken, name="a", server="https://b")
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused(anything: str) -> None:
    with pytest.raises(errors.RefusedError):
        kubeconfig.parse(anything)


# Into the operator's own kubeconfig


OTHERS = """\
apiVersion: v1
kind: Config
current-context: work
clusters:
- {name: work, cluster: {server: "https://work.example.org"}}
- {name: home, cluster: {server: "https://old.example.org"}}
users:
- {name: work, user: {exec: {command: login}}}
contexts:
- {name: work, context: {cluster: work, user: work, namespace: shop}}
extensions: [{name: mine, extension: {a: 1}}]
"""


def ours(tmp_path: Path) -> Path:
    path = tmp_path / "home.kubeconfig"
    kubeconfig.write(path, kubeconfig.rewritten(text(), name="home", server="https://10.0.0.1:6443"))
    return path


def test_only_what_bears_the_clusters_name_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "config"
    target.write_text(OTHERS)
    kubeconfig.merge(ours(tmp_path), target)
    kubeconfig.merge(ours(tmp_path), target)
    merged, before = yaml.safe_load(target.read_text()), yaml.safe_load(OTHERS)
    assert [one["name"] for one in merged["clusters"]] == ["work", "home"]
    assert merged["clusters"][1]["cluster"]["server"] == "https://10.0.0.1:6443"
    assert (merged["clusters"][0], merged["users"][0]) == (before["clusters"][0], before["users"][0])
    assert merged["contexts"][0] == before["contexts"][0]
    assert merged["current-context"] == "work"
    assert merged["extensions"] == before["extensions"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_where_there_is_none_it_is_made(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "config"
    kubeconfig.merge(ours(tmp_path), target)
    assert kubeconfig.parse(target.read_text()).name == "home"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles", tmp_path / "config"
    real.write_text(OTHERS)
    link.symlink_to(real)
    kubeconfig.merge(ours(tmp_path), link)
    assert link.is_symlink()
    assert "home" in real.read_text()


@pytest.mark.parametrize(
    "content", ["a: b: c", "- a", "clusters: 3", "clusters: [1]", "x: &a [1]\ny: *a", "\xff", "token: secret: no"]
)
def test_what_is_no_kubeconfig_stays_as_it_is(tmp_path: Path, content: str) -> None:
    target = tmp_path / "config"
    target.write_bytes(content.encode("latin-1"))
    with pytest.raises(errors.StateError) as refusal:
        kubeconfig.merge(ours(tmp_path), target)
    assert target.read_bytes() == content.encode("latin-1")
    assert "secret" not in str(refusal.value)
