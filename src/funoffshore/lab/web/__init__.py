"""The lab's web server: what a real homelab downloads from the internet, and the Git repository Flux follows."""

from __future__ import annotations

from funoffshore.lab.web.server import Web

__all__ = ["Web"]
