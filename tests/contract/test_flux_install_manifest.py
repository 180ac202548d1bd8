"""The lab's install manifest against the one that flux2's own module makes: what is in it, and under which names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from funoffshore.lab.flux.install import install_manifest
from funoffshore.stages.flux import work

Key = tuple[str, str]


def objects(text: bytes) -> dict[Key, dict[str, Any]]:
    """What fo takes of a manifest, by kind and name."""
    return {(o["kind"], o["metadata"]["name"]): o for o in work.default_components(text)}


@pytest.fixture(scope="module")
def real() -> dict[Key, dict[str, Any]]:
    from bench import build, home, install

    try:
        path: Path = install.install_manifest(version_label=False)
    except build.BuildError as why:
        pytest.skip(f"THE BENCH IS NOT TRIED: {why}")
    assert home.FLUX_VERSION == "v2.9.4"
    return objects(path.read_bytes())


@pytest.mark.real
def test_the_same_objects_with_the_same_labels(real: dict[Key, dict[str, Any]]) -> None:
    lab = objects(install_manifest("v2.9.4").encode())
    assert sorted(lab) == sorted(real)
    for key, theirs in real.items():
        assert lab[key]["metadata"].get("labels") == theirs["metadata"].get("labels"), key
        assert lab[key]["metadata"].get("namespace") == theirs["metadata"].get("namespace"), key


@pytest.mark.real
def test_the_same_programs_with_the_same_arguments(real: dict[Key, dict[str, Any]]) -> None:
    lab = objects(install_manifest("v2.9.4").encode())
    for (kind, name), theirs in real.items():
        if kind != "Deployment":
            continue
        ours = lab[kind, name]["spec"]["template"]
        [mine], [yours] = ours["spec"]["containers"], theirs["spec"]["template"]["spec"]["containers"]
        assert mine["image"] == yours["image"]
        assert set(mine["args"]) <= set(yours["args"])
        assert ours["metadata"] == theirs["spec"]["template"]["metadata"]
