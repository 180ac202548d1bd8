"""Builds the bench's programs from Go modules, once per content of a module's folder.

A folder of ``bench/go`` with a ``go.mod`` is a module. Its programs are those that ``tool`` lines of the go.mod name,
or, without any, its own main package, called like the folder. What is built lies in the cache, at
``bin/<module>-<key>/<program>``; the key covers the module's files, the recipe below and the version of Go.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import paths

MODULES = paths.project() / "bench" / "go"
SETTINGS = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
"""Static programs, by this machine's Go, from exactly the modules that go.sum knows."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What a module's build needs beside its files."""

    of: str = ""
    """The Go module whose version ``{version}`` stands for and that ``files`` come from."""
    variables: tuple[str, ...] = ()
    """``package.name=value`` set by the linker: what upstream's release scripts set."""
    tags: str = ""
    files: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Name beside the program, and the folders in the Go module that it is made of: a copy of one folder, or, for a
    name in .yaml, the documents in all of them."""


def _kubernetes(package: str) -> tuple[str, ...]:
    parts = {"gitVersion": "{version}+k3s1", "gitMajor": "1", "gitMinor": "36", "gitTreeState": "clean"}
    return tuple(f"{package}.{name}={value}" for name, value in parts.items())


def _controller(name: str) -> Recipe:
    return Recipe(of=f"github.com/fluxcd/{name}", files=(("crd", ("config/crd",)), ("manager", ("config/manager",))))


RECIPES: Mapping[str, Recipe] = {
    "containerd": Recipe(
        of="github.com/containerd/containerd/v2",
        variables=("github.com/containerd/containerd/v2/version.Version={version}",),
        tags="no_btrfs,no_devmapper,no_tracing,no_zfs,urfave_cli_no_docs",
    ),
    "coredns": Recipe(
        of="github.com/coredns/coredns", variables=("github.com/coredns/coredns/coremain.gitTag={version}",)
    ),
    "helm": Recipe(of="helm.sh/helm/v4", variables=("helm.sh/helm/v4/internal/version.version={version}",)),
    "kube": Recipe(
        of="k8s.io/kubernetes",
        variables=_kubernetes("k8s.io/component-base/version") + _kubernetes("k8s.io/client-go/pkg/version"),
    ),
    "kwok": Recipe(
        of="sigs.k8s.io/kwok",
        files=(("stages.yaml", ("kustomize/stage/node/fast", "kustomize/stage/pod/fast")),),
    ),
    "helm-controller": _controller("helm-controller"),
    "kustomize-controller": _controller("kustomize-controller"),
    "notification-controller": _controller("notification-controller"),
    "source-controller": _controller("source-controller"),
}  # fmt: skip
"""By module; a module that is not here needs nothing but its files."""


class BuildError(RuntimeError):
    """A program cannot be built; the text says why."""


class MissingError(BuildError):
    """A program is not built as its files now say."""


@dataclass(frozen=True)
class Built:
    """One program: seconds spent on it (0 when it was there already) and its size."""

    name: str
    seconds: float
    bytes: int
    cached: bool


@dataclass(frozen=True)
class Module:
    """One folder with a go.mod."""

    folder: Path
    recipe: Recipe

    @property
    def name(self) -> str:
        """The folder's."""
        return self.folder.name

    @property
    def programs(self) -> dict[str, str]:
        """Package by program; nothing for a library."""
        tools = _directives(self._text, "tool")
        if not tools and any(_is_main(file) for file in self.folder.glob("*.go")):
            return {self.name: "."}
        return {tool.rpartition("/")[2]: tool for tool in tools}

    @property
    def version(self) -> str:
        """Of the recipe's Go module. Raises BuildError when go.mod does not require it."""
        found = re.search(rf"^\s*(?:require )?{re.escape(self.recipe.of)} (v\S+)", self._text, re.M)
        if not found:
            raise BuildError(f"{self.folder / 'go.mod'} does not require {self.recipe.of}")
        return found[1]

    @property
    def flags(self) -> list[str]:
        """For ``go build``."""
        version = self.version if self.recipe.of else ""
        set_ = [f"-X={variable.replace('{version}', version)}" for variable in self.recipe.variables]
        # no VCS: the same files are the same program, whatever was committed around them
        return ["-trimpath", "-buildvcs=false", f"-tags={self.recipe.tags}", f"-ldflags={' '.join(['-s -w', *set_])}"]

    def key(self, toolchain: str) -> str:
        """16 hex digits over everything that the programs are made of."""
        digest = hashlib.sha256(repr((toolchain, SETTINGS, self.flags, self.recipe)).encode())
        for folder in (self.folder, *self._replaced):
            for file in sorted(path for path in folder.rglob("*") if _matters(path)):
                digest.update(f"\0{file.relative_to(folder.parent)}\0".encode() + file.read_bytes())
        return digest.hexdigest()[:16]

    @property
    def _text(self) -> str:
        return (self.folder / "go.mod").read_text()

    @property
    def _replaced(self) -> list[Path]:
        """Folders that stand in for modules."""
        targets = [line.rpartition("=> ")[2] for line in _directives(self._text, "replace")]
        return [(self.folder / target).resolve() for target in targets if target.startswith((".", "/"))]


