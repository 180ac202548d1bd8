"""Every manifest against the schema of its kind, every HelmRelease against its chart. Skips without reference data."""

from __future__ import annotations

import functools
import re
from typing import Any

import jsonschema
import pytest
import yaml
from infra_tree import Document, Item, objects, of_kind, schema, shared, substituted
from test_infra_tree import SAMPLE, SWITCHES

from funoffshore import stage1

NO_REFERENCE = {"prometheus-operator-crds"}
"""Charts without a copy of their values; none of ours sets any."""

HIDDEN = {
    ("kube-prometheus-stack", "kube-state-metrics.resources"),
    ("kube-prometheus-stack", "prometheus-node-exporter.resources"),
    ("kube-prometheus-stack", "grafana.enabled"),
}
"""Keys of subcharts, whose defaults stand in the subchart's own values."""

FREE = {
    ("grafana", "grafana.ini"),
    ("grafana", "securityContext"),
    ("loki", "loki.limits_config"),
    ("traefik", "service.spec"),
}
"""Mappings with defaults that the chart writes out as they are, so that every key of theirs is possible."""


def _full(document: Document) -> Document:
    return substituted(document, SAMPLE | SWITCHES)


def _schema_name(item: Item) -> tuple[str, str]:
    group, _, version = str(item.document["apiVersion"]).rpartition("/")
    kind = item.kind.lower()
    if not group or group.endswith(".k8s.io") or "." not in group:
        return "k8s", f"{kind}-{group.split('.')[0]}-{version}.json" if group else f"{kind}-{version}.json"
    return "crds", f"{group}_{kind}_{version}.json"


@pytest.mark.parametrize("item", objects(), ids=str)
def test_manifest_fits_its_kind(item: Item) -> None:
    path = shared(*_schema_name(item))
    jsonschema.Draft7Validator(schema(path)).validate(_full(item.document))


@functools.cache
def _charts() -> dict[str, tuple[str, str]]:
    """Release → chart and version."""
    tags = {(i.namespace, i.name): i.document["spec"] for i in of_kind("OCIRepository")}
    charts = {}
    for item in of_kind("HelmRelease"):
        spec = item.document["spec"]
        if "chart" in spec:
            charts[item.name] = (spec["chart"]["spec"]["chart"], spec["chart"]["spec"]["version"])
        else:
            source = tags[spec["chartRef"].get("namespace", item.namespace), spec["chartRef"]["name"]]
            charts[item.name] = (source["url"].rsplit("/", 1)[1], source["ref"]["tag"])
    return charts


def _unknown_keys(ours: Any, defaults: Any, text: str, path: str = "") -> list[str]:
    """Paths of ours that the chart does not name. An empty default leaves its subtree free; a commented key counts."""
    if not isinstance(ours, dict) or not isinstance(defaults, dict) or not defaults:
        return []
    wrong = []
    for key, value in ours.items():
        here = f"{path}.{key}".lstrip(".")
        if key in defaults:
            wrong += _unknown_keys(value, defaults[key], text, here)
        elif not re.search(rf"^\s*#+\s*{re.escape(key)}:", text, re.MULTILINE):
            wrong.append(here)
    return wrong


def _merged(defaults: Any, ours: Any) -> Any:
    if isinstance(defaults, dict) and isinstance(ours, dict):
        return defaults | {k: _merged(defaults.get(k), v) for k, v in ours.items()}
    return ours


RELEASES = [i for i in of_kind("HelmRelease") if i.name not in NO_REFERENCE]


@pytest.mark.parametrize("item", RELEASES, ids=str)
def test_values_fit_their_chart(item: Item) -> None:
    chart, version = _charts()[item.name]
    text = shared("charts", f"{chart}-{version}", "values.yaml").read_text(encoding="utf-8")
    values = _full(item.document)["spec"].get("values", {})
    if chart == "app-template":
        _check_app_template(values)
        return
    defaults = yaml.safe_load(text)
    wrong = [k for k in _unknown_keys(values, defaults, text) if (chart, k) not in HIDDEN]
    assert [k for k in wrong if not any(chart == c and k.startswith(f"{p}.") for c, p in FREE)] == []
    path = shared("charts", f"{chart}-{version}").joinpath("values.schema.json")
    if path.exists():
        rules = schema(path)
        jsonschema.validators.validator_for(rules, jsonschema.Draft7Validator)(rules).validate(
            _merged(defaults, values)
        )


def _check_app_template(values: Document) -> None:
    bundle = schema(shared("charts", "common-5.1.0", "values.schema.bundled.json"))
    assert set(values) <= set(bundle["properties"]), "the chart would ignore an unknown top key without a word"
    jsonschema.Draft202012Validator(bundle).validate(values)


def test_releases_without_reference_set_no_values() -> None:
    for item in of_kind("HelmRelease"):
        if item.name in NO_REFERENCE:
            assert "values" not in item.document["spec"]


def test_a_typo_would_be_found() -> None:
    text = "a:\n  b: 1\nfree: {}\n# hidden: 1\n"
    ours = {"a": {"b": 2, "c": 3}, "free": {"x": 1}, "hidden": 2, "d": 4}
    assert _unknown_keys(ours, yaml.safe_load(text), text) == ["a.c", "d"]


def test_every_setting_has_a_sample() -> None:
    assert set(SAMPLE) == {s.key for s in stage1.SETTINGS}
