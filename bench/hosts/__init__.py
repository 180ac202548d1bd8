"""Real Debian machines in namespaces, and the driver through which the lab's Proxmox makes them."""
