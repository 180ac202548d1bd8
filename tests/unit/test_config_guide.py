"""What the guide shows of an env file is read as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from config_samples import edit, existing, home, problems

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "config.md"
BLOCKS = [
    block.strip().splitlines()
    for block in re.findall(r"^```\w*\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    if re.fullmatch(r"(?:[A-Z][A-Z0-9_]*=.*\n)+", block)
]


@pytest.mark.parametrize("lines", BLOCKS, ids=lambda lines: lines[0].split("=")[0])
def test_settings_in_the_guide_are_right(lines: list[str]) -> None:
    settings: dict[str, str | None] = {**dict(line.split("=", 1) for line in lines)}
    base = existing() if "SSH_KNOWN_HOSTS" in settings else edit(home(), {"PROXMOX_NODES": "pve,pve2"})
    assert problems(edit(base, settings)) == []


def test_the_guide_shows_some() -> None:
    assert len(BLOCKS) >= 6