def _directives(text: str, verb: str) -> list[str]:
    """The arguments of every ``verb``, alone on its line or in a block."""
    text = re.sub(r"[ \t]*//.*", "", text)
    blocks = re.findall(rf"^{verb} \(\n(.*?)^\)", text, re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line] + re.findall(rf"^{verb} ([^(\s].*)$", text, re.M)


def _is_main(file: Path) -> bool:
    return not file.name.endswith("_test.go") and bool(re.search(r"^package main\b", file.read_text(), re.M))


def _matters(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and not path.name.endswith(("_test.go", "README.md"))


class Workshop:
    """The modules of one folder, and the store for what they become."""

    def __init__(self, modules: Path, store: Path, recipes: Mapping[str, Recipe]) -> None:
        self.modules = [
            Module(m.parent, recipes.get(m.parent.name, Recipe())) for m in sorted(modules.glob("*/go.mod"))
        ]
        self.store = store

    @property
    def names(self) -> tuple[str, ...]:
        """Every program."""
        return tuple(program for module in self.modules for program in module.programs)

    def outdated(self) -> tuple[str, ...]:
        """The programs that ``build`` would build. Raises BuildError without Go."""
        toolchain = _toolchain()
        missing = [module for module in self.modules if not self._place(module, toolchain).exists()]
        return tuple(program for module in missing for program in module.programs)

    def binary(self, name: str) -> Path:
        """The program's file. Raises MissingError when it is not built from its module as that is now."""
        module = self._module(name)
        file = self._place(module, _toolchain()) / name
        if not file.exists():
            raise MissingError(f"{name} is not built: python -m bench build {name}")
        return file

    def build(self, names: Sequence[str], say: Say) -> list[Built]:
        """Builds what is missing of these programs and of those that share their modules. Raises BuildError."""
        modules = {(module := self._module(name)).name: module for name in names}
        toolchain = _toolchain()
        done: list[Built] = []
        for module in modules.values():
            place = self._place(module, toolchain)
            fresh = {} if place.exists() else self._build(module, place, say)
            for program in module.programs:
                size = (place / program).stat().st_size
                done.append(Built(program, fresh.get(program, 0.0), size, program not in fresh))
        return done

    def _module(self, name: str) -> Module:
        found = [module for module in self.modules if name in module.programs]
        if not found:
            raise BuildError(f"there is no program {name}; there are {', '.join(self.names)}")
        return found[0]

    def _place(self, module: Module, toolchain: str) -> Path:
        return self.store / f"{module.name}-{module.key(toolchain)}"

    def _build(self, module: Module, place: Path, say: Say) -> dict[str, float]:
        """Seconds by program; nothing when another run was faster."""
        with self._alone(say):
            if place.exists():
                return {}
            with tempfile.TemporaryDirectory(prefix=".new-", dir=self.store, ignore_cleanup_errors=True) as folder:
                work = Path(folder) / "made"
                work.mkdir()
                taken = {}
                for program, package in module.programs.items():
                    say(f"{program}: building")
                    began = time.monotonic()
                    go(module.folder, "build", *module.flags, "-o", str(work / program), package)
                    taken[program] = time.monotonic() - began
                    say(f"{program}: built in {taken[program]:.0f} s, {(work / program).stat().st_size >> 20} MiB")
                _lay_beside(module, work)
                work.rename(place)
            self._prune(module.name, place)
        return taken

    @contextlib.contextmanager
    def _alone(self, say: Say) -> Iterator[None]:
        """Only one build at a time: a compiler may need gigabytes. Also removes what a killed build left."""
        self.store.mkdir(parents=True, exist_ok=True)
        with (self.store / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another build to end")
                fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self.store.glob(".new-*"):
                shutil.rmtree(left)
            yield

    def _prune(self, name: str, current: Path) -> None:
        for old in self.store.glob(f"{name}-*"):
            if old != current and re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}", old.name):
                shutil.rmtree(old)


def _lay_beside(module: Module, work: Path) -> None:
    """Puts the files of the Go module that the program needs at run time, or the bench, beside it."""
    if not module.recipe.files:
        return
    source = Path(go(module.folder, "list", "-m", "-f", "{{.Dir}}", module.recipe.of).strip())
    for name, folders in module.recipe.files:
        if not name.endswith(".yaml"):
            shutil.copytree(source / folders[0], work / name, copy_function=shutil.copyfile)
            for folder in (work / name, *(path for path in (work / name).rglob("*") if path.is_dir())):
                folder.chmod(0o755)  # Go's module cache is read-only, and the store is to be pruned
            continue
        files = [file for folder in folders for file in sorted((source / folder).glob("*.yaml"))]
        texts = [file.read_text().strip("\n") for file in files if file.name != "kustomization.yaml"]
        (work / name).write_text("\n---\n".join(texts) + "\n")


def go(folder: Path, *argv: str) -> str:
    """Standard output of ``go``, run in ``folder``. Raises BuildError with its last words."""
    try:
        done = subprocess.run(
            ["go", *argv], cwd=folder, env={**os.environ, **SETTINGS}, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError as why:
        raise BuildError("Go is not installed: bench/README.md says which version") from why
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:])
        raise BuildError(f"go {argv[0]} in {folder} ended with {done.returncode}:\n{tail}")
    return done.stdout


