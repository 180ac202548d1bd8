"""The lock file: what it holds, what it is refused for, and how it and the env file agree."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from config_samples import HOME, ROOT, edit, home, private, refuse
from hypothesis import given, settings
from hypothesis import strategies as st

from funoffshore import config, errors
from funoffshore.config import keys, lockfile, new

_URL = "https://cloud.debian.org/images/cloud/trixie/20261101-2650/debian-13-genericcloud-amd64-20261101-2650.qcow2"
_FLUX_URL = "https://github.com/fluxcd/flux2/releases/download/v2.9.4/install.yaml"
ENTRIES = {
    "image.url": _URL,
    "image.sha512": "b" * 128,
    "k3s.version": "v1.36.4+k3s1",
    "k3s.sha256.amd64": "1" * 64,
    "k3s.sha256.arm64": "e" * 64,
    "flux.version": "v2.9.4",
    "flux.url": _FLUX_URL,
    "flux.sha256": "2" * 64,
}
TEXT = lockfile.text(lockfile.ordered(ENTRIES), "home")
WHERE = "config/lock/home.yaml"


def _open() -> str:
    """An env file that leaves to the lock file whatever it can."""
    left = dict.fromkeys(("IMAGE_URL", "IMAGE_SHA512", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "")
    return new.generate("home", {**HOME, **left}, lab=False)


def _problems(lock: str, text: str = "") -> list[str]:
    try:
        config.parse(text or _open(), "home", ROOT, lock)
    except errors.ConfigError as why:
        return [line.split(": ", 1)[1] if line.startswith("line ") else line for line in why.evidence]
    return []


def test_it_reads_as_it_was_written() -> None:
    lock, problems = lockfile.parse(TEXT.encode(), WHERE)
    assert problems == []
    assert dict(lock.entries) == ENTRIES
    assert list(lock.entries) == list(ENTRIES)
    assert TEXT.startswith("# The bytes that cluster home is built from; fo takes no others.")
    assert f'\nk3s:\n  version: v1.36.4+k3s1\n  sha256:\n    amd64: "{"1" * 64}"\n' in TEXT


def test_what_is_locked_is_what_the_config_has() -> None:
    found = config.parse(_open(), "home", ROOT, TEXT)
    assert found.image == config.Image(_URL, sha512="b" * 128)
    assert (found.k3s.version, found.k3s.sha256) == ("v1.36.4+k3s1", "1" * 64)
    assert found.flux == config.Flux("v2.9.4", _FLUX_URL, "2" * 64)


def test_a_release_that_the_env_file_does_not_name_is_the_locked_one() -> None:
    older = TEXT.replace("v1.36.4+k3s1", "v1.35.1+k3s2")
    assert config.parse(edit(_open(), {"K3S_VERSION": None}), "home", ROOT, older).k3s.version == "v1.35.1+k3s2"


def test_digests_in_both_places_may_be_the_same() -> None:
    assert _problems(TEXT, edit(home(), {"IMAGE_URL": _URL, "IMAGE_SHA512": "b" * 128})) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"K3S_SHA256": "3" * 64},
            [("K3S_SHA256: differs from k3s.sha256.amd64 in config/lock/home.yaml; take the line out here, or run "
             "`fo lock update`")],
        ),
        (
            {"K3S_VERSION": "v1.36.5+k3s1", "K3S_SHA256": "3" * 64},
            [("K3S_VERSION: locked is v1.36.4+k3s1 (config/lock/home.yaml), the env file wants v1.36.5+k3s1; run "
             "`fo lock update -c home`")],
        ),
        (
            {"IMAGE_URL": "https://mirror.example.org/x.qcow2"},
            [(f"IMAGE_URL: locked is {_URL} (config/lock/home.yaml), the env file wants "
             "https://mirror.example.org/x.qcow2; run `fo lock update -c home`")],
        ),
        (
            {"IMAGE_SHA256": "4" * 64},
            ["IMAGE_SHA256: is given beside image.sha512 in config/lock/home.yaml; give only one of them"],
        ),
        (
            {"FLUX_VERSION": "v2.9.5", "FLUX_INSTALL_URL": _FLUX_URL.replace("v2.9.4", "v2.9.5")},
            [("FLUX_VERSION: locked is v2.9.4 (config/lock/home.yaml), the env file wants v2.9.5; run "
             "`fo lock update -c home`"),
             (f"FLUX_INSTALL_URL: locked is {_FLUX_URL} (config/lock/home.yaml), the env file wants "
             f"{_FLUX_URL.replace('v2.9.4', 'v2.9.5')}; run `fo lock update -c home`")],
        ),
    ],
)  # fmt: skip
def test_where_the_two_differ_both_places_are_named(changes: dict[str, str | None], said: list[str]) -> None:
    assert _problems(TEXT, edit(_open(), changes)) == said


def test_a_template_is_in_no_lock_file() -> None:
    other = {"IMAGE_TEMPLATE": "debian-13", "IMAGE_URL": "https://mirror.example.org/x.qcow2"}
    assert _problems(TEXT, edit(_open(), other)) == []
    without = lockfile.ordered({path: text for path, text in ENTRIES.items() if not path.startswith("image.")})
    assert _problems(lockfile.text(without, "home"), edit(_open(), other)) == []


@pytest.mark.parametrize("section", lockfile.SECTIONS)
def test_a_section_that_is_not_there_leaves_its_digest_open(section: str) -> None:
    left = lockfile.ordered({path: text for path, text in ENTRIES.items() if not path.startswith(f"{section}.")})
    said = _problems(lockfile.text(left, "home"))
    assert {line.split("_")[0].lower() for line in said} == {section}


def test_arm64_may_be_missing() -> None:
    assert _problems(TEXT.replace(f'    arm64: "{"e" * 64}"\n', "")) == []


_K3S = f'k3s:\n  version: v1.36.4+k3s1\n  sha256:\n    amd64: "{"1" * 64}"\n'


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("", ["is empty"]),
        ("# nothing\n", ["is empty"]),
        ("- a\n- b\n", ["does not hold sections with entries"]),
        ("k3s: [\n", ["line 2: cannot be read as YAML"]),
        ("k3s: *nothing\n", ["line 1: cannot be read as YAML"]),
        ("a: 1\n---\nb: 2\n", ["line 2: cannot be read as YAML"]),
        ("k3s: {version: 1\x00}\n", ["cannot be read as YAML"]),
        ("[" * 9000, ["is nested too deeply"]),
        (_K3S + "k4s: {}\n", ["line 5: k4s: there is no such entry"]),
        (_K3S + "? [a]\n: b\n", ["line 5: ?: there is no such entry"]),
        (_K3S + '"\\e[2J": b\n', ["line 5: ?: there is no such entry"]),
        (_K3S + _K3S, ["line 5: k3s: stands there twice"]),
        (_K3S + "  version: v1.36.4+k3s1\n", ["line 5: k3s.version: stands there twice"]),
        (_K3S.replace("v1.36", "1.36"), ["line 2: k3s.version: is not a K3s release, like v1.36.4+k3s1"]),
        ("k3s: v1.36.4+k3s1\n", ["line 1: k3s: is not a section with entries"]),
        ("k3s: !!map [1]\n", ["line 1: k3s: is not a section with entries"]),
        (
            "k3s:\n  version: [v1]\n",
            ["line 2: k3s.version: is not a text", "line 2: k3s.sha256: is missing"],
        ),
        (
            "k3s:\n  version: !!binary aGk=\n  sha256: {arm64: x, amd64: }\n",
            [
                "line 2: k3s.version: is not a text",
                "line 3: k3s.sha256.arm64: is not 64 hex digits in lower case",
                "line 3: k3s.sha256.amd64: is empty",
            ],
        ),
        (f"image:\n  url: {_URL}\n", ["image.sha512: is missing, unless image.sha256 is given"]),
        (
            f"image:\n  url: {_URL}\n  sha256: '{'a' * 64}'\n  sha512: '{'a' * 128}'\n",
            ["image.sha512: is given beside image.sha256; give only one of them"],
        ),
        ("image:\n  url: https://you:geheim@x.org/a.qcow2\n", None),
    ],
)
def test_what_is_wrong_in_it_is_said_by_line(lock: str, said: list[str] | None) -> None:
    _, problems = lockfile.parse(lock.encode(), WHERE)
    texts = [problem.text for problem in problems]
    assert all(text.startswith(f"{WHERE}: ") for text in texts)
    assert "geheim" not in str(texts)
    if said is not None:
        assert texts == [f"{WHERE}: {text}" for text in said]


def test_everything_that_is_wrong_comes_at_once() -> None:
    lock = TEXT.replace("v1.36.4+k3s1", "new").replace("flux:", "fluxx:").replace("b" * 128, "b")
    assert _problems(lock, edit(home(), {"WORKERS": "many"})) == [
        'WORKERS: "many" is not a whole number between 0 and 100',
        f"{WHERE}: line 6: image.sha512: is not 128 hex digits in lower case",
        f"{WHERE}: line 9: k3s.version: is not a K3s release, like v1.36.4+k3s1",
        f"{WHERE}: line 14: fluxx: there is no such entry",
    ]


def test_a_damaged_lock_says_how_to_mend_it() -> None:
    with pytest.raises(errors.ConfigError) as caught:
        config.parse(home(), "home", ROOT, TEXT + "x: y\n")
    assert caught.value.fix.startswith(f"restore {WHERE} from Git, or run `fo lock update -c home`")


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=400)
    | st.text(alphabet="k3simageflux:{}[]&*!<>|-? \n\"'#%@,.0aé\t", max_size=200).map(str.encode)
)
def test_whatever_bytes_stand_in_it_are_refused_or_right(data: bytes) -> None:
    lock, problems = lockfile.parse(data, WHERE)
    assert problems or lock.entries
    assert all(problem.text.isprintable() for problem in problems)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(TEXT)), st.integers(0, 12), st.text(max_size=8))
def test_a_file_that_was_tampered_with_is_refused_or_pins_something_right(at: int, cut: int, put: str) -> None:
    lock, problems = lockfile.parse((TEXT[:at] + put + TEXT[at + cut :]).encode("utf-8", "surrogatepass"), WHERE)
    if not problems:
        for path, text in lock.entries.items():
            assert text.isprintable()
            assert path in ENTRIES or path == "image.sha256"


# On disk


def _repository(folder: Path, lock: str | None) -> Path:
    path = private(folder / "config" / "env" / "home.env", _open().encode())
    if lock is not None:
        (folder / "config" / "lock").mkdir()
        (folder / "config" / "lock" / "home.yaml").write_text(lock)
    return path


def test_it_is_read_beside_the_env_file(tmp_path: Path) -> None:
    path = _repository(tmp_path, TEXT)
    assert config.load(path).image.url == _URL
    assert lockfile.load(tmp_path, "home") == lockfile.ordered(ENTRIES)


def test_without_one_both_ways_are_named(tmp_path: Path) -> None:
    said = "\n".join(refuse(_repository(tmp_path, None)).evidence)
    assert (
        "K3S_SHA256: is required and missing: run `fo lock update -c home`, which writes config/lock/home.yaml" in said
    )
    assert "or give it here" in said
    assert lockfile.load(tmp_path, "home") is None


def test_a_symlink_a_folder_and_a_huge_one_are_refused(tmp_path: Path) -> None:
    path = _repository(tmp_path, TEXT)
    place = tmp_path / "config" / "lock" / "home.yaml"
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert refuse(path).evidence == (f"{WHERE}: is a symlink; the file itself must stand there",)
    assert refuse(path).fix.startswith(f"restore {WHERE} from Git")
    place.unlink()
    place.mkdir()
    assert refuse(path).evidence == (f"{WHERE}: is a folder, not a regular file",)
    place.rmdir()
    place.write_text("#" * (lockfile.MAX_BYTES + 1))
    assert refuse(path).evidence == (f"{WHERE}: is larger than 16 KiB",)
    os.unlink(place)
    os.mkfifo(place)
    assert refuse(path).evidence == (f"{WHERE}: is a FIFO, not a regular file",)


def test_one_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    path = _repository(tmp_path, TEXT)
    (tmp_path / "config" / "lock" / "home.yaml").chmod(0o666)
    assert refuse(path).evidence == (f"{WHERE}: can be written by everybody; chmod 644 it",)
    with pytest.raises(errors.ConfigError, match="cannot be trusted"):
        lockfile.load(tmp_path, "home")


def test_it_is_written_whole_and_for_all_to_read(tmp_path: Path) -> None:
    lockfile.write(tmp_path, "home", lockfile.ordered(ENTRIES))
    place = tmp_path / "config" / "lock" / "home.yaml"
    assert place.read_text() == TEXT
    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    other = lockfile.ordered({**ENTRIES, "k3s.version": "v1.36.5+k3s1"})
    lockfile.write(tmp_path, "home", other)
    assert lockfile.changes(lockfile.ordered(ENTRIES), other) == [("k3s.version", "v1.36.4+k3s1", "v1.36.5+k3s1")]
    assert lockfile.load(tmp_path, "home") == other
    private(tmp_path / "file", b"")
    with pytest.raises(errors.ConfigError, match="cannot be written"):
        lockfile.write(tmp_path / "file", "home", other)


def test_git_keeps_it() -> None:
    ignored = (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()
    assert not [line for line in ignored if "lock" in line or line in ("config/", "config/*")]


def test_every_locked_value_has_its_key() -> None:
    assert set(lockfile.ENV_KEYS) <= set(keys.known().keys)
    assert set(lockfile.ENV_KEYS.values()) | {"k3s.sha256.arm64"} == set(ENTRIES) | {"image.sha256"}
