"""The machines: VMs on Proxmox, from nothing to hosts that answer over SSH with the key they were given."""

from funoffshore.stages.machines.effects import apply
from funoffshore.stages.machines.facts import (
    NONE,
    Hypervisor,
    Machine,
    MachineFacts,
    Missing,
    Permits,
    is_running,
)
from funoffshore.stages.machines.graph import plan
from funoffshore.stages.machines.held import Held, held
from funoffshore.stages.machines.look import observe
from funoffshore.stages.machines.preflight import problems
from funoffshore.stages.machines.preflight_advice import advice
from funoffshore.stages.machines.removal import destroy_plan, destroy_problems, left

__all__ = [
    "NONE",
    "Held",
    "Hypervisor",
    "Machine",
    "MachineFacts",
    "Missing",
    "Permits",
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
