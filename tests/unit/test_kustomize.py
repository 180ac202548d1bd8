"""kustomize build, by tables of small trees. What is expected was read in kustomize's documentation and tests."""

from __future__ import annotations

import contextlib
import json
import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore.lab.flux.kustomize import BuildError, Overlay, build, generators, load_all, merge

DEPLOYMENT = """
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: web, labels: {app: web}}
    spec:
      replicas: 1
      selector: {matchLabels: {app: web}}
      template:
        metadata: {labels: {app: web}}
        spec:
          containers:
            - name: main
              image: example.org/web:1.0
              env: [{name: A, value: a}]
              envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: token}}]
"""
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: b}\n"


def tree(**files: str) -> dict[str, bytes]:
    """``a__k`` is ``a/kustomization.yaml``; ``a__web_yaml`` is ``a/web.yaml``."""
    found = {}
    for name, text in files.items():
        path = name.replace("__", "/").replace("_yaml", ".yaml")
        path = path[:-2] + "/kustomization.yaml" if path.endswith("/k") else path
        found["kustomization.yaml" if path == "k" else path] = textwrap.dedent(text).encode()
    return found


def only(objects: list[Any], kind: str) -> Any:
    [found] = [o for o in objects if o["kind"] == kind]
    return found


def test_a_folder_with_a_kustomization_is_built_in_its_order() -> None:
    files = tree(k="resources: [b.yaml, a.yaml, sub]", a_yaml=CONFIG, b_yaml=DEPLOYMENT, sub__k="resources: [n.yaml]",
                 sub__n_yaml="apiVersion: v1\nkind: Namespace\nmetadata: {name: x}")  # fmt: skip
    assert [o["kind"] for o in build(files, "./")] == ["Deployment", "ConfigMap", "Namespace"]


def test_a_folder_without_one_is_taken_whole_as_flux_does() -> None:
    files = tree(apps__a_yaml=CONFIG, apps__deep__b_yaml=DEPLOYMENT, apps__own__k="resources: [n.yaml]",
                 apps__own__n_yaml="apiVersion: v1\nkind: Namespace\nmetadata: {name: x}",
                 apps__own__unused_yaml=CONFIG.replace("settings", "unused"))  # fmt: skip
    kinds = sorted(f"{o['kind']}/{o['metadata']['name']}" for o in build(files, "./apps"))
    assert kinds == ["ConfigMap/settings", "Deployment/web", "Namespace/x"]


def test_namespace_goes_everywhere_but_to_cluster_scoped_kinds() -> None:
    role = """
        apiVersion: rbac.authorization.k8s.io/v1
        kind: ClusterRoleBinding
        metadata: {name: b}
        subjects: [{kind: ServiceAccount, name: default, namespace: old}, {kind: ServiceAccount, name: other,
          namespace: old}]
        roleRef: {kind: ClusterRole, name: r, apiGroup: rbac.authorization.k8s.io}
    """
    files = tree(k="namespace: new\nresources: [a.yaml, b.yaml, n.yaml]", a_yaml=CONFIG, b_yaml=role,
                 n_yaml="apiVersion: v1\nkind: Namespace\nmetadata: {name: old}")  # fmt: skip
    objects = build(files, ".")
    assert only(objects, "ConfigMap")["metadata"]["namespace"] == "new"
    assert only(objects, "Namespace")["metadata"] == {"name": "new"}
    binding = only(objects, "ClusterRoleBinding")
    assert "namespace" not in binding["metadata"]
    assert [s["namespace"] for s in binding["subjects"]] == ["new", "old"]


