"""The bench's internet on loopback, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from internet_kit import ADDRESS, GIT_HOST, INFRA, Client, programs

from bench.internet.server import Internet
from bench.internet.tls import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One CA for all tests: making keys costs time."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def internet(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    """All of it, on ports that are free."""
    folder = tmp_path_factory.mktemp("internet")
    (folder / "git").mkdir()
    (folder / "image").write_bytes(bytes(range(256)) * 16)
    made = Internet(
        ADDRESS, authority=authority, tree=INFRA, binaries=programs(folder / "bin").__getitem__,
        offers={"https://github.com/k3s/v1%2Bk3s1/k3s": folder / "image", "https://example.org/sums": b"sums\n"},
        git_root=folder / "git", git_host=GIT_HOST, cache=folder / "images", ports=(0, 0),
    )  # fmt: skip
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(internet: Internet, authority: Authority) -> Iterator[Client]:
    made = Client(internet, ADDRESS, authority.certificate())
    yield made
    made.close()
