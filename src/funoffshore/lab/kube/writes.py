"""POST, PUT, PATCH and DELETE on objects."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml

from funoffshore.lab.kube import answers, patches, protobuf, reads, refusals, scale, shapes
from funoffshore.lab.kube.api import ApiError, HttpResponse, Object

if TYPE_CHECKING:
    from funoffshore.lab.kube.requests import Call, Raw


def write(call: Call) -> HttpResponse:
    """Raises ApiError 400, 403, 404, 405, 409, 415, 422."""
    if call.method == "POST":
        return _post(call)
    if call.method == "PUT":
        return _put(call)
    if call.method == "PATCH":
        return _patch(call)
    if call.method == "DELETE":
        return _delete(call) if call.name else _delete_all(call)
    raise refusals.no_method()


_REVIEWS = {
    "authorization.k8s.io/selfsubjectaccessreviews": "SelfSubjectAccessReview",
    "authentication.k8s.io/selfsubjectreviews": "SelfSubjectReview",
}


def review(group: str, version: str, parts: list[str], raw: Raw, peer: str) -> Object | None:
    """Reviews are answered and never kept: everyone who is let in may do everything."""
    known = _REVIEWS.get(f"{group}/{parts[-1]}")
    if known is None or raw.method != "POST":
        return None
    asked = parse(raw.body, raw.headers.get("content-type", "application/json"))
    status: Object = {"allowed": True}
    if known == "SelfSubjectReview":
        status = {"userInfo": {"username": peer, "groups": ["system:masters", "system:authenticated"]}}
    return {"spec": {}, **asked, "kind": known, "apiVersion": f"{group}/{version}", "status": status}


def parse(body: bytes, content_type: str) -> Object:
    """A JSON, YAML or protobuf object. Raises ApiError 400, 415."""
    if protobuf.MEDIA in content_type:
        return protobuf.read(body)
    found = _parse_any(body, content_type)
    if not isinstance(found, dict):
        raise refusals.bad("the request body is not an object")
    return found


def _parse_any(body: bytes, content_type: str) -> Any:
    try:
        text = body.decode()
        if "yaml" in content_type and not text.lstrip().startswith("{"):
            return json.loads(json.dumps(yaml.safe_load(text), default=str))
        return json.loads(text)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as why:
        raise _BodyError(_told(why)) from None


def _told(why: Exception) -> str:
    """The parser's complaint, without the body, which may hold secrets."""
    if isinstance(why, json.JSONDecodeError):
        return "unexpected end of JSON input" if why.pos >= len(why.doc) else f"invalid character at offset {why.pos}"
    return type(why).__name__ if not isinstance(why, yaml.MarkedYAMLError) else f"yaml: {why.problem}"


class _BodyError(ApiError):
    """A body that is neither JSON nor YAML."""

    def __init__(self, why: str) -> None:
        super().__init__(400, "BadRequest", f"the request body cannot be decoded: {why}")
        self.why = why


_ACCEPTED = ("application/json", "application/yaml", protobuf.MEDIA)


def _body(call: Call) -> Object:
    """The object in the body, which must be of the path's kind and namespace."""
    sort = call.headers.get("content-type", "").partition(";")[0].strip()
    if sort not in (*_ACCEPTED, ""):
        raise refusals.media(*_ACCEPTED)
    try:
        obj = parse(call.body, sort)
    except _BodyError as broken:
        raise refusals.bad(f"the object provided is unrecognized (must be of type {call.kind.name}): couldn't get "
                           f"version/kind; json parse error: {broken.why}") from None  # fmt: skip
    obj.setdefault("apiVersion", call.kind.api_version)
    obj.setdefault("kind", call.kind.name)
    if (obj["apiVersion"], obj["kind"]) != (call.kind.api_version, call.kind.name):
        version = str(obj["apiVersion"]).rpartition("/")[2]
        raise refusals.bad(f'{obj["kind"]} in version "{version}" cannot be handled as a {call.kind.name}: converting '
                           f"({version}.{obj['kind']}) to ({call.kind.name}) failed")  # fmt: skip
    meta = obj.get("metadata")
    if meta is None or isinstance(meta, dict):
        _check_namespace(call, obj.setdefault("metadata", {}))
    return obj


