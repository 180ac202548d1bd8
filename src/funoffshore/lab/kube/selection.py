"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable

from funoffshore.lab.kube.api import ApiError, Object

Test = Callable[[Object], bool]
_SET = re.compile(r"([^\s!=,()]+)\s+(in|notin)\s*\(([^()]*)\)")
_EQUAL = re.compile(r"([^\s!=,()]+)\s*(==|=|!=)\s*([^\s!=,()]*)")
_EXISTS = re.compile(r"(!?)\s*([^\s!=,()]+)")
_FIELDS = re.compile(r"metadata\.(name|namespace)|status\.(phase|podIP|nominatedNodeName)|type|reason|"
                     r"spec\.(nodeName|restartPolicy|schedulerName|serviceAccountName|unschedulable)|"
                     r"reportingComponent|involvedObject\.\w+|regarding\.\w+")  # fmt: skip


def _split(text: str) -> list[str]:
    return [part.strip() for part in re.split(r",(?![^()]*\))", text) if part.strip()]


def labels(text: str) -> Test:
    """A test for objects. Raises ApiError 400 for a selector that cannot be read."""
    tests = [_requirement(part) for part in _split(text)]

    def test(obj: Object) -> bool:
        found = obj["metadata"].get("labels") or {}
        return all(t(found) for t in tests)

    return test


def _requirement(part: str) -> Test:
    if match := _SET.fullmatch(part):
        key, operator, values = match.groups()
        wanted = {v.strip() for v in values.split(",")}
        return lambda have: (have.get(key) in wanted) == (operator == "in")
    if match := _EQUAL.fullmatch(part):
        key, operator, value = match.groups()
        return lambda have: (have.get(key) == value) == (operator != "!=")
    if match := _EXISTS.fullmatch(part):
        negated, key = match.groups()
        return lambda have: (key in have) != bool(negated)
    raise ApiError(400, "BadRequest", f"unable to parse requirement: found {part!r}")


def fields(text: str) -> Test:
    """The same for field selectors, which know only ``=``, ``==`` and ``!=`` on a few fields."""
    tests = []
    for part in _split(text):
        match = re.fullmatch(r"([^=!]+?)\s*(==|=|!=)\s*(.*)", part)
        if match is None:
            raise ApiError(400, "BadRequest", f'invalid selector: "{text}"; can\'t understand "{part}"')
        key, operator, value = match.groups()
        if not _FIELDS.fullmatch(key):
            raise ApiError(400, "BadRequest", f'"{key}" is not a known field selector: only "metadata.name", '
                           '"metadata.namespace"')  # fmt: skip
        tests.append((key.split("."), operator != "!=", value))

    def test(obj: Object) -> bool:
        return all((_at(obj, path) == value) == equal for path, equal, value in tests)

    return test


def _at(obj: Object, path: list[str]) -> str:
    value: object = obj
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
