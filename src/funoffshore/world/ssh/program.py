"""The text that is sent to a host: the helper's parts as one program, and the request behind it."""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
from collections.abc import Mapping
from typing import Any

PARTS = ("hostdisks.py", "hostfiles.py", "hostlook.py", "hosthelper.py")
_FUTURE = "from __future__ import annotations\n"
_OURS = re.compile(r"^from funoffshore\.\S+ import (?:\([^)]*\)|[^\n]*)\n", re.MULTILINE)


@functools.cache
def helper() -> str:
    """What runs on the host: the texts of ``PARTS`` in ``world``, as one program."""
    folder = importlib.resources.files("funoffshore.world")
    texts = [folder.joinpath(name).read_text("utf-8").replace(_FUTURE, "", 1) for name in PARTS]
    # Python takes that line at the very beginning only; what one part takes from another stands above it already.
    return _FUTURE + _OURS.sub("", "".join(texts))


def script(request: Mapping[str, Any]) -> bytes:
    """Program and request for ``python3 -``, which parses its whole stdin before it runs."""
    return f"{helper()}\nmain({json.dumps(request)!r}, DISKS)\n".encode()
