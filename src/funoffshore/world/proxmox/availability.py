"""High availability and the datacenter's firewall switch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from funoffshore.world.proxmox import answers
from funoffshore.world.proxmox.base import Base

_RESOURCES = "/cluster/ha/resources"


class Availability(Base):
    """HA resources, the groups that 8.x has and the rules that 9.x has. Every write is done when it returns."""

    def ha_resources(self) -> frozenset[int]:
        """VMIDs of the VMs that are HA resources."""
        return self._door.read(
            lambda rows: frozenset(
                int(ident) for kind, _, ident in (str(row["sid"]).partition(":") for row in rows) if kind == "vm"
            ),
            _RESOURCES,
        )

    def add_ha_resource(self, vmid: int, body: Mapping[str, Any]) -> None:
        self._door.post(_RESOURCES, {"sid": f"vm:{vmid}", **body})

    def change_ha_resource(self, vmid: int, body: Mapping[str, Any]) -> None:
        self._door.put(f"{_RESOURCES}/vm:{vmid}", body)

    def remove_ha_resource(self, vmid: int) -> None:
        self._door.delete(f"{_RESOURCES}/vm:{vmid}")

    def ha_rules(self) -> dict[str, dict[str, str]]:
        """Rule → its settings as texts. Proxmox has rules since 9.0."""
        return self._door.read(answers.keyed("rule"), "/cluster/ha/rules")

    def create_ha_rule(self, body: Mapping[str, Any]) -> None:
        self._door.post("/cluster/ha/rules", body)

    def change_ha_rule(self, name: str, body: Mapping[str, Any]) -> None:
        self._door.put(f"/cluster/ha/rules/{name}", body)

    def delete_ha_rule(self, name: str) -> None:
        self._door.delete(f"/cluster/ha/rules/{name}")

    def ha_groups(self) -> dict[str, dict[str, str]]:
        """Group → its settings as texts. Proxmox has groups up to 8.4; rules replace them."""
        return self._door.read(answers.keyed("group"), "/cluster/ha/groups")

    def create_ha_group(self, body: Mapping[str, Any]) -> None:
        self._door.post("/cluster/ha/groups", body)

    def change_ha_group(self, name: str, body: Mapping[str, Any]) -> None:
        self._door.put(f"/cluster/ha/groups/{name}", body)

    def delete_ha_group(self, name: str) -> None:
        self._door.delete(f"/cluster/ha/groups/{name}")

    def firewall_enabled(self) -> bool:
        """Whether the datacenter's firewall is on; without it no VM's rules are in force."""
        return self._door.read(lambda answer: bool(int(answer.get("enable") or 0)), "/cluster/firewall/options")
