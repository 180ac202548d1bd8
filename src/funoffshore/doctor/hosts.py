"""From what hosts showed to what is wrong with them, one question after another. Pure.

What K3s asks of a host: K3s documentation, "Requirements"; what it does where that is missing: recorded from real runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node, Role
from funoffshore.doctor import findings
from funoffshore.findings import Finding, Outcome
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.stages.k3s import files, sources
from funoffshore.world.ssh import HostFacts, UnknownKeyError

Seen = Mapping[str, HostFacts]
"""By node name: the hosts that could be looked at."""
MACHINE_ID = "/etc/machine-id"
DATA = "/var/lib/rancher/k3s"
ODD_SKEW, BAD_SKEW = 5.0, 300.0
"""Seconds. Certificates are dated an hour back, tokens and leases are not."""
ROOM, COMFORT = 1 << 30, 5 << 30
"""Bytes: K3s unpacks 270 MB, and images are to follow."""
INODES, MANY_INODES = 10_000, 100_000
SERVER_PORTS = (6443, 2379, 2380, 10250)
AGENT_PORTS = (10250,)
_UNLIMITED = frozenset({"btrfs", "zfs", "bcachefs"})
"""File systems that count no inodes and tell of none."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong, or odd, or could not be seen."""

    outcome: Outcome
    said: str
    fix: str = ""


def fail(said: str, fix: str = "") -> Trouble:
    return Trouble(Outcome.FAIL, said, fix)


def warn(said: str, fix: str = "") -> Trouble:
    return Trouble(Outcome.WARN, said, fix)


def dark(said: str, fix: str = findings.AGAIN) -> Trouble:
    return Trouble(Outcome.UNKNOWN, said, fix)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def nodes(config: ClusterConfig, seen: Seen) -> Iterator[tuple[Node, HostFacts]]:
    """Those that could be looked at, in the order of the env file."""
    return ((node, seen[node.name]) for node in config.nodes if node.name in seen)


def runs_k3s(host: HostFacts) -> bool:
    """Whether a K3s of either role is up on it, or coming up."""
    units = (host.unit(name) for name in ("k3s.service", "k3s-agent.service"))
    return any(isinstance(unit, Present) and unit.value.active in ("active", "activating") for unit in units)


def systemd(config: ClusterConfig, seen: Seen) -> Iterator[Trouble]:
    """fo writes a unit, and nothing but systemd starts it."""
    for node, host in nodes(config, seen):
        if not host.systemd:
            yield fail(f"{node.name} is not run by systemd", "use a distribution with systemd; a container is none")


def architecture(config: ClusterConfig, seen: Seen) -> Iterator[Trouble]:
    """A binary is pinned for every host's architecture."""
    for node, host in nodes(config, seen):
        if why := sources.problem(config, node, host):
            yield fail(why.message, why.fix)


def identity(config: ClusterConfig, seen: Seen) -> Iterator[Trouble]:
    """Nobody shares a name, a system UUID or a machine ID with another.

    Clones that share a machine ID get the same hardware address on flannel's interface (systemd.link(5),
    ``MACAddressPolicy=persistent``), and packets of the one reach the other.
    """
    names, uuids, ids = dict[str, list[str]](), dict[str, list[str]](), dict[str, list[str]]()
    for node, host in nodes(config, seen):
        names.setdefault(host.hostname.lower(), []).append(node.name)
        if host.uuid:
            uuids.setdefault(host.uuid, []).append(node.name)
        match host.file(MACHINE_ID):
            case Present(there) if there.content and (text := there.content.get_secret_value().strip()):
                ids.setdefault(text, []).append(node.name)
            case Unreadable(why):
                yield dark(f"the machine ID of {node.name} could not be read ({why})")
            case _:
                yield fail(f"{node.name} has no machine ID", "sudo systemd-machine-id-setup there, and restart it")
        if node.made and host.uuid and host.uuid != str(node.identity):
            said = f"{node.address} is not {node.name}: its system UUID is {host.uuid}, not {node.identity}"
            yield fail(said, "another machine answers on that address; find it before anything else")
    for what, table, fix in (
        ("the hostname", names, "sudo hostnamectl set-hostname NAME on all but one of them"),
        ("the system UUID", uuids, "they are one machine, or boards whose firmware gives all the same: set another"),
        ("the machine ID", ids, "remove /etc/machine-id on the clones, sudo systemd-machine-id-setup, and restart"),
    ):
        for value, holders in table.items():
            if len(holders) > 1:
                yield fail(f"{' and '.join(holders)} share {what} {value}", fix)


