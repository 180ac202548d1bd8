"""One env file in, one frozen ClusterConfig out, or one error that names every problem."""

from funoffshore.config.model import (
    ClusterConfig,
    Flux,
    Git,
    Image,
    K3s,
    Lab,
    Network,
    Node,
    Proxmox,
    Role,
    Ssh,
    identity,
)

__all__ = [
    "ClusterConfig",
    "Flux",
    "Git",
    "Image",
    "K3s",
    "Lab",
    "Network",
    "Node",
    "Proxmox",
    "Role",
    "Ssh",
    "identity",
]
