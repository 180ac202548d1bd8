"""The machines: VMs on Proxmox, from nothing to hosts that answer over SSH with the key they were given."""

from funoffshore.stages.machines.effects import apply
from funoffshore.stages.machines.facts import (
    Hypervisor,
    Machine,
    MachineFacts,
    Missing,
    is_running,
)
from funoffshore.stages.machines.graph import plan
from funoffshore.stages.machines.held import held
from funoffshore.stages.machines.look import observe
from funoffshore.stages.machines.preflight import problems
from funoffshore.stages.machines.preflight_advice import advice
from funoffshore.stages.machines.removal import destroy_plan, destroy_problems, left

__all__ = [
    "Hypervisor",
    "Machine",
    "MachineFacts",
    "Missing",
    "advice",
    "apply",
    "destroy_plan",
    "destroy_problems",
    "held",
    "is_running",
    "left",
    "observe",
    "plan",
    "problems",
]
