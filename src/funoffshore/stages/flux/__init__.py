"""Flux: its controllers, what it needs from the env file, its source, and that it runs the commit that Git holds."""

from funoffshore.stages.flux.facts import FluxFacts
from funoffshore.stages.flux.graph import plan, problems
from funoffshore.stages.flux.look import observe
from funoffshore.stages.flux.work import apply

__all__ = ["FluxFacts", "apply", "observe", "plan", "problems"]
