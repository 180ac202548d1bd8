"""K3s on the hosts, and its whole life: servers with embedded etcd one after another, agents side by side, the VIP,
the kubeconfig; changes, upgrades, nodes that go."""

from funoffshore.stages.k3s.admin import fetch
from funoffshore.stages.k3s.facts import K3sFacts, NodeFact, Role, cluster_exists, role_of
from funoffshore.stages.k3s.graph import held, plan, problems
from funoffshore.stages.k3s.leave import destroy_plan, former, leaving_hosts
from funoffshore.stages.k3s.look import look_of, observe, running
from funoffshore.stages.k3s.unfinished import begun
from funoffshore.stages.k3s.upgrade import refusal as upgrade_refusal
from funoffshore.stages.k3s.work import apply

__all__ = [
    "K3sFacts",
    "NodeFact",
    "Role",
    "apply",
    "begun",
    "cluster_exists",
    "destroy_plan",
    "fetch",
    "former",
    "held",
    "leaving_hosts",
    "look_of",
    "observe",
    "plan",
    "problems",
    "role_of",
    "running",
    "upgrade_refusal",
]
