"""A machine's whole life on the lab's Proxmox, every request and every answer held against the official description.

The description is of each release; it is reference data, so these cases skip where it is not at hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pve_bench
import pytest
from pve_bench import FO, Answer, Bench
from test_lab_pve_machines import NODE

from funoffshore import pveapi

OFFICIAL = {"8.4": "pve-8.4.0.json", "9.1": "pve-9.1.3.json"}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str, int, float),  # Perl's JSON writes numbers as it likes
    "integer": (int, str),
    "number": (int, float, str),
    "boolean": (bool, int, str),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def wrong(data: Any, schema: dict[str, Any], where: str) -> list[str]:
    """What an answer has that its description forbids."""
    kind = schema.get("type", "any")
    if kind in ("any",) or data is None:
        return []
    if not isinstance(data, _TYPES[kind]):
        return [f"{where}: {type(data).__name__} is no {kind}"]
    found = []
    if schema.get("enum") and data not in schema["enum"]:
        found.append(f"{where}: {data!r} is not one of {schema['enum']}")
    if kind in ("integer", "number") and isinstance(data, str):
        try:
            float(data)
        except ValueError:
            found.append(f"{where}: {data!r} is no {kind}")
    if kind == "array":
        for number, item in enumerate(data):
            found += wrong(item, schema.get("items") or {}, f"{where}[{number}]")
    if kind == "object":
        known = schema.get("properties") or {}
        for name, value in data.items():
            found += wrong(value, known.get(name, {}), f"{where}.{name}")
    return found


class Checked:
    """A client that looks every request and answer up."""

    def __init__(self, bench: Bench, paths: dict[str, Any]) -> None:
        self._bench, self._paths = bench, paths
        self.found: list[str] = []
        self.seen: set[str] = set()

    def __call__(self, method: str, path: str, /, token: str = FO, **parameters: Any) -> Answer:
        answer = self._bench.call(method, path, token, **parameters)
        assert answer.status == 200, (method, path, answer.body)
        operation, in_path = pveapi.find(self._bench.release, method, path)
        official = self._paths[operation.path][method]
        unknown = {name.replace("_", "-") for name in parameters} | set(in_path)
        unknown -= {"description"}  # the reference data leaves out all that is so called
        unknown -= {known.split("[")[0] for known in official["parameters"]}
        unknown = {name for name in unknown if f"{name.rstrip('0123456789')}[n]" not in official["parameters"]}
        self.found += [f"{method} {operation.path}: no parameter {name}" for name in sorted(unknown)]
        self.found += wrong(answer.data, official.get("returns") or {}, f"{method} {operation.path}")
        self.seen.add(f"{method} {operation.path}")
        return answer

    def task(self, method: str, path: str, /, **parameters: Any) -> None:
        upid = self(method, path, **parameters).data
        assert self._bench.wait(upid) == "OK", self._bench.log(upid)
        for rest in ("status", "log"):
            self("GET", f"/nodes/pve/tasks/{upid}/{rest}")


@pytest.fixture(params=sorted(OFFICIAL))
def checked(request: pytest.FixtureRequest, tmp_path: Path, shared: Path) -> Iterator[Checked]:
    description = json.loads((shared / "pve-api" / OFFICIAL[request.param]).read_text())
    with pve_bench.bench(tmp_path, release=request.param) as made:
        yield Checked(made, description["paths"])


def test_a_machines_life_is_as_described(checked: Checked) -> None:
    vm = "/nodes/pve/qemu/120"
    for path in (
        "/version",
        "/cluster/resources",
        "/nodes",
        "/nodes/pve/status",
        "/nodes/pve/storage",
        "/access/permissions",
    ):
        checked("GET", path)
    checked("GET", "/nodes/pve/storage/local/content", content="import")
    checked("GET", "/nodes/pve/storage/local/status")
    checked("POST", "/pools", poolid="fo")
    checked.task("POST", "/nodes/pve/qemu", vmid=120, pool="fo", **NODE)
    for path in ("config", "pending", "status/current"):
        checked("GET", f"{vm}/{path}")
    checked("PUT", f"{vm}/config", description="changed")
    checked.task("PUT", f"{vm}/resize", disk="scsi0", size="2G")
    checked.task("POST", f"{vm}/status/start")
    checked("GET", f"{vm}/status/current")
    checked._bench.guests.talking.add(120)
    checked("GET", f"{vm}/agent/network-get-interfaces")
    checked.task("POST", f"{vm}/status/reset")
    checked.task("POST", f"{vm}/status/stop")
    checked("GET", "/nodes/pve/qemu")
    checked("GET", "/nodes/pve/tasks")
    checked("GET", "/pools", poolid="fo")
    checked.task("DELETE", vm, purge=1)
    checked("DELETE", "/pools", poolid="fo")
    assert len(checked.seen) > 20
    assert checked.found == []
