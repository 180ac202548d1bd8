"""Flux inside the lab: its install manifest, and controllers that act while their Deployments are available."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funoffshore.lab.flux.controllers import Flux

__all__ = ["Flux"]


def __getattr__(name: str) -> Any:
    # the manifest's digest is wanted by fo init, which must not pay for the controllers
    if name == "Flux":
        from funoffshore.lab.flux.controllers import Flux

        return Flux
    raise AttributeError(name)
