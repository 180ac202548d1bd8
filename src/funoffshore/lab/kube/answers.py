"""Status objects and the other small documents that the API server answers with."""

from __future__ import annotations

import json
from typing import Any

from funoffshore.lab.kube.api import ApiError, HttpResponse, Object

_REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed",
            406: "NotAcceptable", 409: "Conflict", 410: "Expired", 415: "UnsupportedMediaType", 422: "Invalid",
            500: "InternalError", 503: "ServiceUnavailable"}  # fmt: skip


def as_json(status: int, body: Any) -> HttpResponse:
    return HttpResponse(status, json.dumps(body).encode(), "application/json")


def failure(code: int, message: str, reason: str | None = None, details: Object | None = None) -> Object:
    """metav1.Status of a refused request. ``reason`` None: the usual one for ``code``; empty: none."""
    status: Object = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "code": code,
    }  # fmt: skip
    reason = _REASONS.get(code, "Unknown") if reason is None else reason
    if reason:
        status["reason"] = reason
    if details is not None:
        status["details"] = details
    return status


def of_error(error: ApiError) -> Object:
    """The Status for ``error``."""
    return failure(error.code, error.message, error.reason, error.details)


def success(kind_plural: str, group: str, name: str, uid: str) -> Object:
    """metav1.Status of a finished deletion."""
    details = {"name": name, "kind": kind_plural, "uid": uid} | ({"group": group} if group else {})
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