def clocks(config: ClusterConfig, seen: Seen) -> Iterator[Trouble]:
    """Against this computer's, and the hosts' among each other."""
    fix = "set up NTP on the hosts: sudo timedatectl set-ntp true"
    for node, host in nodes(config, seen):
        skew = host.clock_skew
        if abs(skew) > ODD_SKEW:
            grade = fail if abs(skew) > BAD_SKEW else warn
            yield grade(f"the clock of {node.name} is {skew:+.0f} s off this computer's", fix)
    skews = {node.name: host.clock_skew for node, host in nodes(config, seen)}
    if not skews:
        return
    late, early = min(skews, key=skews.__getitem__), max(skews, key=skews.__getitem__)
    apart = skews[early] - skews[late]
    if apart > ODD_SKEW:
        grade = fail if apart > BAD_SKEW else warn
        yield grade(f"the clocks of {late} and {early} are {apart:.0f} s apart", fix)


def route(config: ClusterConfig, seen: Seen) -> Iterator[Trouble]:
    """K3s does not start without one, even where it reaches nothing."""
    for node, host in nodes(config, seen):
        if not host.default_route:
            fix = "give it a gateway; without a network to the outside, one that leads nowhere will do"
            yield fail(f"{node.name} has no default route", fix)


def cgroups(config: ClusterConfig, seen: Seen) -> Iterator[Trouble]:
    """The kubelet wants cgroup v2 and its memory controller."""
    for node, host in nodes(config, seen):
        if not host.memory_cgroup:
            fix = "add cgroup_memory=1 cgroup_enable=memory to its kernel's command line, and restart it"
            yield fail(f"the kernel of {node.name} does not limit memory", fix)
        if not host.cgroup2 and files.takes_cgroup1(config):
            yield warn(
                f"{node.name} has cgroup v1 alone, which Kubernetes is about to drop", "use a newer distribution"
            )
        elif not host.cgroup2:
            fix = "use a newer distribution, or K3S_EXTRA_CONFIG=kubelet-arg=fail-cgroupv1=false"
            yield fail(f"{node.name} has no cgroup v2, which the kubelet needs", fix)


def swap(config: ClusterConfig, seen: Seen) -> Iterator[Trouble]:
    """K3s starts with it, and pods are then slow instead of ended when memory runs out."""
    for node, host in nodes(config, seen):
        if host.swap_mib:
            yield warn(f"{node.name} swaps ({host.swap_mib} MiB)", "sudo swapoff -a, and take it out of /etc/fstab")


def ports(config: ClusterConfig, seen: Seen) -> Iterator[Trouble]:
    """Nobody else listens where K3s will."""
    for node, host in nodes(config, seen):
        if runs_k3s(host):
            continue
        wanted = SERVER_PORTS if node.role is Role.CONTROLLER else AGENT_PORTS
        if taken := [port for port in wanted if port in host.listening]:
            said = f"something that is not K3s listens on {node.name}: {', '.join(map(str, taken))}"
            yield fail(said, "sudo ss -ltnp there tells who it is; stop it, or use another host")


def room(config: ClusterConfig, seen: Seen) -> Iterator[Trouble]:
    """Bytes and inodes where K3s keeps its data."""
    fix = "make room there, or give it a bigger disk"
    for node, host in nodes(config, seen):
        match host.space.get(DATA, Unreadable("it was not looked at")):
            case Present(space):
                free = f"{space.bytes >> 20} MiB"
                if space.bytes < COMFORT:
                    grade = fail if space.bytes < ROOM else warn
                    yield grade(f"{node.name} has {free} free for K3s, which should have {COMFORT >> 20}", fix)
                if space.inodes < MANY_INODES and not (space.inodes == 0 and _counts_none(host)):
                    grade = fail if space.inodes < INODES else warn
                    yield grade(f"{node.name} has {count(space.inodes, 'inode')} left", fix)
            case Unreadable(why):
                yield dark(f"the room on {node.name} could not be read ({why})")
            case Absent():
                yield dark(f"the room on {node.name} could not be read")


