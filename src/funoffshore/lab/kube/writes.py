"""POST, PUT, PATCH and DELETE on objects."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import yaml

from funoffshore.lab.kube import answers, patches, reads, scale, shapes
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
    raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


_REVIEWS: dict[str, tuple[str, Object]] = {
    "authorization.k8s.io/selfsubjectaccessreviews": ("SelfSubjectAccessReview", {"allowed": True}),
    "authentication.k8s.io/selfsubjectreviews": ("SelfSubjectReview", {"userInfo": {"username": "system:admin"}}),
}


def review(group: str, version: str, parts: list[str], raw: Raw) -> Object | None:
    """Reviews are answered and never kept: everyone who is let in may do everything."""
    known = _REVIEWS.get(f"{group}/{parts[-1]}")
    if known is None or raw.method != "POST":
        return None
    spoken = "json" in raw.headers.get("content-type", "json")
    asked = parse(raw.body, "application/json") if spoken else {}
    return {"spec": {}, **asked, "kind": known[0], "apiVersion": f"{group}/{version}", "status": known[1]}


def parse(body: bytes, content_type: str) -> Object:
    """A JSON or YAML object. Raises ApiError 400, 415."""
    found = _parse_any(body, content_type)
    if not isinstance(found, dict):
        raise ApiError(400, "BadRequest", "the request body is not an object")
    return found


def _parse_any(body: bytes, content_type: str) -> Any:
    if "protobuf" in content_type:
        raise ApiError(415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted "
                       "media types include: application/json, application/yaml")  # fmt: skip
    try:
        text = body.decode()
        if "yaml" in content_type and not text.lstrip().startswith("{"):
            return json.loads(json.dumps(yaml.safe_load(text), default=str))
        return json.loads(text)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError):
        raise ApiError(400, "BadRequest", "the request body cannot be decoded") from None


def _body(call: Call) -> Object:
    """The object in the body, which must be of the path's kind and namespace."""
    obj = parse(call.body, call.headers.get("content-type", ""))
    obj.setdefault("apiVersion", call.kind.api_version)
    obj.setdefault("kind", call.kind.name)
    if (obj["apiVersion"], obj["kind"]) != (call.kind.api_version, call.kind.name):
        raise ApiError(400, "BadRequest", f"{obj['kind']} in version {obj['apiVersion']} cannot be handled as a "
                       f"{call.kind.name}: converting to {call.kind.api_version} failed")  # fmt: skip
    meta = obj.setdefault("metadata", {})
    if not isinstance(meta, dict):
        raise ApiError(400, "BadRequest", "metadata must be an object")
    if call.namespace is not None and meta.setdefault("namespace", call.namespace) != call.namespace:
        raise ApiError(400, "BadRequest", "the namespace of the provided object does not match the namespace sent on "
                       "the request")  # fmt: skip
    return obj


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
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    return answers.as_json(201, core.create(call.kind, _body(call), call.manager, dry=call.dry))


def _put(call: Call) -> HttpResponse:
    core = call.cluster.core
    if not call.name:
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    if call.sub == "scale" and call.kind.scale:
        wanted = parse(call.body, call.headers.get("content-type", ""))
        return _scaled(call, lambda current: wanted)
    obj = _body(call)
    if call.sub == "finalize" and call.kind.key == "v1/Namespace":
        spec = obj.get("spec") or {}
        stored = core.change(call.kind, "", call.name, lambda o: o.update(spec=spec))
        return answers.as_json(200, stored or obj)
    _check_sub(call)
    fresh = core.update(call.kind, call.home, call.name, obj, call.manager, sub=call.sub, dry=call.dry)
    return answers.as_json(200, fresh)


def _scaled(call: Call, change: Callable[[Object], Object]) -> HttpResponse:
    fresh = call.cluster.core.patch(
        call.kind, call.home, call.name, lambda o: scale.put(o, change(scale.of(o))), call.manager, dry=call.dry
    )
    return answers.as_json(200, scale.of(fresh))


def _check_sub(call: Call) -> None:
    if call.sub and not (call.sub == "status" and call.kind.status):
        raise ApiError(404, "NotFound", "the server could not find the requested resource")


