"""The questions of ``fo doctor`` by the ids of their findings, and how a finding is made of what was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from funoffshore import errors
from funoffshore.findings import Finding, Outcome

TITLES: Mapping[str, str] = {
    "FO-DOC-001": "the env file to be right",
    "FO-DOC-002": "the programs that fo calls to be installed",
    "FO-DOC-003": "the repository to have a commit",
    "FO-DOC-004": "Git to hold the branch that Flux shall follow",
    "FO-DOC-005": "Proxmox to answer with the pinned certificate",
    "FO-DOC-006": "nothing else to stand in the way of the plan",
    "FO-DOC-007": "the token to hold every privilege that fo uses",
    "FO-DOC-008": "Proxmox to be a release that fo knows",
    "FO-DOC-009": "the Proxmox nodes to be there, and quorate",
    "FO-DOC-010": "no guest to be in the way",
    "FO-DOC-011": "the clocks to agree",
    "FO-DOC-012": "the storages to take disks and images",
    "FO-DOC-013": "the bridge to be on every Proxmox node",
    "FO-DOC-014": "the CPU type to be known to every Proxmox node",
    "FO-DOC-015": "the image to be there, or within reach of Proxmox",
    "FO-DOC-016": "the mapped devices to be there",
    "FO-DOC-017": "every machine to have its place",
    "FO-DOC-018": "the backup storage to be there",
    "FO-DOC-019": "high availability to be possible",
    "FO-DOC-020": "the addresses of new machines to be free",
    "FO-DOC-021": "the VIP to be free",
    "FO-DOC-022": "the gateway to answer",
    "FO-DOC-023": "every host to let fo in",
    "FO-DOC-024": "systemd to run every host",
    "FO-DOC-025": "a K3s to be pinned for every host's architecture",
    "FO-DOC-026": "no two hosts to be taken for one another",
    "FO-DOC-027": "the clocks of the hosts to agree",
    "FO-DOC-028": "every host to have a default route",
    "FO-DOC-029": "every kernel to limit memory",
    "FO-DOC-030": "no host to swap",
    "FO-DOC-031": "the ports of K3s to be free",
    "FO-DOC-032": "the hosts to reach one another",
    "FO-DOC-033": "every host to have room",
    "FO-DOC-034": "no host to belong to another cluster",
    "FO-DOC-035": "the pinned K3s to be within reach",
}
"""An id is never used for another question."""
AGAIN = "Run the same command again."


def passed(id_: str, said: str) -> Finding:
    return Finding(id_, TITLES[id_], Outcome.PASS, said)


def unknown(id_: str, said: str, fix: str = AGAIN) -> Finding:
    """Something could not be looked at."""
    return Finding(id_, TITLES[id_], Outcome.UNKNOWN, said, fix=fix)


def warned(id_: str, sentences: Sequence[str], fix: str = "") -> Finding:
    """Nothing that stops a bootstrap."""
    said = sentences[0] if len(sentences) == 1 else f"{len(sentences)} remarks"
    return Finding(id_, TITLES[id_], Outcome.WARN, said, tuple(sentences) if len(sentences) > 1 else (), fix)


def failed(id_: str, found: Sequence[errors.FoError]) -> Finding:
    """One finding for all that is wrong with one thing. What could not be looked at is unknown, not wrong."""
    blind = all(isinstance(why, errors.UnreachableError) for why in found)
    outcome = Outcome.UNKNOWN if blind else Outcome.FAIL
    if len(found) == 1:
        return Finding(id_, TITLES[id_], outcome, found[0].message, found[0].evidence, found[0].fix)
    said = f"{len(found)} things " + ("could not be looked at" if blind else "are in the way")
    lines = [f"{why.message} → {why.fix}" if why.fix else why.message for why in found]
    evidence = [line for why in found for line in why.evidence]
    return Finding(id_, TITLES[id_], outcome, said, (*lines, *dict.fromkeys(evidence)), "do what each line says")
