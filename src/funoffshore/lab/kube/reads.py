"""GET: one object, a list in pages, a watch."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from funoffshore.lab.kube import answers, refusals, scale, selection, tables
from funoffshore.lab.kube.api import ApiError, HttpResponse, Object
from funoffshore.lab.kube.kinds import Kind
from funoffshore.lab.kube.objects import Event, Stored

if TYPE_CHECKING:
    from funoffshore.lab.kube.requests import Call

_BOOKMARK = 60.0
"""Lab seconds between bookmarks."""
_END = "k8s.io/initial-events-end"


def read(call: Call) -> HttpResponse | Iterator[bytes]:
    """Raises ApiError 400, 404, 410."""
    if call.name:
        return _one(call)
    if call.query.get("watch", "") in ("true", "1"):
        return _watch(call, _test(call))
    return _list(call)


def _one(call: Call) -> HttpResponse:
    stored = call.cluster.core.need(call.kind, call.home, call.name)
    if call.sub == "log":
        return HttpResponse(200, b"", "text/plain")
    obj = call.cluster.core.served(call.kind, stored)
    if call.sub == "scale" and call.kind.scale:
        return answers.as_json(200, scale.of(obj))
    if call.sub and not (call.sub == "status" and call.kind.status):
        raise refusals.no_resource()
    if tables.wanted(call.headers):
        return answers.as_json(200, _table(call, [obj], stored.version))
    return answers.as_json(200, obj)


def _test(call: Call) -> Callable[[Object], bool]:
    tests = []
    if call.query.get("labelSelector"):
        tests.append(selection.labels(call.query["labelSelector"]))
    if call.query.get("fieldSelector"):
        tests.append(selection.fields(call.query["fieldSelector"]))
    return lambda obj: all(test(obj) for test in tests)


def selected(call: Call) -> list[Stored]:
    """What the call's namespace and selectors leave, sorted by namespace and name."""
    test = _test(call)
    return [s for s in call.cluster.core.objects.scan(call.kind.bucket, call.namespace) if test(s.body)]


