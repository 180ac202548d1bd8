"""How Kustomizations end, as fo relies on it: what cannot be built or applied, what is filled in and decrypted, who
owns a field. On the embedded lab and on the real controllers; a difference is a bug in the lab."""

from __future__ import annotations

import base64

import pytest
from flux_backends import BACKENDS, GIT, KUSTOMIZATION, Flux, Story, condition, kept, state

from funoffshore import health
from funoffshore.config import age
from funoffshore.stages.flux.facts import revision_of


@pytest.fixture(scope="module", params=BACKENDS)
def flux(request: pytest.FixtureRequest) -> Flux:
    return kept(request)


def config(name: str, data: str = "{colour: blue}") -> str:
    """A ConfigMap."""
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata: {data}\n"


def deployment(name: str, replicas: str = "1", label: str = "") -> str:
    """A Deployment, of one pod unless told otherwise."""
    return f"""
        apiVersion: apps/v1
        kind: Deployment
        metadata: {{name: {name}, namespace: default}}
        spec:
          replicas: {replicas}
          selector: {{matchLabels: {{app: {label or name}}}}}
          template:
            metadata: {{labels: {{app: {label or name}}}}}
            spec: {{containers: [{{name: main, image: example.org/web:1}}]}}
        """


THING = "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: thing, namespace: default}\n"
BROKEN: dict[str, tuple[dict[str, str | None], str, str]] = {
    "yaml": ({"apps/c.yaml": "kind: ConfigMap\nmetadata:\n  name: x: y\n"}, "BuildFailed", "yaml"),
    "file": ({"apps/kustomization.yaml": "resources: [c.yaml, gone.yaml]\n"}, "BuildFailed", "gone.yaml"),
    "nameless": ({"apps/c.yaml": "apiVersion: v1\nkind: ConfigMap\ndata: {}\n"}, "BuildFailed", "name"),
    "kind": ({"apps/t.yaml": THING}, "ReconciliationFailed", 'no matches for kind "Thing" in version "example.com/v1"'),
    "value": ({"apps/d.yaml": deployment("bad-value", "many")}, "ReconciliationFailed", "replicas"),
    "selector": ({"apps/d.yaml": deployment("bad-selector", label="x").replace("labels: {app: x}", "labels: {app: y}")},
                 "ReconciliationFailed", "Deployment/default/bad-selector dry-run failed (Invalid)"),
    "namespace": ({"apps/e.yaml": config("bad-namespace").replace("default", "nowhere")}, "ReconciliationFailed",
                  'namespaces "nowhere" not found'),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_commit_that_cannot_be_applied_leaves_the_last_one(flux: Flux, what: str) -> None:
    name = f"bad-{what}"
    story = Story(flux, name, {"apps/c.yaml": config(name)})
    story.kustomize()
    good = story.ready()["status"]["lastAppliedRevision"]
    files, reason, part = BROKEN[what]
    commit = story.publish(files)
    found = flux.says(KUSTOMIZATION, name, reason, part, lastAttemptedRevision=commit)
    assert found["status"]["lastAppliedRevision"] == good
    assert (condition(found) or {})["status"] == "False"
    assert (condition(found, "Reconciling") or {})["reason"] == "ProgressingWithRetry"
    assert found["status"]["observedGeneration"] == 1
    assert state(found) is health.State.FAILED
    assert flux.lag(KUSTOMIZATION, name, commit).startswith(f"{reason}: ")
    assert flux.get("v1/ConfigMap", name, "default")["data"] == {"colour": "blue"}
    fresh: dict[str, str | None] = dict.fromkeys((f for f in files if f != "apps/c.yaml"), None)
    story.publish(fresh | {"apps/c.yaml": config(name, "{colour: red}")})
    found = story.ready()
    assert [c["type"] for c in found["status"]["conditions"]] == ["Ready"]
    assert flux.get("v1/ConfigMap", name, "default")["data"] == {"colour": "red"}


def test_a_first_commit_that_cannot_be_applied(flux: Flux) -> None:
    story = Story(flux, "bad-first", {"apps/t.yaml": THING, "apps/c.yaml": config("bad-first")})
    story.kustomize()
    story.kustomize("nowhere")
    found = flux.says(KUSTOMIZATION, "bad-first", "ReconciliationFailed", "Thing")
    assert found["status"]["observedGeneration"] == -1
    assert revision_of(found) == ""
    assert state(found) is health.State.FAILED
    assert flux.find("v1/ConfigMap", "bad-first", "default") is None
    found = flux.says(KUSTOMIZATION, "bad-first-nowhere", "ArtifactFailed", "kustomization path not found")
    assert revision_of(found) == ""


def test_definitions_come_before_what_they_define(flux: Flux) -> None:
    names = "{kind: Made, listKind: MadeList, plural: mades, singular: made}"
    crd = f"""
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        metadata: {{name: mades.contract.example.com}}
        spec:
          group: contract.example.com
          names: {names}
          scope: Namespaced
          versions:
            - name: v1
              served: true
              storage: true
              schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
        """
    made = "apiVersion: contract.example.com/v1\nkind: Made\nmetadata: {name: made, namespace: crds}\n"
    space = "apiVersion: v1\nkind: Namespace\nmetadata: {name: crds}\n"
    story = Story(flux, "crds", {"apps/a.yaml": made, "apps/b.yaml": crd, "apps/c.yaml": space})
    story.kustomize()
    found = story.ready()
    assert {e["id"] for e in found["status"]["inventory"]["entries"]} == {
        "_crds__Namespace", "_mades.contract.example.com_apiextensions.k8s.io_CustomResourceDefinition",
        "crds_made_contract.example.com_Made",
    }  # fmt: skip
    made_object = flux.get("contract.example.com/v1/Made", "made", "crds")
    assert state(made_object) is health.State.UNKNOWN


def test_variables_come_from_maps_and_secrets(flux: Flux) -> None:
    template = '{a: "${A}", b: "${B}", c: "${C:=none}", d: "$${D}", e: "${E:-}"}'
    story = Story(flux, "vars", {"apps/c.yaml": config("vars", template), "apps/d.yaml": deployment("vars", "${N}")})
    sources = [
        {"kind": "ConfigMap", "name": "vars"}, {"kind": "Secret", "name": "vars"},
        {"kind": "ConfigMap", "name": "vars-absent", "optional": True},
    ]  # fmt: skip
    story.kustomize(postBuild={"substituteFrom": sources, "substitute": {"N": "0"}})
    found = flux.says(
        KUSTOMIZATION, "vars", "BuildFailed", "substitute from 'ConfigMap/vars' error: configmaps \"vars\""
    )
    assert state(found) is health.State.FAILED
    assert [r["optional"] for r in found["spec"]["postBuild"]["substituteFrom"]] == [False, False, True]
    flux.put("v1/ConfigMap", "vars", {}, data={"A": "map", "B": "map"})
    flux.request(KUSTOMIZATION, "vars")
    flux.says(KUSTOMIZATION, "vars", "BuildFailed", "substitute from 'Secret/vars' error: secrets \"vars\"")
    flux.put("v1/Secret", "vars", {}, data={"B": base64.b64encode(b"secret\n").decode()})
    flux.request(KUSTOMIZATION, "vars")
    story.ready()
    data = flux.get("v1/ConfigMap", "vars", "default")["data"]
    assert data == {"a": "map", "b": "secret", "c": "none", "d": "${D}", "e": ""}
    assert flux.get("apps/v1/Deployment", "vars", "default")["spec"]["replicas"] == 0


def test_a_variable_without_a_value_stops_the_build(flux: Flux) -> None:
    story = Story(flux, "novar", {"apps/c.yaml": config("novar", '{a: "${NOVAR}"}')})
    story.kustomize(postBuild={"substitute": {"OTHER": "x"}})
    found = flux.says(KUSTOMIZATION, "novar", "BuildFailed", 'variable not set (strict mode): "NOVAR"')
    assert state(found) is health.State.FAILED
    story.kustomize(postBuild={"substitute": {"NOVAR": "x"}})
    story.ready()


SEALED = """
    apiVersion: v1
    kind: Secret
    metadata:
        name: sealed
        namespace: default
    stringData:
        token: ENC[AES256_GCM,data:BICElKczwg==,iv:T7fqdtZRfF8c08CiIppHav7hnwnFhF2UVN8fMTDwjSI=,tag:iCb4DNAz7nW5TPNMRtc4CA==,type:str]
    sops:
        age:
            - enc: |
                -----BEGIN AGE ENCRYPTED FILE-----
                YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBXeUtnb3pYTTcrNVp2S002
                UTVYbUZjV284MTh3bzdFcjJySnFKQ3p6S0FFClBrNWVQZ2tmV1NScGc3WFBEQSti
                M29lcjZ0RnlBRE1iaHliQ2UzbkJGeFEKLS0tIDFSeVE4VGlRRHNzWjEyOTMvNkFK
                SWJoTTdxQnFuSnlkRys4T1BUaUJIcU0Kuyvt4HyQlnCxPJs5HsRgAHP+FNm0vSvu
                8rz/0WX92SykYm3zKpxDnnwLazHfedBMMyxP1n3jAtAGFwLUnwlqIg==
                -----END AGE ENCRYPTED FILE-----
              recipient: age1gpy4qtde9j3rgtpljtdvt4k70jzakh04gpa9kjvkecul9mahaqnspp4r62
        encrypted_regex: ^(data|stringData)$
        lastmodified: "2026-11-24T11:03:25Z"
        mac: ENC[AES256_GCM,data:ySdB745XDLi0j1w77lFy5TdXQkVZwJZVMFyAuthpBho+mo3Vw10zvQpZ748hU1dBWybkHNB0qif3+ayUA0ZjIwDYuCn4FvNx7Yywzjp8GhX7LOG97gAJfdlxSVDQDrvsFI+h3h15VYCkS1U7UNoTKRnZoFwy1Bdmi8L0k/FFtYw=,iv:ZkRDG3OczQ57mPtzG6t7BxvycEVYtFouakkTBDumWrQ=,tag:bQ3NfMXJZxfxkTbv+ecdnQ==,type:str]
        version: 3.13.2
"""  # noqa: E501 - as sops writes it
"""What ``sops`` made of a Secret whose only value is ``hunter2``, for the key that ``KEY`` is derived from."""
KEY, OTHER = age.identity(b"a" * 32), age.identity(b"b" * 32)


def _give_key(flux: Flux, name: str, identity: str) -> None:
    flux.put("v1/Secret", name, {}, data={"age.agekey": base64.b64encode(identity.encode()).decode()})


def test_a_secret_is_opened_with_the_key_that_fo_renders(flux: Flux) -> None:
    story = Story(flux, "sops", {"apps/s.yaml": SEALED})
    decryption = {"provider": "sops", "secretRef": {"name": "sops-contract"}}
    story.kustomize(decryption=decryption)
    found = flux.says(KUSTOMIZATION, "sops", "BuildFailed", 'secrets "sops-contract" not found')
    assert state(found) is health.State.FAILED
    _give_key(flux, "sops-contract", OTHER)
    flux.request(KUSTOMIZATION, "sops")
    flux.says(KUSTOMIZATION, "sops", "BuildFailed", "cannot get sops data key")
    assert flux.find("v1/Secret", "sealed", "default") is None
    _give_key(flux, "sops-contract", KEY)
    flux.request(KUSTOMIZATION, "sops")
    story.ready()
    made = flux.get("v1/Secret", "sealed", "default")
    assert "sops" not in made
    assert base64.b64decode(made["data"]["token"]) == b"hunter2"


def test_a_secret_that_was_tampered_with_is_not_opened(flux: Flux) -> None:
    story = Story(flux, "tampered", {"apps/s.yaml": SEALED.replace("data:BICElKczwg==", "data:BICElKczwA==")})
    story.kustomize(decryption={"provider": "sops", "secretRef": {"name": "sops-tampered"}})
    _give_key(flux, "sops-tampered", KEY)
    flux.request(KUSTOMIZATION, "tampered")
    found = flux.says(KUSTOMIZATION, "tampered", "BuildFailed", "decrypt")
    assert state(found) is health.State.FAILED


def test_a_sealed_secret_without_decryption(flux: Flux) -> None:
    """With ``stringData`` the real controller applies the ciphertext, and is content."""
    secret = SEALED.replace("sealed", "nosops")
    story = Story(flux, "nosops", {"string/s.yaml": secret, "data/s.yaml": secret.replace("stringData:", "data:")})
    story.kustomize("data")
    found = flux.says(KUSTOMIZATION, "nosops-data", "ReconciliationFailed", "is SOPS encrypted, configuring decryption")
    assert state(found) is health.State.FAILED
    assert flux.find("v1/Secret", "nosops", "default") is None
    story.kustomize("string")
    story.ready("nosops-string")
    made = flux.get("v1/Secret", "nosops", "default")
    assert base64.b64decode(made["data"]["token"]).startswith(b"ENC[")


def test_git_takes_over_what_kubectl_applied_but_not_what_others_did(flux: Flux) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": {"a": "b"}}}
    flux.kube.apply([space], "kubectl")
    flux.kube.patch("v1/Namespace", "", "team", {"metadata": {"annotations": {"mine": "yes"}}}, "somebody")
    story = Story(flux, "owner", {"apps/n.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n"})
    story.kustomize()
    story.ready()
    meta = flux.get("v1/Namespace", "team", "")["metadata"]
    assert "a" not in meta["labels"]
    assert meta["annotations"]["mine"] == "yes"
    assert {m["manager"] for m in meta["managedFields"]} == {"kustomize-controller", "somebody"}


def test_a_value_that_another_manager_set_is_git_s_again(flux: Flux) -> None:
    flux.put("v1/ConfigMap", "forced", {}, "default", data={"colour": "green", "extra": "fo's"})
    story = Story(flux, "forced", {"apps/c.yaml": config("forced")})
    story.kustomize()
    story.ready()
    assert flux.get("v1/ConfigMap", "forced", "default")["data"] == {"colour": "blue", "extra": "fo's"}


def test_what_may_not_change_is_refused_unless_forced(flux: Flux) -> None:
    story = Story(flux, "immutable", {"apps/d.yaml": deployment("immutable")})
    story.kustomize()
    story.ready()
    story.publish({"apps/d.yaml": deployment("immutable", label="other")})
    flux.says(
        KUSTOMIZATION, "immutable", "ReconciliationFailed", "field is immutable", lastAttemptedRevision=story.commit
    )
    story.kustomize(force=True)
    story.ready()
    assert flux.get("apps/v1/Deployment", "immutable", "default")["spec"]["selector"]["matchLabels"] == {"app": "other"}


def test_a_source_of_another_name_is_not_touched(flux: Flux) -> None:
    for name in ("twin-a", "twin-b"):
        Story(flux, name, {"apps/c.yaml": config(name)}).kustomize()
    flux.until(lambda: all(flux.find("v1/ConfigMap", n, "default") for n in ("twin-a", "twin-b")))
    flux.kube.delete(GIT, "flux-system", "twin-a")
    flux.gone(GIT, "twin-a", "flux-system")
    flux.request(KUSTOMIZATION, "twin-a")
    found = flux.says(KUSTOMIZATION, "twin-a", "ArtifactFailed", '"twin-a" not found')
    assert state(found) is health.State.PROGRESSING
    assert state(flux.get(KUSTOMIZATION, "twin-b")) is health.State.READY
    assert flux.find("v1/ConfigMap", "twin-a", "default")
