"""What there is below a path. The lists of a machine are those that a real 8.4 API gave, others what the lab plays."""

from __future__ import annotations

import re

from funoffshore import pveapi

_MACHINE = (
    "config cloudinit pending status unlink vncproxy termproxy migrate resize move rrd rrddata monitor agent snapshot "
    "spiceproxy sendkey firewall mtunnel remote_migrate"
)
_AGENT = (
    "exec exec-status file-read file-write fsfreeze-freeze fsfreeze-status fsfreeze-thaw fstrim get-fsinfo "
    "get-host-name get-memory-block-info get-memory-blocks get-osinfo get-time get-timezone get-users get-vcpus info "
    "network-get-interfaces ping set-user-password shutdown suspend-disk suspend-hybrid suspend-ram"
)
_KEYS = (
    (r"/nodes/[^/]+/qemu/\d+", "subdir", _MACHINE),
    (r"/nodes/[^/]+/qemu/\d+/agent", "name", _AGENT),
    (r"/|/access|/nodes/[^/]+/(?:qemu/\d+/status|storage/[^/]+)", "subdir", ""),
    (r"/cluster/ha", "id", ""),
    (r".*/snapshot/[^/]+", "cmd", ""),
    (r".*", "name", ""),
)


def below(release: str, path: str) -> list[dict[str, str]]:
    """The answer to a GET of a path that is no operation; empty when there is nothing below it."""
    names = pveapi.below(release, path)
    key, told = next((key, told) for pattern, key, told in _KEYS if re.fullmatch(pattern, path))
    return [{key: name} for name in (told.split() or names)] if names else []
