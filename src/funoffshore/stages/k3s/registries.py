"""registries.yaml: where containerd fetches images from, instead of or before their own registries. Pure.

Format: K3s documentation, "Private Registry Configuration" and "Embedded Registry Mirror".
"""

from __future__ import annotations

import yaml

from funoffshore.config import ClusterConfig

PATH = "/etc/rancher/k3s/registries.yaml"


def wanted(config: ClusterConfig) -> str:
    """The file's text; empty when there is nothing to say."""
    mirrors: dict[str, dict[str, list[str]]] = {}
    for registry, url in config.k3s.mirrors:
        mirrors.setdefault(registry, {"endpoint": []})["endpoint"].append(url)
    if config.k3s.embedded_registry:
        mirrors.setdefault("*", {})
    if not mirrors:
        return ""
    return "# Written by fo.\n" + yaml.safe_dump({"mirrors": mirrors}, sort_keys=False)
