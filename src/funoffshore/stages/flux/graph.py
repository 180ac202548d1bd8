"""What is to be done about Flux, from what was seen. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from funoffshore import errors, health
from funoffshore.config import ClusterConfig
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.flux import wanted
from funoffshore.stages.flux.facts import ROOT, FluxFacts, Object, digest, revision_of

CONTROLLERS, SETTINGS, SOURCE, SYNC = "flux/controllers", "flux/settings", "flux/source", "flux/sync"


def secret_key(namespace: str, name: str) -> str:
    """The key of the action on a rendered Secret."""
    return f"secret/{namespace}/{name}"


def kustomization_key(name: str) -> str:
    """The key of the wait for a Kustomization."""
    return f"flux/kustomization/{name}"


def plan(config: ClusterConfig, facts: FluxFacts) -> list[Action]:
    """The actions of this stage, empty when Flux runs the commit that Git holds."""
    if facts.unreadable:
        reason = f"the cluster cannot be looked at: {facts.unreadable}"
        return [_action(Verb.WAIT, "flux/cluster", reason, _behind_k3s(config))]
    return [
        *_controllers(config, facts),
        *_settings(config, facts),
        *_secrets(config, facts),
        *_source(config, facts),
        *_sync(config, facts),
        *_kustomizations(facts),
    ]


def problems(config: ClusterConfig, facts: FluxFacts) -> list[errors.FoError]:
    """What would let Flux wait in vain: its branch is not there, or cannot be read from here."""
    where = f"branch {config.git.branch} of {config.git.url}"
    match facts.commit:
        case Absent():
            return [errors.PreflightError(f"there is no {where}", fix="push it there, or set GIT_URL and GIT_BRANCH")]
        case Unreadable(why):
            fix = "check GIT_URL and its credentials, or stop before Flux with --until k3s"
            return [errors.UnreachableError(f"{where} cannot be read: {why}", fix=fix)]
        case _:
            return []


def _action(verb: Verb, key: str, reason: str, after: set[str]) -> Action:
    return Action(verb, key, reason, frozenset(after), stage="flux")


def _behind_k3s(config: ClusterConfig) -> set[str]:
    return {"kubeconfig", *(f"k3s/{n.name}" for n in config.controllers)}


def _controllers(config: ClusterConfig, facts: FluxFacts) -> Iterator[Action]:
    seen, after = facts.controllers, _behind_k3s(config)
    if seen.missing:
        reason = "it is not installed" if len(seen.missing) == 4 else f"{', '.join(seen.missing)} is missing"
        yield _action(Verb.CREATE, CONTROLLERS, reason, after)
    elif seen.version != config.flux.version and not seen.owner:
        reason = f"it is {seen.version or 'of mixed versions'}, not {config.flux.version}"
        yield _action(Verb.CHANGE, CONTROLLERS, reason, after)
    elif seen.waiting:
        yield _action(Verb.WAIT, CONTROLLERS, f"not all are available: {seen.waiting[0]}", after)


def _settings(config: ClusterConfig, facts: FluxFacts) -> Iterator[Action]:
    wish = wanted.settings(config)
    if facts.settings is None:
        yield _action(Verb.CREATE, SETTINGS, "they are absent", {CONTROLLERS})
    elif facts.settings != wish:
        keys = sorted(k for k in {*wish, *facts.settings} if wish.get(k) != facts.settings.get(k))
        yield _action(Verb.CHANGE, SETTINGS, f"the env file has other values: {', '.join(keys)}", {CONTROLLERS})


def _secrets(config: ClusterConfig, facts: FluxFacts) -> Iterator[Action]:
    for (namespace, name), data in wanted.secrets(config).items():
        there = facts.secrets.get((namespace, name))
        after = {CONTROLLERS} if namespace == "flux-system" else {"kubeconfig", f"k3s/{config.controllers[0].name}"}
        if there is None:
            yield _action(Verb.CREATE, secret_key(namespace, name), "it is absent", after)
        elif there != digest(data):
            yield _action(Verb.CHANGE, secret_key(namespace, name), "the env file has other values", after)


def _source(config: ClusterConfig, facts: FluxFacts) -> Iterator[Action]:
    after = {CONTROLLERS, secret_key("flux-system", wanted.GIT_SECRET)}
    if facts.source is None:
        yield _action(Verb.CREATE, SOURCE, "it is absent", after)
    elif not wanted.covers(facts.source, wanted.source(config)):
        yield _action(Verb.CHANGE, SOURCE, f"it does not follow {config.git.branch} of {config.git.url}", after)
    elif reason := _behind(facts, facts.source):
        yield _action(Verb.WAIT, SOURCE, reason, after)


def _sync(config: ClusterConfig, facts: FluxFacts) -> Iterator[Action]:
    after = {SOURCE, SETTINGS, *(secret_key(*name) for name in wanted.secrets(config))}
    root = facts.kustomizations.get(ROOT)
    if root is None:
        yield _action(Verb.CREATE, SYNC, "it is absent", after)
    elif not wanted.covers(root, wanted.root(config)):
        yield _action(Verb.CHANGE, SYNC, f"it does not apply {config.git.path}", after)
    elif reason := _behind(facts, root):
        yield _action(Verb.WAIT, SYNC, reason, after)


def _kustomizations(facts: FluxFacts) -> Iterator[Action]:
    for name, needs in facts.wanted.items():
        after = {SYNC, *(kustomization_key(n) for n in needs)}
        there = facts.kustomizations.get(name)
        reason = "it is not on the cluster yet" if there is None else _behind(facts, there)
        if reason:
            yield _action(Verb.WAIT, kustomization_key(name), reason, after)


def _behind(facts: FluxFacts, obj: Object) -> str:
    """Why a source or Kustomization is not yet at the commit that Git holds; empty when it is."""
    if (obj.get("spec") or {}).get("suspend"):
        return "it is suspended"
    match facts.commit:
        case Present(commit) if revision_of(obj) != commit:
            return f"it is at {revision_of(obj)[:12] or 'no commit'}, and Git is at {commit[:12]}"
        case Unreadable(why):
            return f"the commit of its branch cannot be read: {why}"
        case Absent():
            return "its branch has no commit"
    state = health.assess(obj)
    return "" if state.state is health.State.READY else f"{state.reason} {state.message}".strip() or "it is not ready"
