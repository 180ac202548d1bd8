"""Runs of a whole homelab that never happened: a journal as the runner would have written it, and what was found."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from funoffshore import evidence, gate, journal, redact, run
from funoffshore.config import ClusterConfig, loader, new
from funoffshore.findings import Finding, Outcome
from funoffshore.plan import Action, Plan, Verb
from funoffshore.status import Status

START = 1_800_000_000.0
COMMIT = "5f2c91e07ab34d6f8a1b0c2d3e4f5a6b7c8d9e0f"
PINS = dict.fromkeys(("PROXMOX_FINGERPRINT", "IMAGE_SHA256", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "a" * 64)
APPS = {
    "sources": (), "prometheus-operator-crds": (), "cert-manager": ("sources",), "issuers": ("cert-manager",),
    "certificates": ("issuers",), "traefik": ("certificates", "prometheus-operator-crds"), "storage": ("sources",),
    "kube-prometheus-stack": ("storage", "prometheus-operator-crds"), "loki": ("storage",), "alloy": ("loki",),
    "grafana": ("kube-prometheus-stack", "traefik"), "authentik": ("storage", "traefik"), "media": ("storage",),
    "jellyfin": ("media", "traefik"), "sonarr": ("media", "authentik"), "radarr": ("media", "authentik"),
    "portainer": ("authentik",), "syncthing": ("media",), "cloudflared": ("traefik",),
}  # fmt: skip
"""What each Kustomization depends on."""
SECONDS = {
    "pool": 0.4, "image": 24, "machine": 14, "power": 2, "host": 38, "seed": 1.2, "k3s": 26, "kubeconfig": 0.6,
    "flux/controllers": 21, "flux/settings": 0.5, "flux/source": 3, "flux/sync": 4, "flux/kustomization": 17,
}  # fmt: skip


def config_of(controllers: int, workers: int, hypervisors: int, root: Path) -> ClusterConfig:
    answers = {
        **PINS, "CONTROLLERS": str(controllers), "WORKERS": str(workers),
        "PROXMOX_NODES": ",".join(f"pve{n + 1}" for n in range(hypervisors)), "WORKER_FIRST_IP": "127.77.0.41",
    }  # fmt: skip
    return loader.parse(new.generate("lab", answers, lab=True), "lab", root)


def plan_of(config: ClusterConfig) -> Plan:
    """The graph of a bootstrap from nothing."""
    first = config.controllers[0].name
    image = f"image/local/{config.image.filename}"
    actions = [
        _act(Verb.CREATE, "pool/fo-lab", "machines"),
        _act(Verb.CREATE, image, "machines", lane="storage"),
        _act(Verb.CREATE, "kubeconfig", "k3s", f"k3s/{first}"),
    ]
    before = ""
    for node in config.nodes:
        name, server = node.name, node in config.controllers
        actions += [
            _act(Verb.CREATE, f"machine/{name}", "machines", "pool/fo-lab", image, lane="storage", on=name),
            _act(Verb.CHANGE, f"power/{name}", "machines", f"machine/{name}", on=name),
            _act(Verb.WAIT, f"host/{name}", "machines", f"power/{name}", on=name),
            _act(Verb.DELETE, f"seed/{name}", "machines", f"host/{name}", on=name),
            _act(Verb.CREATE, f"k3s/{name}", "k3s", f"host/{name}", before if server else f"k3s/{first}",
                 lane="etcd" if server else "agents", on=name),
        ]  # fmt: skip
        before = f"k3s/{name}" if server else before
    servers = [f"k3s/{n.name}" for n in config.controllers]
    actions += [
        _act(Verb.CREATE, "flux/controllers", "flux", "kubeconfig", *servers),
        _act(Verb.CREATE, "flux/settings", "flux", "flux/controllers"),
        _act(Verb.CREATE, "flux/source", "flux", "flux/settings"),
        _act(Verb.CREATE, "flux/sync", "flux", "flux/source"),
    ]
    for app, needs in APPS.items():
        after = [f"flux/kustomization/{n}" for n in needs]
        actions.append(_act(Verb.WAIT, f"flux/kustomization/{app}", "flux", "flux/sync", *after))
    return Plan.of(actions)


def write(config: ClusterConfig, state: Path, *, fail: str = "") -> Path:
    """The journal of a bootstrap from nothing in which the action on ``fail`` fails; returns the run's folder."""
    moment = [START]
    clean = redact.Redactor(redact.secrets_of(config))
    log = journal.Journal.begin(state, lambda: moment[0], clean, cluster=config.name, until="postcheck")
    for at, action, outcome in _happening(plan_of(config), fail):
        moment[0] = at
        if outcome:
            more = {"error": "the unit k3s-agent ended with exit status 1"} if outcome == "failed" else {}
            log.write(outcome, action.key, sync=False, **more)
        else:
            log.intend(action)
    moment[0] += 1.5
    if fail:
        error = f"ApplyError: {fail}: the unit k3s-agent ended with exit status 1"
        log.write("end", "", sync=False, outcome="failed", error=error)
    else:
        log.write("end", "", sync=False, outcome="done", actions=100)
    log.close()
    return log.folder


