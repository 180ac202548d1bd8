"""placeholder"""
from __future__ import annotations
from pathlib import Path
def write(config, folder: Path, status, now: float) -> Path:
    return folder