def test_names_with_prefix_and_suffix_are_followed_by_references() -> None:
    files = tree(k="namePrefix: p-\nnameSuffix: -s\nresources: [a.yaml, b.yaml]", a_yaml=CONFIG, b_yaml=DEPLOYMENT)
    objects = build(files, ".")
    deployment = only(objects, "Deployment")
    assert deployment["metadata"]["name"] == "p-web-s"
    sources = deployment["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert sources == [{"configMapRef": {"name": "p-settings-s"}}, {"secretRef": {"name": "token"}}]


@pytest.mark.parametrize(
    ("obj", "suffix"),
    [
        ({"kind": "ConfigMap"}, "6ct58987ht"),
        ({"kind": "ConfigMap", "data": {"one": ""}}, "9g67k2htb6"),
        ({"kind": "ConfigMap", "data": {"two": 2, "one": "", "three": 3}}, "7757f9kkct"),
        ({"kind": "ConfigMap", "binaryData": {"one": ""}}, "6mtk2m274t"),
        ({"kind": "ConfigMap", "binaryData": {"two": 2, "one": "", "three": 3}}, "9th7kc28dg"),
        ({"kind": "ConfigMap", "data": {"one": ""}, "binaryData": {"two": ""}}, "698h7c7t9m"),
        ({"kind": "Secret", "type": "my-type"}, "5gmgkf8578"),
        ({"kind": "Secret", "type": "my-type", "data": {"one": ""}}, "74bd68bm66"),
    ],
)
def test_the_hash_is_that_of_kustomize(obj: Any, suffix: str) -> None:
    """Values published in kustomize's ``api/hasher`` tests."""
    assert generators.suffix(obj) == suffix


def test_generators_make_hashed_names_that_references_follow() -> None:
    files = tree(
        k="""
            resources: [web.yaml]
            configMapGenerator:
              - name: settings
                literals: [a=1, 'b="two"']
                files: [c.txt, d=c.txt]
                envs: [vars.env]
            secretGenerator:
              - {name: token, literals: [t=x], options: {disableNameSuffixHash: true, labels: {l: m}}}
        """,
        web_yaml=DEPLOYMENT,
    )
    files |= {"c.txt": b"text", "vars.env": b"# no\nE=f=g\n\n"}
    objects = build(files, ".")
    config, secret = only(objects, "ConfigMap"), only(objects, "Secret")
    assert config["data"] == {"E": "f=g", "c.txt": "text", "d": "text", "a": "1", "b": "two"}
    assert config["metadata"]["name"] == "settings-" + generators.suffix({**config, "metadata": {"name": "settings"}})
    assert secret["metadata"] == {"name": "token", "labels": {"l": "m"}}
    assert secret["data"] == {"t": "eA=="}
    sources = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert sources == [{"configMapRef": {"name": config["metadata"]["name"]}}, {"secretRef": {"name": "token"}}]


def test_two_generators_of_one_name_in_two_namespaces_stay_apart() -> None:
    part = "namespace: {0}\nresources: [web.yaml]\nconfigMapGenerator: [{{name: settings, literals: [n={0}]}}]"
    files = tree(k="resources: [a, b]", a__k=part.format("a"), b__k=part.format("b"), a__web_yaml=DEPLOYMENT,
                 b__web_yaml=DEPLOYMENT)  # fmt: skip
    objects = build(files, ".")
    for space in ("a", "b"):
        mine = [o for o in objects if o["metadata"]["namespace"] == space]
        source = only(mine, "Deployment")["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]
        assert source["configMapRef"]["name"] == only(mine, "ConfigMap")["metadata"]["name"]


def test_a_generator_merges_into_what_a_base_has() -> None:
    files = tree(k="resources: [base]\nconfigMapGenerator: [{name: s, behavior: merge, literals: [b=2]}]",
                 base__k="configMapGenerator: [{name: s, literals: [a=1, b=1]}]")  # fmt: skip
    assert build(files, ".")[0]["data"] == {"a": "1", "b": "2"}


def test_strategic_merge_patches_lists_by_their_keys() -> None:
    files = tree(
        k="""
            resources: [web.yaml]
            patches:
              - patch: |
                  apiVersion: apps/v1
                  kind: Deployment
                  metadata: {name: web}
                  spec:
                    replicas: null
                    template:
                      spec:
                        containers:
                          - {name: side, image: side:1}
                          - name: main
                            env: [{name: B, value: b}]
                            ports: [{containerPort: 80}]
        """,
        web_yaml=DEPLOYMENT,
    )
    spec = build(files, ".")[0]["spec"]
    assert "replicas" not in spec
    containers = spec["template"]["spec"]["containers"]
    assert [c["name"] for c in containers] == ["side", "main"]
    assert containers[1]["env"] == [{"name": "B", "value": "b"}, {"name": "A", "value": "a"}]
    assert containers[1]["image"] == "example.org/web:1.0"


def test_lists_of_custom_resources_are_replaced() -> None:
    target = {"apiVersion": "example.org/v1", "kind": "T", "spec": {"env": [{"name": "A"}]}}
    merged = merge.strategic_merge(target, {"spec": {"env": [{"name": "B"}]}})
    assert merged is not None
    assert merged["spec"] == {"env": [{"name": "B"}]}


@pytest.mark.parametrize(
    ("target", "hit"),
    [
        ("{kind: Deployment}", True),
        ("{kind: Deployment, name: w.*}", True),
        ("{name: we}", False),
        ("{group: apps, version: v1}", True),
        ("{labelSelector: 'app=web'}", True),
        ("{labelSelector: 'app in (api, db)'}", False),
        ("{labelSelector: '!missing'}", True),
        ("{annotationSelector: 'x=y'}", False),
        ("{namespace: default}", True),
    ],
)
def test_json_patches_go_to_what_their_target_selects(target: str, hit: bool) -> None:
    patch = f"""
        resources: [web.yaml]
        patches:
          - target: {target}
            patch: |
              - {{op: replace, path: /spec/replicas, value: 3}}
              - {{op: add, path: /metadata/annotations, value: {{}}}}
              - {{op: add, path: /metadata/annotations/a~1b, value: c}}
    """
    made = build(tree(k=patch, web_yaml=DEPLOYMENT), ".")[0]
    assert made["spec"]["replicas"] == (3 if hit else 1)
    assert made["metadata"].get("annotations") == ({"a/b": "c"} if hit else None)


def test_a_patch_deletes_an_object() -> None:
    patch = "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, $patch: delete}"
    files = tree(
        k="resources: [a.yaml, b.yaml]\npatches: [{path: p.yaml}]", a_yaml=CONFIG, b_yaml=DEPLOYMENT, p_yaml=patch
    )
    assert [o["kind"] for o in build(files, ".")] == ["Deployment"]


def test_labels_annotations_images_and_replicas() -> None:
    files = tree(
        k="""
            resources: [web.yaml]
            labels: [{pairs: {a: b}, includeSelectors: true}, {pairs: {c: d}}]
            commonAnnotations: {e: f}
            images: [{name: example.org/web, newName: other/web, newTag: "2"}]
            replicas: [{name: web, count: 4}]
        """,
        web_yaml=DEPLOYMENT,
    )
    made = build(files, ".")[0]
    template = made["spec"]["template"]
    assert made["metadata"]["labels"] == {"app": "web", "a": "b", "c": "d"}
    assert made["spec"]["selector"]["matchLabels"] == {"app": "web", "a": "b"}
    assert template["metadata"] == {"labels": {"app": "web", "a": "b"}, "annotations": {"e": "f"}}
    assert template["spec"]["containers"][0]["image"] == "other/web:2"
    assert made["spec"]["replicas"] == 4


def test_a_component_works_on_what_is_there() -> None:
    files = tree(
        apps__k="resources: [web.yaml]\ncomponents: [../components/extra]",
        apps__web_yaml=DEPLOYMENT,
        components__extra__k="""
            kind: Component
            resources: [c.yaml]
            patches: [{target: {kind: Deployment}, patch: '[{op: replace, path: /spec/replicas, value: 2}]'}]
        """,
        components__extra__c_yaml=CONFIG,
    )
    objects = build(files, "apps")
    assert only(objects, "Deployment")["spec"]["replicas"] == 2
    assert only(objects, "ConfigMap")


def test_what_flux_adds_comes_last() -> None:
    overlay = Overlay(
        namespace="team",
        patches=({"target": {"kind": "Deployment"}, "patch": "[{op: replace, path: /spec/replicas, value: 9}]"},),
        images=({"name": "example.org/web", "digest": "sha256:" + "0" * 64},),
    )
    made = build(tree(k="resources: [web.yaml]\nnamespace: own", web_yaml=DEPLOYMENT), ".", overlay)[0]
    assert made["metadata"]["namespace"] == "team"
    assert made["spec"]["replicas"] == 9
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "example.org/web@sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("kustomization", "message"),
    [
        ("resources: [gone.yaml]", "accumulating resources from 'gone.yaml'"),
        ("resources: [a.yaml, a.yaml]", "already registered id: ConfigMap.v1.[noGrp]/settings"),
        ("resource: [a.yaml]", 'kustomization.yaml: invalid Kustomization: json: unknown field "resource"'),
        ("resources: a.yaml", "kustomization.yaml: invalid Kustomization: resources must be a list"),
        ("resources: [../up.yaml]", "not in or below"),
        ("resources: [.]", "cycle detected"),
        ("helmCharts: []", "field helmCharts is not supported in the lab"),
        ("kind: Kustomization", "kustomization.yaml is empty"),
        ("resources: [a.yaml]\nimages: [{name: x, tag: y}]", 'unknown field "tag"'),
        ("resources: [a.yaml]\nreplicas: [{name: x, count: 1}]", "with name x does not match"),
        ("resources: [a.yaml]\npatches: [{path: gone.yaml}]", "gone.yaml"),
        ("resources: [a.yaml]\npatches: [{patch: '[{op: add, path: /x, value: y}]'}]", "must specify a target"),
        (
            "resources: [a.yaml]\npatches: [{patch: '{apiVersion: v1, kind: Secret, metadata: {name: z}}'}]",
            "no matches for Id Secret.v1.[noGrp]/z",
        ),
        (
            "resources: [a.yaml]\npatches: [{target: {kind: ConfigMap}, patch: '[{op: remove, path: /x}]'}]",
            "doc is missing path: /x",
        ),
        ("configMapGenerator: [{name: x, file: [y]}]", 'unknown field "file"'),
        ("configMapGenerator: [{name: x, literals: [y]}]", "invalid literal source y"),
        ("resources: [bad.yaml]", "MalformedYAMLError: yaml: line 2: mapping values are not allowed in this context"),
        ("resources: [nameless.yaml]", "missing metadata.name"),
        ("resources: [twice.yaml]", 'mapping key "kind" already defined'),
    ],
)
def test_errors_name_the_file_and_the_field(kustomization: str, message: str) -> None:
    files = tree(k=kustomization, a_yaml=CONFIG, bad_yaml="a: 1\nb: c: d", twice_yaml="kind: a\nkind: b",
                 nameless_yaml="apiVersion: v1\nkind: ConfigMap")  # fmt: skip
    with pytest.raises(BuildError) as caught:
        build(files, ".")
    assert message in str(caught.value)


def test_yaml_is_read_as_go_reads_it() -> None:
    text = "a: on\nb: 1:30\nc: 0755\nd: 0o17\ne: 1e3\nf: ~\ng: yes\nh: 2026-01-01\ni: '1'\nj: 1.2.3\nk: true\n"
    text += "l: {<<: {x: 1}}"
    assert load_all(text, "f") == [
        {"a": "on", "b": "1:30", "c": 493, "d": 15, "e": 1000.0, "f": None, "g": "yes", "h": "2026-01-01", "i": "1",
         "j": "1.2.3", "k": True, "l": {"x": 1}}
    ]  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=60))
