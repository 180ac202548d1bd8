"""Another release of K3s is pinned where the pins stand, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from funoffshore import errors
from funoffshore.config import loader, lockfile, new, release

NEXT = "v1.36.5+k3s1"
AMD, ARM = "1" * 64, "2" * 64
PINS = dict.fromkeys(("PROXMOX_FINGERPRINT", "IMAGE_SHA256", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "a" * 64)


def listed(url: str) -> bytes:
    assert "v1.36.5%2Bk3s1" in url
    arch, digest, name = ("arm64", ARM, "k3s-arm64") if "arm64" in url else ("amd64", AMD, "k3s")
    assert url.endswith(f"sha256sum-{arch}.txt")
    return f"{digest}  {name}\n{'0' * 64}  other\n".encode()


@pytest.fixture
def env(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "env" / "lab.env"
    path.parent.mkdir(parents=True)
    path.touch(mode=0o600)
    path.write_text(new.generate("lab", PINS, lab=True))
    return path


def lock(tmp_path: Path) -> None:
    entries = {
        "k3s.version": "v1.36.4+k3s1",
        "k3s.sha256.amd64": "a" * 64,
        "k3s.sha256.arm64": "b" * 64,
        "flux.version": "v2.9.4",
        "flux.url": "https://example.org/install.yaml",
        "flux.sha256": "c" * 64,
    }
    lockfile.write(tmp_path, "lab", lockfile.ordered(entries))


def test_without_a_lock_file_the_env_file_says_it(env: Path, tmp_path: Path) -> None:
    release.pin(env, tmp_path, NEXT, listed)
    wanted = loader.load(env, tmp_path).k3s
    assert (wanted.version, wanted.sha256, wanted.sha256_arm64) == (NEXT, AMD, ARM)


def test_with_a_lock_file_every_place_that_speaks_of_it_changes_and_nothing_else(env: Path, tmp_path: Path) -> None:
    lock(tmp_path)
    before = env.read_text()
    release.pin(env, tmp_path, NEXT, listed)
    after = lockfile.load(tmp_path, "lab")
    assert after is not None
    assert after.section("k3s") == {"k3s.version": NEXT, "k3s.sha256.amd64": AMD, "k3s.sha256.arm64": ARM}
    assert after.entries["flux.version"] == "v2.9.4"
    changed = [line for line in env.read_text().splitlines() if line not in before.splitlines()]
    assert [line.partition("=")[0] for line in changed] == ["K3S_VERSION", "K3S_SHA256", "K3S_SHA256_ARM64"]


def test_an_airgap_folder_is_its_own_publisher(env: Path, tmp_path: Path) -> None:
    folder = tmp_path / "airgap"
    folder.mkdir()
    with pytest.raises(errors.ConfigError, match=r"sha256sum-amd64\.txt cannot be read"):
        release.pin(env, tmp_path, NEXT, listed, folder)
    assert loader.load(env, tmp_path).k3s.version != NEXT
    for arch in ("amd64", "arm64"):
        (folder / f"sha256sum-{arch}.txt").write_bytes(listed(f"v1.36.5%2Bk3s1/sha256sum-{arch}.txt"))
    release.pin(env, tmp_path, NEXT, lambda url: b"", folder)
    assert loader.load(env, tmp_path).k3s.sha256 == AMD


def test_a_publisher_that_is_silent_changes_nothing(env: Path, tmp_path: Path) -> None:
    def silent(url: str) -> bytes:
        raise errors.UnreachableError("nobody answers")

    lock(tmp_path)
    before = env.read_bytes()
    with pytest.raises(errors.UnreachableError):
        release.pin(env, tmp_path, NEXT, silent)
    assert env.read_bytes() == before
    kept = lockfile.load(tmp_path, "lab")
    assert kept is not None
    assert kept.entries["k3s.version"] == "v1.36.4+k3s1"


@pytest.mark.parametrize("text", ["", "latest", "v1.36", "v1.36.4", "1.36.4+k3s1", "v1.36.4+k3s1\n", "v1.36.4+k3s1;rm"])
def test_only_a_whole_release_is_taken(text: str) -> None:
    with pytest.raises(errors.ConfigError, match="is no release of K3s"):
        release.parse(text)
