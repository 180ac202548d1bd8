"""What stands in the way, from facts alone. Pure: said before anything is touched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from funoffshore.config import ClusterConfig
from funoffshore.errors import FoError, PreflightError, UnreachableError
from funoffshore.plan import NONE, Permits
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.machines import preflight_guests, preflight_room, privileges
from funoffshore.stages.machines.facts import MachineFacts, Missing
from funoffshore.stages.machines.held import release
from funoffshore.stages.machines.preflight_guests import half_made
from funoffshore.stages.machines.preflight_subjects import Subject

__all__ = ["by_subject", "half_made", "lacking_privileges", "problems", "unseen"]

OLDEST_RELEASE = (8, 4)
"""Earlier ones take no qcow2 as ``import`` content (pve-storage 8.3.6)."""
MOST_SKEW = 30.0
"""Seconds that clocks may differ before certificates and the tokens of K3s are not believed."""
_SHOWN = 3
"""Names that a message lists before it counts the rest."""


def problems(config: ClusterConfig, facts: MachineFacts, permits: Permits = NONE) -> list[FoError]:
    """Everything that must be mended before the plan may run, the gravest first; empty when nothing must.

    What a missing privilege hides is left out: only the privilege can be mended.
    """
    if facts.door is not None:
        return [facts.door]
    told = by_subject(config, facts, permits)
    return [why for subject in Subject for why in told[subject]]


def by_subject(config: ClusterConfig, facts: MachineFacts, permits: Permits = NONE) -> Mapping[Subject, list[FoError]]:
    """The same, but for a shut door, by what each is about."""
    told: dict[Subject, list[FoError]] = {subject: [] for subject in Subject}
    if facts.missing:
        told[Subject.PRIVILEGES].append(lacking_privileges(config, facts.missing, release(facts)))
    told[Subject.RELEASE] += _release(config, facts)
    told[Subject.NODES] += _quorum(config, facts)
    told[Subject.GUESTS] += preflight_guests.problems(config, facts, permits)
    if not _hides_guests(facts):
        told[Subject.GUESTS] += _unseen(_machines(config, facts))
    told[Subject.ADDRESSES] += _answering(config, facts)
    told[Subject.CLOCKS] += _clocks(facts)
    for subject, why in preflight_room.problems(config, facts):
        told[subject].append(why)
    return told


def lacking_privileges(
    config: ClusterConfig, missing: tuple[Missing, ...], known: tuple[int, int] = privileges.NEWEST
) -> PreflightError:
    """The error for privileges the token has not got, every one of them, with the lines that grant them."""
    listed = ", ".join(f"{lack.privilege} on {lack.path}" for lack in missing)
    return PreflightError(
        f"the Proxmox token {config.proxmox.token_id} lacks {listed}",
        fix="\n      ".join(("As root on a Proxmox node run:", *privileges.remedy(config, missing, known))),
        evidence=(
            *(f"{lack.privilege} on {lack.path} is needed to {lack.purpose}" for lack in missing),
            "a token with separated privileges has only what its user has too, so the lines grant it to both",
        ),
    )


def unseen(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    """Nothing may be removed on the strength of what was not seen: machines and seeds."""
    seeds = {f"the seed of {node.name}": facts.seed(node.name) for node in config.nodes}
    whys = {name: seed.why for name, seed in seeds.items() if isinstance(seed, Unreadable)}
    yield from _unseen({**_machines(config, facts), **whys})


def listed(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b, c and 4 more``."""
    if len(names) > _SHOWN + 1:
        names = [*names[:_SHOWN], f"{len(names) - _SHOWN} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _machines(config: ClusterConfig, facts: MachineFacts) -> dict[str, str]:
    """Why each machine that could not be read was not."""
    readings = {f"machine {node.name}": facts.machine(node.name) for node in config.nodes}
    return {name: reading.why for name, reading in readings.items() if isinstance(reading, Unreadable)}


def _unseen(whys: Mapping[str, str]) -> Iterator[FoError]:
    names: dict[str, list[str]] = defaultdict(list)
    for name, why in whys.items():
        names[why].append(name)
    for why, which in names.items():
        exist = "exists" if len(which) == 1 else "exist"
        message = f"cannot tell whether {listed(which)} {exist}: {why}"
        rest = tuple(which) if len(which) > _SHOWN + 1 else ()
        yield UnreachableError(message, fix="Run the same command again.", evidence=rest)


def _hides_guests(facts: MachineFacts) -> bool:
    return any(lack.privilege == "VM.Audit" for lack in facts.missing)


def _release(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    if isinstance(facts.release, Present) and facts.release.value < OLDEST_RELEASE and not config.image.template:
        major, minor = facts.release.value
        yield PreflightError(
            f"Proxmox {major}.{minor} cannot import a cloud image through its API",
            fix="Upgrade it to 8.4 or later, or name a VM template in IMAGE_TEMPLATE that machines are cloned from.",
        )


def _quorum(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    match facts.quorate:
        case Present(False):
            yield PreflightError(
                "the Proxmox cluster has lost its quorum, so its configuration is read-only",
                fix="Bring its nodes or their network back (pvecm status on a Proxmox node shows who is missing).",
            )
        case Unreadable(why) if _is_making(config, facts) and not any(lack.path == "/" for lack in facts.missing):
            yield UnreachableError(
                f"cannot tell whether the Proxmox cluster has its quorum: {why}", fix="Run the same command again."
            )


def _is_making(config: ClusterConfig, facts: MachineFacts) -> bool:
    return any(isinstance(facts.machine(node.name), Absent) for node in config.nodes)


def _answering(config: ClusterConfig, facts: MachineFacts) -> Iterator[FoError]:
    for name in facts.answering:
        address = config.network.vip if name == "VIP" else config.node(name).address
        owner = "the cluster's VIP" if name == "VIP" else name
        yield PreflightError(
            f"{address} already answers, and {owner} does not exist yet",
            fix="Find out who has that address, and free it or choose another one in the env file.",
        )


def _clocks(facts: MachineFacts) -> Iterator[FoError]:
    skews = {
        name: reading.value.clock_skew.value
        for name, reading in facts.hypervisors.items()
        if isinstance(reading, Present) and isinstance(reading.value.clock_skew, Present)
    }
    for name, skew in skews.items():
        if abs(skew) > MOST_SKEW:
            side = "ahead of" if skew > 0 else "behind"
            yield PreflightError(
                f"the clock of {name} is {abs(skew):.0f} s {side} this computer's; certificates and tokens would not "
                "be believed",
                fix=f"Set both clocks right by NTP (chronyc tracking on {name}, timedatectl here).",
            )