def test_any_bytes_are_yaml_or_a_build_error(data: bytes) -> None:
    with contextlib.suppress(BuildError):
        build({"kustomization.yaml": data, "a.yaml": data}, ".")


@given(JSON, JSON)
def test_a_merge_patch_changes_neither_side(target: Any, patch: Any) -> None:
    left, right = {"kind": "ConfigMap", "apiVersion": "v1", "data": target}, {"data": patch}
    before = repr((left, right))
    merge.strategic_merge(left, right)
    assert repr((left, right)) == before


OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "test", "move", "x"]), "path": st.text("/a0-~1", max_size=5)},
    optional={"value": JSON, "from": st.text("/a0", max_size=3)},
)


@given(JSON, st.lists(OPERATIONS, max_size=3))
def test_a_json_patch_works_or_says_why(target: Any, operations: Any) -> None:
    with contextlib.suppress(BuildError):
        merge.json_patch(target, operations, "here")


FIELDS = ["resources", "components", "patches", "labels", "images", "replicas", "configMapGenerator", "namespace",
          "namePrefix", "commonLabels", "commonAnnotations", "generatorOptions", "configurations"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(JSON, min_size=1, max_size=2), max_size=4))
def test_any_kustomization_is_built_or_refused(content: dict[str, Any]) -> None:
    content.setdefault("resources", ["a.yaml"])
    with contextlib.suppress(BuildError):
        build({"kustomization.yaml": json.dumps(content).encode(), "a.yaml": CONFIG.encode()}, ".")
