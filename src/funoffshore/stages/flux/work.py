"""Performs one action on Flux."""

from __future__ import annotations

import uuid

import yaml

from funoffshore import clock, errors, health, run
from funoffshore.config import ClusterConfig
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.flux import causes, graph, look, wanted
from funoffshore.stages.flux.facts import (
    CONTROLLERS,
    GIT_REPOSITORY,
    KUSTOMIZATION,
    NAMESPACE,
    ROOT,
    SOURCE,
    Controllers,
    Object,
    revision_of,
)
from funoffshore.world.world import World

OWNED_BY_GIT = "kubectl"
"""Field manager for what Git may own later: kustomize-controller takes it over (its ``internal/controller``)."""
OURS = "fo"
INSTALL_DEADLINE, SOURCE_DEADLINE, READY_DEADLINE = 300.0, 180.0, 1200.0
"""Seconds on the cluster's clock. The last one leaves room for slow image pulls and one retry of Flux."""
PATIENCE = 240.0
"""Seconds that something may stand failed: Flux tries again after a minute, and a dependency may come late."""


def apply(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    """Performs exactly ``action``; returns when its effect has ended well. May be called again after a crash."""
    if action.key == graph.CONTROLLERS:
        _controllers(world, config, action, step)
    elif action.key == graph.SETTINGS:
        _apply_whole(world, wanted.config_map(config))
    elif action.key.startswith("secret/"):
        _secret(world, config, action)
    elif action.key == graph.SOURCE:
        _source(world, config, action, step)
    elif action.key == graph.SYNC:
        if action.verb is not Verb.WAIT:
            world.kube.apply([wanted.root(config)], OURS, force=True)
        _wait(world, config, step, KUSTOMIZATION, ROOT, SOURCE_DEADLINE)
    elif action.key.startswith("flux/kustomization/"):
        _wait(world, config, step, KUSTOMIZATION, action.key.rsplit("/", 1)[1], READY_DEADLINE)
    elif action.key == "flux/cluster":
        _readable(world, step)
    else:
        raise ValueError(f"no such action: {action}")


def _controllers(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    if action.verb is not Verb.WAIT:
        step.say(f"fetching the manifest of Flux {config.flux.version}")
        text = world.downloads.fetch(config.flux.install_url, config.flux.install_sha256)
        step.say("applying it")
        objects = stamped(default_components(text), config.flux.version)
        world.kube.apply(repair(objects, look.read_controllers(world)), OWNED_BY_GIT, force=True)

    def probe() -> clock.Done[None] | clock.Pending:
        match world.kube.list("apps/v1/Deployment", NAMESPACE):
            case Present(found):
                ready = {d["metadata"]["name"] for d in found if health.assess(d).state is health.State.READY}
                late = [name for name in CONTROLLERS if name not in ready]
                return clock.Pending(f"not available: {', '.join(late)}") if late else clock.Done(None)
            case Unreadable(why):
                return clock.Pending(why)
            case _:
                return clock.Pending("there are no Deployments")

    clock.wait(
        world.clock, "Flux's controllers to be available", probe, deadline=INSTALL_DEADLINE, say=step.say,
        evidence=lambda: causes.evidence(world.kube.list), fix="look at the pods in flux-system",
    )  # fmt: skip


def default_components(text: bytes) -> list[Object]:
    """The objects of an install manifest without those of components other than the four default ones.

    Raises ConfigError when the text is no list of Kubernetes objects.
    """
    try:
        objects = [o for o in yaml.safe_load_all(text.decode()) if o]
        labelled = [(o, (o["metadata"].get("labels") or {}).get("app.kubernetes.io/component")) for o in objects]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as why:
        raise errors.ConfigError(
            "Flux's install manifest is not a list of Kubernetes objects", fix="check FLUX_INSTALL_URL"
        ) from why
    return [o for o, component in labelled if component is None or component in CONTROLLERS]


def stamped(objects: list[Object], version: str) -> list[Object]:
    """``objects`` with the release in the label where ``flux install`` puts it too; the published manifest has none
    (flux2 ``.github/workflows/release.yaml`` makes it with plain kustomize)."""
    for obj in objects:
        meta = obj["metadata"]
        meta["labels"] = {**(meta.get("labels") or {}), "app.kubernetes.io/version": version}
    return objects


def repair(objects: list[Object], seen: Controllers) -> list[Object]:
    """``objects``; where somebody else manages Flux, only the controllers that are missing and what they run as."""
    if not seen.owner:
        return objects
    kinds = ("Deployment", "Service", "ServiceAccount")
    return [o for o in objects if o["kind"] in kinds and o["metadata"]["name"] in seen.missing]


def _apply_whole(world: World, obj: Object) -> None:
    """Applies a ConfigMap or Secret and takes away keys of another hand, which server-side apply leaves alone."""
    [stored] = world.kube.apply([obj], OURS, force=True)
    if extra := (stored.get("data") or {}).keys() - obj["data"].keys():
        meta = obj["metadata"]
        world.kube.patch(f"v1/{obj['kind']}", meta["namespace"], meta["name"], {"data": dict.fromkeys(sorted(extra))})


def _secret(world: World, config: ClusterConfig, action: Action) -> None:
    _, namespace, name = action.key.split("/")
    data = wanted.secrets(config)[namespace, name]
    if isinstance(world.kube.get("v1/Namespace", "", namespace), Absent):
        bare = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        world.kube.apply([bare], OWNED_BY_GIT)
    _apply_whole(world, wanted.secret((namespace, name), data))


def _source(world: World, config: ClusterConfig, action: Action, step: run.Step) -> None:
    if isinstance(world.repo.remote_head(), Absent):
        fix = f"git push origin HEAD:{config.git.branch}"
        raise errors.PreflightError(f"{config.git.url} has no branch {config.git.branch}", fix=fix)
    if action.verb is not Verb.WAIT:
        world.kube.apply([wanted.source(config)], OURS, force=True)
    _wait(world, config, step, GIT_REPOSITORY, SOURCE, SOURCE_DEADLINE)


def _wait(world: World, config: ClusterConfig, step: run.Step, kind: str, name: str, deadline: float) -> None:
    """Until the object is ready at the commit that Git holds now. Asks Flux once to look at once.

    Raises TaskFailedError for what is suspended, or stands failed for longer than Flux's own retries would take.
    """
    asked = False
    patience = _Patience(world, kind, name)

    def probe() -> clock.Done[None] | clock.Pending:
        nonlocal asked
        obj = world.kube.get(kind, NAMESPACE, name)
        if isinstance(obj, Present):
            patience.check(obj.value)
        said = lag(obj, world.repo.remote_head() if kind == GIT_REPOSITORY else _source_commit(world))
        if said and not asked and isinstance(obj, Present) and obj.value.get("status"):
            asked = True
            stamp = {"reconcile.fluxcd.io/requestedAt": str(uuid.uuid4())}
            world.kube.patch(kind, NAMESPACE, name, {"metadata": {"annotations": stamp}})
        return clock.Pending(said) if said else clock.Done(None)

    thing = "the source" if kind == GIT_REPOSITORY else f"Kustomization {name}"
    clock.wait(
        world.clock, f"{thing} to be ready at Git's commit", probe, deadline=deadline, say=step.say, interval=3.0,
        evidence=lambda: causes.evidence(world.kube.list), fix=f"mend it in Git ({config.git.branch}) and run again",
    )  # fmt: skip


class _Patience:
    """Ends a wait that cannot end well by itself."""

    def __init__(self, world: World, kind: str, name: str) -> None:
        self._world = world
        self._what = f"{kind.rsplit('/', 1)[1]} {name}"
        self._failing_since: float | None = None

    def check(self, obj: Object) -> None:
        """Raises TaskFailedError."""
        state = health.assess(obj)
        if state.state is health.State.SUSPENDED:
            fix = f"flux resume {self._what.lower().replace('gitrepository', 'source git')}"
            raise errors.TaskFailedError(f"{self._what} is suspended", fix=fix)
        if state.state is not health.State.FAILED:
            # a retry under way shows as progressing for a moment, which is no recovery
            self._failing_since = None if state.state is health.State.READY else self._failing_since
            return
        now = self._world.clock.monotonic()
        self._failing_since = self._failing_since if self._failing_since is not None else now
        if now - self._failing_since >= PATIENCE:
            raise errors.TaskFailedError(
                f"{self._what} has failed for {now - self._failing_since:.0f} s: {state.reason}: {state.message}",
                fix="mend the first cause, then run fo bootstrap",
                evidence=causes.evidence(self._world.kube.list),
            )


def _source_commit(world: World) -> Reading[str]:
    source = world.kube.get(GIT_REPOSITORY, NAMESPACE, SOURCE)
    return Present(revision_of(source.value)) if isinstance(source, Present) else source


def lag(obj: Reading[Object], commit: Reading[str]) -> str:
    """What is still missing, in one line; empty when the object is ready at ``commit``."""
    match obj, commit:
        case Absent(), _:
            return "it is not there yet"
        case Unreadable(why), _:
            return why
        case _, Unreadable(why):
            return f"the commit cannot be read: {why}"
        case Present(seen), Present(wish):
            if (seen.get("spec") or {}).get("suspend"):
                return "it is suspended"
            state = health.assess(seen)
            if state.state is not health.State.READY:
                return f"{state.reason}: {state.message}"
            return "" if revision_of(seen) == wish else f"it is at {revision_of(seen)[:12]}, Git is at {wish[:12]}"
    return "Git has no commit"


def _readable(world: World, step: run.Step) -> None:
    def probe() -> clock.Done[None] | clock.Pending:
        match world.kube.readyz():
            case Present():
                return clock.Done(None)
            case Unreadable(why):
                return clock.Pending(why)
            case _:
                return clock.Pending("there is no kubeconfig")

    clock.wait(world.clock, "the API server to answer through the VIP", probe, deadline=180, say=step.say)