def _check_namespace(call: Call, meta: Object) -> None:
    if call.namespace is not None and (meta.get("namespace") or call.namespace) != call.namespace:
        raise refusals.bad("the namespace of the provided object does not match the namespace sent on the request")
    if call.namespace is not None:
        meta["namespace"] = call.namespace


def _post(call: Call) -> HttpResponse:
    core = call.cluster.core
    if call.sub == "eviction" and call.kind.key == "v1/Pod":
        core.delete(call.kind, call.home, call.name, dry=call.dry)
        return answers.as_json(201, {"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201})
    if call.sub == "token" and call.kind.key == "v1/ServiceAccount":
        core.need(call.kind, call.home, call.name)
        status = {"token": uuid.uuid4().hex, "expirationTimestamp": core.stamp()}
        return answers.as_json(
            201, {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "status": status}
        )
    if call.name or (call.kind.namespaced and call.namespace is None):
        raise refusals.no_method()
    return answers.as_json(201, core.create(call.kind, _body(call), call.manager, dry=call.dry, rule=call.rule))


def _put(call: Call) -> HttpResponse:
    core = call.cluster.core
    if not call.name:
        raise refusals.no_method()
    if call.sub == "scale" and call.kind.scale:
        wanted = parse(call.body, call.headers.get("content-type", ""))
        return _scaled(call, lambda current: wanted)
    obj = _body(call)
    if (given := obj["metadata"].get("name") if isinstance(obj.get("metadata"), dict) else "") not in (
        None,
        "",
        call.name,
    ):
        raise refusals.bad(f"the name of the object ({given}) does not match the name on the URL ({call.name})")
    if call.sub == "finalize" and call.kind.key == "v1/Namespace":
        spec = obj.get("spec") or {}
        stored = core.change(call.kind, "", call.name, lambda o: o.update(spec=spec))
        return answers.as_json(200, stored or obj)
    _check_sub(call)
    fresh = core.update(call.kind, call.home, call.name, obj, call.manager, sub=call.sub, dry=call.dry, rule=call.rule)
    return answers.as_json(200, fresh)


def _scaled(call: Call, change: Callable[[Object], Object]) -> HttpResponse:
    fresh = call.cluster.core.patch(
        call.kind, call.home, call.name, lambda o: scale.put(o, change(scale.of(o))), call.manager, dry=call.dry
    )
    return answers.as_json(200, scale.of(fresh))


def _check_sub(call: Call) -> None:
    if call.sub and not (call.sub == "status" and call.kind.status):
        raise refusals.no_resource()


def _patch(call: Call) -> HttpResponse:
    core = call.cluster.core
    if not call.name:
        raise refusals.no_method()
    sort = call.headers.get("content-type", "").partition(";")[0].strip()
    if sort == "application/apply-patch+yaml":
        return _apply(call)
    if sort not in _PATCHES:
        raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    if sort == _STRATEGIC and call.kind.crd:
        raise refusals.media(*(p for p in _PATCHES if p != _STRATEGIC), "application/apply-patch+yaml")
    core.need(call.kind, call.home, call.name)
    patch = _patch_of(call, sort)
    change = _change(call, sort, patch)
    if call.sub == "scale" and call.kind.scale:
        return _scaled(call, change)
    _check_sub(call)
    quoted = patches.go_text(patch) if sort == _STRATEGIC else None
    fresh = core.patch(
        call.kind, call.home, call.name, change, call.manager, sub=call.sub, dry=call.dry, rule=call.rule, quoted=quoted
    )
    return answers.as_json(200, fresh)


_STRATEGIC = "application/strategic-merge-patch+json"
_PATCHES = ("application/json-patch+json", "application/merge-patch+json", _STRATEGIC)


def _patch_of(call: Call, sort: str) -> Any:
    try:
        patch = _parse_any(call.body, sort)
    except _BodyError as broken:
        raise refusals.bad(f"error decoding patch: {broken.why}") from None
    if not isinstance(patch, list if "json-patch" in sort else dict):
        what = "array" if isinstance(patch, list) else "object" if isinstance(patch, dict) else "value"
        into = "jsonpatch.Patch" if "json-patch" in sort else "map[string]interface {}"
        raise refusals.bad(f"error decoding patch: json: cannot unmarshal {what} into Go value of type {into}")
    return patch


def _change(call: Call, sort: str, patch: Any) -> Callable[[Object], Object]:
    if sort == "application/json-patch+json":
        return lambda obj: patches.json_patch(obj, patch)
    if sort == _STRATEGIC:
        return lambda obj: _object(patches.strategic(obj, patch, shapes.of(call.kind)))
    return lambda obj: _object(patches.merge(obj, patch))


def _object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise refusals.bad("the patched document is not an object")
    return value


def _apply(call: Call) -> HttpResponse:
    if not call.query.get("fieldManager"):
        raise refusals.option("PatchOptions", "fieldManager", "Required value: is required for apply patch", "Required")
    _check_sub(call)
    try:
        obj = _parse_any(call.body, "application/yaml") if call.body.strip() else {}
    except _BodyError as broken:
        raise refusals.bad(f"error decoding YAML: error converting YAML to JSON: {broken.why}") from None
    if not isinstance(obj, dict):
        raise refusals.bad("error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
                           "array into Go value of type map[string]interface {}")  # fmt: skip
    if (obj.get("apiVersion"), obj.get("kind")) != (call.kind.api_version, call.kind.name):
        api_version = str(obj.get("apiVersion") or "/")
        given = api_version if "/" in api_version else f"/{api_version}"
        raise refusals.bad(f"invalid object type: {given}, Kind={obj.get('kind') or ''}")
    meta = obj.get("metadata") if isinstance(obj.get("metadata"), dict) else {}
    if meta and (meta.get("name") or call.name) != call.name:
        raise refusals.bad(f"the name of the object ({meta['name']}) does not match the name on the URL ({call.name})")
    if meta and call.kind.namespaced and (meta.get("namespace") or call.home) != call.home:
        raise refusals.bad("the namespace of the provided object does not match the namespace sent on the request")
    core = call.cluster.core
    existed = core.find(call.kind, call.home, call.name) is not None
    force = call.query.get("force", "") in ("true", "1")
    fresh = core.apply(call.kind, call.home, call.name, obj, call.manager, force=force, sub=call.sub, dry=call.dry)
    return answers.as_json(200 if existed else 201, fresh)


def _options(call: Call) -> tuple[str, Object, bool]:
    """Propagation policy, preconditions, dry run."""
    sort = call.headers.get("content-type", "")
    options = parse(call.body, sort) if call.body.strip() else {}
    policy = options.get("propagationPolicy") or call.query.get("propagationPolicy") or "Background"
    if options.get("orphanDependents") is True:
        policy = "Orphan"
    if policy not in ("Background", "Foreground", "Orphan"):
        known = '"Foreground", "Background", "Orphan", "nil"'
        why = f'Unsupported value: "{policy}": supported values: {known}'
        raise refusals.option("DeleteOptions", "propagationPolicy", why)
    conditions = options.get("preconditions")
    return policy, conditions if isinstance(conditions, dict) else {}, call.dry or options.get("dryRun") == ["All"]


def _delete(call: Call) -> HttpResponse:
    if call.sub:
        raise refusals.no_method()
    policy, conditions, dry = _options(call)
    last, gone = call.cluster.core.delete(
        call.kind, call.home, call.name, policy=policy, dry=dry, preconditions=conditions
    )
    if not gone or call.kind.key in ("v1/Pod", "v1/Namespace"):
        return answers.as_json(200, last)
    return answers.as_json(200, answers.success(call.kind.plural, call.kind.group, call.name, last["metadata"]["uid"]))


def _delete_all(call: Call) -> HttpResponse:
    if call.kind.namespaced and call.namespace is None:
        raise refusals.no_method()
    policy, _, dry = _options(call)
    core, gone = call.cluster.core, []
    with core.objects.lock:
        for stored in reads.selected(call):
            meta = stored.body["metadata"]
            gone.append(core.delete(call.kind, meta.get("namespace", ""), meta["name"], policy=policy, dry=dry)[0])
        version = core.objects.version
    shown = {"kind": f"{call.kind.name}List", "apiVersion": call.kind.api_version,
             "metadata": {"resourceVersion": str(version)}, "items": gone}  # fmt: skip
    return answers.as_json(200, shown)
