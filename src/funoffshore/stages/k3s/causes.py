"""Why a K3s does not come up, read from its journal. Patterns recorded from a real run. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from funoffshore.config import ClusterConfig


@dataclass(frozen=True, slots=True)
class Cause:
    """What a journal says is wrong."""

    says: str
    """Completes "<node> does not come up: …"."""
    fix: str
    hopeless: bool
    """Waiting does not help: only a change by somebody does."""
    network: bool = False
    """The way to another node is in doubt, so the ports are worth a try."""


_NETWORK = frozenset({"no packet comes back from the server", "the server it wants to join does not answer"})
_CAUSES: tuple[tuple[str, Cause], ...] = tuple(
    (pattern, Cause(says, fix, hopeless, says in _NETWORK))
    for pattern, says, fix, hopeless in (
        (r"token CA hash does not match", "the server it reached has another authority than its token names",
         "another cluster answers on the VIP; free that address, then run fo bootstrap again", True),
        (r"invalid token CA hash length", "its token is malformed",
         "remove /etc/rancher/k3s/config.yaml on that node and run fo bootstrap again", True),
        (r"encrypted with different token", "its datastore was made with another token",
         "put the K3S_TOKEN that founded the cluster back into the env file", True),
        (r"critical configuration value mismatch", "a setting that all servers must share differs",
         "compare K3S_EXTRA_CONFIG with the running servers (the journal names the setting)", True),
        (r"Node password rejected", "its name is taken: another machine joined under it",
         "if the other one is gone for good: fo k3s replace with this node's name", True),
        (r"duplicate node name found", "etcd already has a member of that name",
         "it has lost its disk, or is another machine: fo k3s replace with this node's name makes it anew", True),
        (r"etcd member (?:has been|is) removed|been (?:permanently )?removed from the cluster|its etcd member is gone",
         "it was removed from the cluster while its old data is still on its disk",
         "fo k3s replace with this node's name makes it anew", True),
        (r"too many learner members", "another server is joining etcd at the same time", "", False),
        (r"(?<!validation: )(?<!datastore: )not authorized", "the server does not accept its token",
         "put the cluster's own K3S_TOKEN and K3S_AGENT_TOKEN back into the env file", True),
        (r"--token is required", "its config.yaml has no token",
         "remove /etc/rancher/k3s/config.yaml on that node and run fo bootstrap again", True),
        (r"Node authorization rejected", "its Node was deleted while its old certificates are still on its disk",
         "run fo bootstrap again: it removes them and lets the node join anew", True),
        (r"flag provided but not defined", "its config.yaml has a key that K3s does not know",
         "correct K3S_EXTRA_CONFIG in the env file", True),
        (r'msg="yaml: |invalid boolean value|invalid CIDR address|invalid node-ip|only https:// URLs are supported',
         "its config.yaml is not understood",
         "correct K3S_EXTRA_CONFIG in the env file", True),
        (r"configured to not run on a host using cgroup v1", "the host uses cgroup v1",
         "use an image with cgroup v2, or K3S_EXTRA_CONFIG=kubelet-arg=fail-cgroupv1=false", True),
        (r"no space left on device|no disk space left", "its disk is full", "give the machine a bigger disk", False),
        (r"certificate has expired or is not yet valid", "its clock is wrong", "set up NTP on the hosts", False),
        (r"no such host|Temporary failure in name resolution|server misbehaving",
         "a name cannot be resolved on that host", "look at the host's name servers (resolvectl status)", False),
        (r"failed to pull image|ErrImagePull|failed to resolve reference", "an image cannot be pulled",
         "let the host reach the registry, or give it a mirror (REGISTRY_MIRRORS, K3S_FOLDER)", False),
        (r"[Rr]ead-only file system", "its disk is mounted read-only",
         "look at the kernel's log on that host (dmesg): the disk may be failing", True),
        (r"invalid kernel flag: .* expected value", "the kernel's settings are not what its kubelet wants",
         "undo what changed them on that host, or set K3S_PROTECT_KERNEL=false", True),
        (r"audit-policy-file|loading audit policy file", "the API server cannot read its audit policy",
         "run fo bootstrap again: it writes that file anew", False),
        (r"can only promote a learner member which is in sync", "its etcd is still copying the data", "", False),
        (r"i/o timeout|context deadline exceeded|no route to host", "no packet comes back from the server",
         "look for a firewall or a wrong VLAN between the machines (TCP 6443, 2379-2380)", False),
        (r"connection refused|connection reset by peer", "the server it wants to join does not answer",
         "look at the first controller and at the VIP", False),
        (r"runtime core not ready", "the server it wants to join is not ready yet", "", False),
    )
)  # fmt: skip


def find(lines: Sequence[str]) -> Cause | None:
    """The newest line that tells a cause; of one line, the most telling cause."""
    for line in reversed(lines):
        for pattern, cause in _CAUSES:
            if re.search(pattern, line):
                return cause
    return None


def fresh(lines: Sequence[str], before: Sequence[str]) -> list[str]:
    """``lines`` without those that were there ``before`` (K3s stamps its lines, so a line is hardly ever repeated)."""
    if before and before[-1] in lines:
        return list(lines[len(lines) - list(reversed(lines)).index(before[-1]) :])
    return list(lines)


def redacted(config: ClusterConfig, lines: Sequence[str]) -> tuple[str, ...]:
    """The same lines without tokens."""
    secrets = {config.k3s.token.get_secret_value(), config.k3s.agent_token.get_secret_value()}
    clean = []
    for line in lines:
        for secret in secrets:
            line = line.replace(secret, "********")
        line = re.sub(r"(K10[0-9a-f]{64}::)\S+", r"\1********", line)
        clean.append(re.sub(r"\b([a-z0-9]{6})\.[a-z0-9]{16}\b", r"\1.********", line))
    return tuple(clean)
