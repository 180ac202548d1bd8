"""Images: what is in them, that they repeat to the byte, and that they say what they are."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from internet_kit import programs

from bench.internet.images import Image, Images
from bench.internet.tree import Tree

TREE = Tree({"docker.io/library/postgres:17": (5432,)}, frozenset({"pg_isready", "/opt/tool"}), ())
CA = b"-----BEGIN CERTIFICATE-----\n"


def images(folder: Path, cache: str = "images") -> Images:
    return Images(folder / cache, authority=CA, tree=TREE, binaries=programs(folder / "bin").__getitem__)


@dataclass
class Opened:
    """An image's files and settings."""

    members: dict[str, tarfile.TarInfo]
    content: dict[str, bytes]
    config: dict[str, Any]


def opened(image: Image | None) -> Opened:
    assert image is not None
    with tarfile.open(image.layer.path) as tar:
        members = {m.name: m for m in tar}
        content = {m.name: tar.extractfile(m).read() for m in members.values() if m.isfile()}  # type: ignore
    return Opened(members, content, json.loads(image.config)["config"])


def test_a_real_controller_runs_as_upstreams_image_does(tmp_path: Path) -> None:
    image = opened(images(tmp_path).find("ghcr.io/fluxcd/source-controller", "v1.9.4"))
    assert image.config["Entrypoint"] == ["source-controller"]
    assert image.config["User"] == "65534:65534"
    assert "the real source-controller" in str(image.config["Labels"])
    program = "usr/local/bin/source-controller"
    assert image.content[program] == (tmp_path / "bin" / "source-controller").read_bytes()
    assert image.members[program].mode == 0o755
    assert image.members["tmp"].mode == 0o1777
    assert image.content["etc/ssl/cert.pem"] == CA


def test_a_stand_in_says_so_and_knows_its_ports(tmp_path: Path) -> None:
    image = opened(images(tmp_path).find("docker.io/library/postgres", "17"))
    assert "not the original" in str(image.config["Labels"])
    assert "STANDIN_PORTS=5432" in image.config["Env"]
    for link in ("usr/bin/pg_isready", "opt/tool", "pause", "kube-vip", "usr/bin/application"):
        assert image.members[link].issym(), link
        assert image.members[link].linkname == "/standin"


def test_digests_are_those_of_the_content(tmp_path: Path) -> None:
    here = images(tmp_path)
    image = here.find("ghcr.io/kube-vip/kube-vip", "v1.1.2")
    assert image is not None
    manifest = json.loads(image.manifest)
    for part in (manifest["config"], *manifest["layers"]):
        content = here.blob(part["digest"])
        assert content is not None
        content = content if isinstance(content, bytes) else content.read_bytes()
        assert part["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert part["size"] == len(content)
    # an uncompressed layer is its own diff
    assert json.loads(image.config)["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert here.find("ghcr.io/kube-vip/kube-vip", image.digest) == image


def test_the_same_programs_give_the_same_digests(tmp_path: Path) -> None:
    one = images(tmp_path).find("docker.io/coredns/coredns", "1")
    other = images(tmp_path, "elsewhere").find("docker.io/coredns/coredns", "1")
    assert one is not None
    assert other is not None
    assert one.digest == other.digest


def test_a_layer_is_made_once_and_again_when_its_program_changes(tmp_path: Path) -> None:
    first = images(tmp_path).find("docker.io/rancher/mirrored-pause", "3.6")
    assert first is not None
    made = first.layer.path.stat().st_mtime_ns
    again = images(tmp_path).find("docker.io/rancher/mirrored-pause", "3.6")
    assert again is not None
    assert again.layer.path.stat().st_mtime_ns == made
    fresh = images(tmp_path)
    (tmp_path / "bin" / "standin").write_bytes(b"another")
    os.utime(tmp_path / "bin" / "standin", ns=(1, 1))
    changed = fresh.find("docker.io/rancher/mirrored-pause", "3.6")
    assert changed is not None
    assert changed.digest != first.digest
    assert [p.name for p in (tmp_path / "images").glob("standin-*.tar")] == [changed.layer.path.name]


@pytest.mark.parametrize(("repository", "tag"), [("docker.io/library/postgres", "16"), ("ghcr.io/nobody/nothing", "1")])
def test_what_nobody_publishes_does_not_exist(tmp_path: Path, repository: str, tag: str) -> None:
    assert images(tmp_path).find(repository, tag) is None


def test_tar_members_have_no_owner_and_no_time(tmp_path: Path) -> None:
    image = opened(images(tmp_path).find("docker.io/rancher/klipper-lb", "v0.4"))
    assert {(m.uid, m.gid, m.mtime) for m in image.members.values()} == {(0, 0, 0)}