def _counts_none(host: HostFacts) -> bool:
    held = [host.file_systems.get(path) for path in ("/var/lib/rancher", "/")]
    known = [one.value for one in held if isinstance(one, Present)]
    return bool(known) and known[0].type in _UNLIMITED


@dataclass(frozen=True, slots=True)
class Question:
    """One finding about hosts: who finds what is wrong, and the words where nothing is."""

    id: str
    judge: Callable[[ClusterConfig, Seen], Iterator[Trouble]]
    fine: Callable[[ClusterConfig, Seen], str]


def _hosts(words: str) -> Callable[[ClusterConfig, Seen], str]:
    return lambda config, seen: f"{count(len(seen), 'host')}: {words}"


def _spread(config: ClusterConfig, seen: Seen) -> str:
    return f"they are at most {max((abs(host.clock_skew) for host in seen.values()), default=0.0):.1f} s off"


QUESTIONS = (
    Question("FO-DOC-024", systemd, _hosts("all run by systemd")),
    Question("FO-DOC-025", architecture, lambda c, s: ", ".join(sorted({h.architecture for h in s.values()}))),
    Question("FO-DOC-026", identity, _hosts("each with a name, a UUID and a machine ID of its own")),
    Question("FO-DOC-027", clocks, _spread),
    Question("FO-DOC-028", route, _hosts("all have one")),
    Question("FO-DOC-029", cgroups, _hosts("cgroup v2, with memory")),
    Question("FO-DOC-030", swap, _hosts("none does")),
    Question("FO-DOC-031", ports, _hosts("nobody else listens there")),
    Question("FO-DOC-033", room, _hosts(f"all have {COMFORT >> 30} GiB or more")),
)
"""In the order of their ids; what needs more than one look is beside (``reaching``, ``belonging``, ``supply``)."""


def problems(config: ClusterConfig, seen: Seen) -> list[Trouble]:
    """Everything that ``QUESTIONS`` find. ``seen``: facts with the machine ID's content and both units among them."""
    return [trouble for question in QUESTIONS for trouble in question.judge(config, seen)]


def finding(id_: str, troubles: list[Trouble], fine: str, unseen: int) -> Finding:
    """One finding for all troubles of one question. With hosts that nobody saw, nothing is fine."""
    if unseen and not any(trouble.outcome is Outcome.FAIL for trouble in troubles):
        said = f"{count(unseen, 'host')} could not be looked at"
        lines = tuple(_line(trouble) for trouble in troubles)
        return Finding(id_, findings.TITLES[id_], Outcome.UNKNOWN, said, lines, "see FO-DOC-023")
    if not troubles:
        return findings.passed(id_, fine)
    order = (Outcome.FAIL, Outcome.UNKNOWN, Outcome.WARN)
    sorted_ = sorted(troubles, key=lambda trouble: order.index(trouble.outcome))
    first, *others = sorted_
    if not others:
        return Finding(id_, findings.TITLES[id_], first.outcome, first.said, (), first.fix)
    said = f"{first.said}, and {len(others)} more"
    lines = tuple(_line(trouble) for trouble in sorted_)
    return Finding(id_, findings.TITLES[id_], first.outcome, said, lines, "do what each line says")


def _line(trouble: Trouble) -> str:
    return f"{trouble.said} → {trouble.fix}" if trouble.fix else trouble.said


def login(config: ClusterConfig, failures: Mapping[str, errors.FoError], seen: Seen) -> Finding:
    """FO-DOC-023: whether SSH, sudo and python3 let fo in, with the cause and the remedy of each that does not.

    A host that is silent may be well: that is unknown. Under trust on first use a bootstrap learns the keys.
    """
    troubles, unlearned = list[Trouble](), 0
    for name, why in failures.items():
        if isinstance(why, UnknownKeyError) and config.ssh.trust_of(config.node(name)) == "first-use":
            unlearned += 1
        else:
            blind = isinstance(why, errors.UnreachableError | UnknownKeyError)
            troubles.append((dark if blind else fail)(why.message, why.fix))
    if unlearned:
        fix = "fo bootstrap --until machines records them (then ask again), or give them in SSH_KNOWN_HOSTS"
        troubles.append(warn(f"{count(unlearned, 'host key')} not known yet", fix))
    return finding("FO-DOC-023", troubles, f"{count(len(seen), 'host')}: SSH, sudo and python3 are there", 0)
