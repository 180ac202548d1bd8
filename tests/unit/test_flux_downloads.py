"""The download door and what the lab offers to it, over real HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from funoffshore import errors
from funoffshore.lab import base
from funoffshore.lab.web import Web, offers
from funoffshore.stages.flux import facts, work
from funoffshore.world.download import Downloads
from funoffshore.world.routes import Routes

VERSION = "v2.9.4"


@pytest.fixture(params=[False, True], ids=["own-address", "detour"])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Web]:
    store = base.Store(tmp_path / "lab.sqlite")
    kit = base.Kit(
        tmp_path, base.LabClock(), store, base.Latencies(), base.Faults(store), base.Ledger(store),
        base.Routes(tmp_path, detour=request.param),
    )  # fmt: skip
    from os import getpid

    made = Web(kit, f"127.{64 + getpid() % 150}.251.3")
    made.start()
    yield made
    made.stop()
    store.close()


@pytest.fixture
def downloads(web: Web, tmp_path: Path) -> Downloads:
    return Downloads(tmp_path / "cache", Routes(tmp_path / "routes.json"))


def test_what_is_pinned_is_fetched_once(web: Web, downloads: Downloads) -> None:
    url, digest = web.url + offers.flux_install_path(VERSION), offers.flux_install_sha256(VERSION)
    body = downloads.fetch(url, digest)
    assert hashlib.sha256(body).hexdigest() == digest
    web.stop()
    assert downloads.fetch(url, digest) == body


def test_other_bytes_are_refused_and_not_kept(web: Web, downloads: Downloads, tmp_path: Path) -> None:
    with pytest.raises(errors.DigestError, match=offers.image_sha256()):
        downloads.fetch(web.url + offers.IMAGE_PATH, "0" * 64)
    assert not list(tmp_path.glob("cache/*"))
    with pytest.raises(errors.DigestError, match="more than"):
        downloads.fetch(web.url + offers.IMAGE_PATH, offers.image_sha256(), limit=100)


def test_a_cache_that_was_tampered_with_is_fetched_again(web: Web, downloads: Downloads, tmp_path: Path) -> None:
    downloads.fetch(web.url + offers.IMAGE_PATH, offers.image_sha256())
    [kept] = tmp_path.glob("cache/*")
    kept.write_bytes(b"evil")
    assert downloads.fetch(web.url + offers.IMAGE_PATH, offers.image_sha256()) == offers.image()


def test_doors_that_are_shut(web: Web, downloads: Downloads) -> None:
    with pytest.raises(errors.RefusedError, match="404"):
        downloads.fetch(web.url + "/nothing", "0" * 64)
    with pytest.raises(errors.ConfigError):
        downloads.fetch("ftp://example.org/x", "0" * 64)
    web.stop()
    with pytest.raises(errors.UnreachableError, match="refused"):
        downloads.fetch(web.url + "/nothing", "0" * 64)


def test_the_install_manifest_is_whole_and_always_the_same() -> None:
    body = offers.flux_install(VERSION)
    assert body == offers.flux_install(VERSION)
    everything = [d for d in yaml.safe_load_all(body) if d]
    chosen = work.default_components(body)
    names = {d["metadata"]["name"] for d in chosen if d["kind"] == "Deployment"}
    assert names == set(facts.CONTROLLERS)
    assert len(chosen) < len(everything)
    groups = {d["spec"]["group"] for d in chosen if d["kind"] == "CustomResourceDefinition"}
    assert groups == {f"{g}.toolkit.fluxcd.io" for g in ("source", "kustomize", "helm", "notification")}


def test_a_manifest_that_is_none() -> None:
    for body in (b"a: b: c", b"- 1\n", b"kind: x\n"):
        with pytest.raises(errors.ConfigError):
            work.default_components(body)
