"""The shape of the table: what a parameter and an operation of the Proxmox VE API are. Plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

RELEASES: tuple[str, ...] = ("8.0", "8.4", "9.1")
"""The releases whose API the table knows, oldest first."""

Tree: TypeAlias = tuple[object, ...]
"""A permission check: ``("perm", path, [privilege, …])``, with ``"any"`` behind it when one is enough, or
``("and", tree, …)``, ``("or", tree, …)``; ``()`` means every authenticated user. Paths hold ``{parameter}``."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, or one key inside a property string."""

    type: str = "string"
    """``string``, ``integer``, ``number``, ``boolean`` or ``array``."""
    optional: bool = True
    minimum: float | None = None
    maximum: float | None = None
    max_length: int | None = None
    pattern: str = ""
    """Must match the whole value; empty when there is none."""
    enum: tuple[str, ...] = ()
    format: str = ""
    """Name of a format that Proxmox registers (``pve-vmid``); what it means is in ``formats``."""
    parts: Mapping[str, Parameter] | None = None
    """Keys of the property string, where the value is one that Proxmox describes inline."""
    requires: str = ""
    """Another parameter that must then be given too."""
    default_key: bool = False
    """In a property string: a value without key belongs to this one."""
    alias: str = ""
    """In a property string: another name for that key."""
    key_alias: str = ""
    """In a property string: the key that takes this key's name as its value (``virtio=<mac>`` sets ``model``)."""
    count: int = 0
    """For names that end in ``[n]``: how many there are, counted from 0."""
    since: str = ""
    """First release that has it; empty when every release of the table does."""
    until: str = ""
    """Last release that has it; empty when it was never removed."""

    def exists(self, release: str) -> bool:
        """Whether ``release`` has this parameter."""
        return self.since <= release and (not self.until or release <= self.until)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path."""

    method: str
    path: str
    """Template, ``/nodes/{node}/qemu/{vmid}``; ``{volume}`` at the end also swallows slashes."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    """Path parameters included."""
    returns: str = "object"
    """``object``, ``array``, ``string``, ``integer`` or ``null``; a write's ``string`` is a UPID or a volume."""
    allowed: Tree = ()
    protected: bool = False
    """Handed to the privileged daemon, as all writes are."""

    def parameter(self, name: str) -> Parameter | None:
        """The parameter called ``name``, ``scsi7`` being the 7th of ``scsi[n]``; None when there is none."""
        found = self.parameters.get(name)
        if found is not None:
            return None if found.count else found
        indexed = _INDEXED.match(name)
        if indexed is None:
            return None
        found = self.parameters.get(f"{indexed[1]}[n]")
        return found if found is not None and int(indexed[2]) < found.count else None


_INDEXED = re.compile(r"([a-z]+)(0|[1-9][0-9]{0,2})\Z")