def _list(call: Call) -> HttpResponse:
    objects = call.cluster.core.objects
    with objects.lock:
        version, found = objects.version, selected(call)
    start, version = _continue(call, version)
    if start is not None:
        found = [s for s in found if _key(s) > start]
    limit = _number(call.query.get("limit", "0"))
    meta: Object = {"resourceVersion": str(version)}
    if limit and len(found) > limit:
        meta["continue"] = _token(version, _key(found[limit - 1]))
        if not (call.query.get("labelSelector") or call.query.get("fieldSelector")):
            meta["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    if tables.wanted(call.headers):
        items = [call.cluster.core.served(call.kind, s) for s in found]
        return answers.as_json(200, _table(call, items, version, meta))
    head = json.dumps({"kind": f"{call.kind.name}List", "apiVersion": call.kind.api_version, "metadata": meta})
    texts = ",".join(_item(call.kind, s) for s in found)
    return HttpResponse(200, f'{head[:-1]}, "items": [{texts}]}}'.encode(), "application/json")


def _table(call: Call, items: list[Object], version: int, meta: Object | None = None, *, bare: bool = False) -> Object:
    shown = {"resourceVersion": str(version)} if meta is None else meta
    include = call.query.get("includeObject", "")
    return tables.table(call.kind, items, shown, call.cluster.kit.clock.now(), include, bare=bare)


def _text(kind: Kind, stored: Stored) -> str:
    """JSON of the object in the version asked for, without parsing it where it is kept in that version."""
    if stored.body.get("apiVersion") == kind.api_version:
        return stored.text
    return json.dumps({**stored.body, "apiVersion": kind.api_version})


def _item(kind: Kind, stored: Stored) -> str:
    """As ``_text``, in a list: of built-in kinds, the items leave out what the list says."""
    if kind.crd:
        return _text(kind, stored)
    return json.dumps({k: v for k, v in stored.body.items() if k not in ("apiVersion", "kind")})


def _key(stored: Stored) -> list[str]:
    meta = stored.body["metadata"]
    return [meta.get("namespace", ""), meta["name"]]


def _token(version: int, key: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps({"v": version, "start": key}).encode()).decode()


def _continue(call: Call, now: int) -> tuple[list[str] | None, int]:
    """Where to go on, and the version the first page was read at."""
    text = call.query.get("continue", "")
    if not text:
        return None, now
    try:
        token = json.loads(base64.urlsafe_b64decode(text))
        version, start = int(token["v"]), [str(part) for part in token["start"]]
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise refusals.bad("invalid continue token: continue key is not valid: it cannot be decoded") from None
    if version < call.cluster.core.objects.oldest:
        raise ApiError(410, "Expired", "The provided continue parameter is too old to display a consistent list "
                       "result. You can start a new list without the continue parameter.")  # fmt: skip
    return start, version


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ApiError(400, "BadRequest", f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _watch(call: Call, test: Callable[[Object], bool]) -> Iterator[bytes]:
    """Checks the query at once; the stream comes later."""
    asked = _number(call.query.get("resourceVersion", "") or "0")
    timeout = _number(call.query.get("timeoutSeconds", "") or "1800") or 1800
    lines = _stream(call, test, asked, float(timeout))
    return _tabled(call, lines) if tables.wanted(call.headers) else lines


def _tabled(call: Call, lines: Iterator[bytes]) -> Iterator[bytes]:
    """The same events with a Table of one row for each object; only the first has the titles."""
    bare = False
    for line in lines:
        event = json.loads(line)
        if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
            obj = event["object"]
            event["object"] = _table(call, [obj], int(obj["metadata"]["resourceVersion"]), bare=bare)
            bare = True
        yield json.dumps(event, separators=(",", ":")).encode() + b"\n"


def _stream(call: Call, test: Callable[[Object], bool], version: int, timeout: float) -> Iterator[bytes]:
    objects, clock = call.cluster.core.objects, call.cluster.kit.clock
    initial = call.query.get("sendInitialEvents") == "true"
    if version == 0 or initial:
        with objects.lock:
            version, found = objects.version, selected(call)
        for stored in found:
            yield _line("ADDED", _text(call.kind, stored))
        if initial:
            yield _bookmark(call, version, {_END: "true"})
    elif version < objects.oldest:
        gone = answers.failure(410, f"too old resource version: {version} ({objects.oldest})", "Expired")
        yield _line("ERROR", json.dumps(gone))
        return
    end = clock.monotonic() + timeout
    marks = call.query.get("allowWatchBookmarks") in ("true", "1")
    next_mark = clock.monotonic() + _BOOKMARK
    while not call.door.closed and (left := end - clock.monotonic()) > 0:
        for event in objects.since(version):
            version = event.version
            line = _event(call, test, event)
            if line:
                yield line
        if marks and clock.monotonic() >= next_mark:
            next_mark = clock.monotonic() + _BOOKMARK
            yield _bookmark(call, version, {})
        objects.wait(version, max(min(left, 5.0 * clock.speed) / clock.speed, 0.001))
    if marks:
        yield _bookmark(call, version, {})


def _event(call: Call, test: Callable[[Object], bool], event: Event) -> bytes | None:
    """The event as this watch sees it: an object that leaves the selection is DELETED for it."""
    if event.place[0] != call.kind.bucket or (call.namespace is not None and event.place[1] != call.namespace):
        return None
    now = event.type != "DELETED" and test(event.now.body)
    before = event.before is not None and test(event.before.body)
    if not now and not before:
        return None
    type_ = "DELETED" if not now else "MODIFIED" if before else "ADDED"
    return _line(type_, _text(call.kind, event.now))


def _bookmark(call: Call, version: int, annotations: dict[str, str]) -> bytes:
    meta: Object = {"resourceVersion": str(version), "creationTimestamp": None}
    if annotations:
        meta["annotations"] = annotations
    shown = {"kind": call.kind.name, "apiVersion": call.kind.api_version, "metadata": meta}
    return _line("BOOKMARK", json.dumps(shown))


def _line(type_: str, text: str) -> bytes:
    return f'{{"type":"{type_}","object":{text}}}\n'.encode()