def findings(*, good: bool) -> tuple[Finding, ...]:
    subjects = ("the API to be ready", "every node to be Ready", "etcd to have a quorum",
                "every Kustomization to be applied", "every HelmRelease to be released", "certificates to be valid",
                "volumes to be bound", "Traefik to answer", "Jellyfin to answer", "authentik to answer")  # fmt: skip
    found = [Finding(f"FO-K3S-{n:03}", s, Outcome.PASS, "at the first look") for n, s in enumerate(subjects, 1)]
    if not good:
        found[4] = Finding(
            "FO-FLX-005", subjects[4], Outcome.FAIL, "1 of 19 is not: loki/loki, upgrade retries exhausted",
            ("HelmRelease loki/loki: Ready=False", "reason: UpgradeFailed", "pod loki-0: 0/6 nodes are available"),
            "flux reconcile helmrelease loki -n loki --force",
        )  # fmt: skip
        found[6] = Finding("FO-VOL-007", subjects[6], Outcome.UNKNOWN, "the API refused to list volumes", (), "")
        found[8] = Finding("FO-APP-009", subjects[8], Outcome.WARN, "answers after 4.1 s", ("GET /health 200",), "")
    return tuple(found)


def status_of(config: ClusterConfig, *, good: bool) -> Status:
    statement = evidence.Statement(
        config.name, "uid-1", COMMIT, 3, START + 400, START + 400 + evidence.LIFETIME, "funoffshore 0.1.0",
        ("traefik", "jellyfin"), findings(good=good),
    )  # fmt: skip
    signature = evidence.sign(statement, config.evidence_key.get_secret_value())
    return Status(config.name, good, statement, signature, None)


def reasons_of(*, good: bool) -> tuple[gate.Reason, ...]:
    locked = gate.Reason("stage-2-locked", "no human has unlocked Stage 2", "fo gate unlock -c lab")
    if good:
        return (locked,)
    text = "FO-FLX-005 failed (every HelmRelease to be released): 1 of 19 is not"
    return (gate.Reason("check-fail", text, "fo postcheck -c lab"), locked)


def _act(verb: Verb, key: str, stage: str, *after: str, lane: str = "", on: str = "") -> Action:
    return Action(verb, key, "it is absent", frozenset(a for a in after if a), lane, stage, on)


def _happening(plan: Plan, fail: str) -> Iterator[tuple[float, Action, str]]:
    """What the runner would do, with time of our own: when, which action, and its outcome or '' for its begin."""
    dice, now, done = random.Random(7), START + 2, frozenset[str]()  # noqa: S311 - the same picture every time
    running: list[tuple[float, str]] = []
    broken = False
    while True:
        busy = {key for _, key in running}
        lanes = Counter(plan.actions[key].lane for key in busy)
        for action in () if broken else plan.ready(done):
            if action.key in busy or (action.lane and lanes[action.lane] >= run.CAPACITY[action.lane]):
                continue
            lanes[action.lane] += 1
            kind = action.key.rpartition("/")[0] if action.stage == "flux" else action.key.split("/")[0]
            seconds = SECONDS.get(action.key, SECONDS.get(kind, 1)) * dice.uniform(0.75, 1.4)
            heapq.heappush(running, (now + seconds, action.key))
            yield now, action, ""
        if not running:
            return
        now, key = heapq.heappop(running)
        broken = broken or key == fail
        yield now, plan.actions[key], "failed" if key == fail else "done"
        done |= set() if key == fail else {key}
