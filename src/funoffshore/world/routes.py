"""Where to dial: the address itself, except where a lab had to move its listener (see ``lab.base.Routes``)."""

from __future__ import annotations

import json
from pathlib import Path


class Routes:
    """Maps ``(host, port)`` to the address to dial; the identity unless ``path`` says otherwise."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def resolve(self, host: str, port: int) -> tuple[str, int]:
        """Reads the file at each call, as machines come and go; a missing file means no detours."""
        if self._path is None:
            return host, port
        try:
            moved = json.loads(self._path.read_text()).get(f"{host}:{port}")
        except (OSError, ValueError):
            moved = None
        return (str(moved[0]), int(moved[1])) if moved else (host, port)
