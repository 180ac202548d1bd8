"""The door to a cluster's Kubernetes API."""

from funoffshore.world.kube.door import Kube, Object

__all__ = ["Kube", "Object"]
