"""The builder: what is built once, what makes it build again, and what it says when it cannot."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import yaml

from bench import build, home, install, paths

needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed: nothing can be built here")
MAIN = """package main

import _ "embed"

//go:embed words.txt
var words string

var version = "none"

func main() { println(words, version) }
"""


def module(folder: Path, text: str = "", **files: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text(f"module bench.example/{folder.name}\n\ngo 1.24\n{text}")
    for name, content in files.items():
        file = folder / name.replace("__", "/").replace("_go", ".go").replace("_txt", ".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A program ``tiny``, the two programs of ``pair``, and a library that ``tiny`` takes for another."""
    folder = tmp_path / "go"
    module(folder / "library", library_go="package library\n", library_test_go="package library\n")
    module(folder / "tiny", "replace bench.example/other => ../library\n", main_go=MAIN, words_txt="hello")
    tools = "tool (\n\tbench.example/pair/cmd/left // the one\n\tbench.example/pair/cmd/right\n)\n"
    program = "package main\n\nfunc main() {}\n"
    module(folder / "pair", tools, cmd__left__main_go=program, cmd__right__main_go=program)
    return folder


@pytest.fixture
def workshop(modules: Path, tmp_path: Path) -> build.Workshop:
    return build.Workshop(modules, tmp_path / "bin", {"tiny": build.Recipe(variables=("main.version=v7",))})


def said(program: Path) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True).stderr.strip()


def key(modules: Path, name: str = "tiny", toolchain: str = "go1", recipe: build.Recipe | None = None) -> str:
    return build.Module(modules / name, recipe or build.Recipe()).key(toolchain)


def test_programs_are_the_tools_of_a_module_or_its_own_main_package(workshop: build.Workshop) -> None:
    assert workshop.names == ("left", "right", "tiny")
    assert [m.programs for m in workshop.modules if m.name in ("library", "pair")] == [
        {},
        {"left": "bench.example/pair/cmd/left", "right": "bench.example/pair/cmd/right"},
    ]


@pytest.mark.parametrize(
    "change",
    [
        "tiny/main.go",
        "tiny/words.txt",
        "tiny/go.mod",
        "tiny/go.sum",
        "tiny/inner/more.go",
        "library/library.go",
    ],
)
def test_every_file_that_goes_into_a_program_makes_another_key(modules: Path, change: str) -> None:
    before = key(modules)
    file = modules / change
    file.parent.mkdir(exist_ok=True)
    file.write_text((file.read_text() if file.exists() else "") + "\n// more\n")
    assert key(modules) != before


def test_go_and_the_recipe_make_another_key_too(modules: Path) -> None:
    keys = {key(modules), key(modules, toolchain="go2"), key(modules, recipe=build.Recipe(tags="netgo"))}
    assert len(keys) == 3
    assert all(len(k) == 16 and int(k, 16) >= 0 for k in keys)


@pytest.mark.parametrize(
    "change", ["tiny/main_test.go", "tiny/README.md", "tiny/.main.go.swp", "pair/cmd/left/main.go"]
)
def test_what_no_program_is_made_of_leaves_the_key_alone(modules: Path, change: str) -> None:
    before = key(modules)
    (modules / change).write_text("package other\n")
    assert key(modules) == before


def test_renaming_a_file_is_a_change(modules: Path) -> None:
    before = key(modules)
    (modules / "tiny" / "words.txt").rename(modules / "tiny" / "other.txt")
    assert key(modules) != before


def test_the_version_in_go_mod_is_the_one_that_a_program_tells(modules: Path) -> None:
    with (modules / "tiny" / "go.mod").open("a") as text:
        text.write("\nrequire example.org/real/v2 v2.3.4\n\nrequire (\n\texample.org/other v1.0.0 // indirect\n)\n")
    recipe = build.Recipe(of="example.org/real/v2", variables=("main.version={version}+more",))
    assert "-ldflags=-s -w -X=main.version=v2.3.4+more" in build.Module(modules / "tiny", recipe).flags
    assert build.Module(modules / "tiny", build.Recipe(of="example.org/other")).version == "v1.0.0"
    with pytest.raises(build.BuildError, match=r"does not require example\.org/rea$"):
        _ = build.Module(modules / "tiny", build.Recipe(of="example.org/rea")).version


