"""funoffshore: from a Proxmox host to a proven homelab, and only then to the incubator."""

__version__ = "0.1.0"
