"""Generated pages are what the code says; links in the docs lead somewhere; every command shows an example."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from report_samples import config_of

from funoffshore.stages.machines import privileges

ROOT = Path(__file__).parents[2]


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in _reference().pages().items() if path.read_text() != text]
    assert not stale, f"run make docs: {stale}"


def test_every_command_shows_an_example() -> None:
    page = _reference().commands()
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    assert len(sections) > 12
    assert [s.splitlines()[0] for s in sections if "Example: fo" not in s and s.splitlines()[0] != "fo"] == []


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_mission_is_word_for_word(shared: Path) -> None:
    assert (ROOT / "MISSION.md").read_bytes() == (shared / "MISSION.md").read_bytes()


def test_the_guide_lists_every_privilege(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "guide" / "hardware.md").read_text()
    needed = privileges.needed(config_of(3, 2, 1, tmp_path))
    assert [p for wanted in needed.values() for p in wanted if p not in page] == []


def test_no_env_file_of_a_real_cluster_can_be_tracked() -> None:
    for path in ("config/env/home.env", ".lab/x", "ai/state/status.json", "config/kube/home.kubeconfig"):
        done = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False)
        if done.returncode == 128:
            pytest.skip("not a Git checkout")
        assert done.returncode == 0, path