@needs_go
def test_a_program_is_built_once(workshop: build.Workshop) -> None:
    with pytest.raises(build.MissingError, match="tiny is not built: python -m bench build tiny"):
        workshop.binary("tiny")
    assert workshop.outdated() == ("left", "right", "tiny")

    lines: list[str] = []
    [first] = workshop.build(("tiny",), lines.append)
    program = workshop.binary("tiny")
    assert said(program) == "hello v7"
    assert (first.name, first.cached, first.bytes) == ("tiny", False, program.stat().st_size)
    assert lines[0] == "tiny: building"
    assert lines[1].startswith("tiny: built in ")
    assert workshop.outdated() == ("left", "right")

    made = program.stat().st_mtime_ns
    assert workshop.build(("tiny",), lines.append) == [build.Built("tiny", 0.0, first.bytes, cached=True)]
    assert len(lines) == 2
    assert program.stat().st_mtime_ns == made


@needs_go
def test_one_module_may_have_several_programs(workshop: build.Workshop) -> None:
    built = workshop.build(("left",), lambda _: None)
    assert [(one.name, one.cached) for one in built] == [("left", False), ("right", False)]
    assert workshop.binary("right").parent == workshop.binary("left").parent


@needs_go
def test_a_change_builds_again_and_the_old_program_goes(workshop: build.Workshop, modules: Path) -> None:
    workshop.build(workshop.names, lambda _: None)
    old, stranger = workshop.binary("tiny"), workshop.store / f"tiny-controller-{'0' * 16}"
    stranger.mkdir()
    (modules / "tiny" / "words.txt").write_text("goodbye")
    with pytest.raises(build.MissingError):
        workshop.binary("tiny")
    workshop.build(("tiny",), lambda _: None)
    assert said(workshop.binary("tiny")) == "goodbye v7"
    assert not old.exists()
    assert stranger.exists()
    assert workshop.binary("left").exists()