def _patch(call: Call) -> HttpResponse:
    core = call.cluster.core
    if not call.name:
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    sort = call.headers.get("content-type", "").partition(";")[0].strip()
    if sort == "application/apply-patch+yaml":
        return _apply(call)
    change = _change(call, sort, _parse_any(call.body, sort))
    if call.sub == "scale" and call.kind.scale:
        return _scaled(call, change)
    _check_sub(call)
    fresh = core.patch(call.kind, call.home, call.name, change, call.manager, sub=call.sub, dry=call.dry)
    return answers.as_json(200, fresh)


def _change(call: Call, sort: str, patch: Any) -> Callable[[Object], Object]:
    if sort == "application/json-patch+json":
        return lambda obj: patches.json_patch(obj, patch)
    if not isinstance(patch, dict):
        raise ApiError(400, "BadRequest", "the patch is not an object")
    if sort == "application/merge-patch+json":
        return lambda obj: _object(patches.merge(obj, patch))
    if sort == "application/strategic-merge-patch+json":
        if call.kind.crd:
            raise ApiError(415, "UnsupportedMediaType", "the body of the request was in an unknown format - accepted "
                           "media types include: application/json-patch+json, application/merge-patch+json, "
                           "application/apply-patch+yaml")  # fmt: skip
        return lambda obj: _object(patches.strategic(obj, patch, shapes.of(call.kind)))
    raise ApiError(415, "UnsupportedMediaType", f"the body of the request was in an unknown format: {sort}")


def _object(value: Any) -> Object:
    if not isinstance(value, dict):
        raise ApiError(400, "BadRequest", "the patched document is not an object")
    return value


def _apply(call: Call) -> HttpResponse:
    if not call.query.get("fieldManager"):
        raise ApiError(400, "BadRequest", "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is "
                       "required for apply patch")  # fmt: skip
    _check_sub(call)
    obj = parse(call.body, "application/yaml")
    if (obj.get("apiVersion"), obj.get("kind")) != (call.kind.api_version, call.kind.name):
        raise ApiError(400, "BadRequest", f"Incorrect version or kind specified in apply patch. Specified patch: "
                       f"{obj.get('apiVersion')}, {obj.get('kind')}, expected: {call.kind.key}")  # fmt: skip
    meta = obj.setdefault("metadata", {})
    if not isinstance(meta, dict) or meta.get("name", call.name) != call.name:
        raise ApiError(400, "BadRequest", "the name of the object does not match the name on the URL")
    core = call.cluster.core
    existed = core.find(call.kind, call.home, call.name) is not None
    force = call.query.get("force", "") in ("true", "1")
    fresh = core.apply(call.kind, call.home, call.name, obj, call.manager, force=force, sub=call.sub, dry=call.dry)
    return answers.as_json(200 if existed else 201, fresh)


def _options(call: Call) -> tuple[str, Object, bool]:
    """Propagation policy, preconditions, dry run."""
    sort = call.headers.get("content-type", "")
    options = parse(call.body, sort) if call.body.strip() and "protobuf" not in sort else {}
    policy = options.get("propagationPolicy") or call.query.get("propagationPolicy") or "Background"
    if options.get("orphanDependents") is True:
        policy = "Orphan"
    if policy not in ("Background", "Foreground", "Orphan"):
        raise ApiError(422, "Invalid", 'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported '
                       f'value: "{policy}"')  # fmt: skip
    conditions = options.get("preconditions")
    return policy, conditions if isinstance(conditions, dict) else {}, call.dry or options.get("dryRun") == ["All"]


def _delete(call: Call) -> HttpResponse:
    if call.sub:
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    policy, conditions, dry = _options(call)
    last, gone = call.cluster.core.delete(
        call.kind, call.home, call.name, policy=policy, dry=dry, preconditions=conditions
    )
    if not gone or call.kind.key in ("v1/Pod", "v1/Namespace"):
        return answers.as_json(200, last)
    return answers.as_json(200, answers.success(call.kind.plural, call.kind.group, call.name, last["metadata"]["uid"]))


def _delete_all(call: Call) -> HttpResponse:
    if call.kind.namespaced and call.namespace is None:
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
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
