"""Stage 1 as data: it covers the mission, agrees with infra/k8s, and hangs together."""

from __future__ import annotations

import re

import pytest
from infra_tree import REPOSITORY, documents, flux_kustomizations, objects, of_kind

from funoffshore import stage1

SWITCHES = {s.key for s in stage1.SWITCHES}
SECRETS = {s.key: s for s in stage1.SECRET_KEYS}


def _mission_lines() -> set[str]:
    """The bullets of Stage 1's requirements, without the section on how the tunnel is guarded."""
    text = (REPOSITORY / "MISSION.md").read_text(encoding="utf-8")
    section = text.partition("Stage 1 Requirements")[2].partition("Stage 2")[0]
    before, _, rest = section.partition("Cloudflare Tunnel Architecture")
    section = before + rest[rest.index("2. Storage") :]
    return {m[1].strip() for m in re.finditer(r"^\s*•\s*(.+)$", section, re.MULTILINE)}


REPEATED = {
    "Cloudflare Tunnel (optional)": "cloudflared",
}
"""Lines of the mission that name a component a second time, in other words."""


def test_every_line_of_the_mission_is_served() -> None:
    served = {c.mission for c in stage1.COMPONENTS} | set(stage1.MISSION_BY_FO) | set(REPEATED)
    lines = _mission_lines()
    assert len(lines) > 20
    assert lines - served == set()
    assert served - lines == set()
    assert set(REPEATED.values()) <= {c.id for c in stage1.COMPONENTS}


def test_components_are_the_flux_kustomizations() -> None:
    assert [c.kustomization for c in stage1.COMPONENTS if c.id == "flux"] == ["cluster"]
    names = [c.kustomization for c in stage1.COMPONENTS if c.id != "flux"]
    assert sorted(names) == sorted(flux_kustomizations())
    assert len({c.id for c in stage1.COMPONENTS}) == len(stage1.COMPONENTS)


@pytest.mark.parametrize("component", stage1.COMPONENTS, ids=lambda c: c.id)
def test_component_is_in_git_as_it_says(component: stage1.Component) -> None:
    folder = REPOSITORY / component.path
    assert (folder / "kustomization.yaml").is_file()
    inside = [i for i in objects() if folder in i.file.parents]
    assert {i.name for i in inside if i.kind == "HelmRelease"} == set(component.releases)
    assert {i.namespace for i in inside if i.kind == "HelmRelease"} <= {component.namespace}
    own = {(i.kind, i.name) for i in inside if i.kind in {"Deployment", "StatefulSet", "DaemonSet"}}
    assert own <= set(component.workloads)
    if not component.releases and component.id != "flux":
        assert own == set(component.workloads)


def test_switched_components_have_their_two_folders() -> None:
    for component in stage1.COMPONENTS:
        if component.id == "flux":
            continue
        path = flux_kustomizations()[component.kustomization]["spec"]["path"]
        if component.switch is None:
            assert path == f"./{component.path}"
        else:
            assert component.switch in SWITCHES
            assert path == f"./infra/k8s/optional/${{{component.switch}}}/{component.id}"
            [on] = documents((REPOSITORY / path.replace(f"${{{component.switch}}}", "true")).joinpath(
                "kustomization.yaml").read_text(encoding="utf-8"))  # fmt: skip
            assert on["resources"] == [f"../../../{component.id}"]


def test_every_switch_switches_something() -> None:
    assert {c.switch for c in stage1.COMPONENTS} - {None} == SWITCHES


def test_always_on_parts_never_wait_for_optional_ones() -> None:
    optional = {c.kustomization for c in stage1.COMPONENTS if c.switch}
    for name, document in flux_kustomizations().items():
        if name not in optional:
            assert {d["name"] for d in document["spec"].get("dependsOn", [])} & optional == set()


def test_rendered_secrets_take_known_keys_and_the_right_switch() -> None:
    for secret in stage1.RENDERED_SECRETS:
        assert secret.switch is None or secret.switch in SWITCHES
        for key in secret.keys.values():
            needed = SECRETS[key].required_when
            assert needed in (None, secret.switch), (secret.name, key)
        assert not set(secret.keys) & set(secret.literals)
    names = [(s.namespace, s.name) for s in stage1.RENDERED_SECRETS]
    assert len(names) == len(set(names))


def test_every_secret_key_is_rendered_somewhere() -> None:
    assert {k for s in stage1.RENDERED_SECRETS for k in s.keys.values()} == set(SECRETS)


def test_tunnel_token_goes_where_the_mission_says() -> None:
    [token] = [s for s in stage1.RENDERED_SECRETS if s.name == "cloudflared-token"]
    assert (token.namespace, token.keys, token.switch) == (
        "cloudflared",
        {"token": "CF_TUNNEL_TOKEN"},
        "CLOUDFLARED_ENABLED",
    )


def test_keys_are_unique_and_explained() -> None:
    keys = [x.key for table in (stage1.SETTINGS, stage1.SWITCHES, stage1.SECRET_KEYS) for x in table]
    assert len(keys) == len(set(keys))
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", k) for k in keys)
    for table in (stage1.SETTINGS, stage1.SWITCHES, stage1.SECRET_KEYS):
        assert all(x.help.endswith(".") for x in table)


def test_settings_never_become_empty() -> None:
    keys = {s.key for s in stage1.SETTINGS}
    for setting in stage1.SETTINGS:
        assert setting.default != ""
        assert setting.follows is None or (setting.follows in keys and setting.default is None)


def test_namespaces_of_components_are_in_git() -> None:
    made = {i.name for i in of_kind("Namespace")} | {"flux-system"}
    assert {c.namespace for c in stage1.COMPONENTS} <= made