def _toolchain() -> str:
    return go(paths.project(), "env", "GOVERSION", "GOOS", "GOARCH")


def _workshop() -> Workshop:
    return Workshop(MODULES, paths.cache() / "bin", RECIPES)


NAMES: tuple[str, ...] = _workshop().names
"""Every program of the bench."""


def binary(name: str) -> Path:
    """The program's file in the cache. Raises MissingError when it is not built, BuildError without Go."""
    return _workshop().binary(name)


def build(names: Sequence[str] = NAMES, say: Say = print) -> list[Built]:
    """Builds what is missing (minutes for each the first time). Raises BuildError with Go's own last words."""
    return _workshop().build(names, say)


def outdated() -> tuple[str, ...]:
    """The programs that are not built as their files now say. Raises BuildError without Go."""
    return _workshop().outdated()


def main() -> int:
    """``python -m bench.build [--list] [NAME...]``."""
    parser = argparse.ArgumentParser(prog="python -m bench.build", description="Builds the bench's programs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--list", action="store_true", help="say what there is and what is missing")
    asked = parser.parse_args()
    try:
        if asked.list:
            missing = outdated()
            for name in NAMES:
                print("missing" if name in missing else "built  ", name)
            return 0
        done = build(asked.names or NAMES)
    except (BuildError, OSError) as why:
        print(f"bench.build: {why}", file=sys.stderr)
        return 1
    fresh, size = [one for one in done if not one.cached], sum(one.bytes for one in done) >> 20
    print(f"{len(done)} programs, {size} MiB; built {len(fresh)} in {sum(one.seconds for one in fresh):.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
