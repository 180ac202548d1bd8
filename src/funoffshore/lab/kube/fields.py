"""Who manages which field: server-side apply, ``metadata.managedFields`` and its conflicts.

As in Kubernetes' "Server-Side Apply" reference and sigs.k8s.io/structured-merge-diff: a field is owned by the
managers that set it; applying other values than another manager's is a conflict, unless forced; fields that a
manager stops applying are removed when nobody else owns them.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

from funoffshore.lab.kube.api import ApiError, Object
from funoffshore.lab.kube.shapes import SET, Shape

Path = tuple[str, ...]
"""``("f:spec", "f:containers", 'k:{"name":"a"}', "f:image")``."""
_UNMANAGED = {"name", "namespace", "uid", "creationTimestamp", "generation", "managedFields", "resourceVersion",
              "selfLink", "generateName", "deletionTimestamp", "deletionGracePeriodSeconds"}  # fmt: skip
_ITEM = object()
"""Value of a keyed item itself: never equal or unequal, only there."""


class ConflictError(ApiError):
    """An apply that would take fields from other managers. ``causes`` as in metav1.StatusDetails."""

    def __init__(self, causes: list[dict[str, str]]) -> None:
        who = sorted({cause["message"] for cause in causes})
        if len(causes) == 1:
            text = f"Apply failed with 1 conflict: {who[0]}: {causes[0]['field']}"
        else:
            blocks = [
                w.replace("conflict with", "conflicts with", 1)
                + ":\n"
                + "\n".join(f"- {c['field']}" for c in causes if c["message"] == w)
                for w in who
            ]
            text = f"Apply failed with {len(causes)} conflicts: " + "\n".join(blocks)
        super().__init__(409, "Conflict", text, {"causes": causes})
        self.causes = causes


@dataclass(slots=True)
class Entry:
    """One item of ``managedFields``, opened up."""

    manager: str
    operation: str
    """Apply or Update."""
    api_version: str
    subresource: str
    time: str
    paths: set[Path]

    @property
    def who(self) -> tuple[str, str, str]:
        return self.manager, self.operation, self.subresource


def flatten(obj: Object, shape: Shape) -> dict[Path, Any]:
    """Every managed leaf of ``obj`` with its value."""
    found: dict[Path, Any] = {}
    for key, value in obj.items():
        if key in ("apiVersion", "kind"):
            continue
        if key == "metadata" and isinstance(value, dict):
            value = {k: v for k, v in value.items() if k not in _UNMANAGED}
            if not value:
                continue
        _flatten(value, shape.child(key), (f"f:{key}",), found)
    return found


def _flatten(value: Any, shape: Shape, path: Path, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and value and not shape.whole():
        for key, inner in value.items():
            _flatten(inner, shape.child(key), (*path, f"f:{key}"), found)
        return
    items = shape.keyed(value) if isinstance(value, list) and value else None
    if items is None:
        found[path] = value
        return
    for key, item in items.items():
        found[(*path, key)] = _ITEM
        if isinstance(item, dict):
            for name, inner in item.items():
                _flatten(inner, shape.item().child(name), (*path, key, f"f:{name}"), found)


def holders(obj: Object, shape: Shape) -> set[Path]:
    """Every mapping and keyed list of ``obj``, empty ones and nulls included."""
    found: set[Path] = set()

    def walk(value: Any, place: Shape, path: Path) -> None:
        items = place.keyed(value) if isinstance(value, list) else None
        if value is None or items is not None or (isinstance(value, dict) and not place.whole()):
            found.add(path)
        if isinstance(value, dict) and not place.whole():
            for key, inner in value.items():
                walk(inner, place.child(key), (*path, f"f:{key}"))
        for key, item in (items or {}).items():
            for name, inner in item.items() if isinstance(item, dict) else ():
                walk(inner, place.item().child(name), (*path, key, f"f:{name}"))

    for key, value in obj.items():
        if key not in ("apiVersion", "kind"):
            walk(value, shape.child(key), (f"f:{key}",))
    return found


def encode(paths: set[Path]) -> Object:
    """FieldsV1 of ``paths``."""
    root: Object = {}
    for path in sorted(paths):
        node = root
        for part in path:
            node = node.setdefault(part, {})
    for path in paths:
        node = root
        for part in path:
            node = node[part]
        if node:
            node["."] = {}
    return root


def decode(fields: Any) -> set[Path]:
    """The paths of a FieldsV1; unreadable parts are left out."""
    found: set[Path] = set()

    def walk(node: Any, path: Path) -> None:
        if not isinstance(node, dict) or not node:
            if path:
                found.add(path)
            return
        for part, inner in node.items():
            if part == ".":
                found.add(path)
            else:
                walk(inner, (*path, str(part)))

    walk(fields, ())
    return found


def read(obj: Object) -> list[Entry]:
    """The managers of ``obj``."""
    entries = []
    for raw in obj.get("metadata", {}).get("managedFields") or []:
        if isinstance(raw, dict) and raw.get("manager"):
            entries.append(
                Entry(str(raw["manager"]), str(raw.get("operation", "Update")), str(raw.get("apiVersion", "")),
                      str(raw.get("subresource", "")), str(raw.get("time", "")), decode(raw.get("fieldsV1")))
            )  # fmt: skip
    return entries


def write(obj: Object, entries: list[Entry]) -> None:
    """Puts ``entries`` into ``obj``; those that own nothing are dropped."""
    raw = []
    for entry in sorted((e for e in entries if e.paths), key=lambda e: (e.operation, e.time, e.manager, e.subresource)):
        item: Object = {
            "manager": entry.manager, "operation": entry.operation, "apiVersion": entry.api_version,
            "time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": encode(entry.paths),
        }  # fmt: skip
        if entry.subresource:
            item["subresource"] = entry.subresource
        raw.append(item)
    if raw:
        obj["metadata"]["managedFields"] = raw
    else:
        obj["metadata"].pop("managedFields", None)


def spell(path: Path) -> str:
    """``.spec.template.spec.containers[name="a"].image``."""
    text = ""
    for part in path:
        sort, _, rest = part.partition(":")
        if sort == "f":
            text += f".{rest}"
        elif sort == "k":
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(rest).items()) + "]"
        else:
            text += f"[={rest}]"
    return text


def apply(live: Object, config: Object, shape: Shape, mine: Entry, *, force: bool, over: str = "") -> Object:
    """``live`` after ``mine.manager`` applied ``config`` (both without what the subresource excludes).

    ``mine`` says who and when; its paths are filled in here. Raises ConflictError unless ``force``; the fields of
    manager ``over`` are nobody's.
    """
    wanted = flatten(config, shape)
    current = flatten(live, shape)
    entries = read(live)
    before = next((e.paths for e in entries if e.who == mine.who), set())
    others = [e for e in entries if e.who != mine.who]
    causes = _conflicts(wanted, current, [e for e in others if e.manager != over])
    if causes and not force:
        raise ConflictError(causes)
    taken = {p for p, v in wanted.items() if v is not _ITEM and (p not in current or current[p] != v)}
    for entry in others:
        entry.paths -= taken
    owned = set().union(*(e.paths for e in others)) if others else set()
    mine.paths = set(wanted)
    result: Object = combine(live, config, shape)
    gone = before - mine.paths
    if gone:
        # What holds an owned place stays: an item with its keys, a mapping that was applied empty before.
        held = {p[:n] for p in mine.paths | owned for n in range(1, len(p) + 1)}
        result = _prune(result, shape, gone - held, frozenset(held))
    write(result, [*others, mine])
    return result


def _conflicts(wanted: dict[Path, Any], current: dict[Path, Any], others: list[Entry]) -> list[dict[str, str]]:
    causes = []
    for entry in others:
        using = f" using {entry.api_version}" if entry.operation == "Update" else ""
        sub = f' with subresource "{entry.subresource}"' if entry.subresource else ""
        for path in sorted(entry.paths & wanted.keys()):
            value = wanted[path]
            if value is not _ITEM and path in current and current[path] != value:
                message = f'conflict with "{entry.manager}"{sub}{using}'
                causes.append({"reason": "FieldManagerConflict", "message": message, "field": spell(path)})
    return causes


def combine(live: Any, config: Any, shape: Shape) -> Any:
    """``config`` laid over ``live``: mappings and keyed lists merge, all else is replaced."""
    if isinstance(live, dict) and isinstance(config, dict) and not shape.whole():
        result = dict(live)
        for key, value in config.items():
            result[key] = combine(live[key], value, shape.child(key)) if key in live else copy.deepcopy(value)
        return result
    if isinstance(live, list) and isinstance(config, list):
        old, new = shape.keyed(live), shape.keyed(config)
        if old is not None and new is not None:
            return _combine_items(old, new, shape)
    return copy.deepcopy(config)


def _combine_items(old: dict[str, Any], new: dict[str, Any], shape: Shape) -> list[Any]:
    if shape.keys() == SET:
        return [*old.values(), *(v for k, v in new.items() if k not in old)]
    first = [combine(old[k], v, shape.item()) if k in old else copy.deepcopy(v) for k, v in new.items()]
    return [*first, *(v for k, v in old.items() if k not in new)]


def _prune(value: Any, shape: Shape, gone: set[Path], kept: frozenset[Path], path: Path = ()) -> Any:
    """``value`` without the places in ``gone``; containers that become empty go too, unless ``kept``."""
    if isinstance(value, dict) and not shape.whole():
        result = {}
        for key, inner in value.items():
            place = (*path, f"f:{key}")
            if place in gone:
                continue
            fresh = _prune(inner, shape.child(key), gone, kept, place)
            if fresh or fresh == inner or place in kept:
                result[key] = fresh
        return result
    items = shape.keyed(value) if isinstance(value, list) else None
    if items is None:
        return value
    return [
        _prune(item, shape.item(), gone, kept, (*path, key)) for key, item in items.items() if (*path, key) not in gone
    ]


def note_update(before: Object, after: Object, shape: Shape, mine: Entry, without_status: bool = False) -> None:
    """Records in ``after`` that ``mine.manager`` changed what differs from ``before`` (create, update, patch).

    ``without_status``: the status is not this request's to set, whatever is in it.
    """
    old, new = flatten(before, shape), flatten(after, shape)
    there, here = holders(before, shape), holders(after, shape)
    changed = {p for p, v in new.items() if p not in old or (v is not _ITEM and old[p] != v)}
    changed |= {p for p in here - there if p not in old and not (p[0] == "f:metadata" and p[-1][2:] in _UNMANAGED)}
    if without_status:
        changed = {p for p in changed if p[0] != "f:status"}
    entries = read(before)
    own = next((e for e in entries if e.who == mine.who), None)
    for entry in entries:
        entry.paths = {p for p in entry.paths if p in new or p in here}
        if entry is not own:
            entry.paths -= {p for p in changed if p in new and new[p] is not _ITEM}
    if own is None:
        entries.append(mine)
        mine.paths = changed
    else:
        own.paths |= changed
        if changed:
            own.time, own.api_version = mine.time, mine.api_version
    write(after, entries)
