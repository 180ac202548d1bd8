"""Which env file is meant, what the docs say about it, and what reading it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from config_samples import home, private, problems

from funoffshore import config, errors, stage1
from funoffshore.config import keys, place, render

REPOSITORY = Path(__file__).parents[2]


def _root(tmp_path: Path, *names: str) -> Path:
    (tmp_path / "config" / "env").mkdir(parents=True)
    for name in ("example.env", ".hidden.env", ".home.env.0a1b.new", "Not_A_Cluster.env", "notes.txt", *names):
        private(tmp_path / "config" / "env" / name, b"")
    return tmp_path


def test_root_is_the_nearest_parent_with_config_env(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert config.root(deep) == deep
    _root(tmp_path)
    assert config.root(deep) == tmp_path
    assert config.root(tmp_path) == tmp_path
    _root(tmp_path / "a")
    assert config.root(deep) == tmp_path / "a"


def test_the_only_file_is_meant(tmp_path: Path) -> None:
    root = _root(tmp_path, "home.env")
    assert config.clusters(root) == ["home"]
    assert config.find(root, None, {}) == root / "config" / "env" / "home.env"
    assert config.find(root, None, {"FO_CLUSTER": ""}) == root / "config" / "env" / "home.env"


def test_the_name_wins_over_the_environment(tmp_path: Path) -> None:
    root = _root(tmp_path, "home.env", "lab.env")
    assert config.find(root, "lab", {"FO_CLUSTER": "home"}).name == "lab.env"
    assert config.find(root, None, {"FO_CLUSTER": "home"}).name == "home.env"


def test_no_choice_lists_the_choices(tmp_path: Path) -> None:
    root = _root(tmp_path, "home.env", "lab.env")
    with pytest.raises(errors.ConfigError) as caught:
        config.find(root, None, {})
    assert str(caught.value) == "config/env holds 2 clusters, and none is chosen"
    assert caught.value.evidence == ("clusters: home, lab",)


def test_none_at_all_names_fo_init(tmp_path: Path) -> None:
    for root in (tmp_path / "empty", _root(tmp_path)):
        with pytest.raises(errors.ConfigError) as caught:
            config.find(root, None, {})
        assert "fo init" in caught.value.fix


def test_an_unknown_cluster(tmp_path: Path) -> None:
    root = _root(tmp_path, "home.env")
    with pytest.raises(errors.ConfigError) as caught:
        config.find(root, "hone", {})
    assert str(caught.value) == "there is no cluster hone: config/env/hone.env does not exist"
    assert caught.value.fix == "run `fo init hone`, or choose another with -c"
    assert caught.value.evidence == ("clusters: home",)
    with pytest.raises(errors.ConfigError, match="is the example"):
        config.find(root, "example", {})


@pytest.mark.parametrize("name", ["", "../home", "/etc/passwd", "a\nb", "\x1b[2J", "home.env", "x" * 300])
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.ConfigError, match=r"^a cluster's name is"):
        config.find(_root(tmp_path), name, {})


def test_a_dangling_symlink_is_refused_when_read_not_hidden(tmp_path: Path) -> None:
    root = _root(tmp_path)
    (root / "config" / "env" / "home.env").symlink_to("nowhere")
    assert config.find(root, None, {}).name == "home.env"


def test_shown_paths() -> None:
    assert place.shown(Path("/r/config/env/a.env"), Path("/r")) == "config/env/a.env"
    assert place.shown(Path("/other/a\n.env"), Path("/r")) == "/other/a?.env"


# The table and what is made of it


@pytest.mark.parametrize(
    ("path", "text"), [(render.EXAMPLE_PATH, render.example()), (render.REFERENCE_PATH, render.reference())]
)
def test_files_in_git_are_what_the_table_says(path: str, text: str) -> None:
    """When this fails: python -m funoffshore.config.render ."""
    assert (REPOSITORY / path).read_text(encoding="utf-8") == text


def test_the_example_is_right_but_for_what_only_an_operator_knows() -> None:
    said = problems(render.example(), "example")
    asked = {line.split(": ")[1]: line.split(": ", 2)[2] for line in said}
    assert all("required" in text for text in asked.values())
    secrets = {key.name for key in keys.known().keys.values() if key.secret}
    assert {name for name in asked if name not in secrets} == {
        "PROXMOX_FINGERPRINT",
        "IMAGE_SHA512",
        "K3S_SHA256",
        "FLUX_INSTALL_SHA256",
    }


def test_every_key_is_explained_and_its_default_is_right() -> None:
    table = keys.known()
    listed = [key for section in table.sections for key in section.keys]
    assert len(listed) == len(table.keys)
    for key in listed:
        assert key.help.strip()
        assert not (key.default and key.secret)
        for text in (key.default, key.example):
            if text and "{" not in text:
                key.kind.parse(text)


def test_stage_1_is_all_there() -> None:
    names = set(keys.known().keys)
    assert {s.key for s in stage1.SETTINGS} <= names
    assert {s.key for s in stage1.SWITCHES} <= names
    assert {s.key for s in stage1.SECRET_KEYS} <= names
    assert {s.required_when for s in stage1.SECRET_KEYS} - {None} <= {s.key for s in stage1.SWITCHES}
    found = config.parse(home(), "home", Path("/homelab"))
    assert list(found.settings) == [s.key for s in stage1.SETTINGS]
    assert list(found.switches) == [s.key for s in stage1.SWITCHES]


def test_stage_1_tables_are_data() -> None:
    table = keys.table(
        [stage1.Setting("DOMAIN", None, "core"), stage1.Setting("X_EMAIL", None, "x"), stage1.Setting("Y", "y", "y")],
        [stage1.Switch("X_ENABLED", True, "x")],
        [stage1.SecretKey("X_TOKEN", None, "X_ENABLED", "x"), stage1.SecretKey("Y_KEY", "hex32", None, "y")],
    )
    assert table.keys["DOMAIN"].help != "core"
    assert table.keys["X_EMAIL"].default is None
    assert table.keys["Y"].default == "y"
    assert table.keys["X_ENABLED"].default == "true"
    assert (table.keys["X_TOKEN"].default, table.keys["Y_KEY"].default) == ("", None)


def test_importing_config_is_cheap() -> None:
    heavy = ("pydantic", "cryptography", "difflib", "requests", "yaml", "zoneinfo", "asyncio")
    code = f"import sys, funoffshore.config; print(*(m for m in {heavy!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_reading_a_config_needs_no_cryptography() -> None:
    code = (
        "import sys, pathlib; from funoffshore import config\n"
        "config.parse(sys.stdin.read(), 'home', pathlib.Path('/homelab'))\n"
        "print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=home(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
