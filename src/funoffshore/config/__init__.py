"""One env file in, one frozen ClusterConfig out, or one error that names every problem."""

from funoffshore.config.loader import load, parse
from funoffshore.config.model import (
    S3,
    Backup,
    ClusterConfig,
    Flux,
    Git,
    Image,
    Jump,
    K3s,
    Lab,
    Network,
    Node,
    Proxmox,
    Role,
    Shape,
    Snapshots,
    Ssh,
    identity,
)
from funoffshore.config.place import clusters, env_file, find, root

__all__ = [
    "S3",
    "Backup",
    "ClusterConfig",
    "Flux",
    "Git",
    "Image",
    "Jump",
    "K3s",
    "Lab",
    "Network",
    "Node",
    "Proxmox",
    "Role",
    "Shape",
    "Snapshots",
    "Ssh",
    "clusters",
    "env_file",
    "find",
    "identity",
    "load",
    "parse",
    "root",
]
