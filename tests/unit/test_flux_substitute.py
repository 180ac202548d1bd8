"""Substitution after a build, and small things that Flux's controllers write."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore.lab.flux import charts, conditions
from funoffshore.lab.flux.chart_objects import Release
from funoffshore.lab.flux.kustomize import BuildError
from funoffshore.lab.flux.substitute import expand, substitute

VALUES = {"A": "1", "EMPTY": "", "LONG": "abcdef"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${A}", "1"),
        ("x${A}y${A}", "x1y1"),
        ("$${A}", "${A}"),
        ("$A and $ and {}", "$A and $ and {}"),
        ("${B:=two}", "two"),
        ("${B:-two}", "two"),
        ("${B:=}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:=full}", "full"),
        ("${EMPTY-full}", ""),
        ("${B:=${A}}", "1"),
        ("${LONG:2}", "cdef"),
        ("${LONG:1:2}", "bc"),
    ],
)
def test_what_is_replaced(text: str, result: str) -> None:
    assert expand(text, VALUES) == result


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("${B}", 'variable not set (strict mode): "B"'),
        ("${pvc.metadata.name}", "unable to parse variable name"),
        ("${A", "missing closing brace"),
        ("${LONG:x}", "bad substitution"),
    ],
)
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(BuildError) as caught:
        expand(text, VALUES)
    assert why in str(caught.value)


def config(**metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", **metadata}, "data": {"a": "${A}"}}


def test_quotes_are_lost_on_the_way_as_on_a_real_controller() -> None:
    assert substitute(config(), {"A": "5"})["data"] == {"a": 5}
    assert substitute(config(), {"A": "on"})["data"] == {"a": "on"}
    assert substitute(config(), {"A": '"5"'})["data"] == {"a": "5"}
    with pytest.raises(BuildError, match="post build failed for 'x'"):
        substitute(config(), {"A": "x: y: z"})


def test_an_object_can_be_left_out() -> None:
    mark = {"kustomize.toolkit.fluxcd.io/substitute": "disabled"}
    assert substitute(config(annotations=mark), {})["data"] == {"a": "${A}"}
    assert substitute(config(labels=mark), {})["data"] == {"a": "${A}"}


@given(st.text(alphabet="${}A:=-x\n", max_size=20))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    with contextlib.suppress(BuildError):
        assert isinstance(expand(text, VALUES), str)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0335, "33.5ms"), (30, "30s"), (90.5, "1m30.5s"), (600, "10m0s"), (3600, "1h0m0s"), (0, "0ms")],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert conditions.go_duration(seconds) == text
    assert conditions.seconds(text, -1) == pytest.approx(seconds)


def rendered(chart: str, values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    release = Release(chart, "1.0.0", chart, "space", values, ("space", chart))
    return {f"{o['kind']}/{o['metadata']['name']}": o for o in charts.objects(release)}


def test_charts_render_what_their_values_ask_for() -> None:
    assert "StatefulSet/loki" not in rendered("loki", {})
    loki = {"singleBinary": {"replicas": 1, "persistence": {"size": "5Gi"}}, "gateway": {"enabled": False}}
    claim = rendered("loki", loki)["StatefulSet/loki"]["spec"]["volumeClaimTemplates"][0]
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"
    assert rendered("traefik", {"deployment": {"replicas": 3}})["Deployment/traefik"]["spec"]["replicas"] == 3
    assert "Deployment/reloader-reloader" in rendered("reloader", {})
    assert "Deployment/reloader" in rendered("reloader", {"fullnameOverride": "reloader"})
    assert charts.definitions("cert-manager", {}) == []
    assert len(charts.definitions("cert-manager", {"crds": {"enabled": True}})) == 6
    assert rendered("prometheus-operator-crds", {}) == {}


@pytest.mark.parametrize(("constraint", "version"), [("1.2.3", "1.2.3"), ("v1.2.3+x", "v1.2.3+x"), ("*", "41.3.0")])
def test_versions_of_charts(constraint: str, version: str) -> None:
    assert charts.version_of("traefik", constraint) == version
    assert charts.version_of("never-heard-of", ">=1") == "1.0.0"
