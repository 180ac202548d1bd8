"""The lab's K3s: a program whose servers and agents behave as the real one's were seen to.

Fidelity: versions, exit codes, files and modes, tokens, endpoints, join rules and log lines follow a recorded run of
K3s (a main snapshot between v1.36.3 and v1.37). There are no containers behind it; the objects are real enough for
the official client.
"""

from __future__ import annotations

from funoffshore.lab.k3s.executable import binary, digest
from funoffshore.lab.k3s.service import K3s

__all__ = ["K3s", "binary", "digest"]
