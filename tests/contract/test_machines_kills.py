"""A stranger's VM in our VMID range stays what it is, however often fo is killed while it creates, scales, mends and
destroys; and nothing of ours is ever made twice. ``make bench-kills`` does the same two hundred times."""

from __future__ import annotations

from pathlib import Path

from operator_kills import chaos


def test_killed_again_and_again_beside_strangers(tmp_path: Path) -> None:
    made = chaos(tmp_path, kills=12, seed=20261124)
    assert made.killed == 12
    assert len(made.strangers) == 3
