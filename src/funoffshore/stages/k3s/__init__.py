"""K3s on the hosts: servers with embedded etcd one after another, agents side by side, the VIP, the kubeconfig."""

from funoffshore.stages.k3s.facts import K3sFacts, NodeFact, Role, cluster_exists, role_of
from funoffshore.stages.k3s.graph import plan
from funoffshore.stages.k3s.leave import plan as leave_plan
from funoffshore.stages.k3s.leave import problems as leave_problems
from funoffshore.stages.k3s.look import observe
from funoffshore.stages.k3s.work import apply

__all__ = [
    "K3sFacts",
    "NodeFact",
    "Role",
    "apply",
    "cluster_exists",
    "leave_plan",
    "leave_problems",
    "observe",
    "plan",
    "role_of",
]