@needs_go
def test_a_failed_build_says_what_go_said_and_leaves_nothing(workshop: build.Workshop, modules: Path) -> None:
    (modules / "pair" / "cmd" / "right" / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    with pytest.raises(build.BuildError, match=r"(?s)go build in .*pair ended with 1:.*undefined: nonsense"):
        workshop.build(("left",), lambda _: None)
    assert [p.name for p in workshop.store.iterdir()] == ["lock"]


@needs_go
def test_two_runs_do_not_build_at_once(workshop: build.Workshop) -> None:
    workshop.store.mkdir()
    (workshop.store / ".new-killed").mkdir()
    waits = threading.Event()
    done: list[build.Built] = []

    def say(line: str) -> None:
        if line == "waiting for another build to end":
            waits.set()

    second = threading.Thread(target=lambda: done.extend(workshop.build(("tiny",), say)))
    with (workshop.store / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second.start()
        assert waits.wait(20)
        assert not done
        assert (workshop.store / ".new-killed").exists()
    second.join(120)
    assert [one.cached for one in done] == [False]
    assert not (workshop.store / ".new-killed").exists()


@needs_go
def test_what_lies_in_the_go_module_is_laid_beside_the_program(modules: Path, tmp_path: Path) -> None:
    upstream = module(tmp_path / "upstream", crd__a_txt="a", crd__deep__b_txt="b")
    for name in ("stages/2.yaml", "stages/1.yaml", "more/3.yaml", "stages/kustomization.yaml"):
        (upstream / name).parent.mkdir(exist_ok=True)
        (upstream / name).write_text(f"\nname: {name}\n\n")
    (upstream / "crd").chmod(0o555)
    with (modules / "tiny" / "go.mod").open("a") as text:
        text.write("\nrequire bench.example/upstream v1.0.0\n\nreplace bench.example/upstream => ../../upstream\n")
    files = (("stages.yaml", ("stages", "more")), ("crd", ("crd",)))
    recipe = build.Recipe(of="bench.example/upstream", files=files)
    workshop = build.Workshop(modules, tmp_path / "bin", {"tiny": recipe})
    workshop.build(("tiny",), lambda _: None)
    beside = workshop.binary("tiny").parent
    wanted = "name: stages/1.yaml\n---\nname: stages/2.yaml\n---\nname: more/3.yaml\n"
    assert (beside / "stages.yaml").read_text() == wanted
    assert (beside / "crd" / "deep" / "b.txt").read_text() == "b"
    assert os.access(beside / "crd", os.W_OK)


def test_a_name_that_is_none_is_refused_with_those_there_are(workshop: build.Workshop) -> None:
    with pytest.raises(build.BuildError, match="there is no program tinny; there are left, right, tiny"):
        workshop.build(("tiny", "tinny"), print)


def test_without_go_it_says_so(workshop: build.Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(build.BuildError, match="Go is not installed"):
        workshop.build(("tiny",), print)


def test_the_benchs_own_modules_are_what_the_rest_of_it_relies_on() -> None:
    needed = {"containerd", "containerd-shim-runc-v2", "ctr", "coredns", "etcd", "helm", "kube", "kwok", "sops"}
    assert needed | {f"{name}-controller" for name in ("helm", "kustomize", "notification", "source")} <= {*build.NAMES}
    assert "artifact" not in build.NAMES
    workshop = build.Workshop(build.MODULES, Path("/nowhere"), build.RECIPES)
    assert {*build.RECIPES} <= {m.name for m in workshop.modules}
    [kube] = [m for m in workshop.modules if m.name == "kube"]
    assert f"-X=k8s.io/component-base/version.gitVersion={home.K3S_VERSION} " in kube.flags[-1]


@needs_go
def test_the_list_says_what_is_missing(tmp_path: Path) -> None:
    argv, env = [sys.executable, "-m", "bench.build", "--list"], {**os.environ, "FO_BENCH_CACHE": str(tmp_path)}
    done = subprocess.run(argv, cwd=paths.project(), env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"missing {name}" for name in build.NAMES]


def test_only_components_with_a_program_stay_in_the_install_manifest(tmp_path: Path) -> None:
    file = tmp_path / "kustomization.yaml"
    file.write_text("resources: [namespace.yaml, ../bases/source-controller, ../bases/source-watcher, ../rbac]\n")
    install._only_ours(file)
    assert yaml.safe_load(file.read_text())["resources"] == ["namespace.yaml", "../bases/source-controller", "../rbac"]


def test_a_controller_of_another_version_than_fluxs_is_refused(tmp_path: Path) -> None:
    resource = "https://github.com/fluxcd/helm-controller/releases/download/v0.0.1/helm-controller.crds.yaml"
    with pytest.raises(
        install.InstallError, match=r"has helm-controller v0\.0\.1, but bench/go/helm-controller builds"
    ):
        install._local(tmp_path, "helm-controller", resource)
    assert install._local(tmp_path, "helm-controller", "account.yaml") == "account.yaml"


@pytest.mark.real
@needs_go
def test_the_stand_in_for_fluxs_artifact_storage_does_what_its_callers_need() -> None:
    env = {**os.environ, **build.SETTINGS}
    done = subprocess.run(
        ["go", "test", "./..."], cwd=build.MODULES / "artifact", env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
@needs_go
def test_the_install_manifest_is_fluxs_own() -> None:
    labelled = install.install_manifest(version_label=True).read_text()
    release = install.install_manifest().read_text()
    objects = [o for o in yaml.safe_load_all(labelled) if o]
    kinds = Counter(o["kind"] for o in objects)
    assert (kinds["Deployment"], kinds["Service"], kinds["Namespace"], kinds["NetworkPolicy"]) == (4, 3, 1, 3)
    assert kinds["CustomResourceDefinition"] == 11
    labels = [o["metadata"]["labels"] for o in objects]
    assert {one["app.kubernetes.io/part-of"] for one in labels} == {"flux"}
    assert {one["app.kubernetes.io/version"] for one in labels} == {home.FLUX_VERSION}
    for deployment in (o for o in objects if o["kind"] == "Deployment"):
        name = deployment["metadata"]["name"]
        version = build.Module(build.MODULES / name, build.RECIPES[name]).version
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"ghcr.io/fluxcd/{name}:{version}"
        assert deployment["metadata"]["labels"]["app.kubernetes.io/component"] == name
    assert "app.kubernetes.io/version" not in release
    assert [o["metadata"]["name"] for o in yaml.safe_load_all(release)] == [o["metadata"]["name"] for o in objects]


@pytest.mark.real
@needs_go
@pytest.mark.parametrize(
    ("called", "says"),
    [
        ("containerd --version", "containerd github.com/containerd/containerd/v2 v2.2.1"),
        ("ctr --version", "ctr github.com/containerd/containerd/v2 v2.2.1"),
        ("containerd-shim-runc-v2 -v", "Version:  v2.2.1"),
        ("coredns -version", "CoreDNS-1.14.7"),
        ("etcd --version", "etcd Version: 3.7.3"),
        ("etcd etcdctl version", "etcdctl version: 3.7.3"),
        ("etcd etcdutl version", "etcdutl version: 3.7.3"),
        ("helm version --short", "v4.3.1"),
        ("kube apiserver --version", f"Kubernetes {home.K3S_VERSION}"),
        ("kube controller-manager --version", f"Kubernetes {home.K3S_VERSION}"),
        ("kube scheduler --version", f"Kubernetes {home.K3S_VERSION}"),
        ("kube kubelet --version", f"Kubernetes {home.K3S_VERSION}"),
        ("kube proxy --version", f"Kubernetes {home.K3S_VERSION}"),
        ("kube kubectl version --client", f"Client Version: {home.K3S_VERSION}"),
        ("kwok --version", "kwok version v0.8.0"),
    ],
)
def test_a_program_is_what_it_is_called(called: str, says: str, tmp_path: Path) -> None:
    name, *words = called.split()
    done = subprocess.run([build.binary(name), *words], capture_output=True, text=True, check=True)
    assert says in done.stdout + done.stderr
    if words[0].isalpha() and name in ("etcd", "kube"):  # the same through a link of that name
        link = tmp_path / (words[0] if words[0].startswith(("etcd", "kube")) else f"kube-{words[0]}")
        link.symlink_to(build.binary(name))
        assert says in subprocess.run([link, *words[1:]], capture_output=True, text=True, check=True).stdout


@pytest.mark.real
@needs_go
def test_coredns_has_the_plugins_of_a_clusters_name_server_and_says_which_it_has_not(tmp_path: Path) -> None:
    coredns = build.binary("coredns")
    listed = subprocess.run([coredns, "-plugins"], capture_output=True, text=True, check=True).stdout
    wanted = {"cache", "errors", "forward", "health", "hosts", "kubernetes", "loadbalance", "log", "loop", "prometheus"}
    assert wanted | {"ready", "reload", "rewrite", "template"} <= {*listed.split()}
    (tmp_path / "Corefile").write_text(".:0 {\n  acl\n}\n")
    refused = subprocess.run(
        [coredns, "-conf", tmp_path / "Corefile"], capture_output=True, text=True, check=False, timeout=20
    )
    assert refused.returncode != 0
    assert "Unknown directive 'acl'" in refused.stderr
