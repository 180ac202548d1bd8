"""Values changed in an env file: those lines and no other byte; or a refusal that shows no value."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from config_samples import home, private
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from funoffshore import config, errors
from funoffshore.config import edit, envfile, keys

CHANGES = {
    "K3S_VERSION": st.sampled_from(["v1.36.5+k3s1", "v1.37.0+k3s2"]),
    "K3S_TOKEN": st.text("abcdef0123456789", min_size=32, max_size=32),
    "K3S_TOKEN_NEXT": st.sampled_from(["", "n" * 32]),
    "K3S_SHA256": st.text("abcdef0123456789", min_size=64, max_size=64),
    "ETCD_SNAPSHOT_SCHEDULE": st.sampled_from(["0 3 * * *", "*/5 * * * *", "@daily"]),
    "NODE_W2_LABELS": st.sampled_from(["disk=ssd", "a=b,c=d"]),
    "WORKERS": st.integers(0, 100).map(str),
    "CF_API_TOKEN": st.sampled_from(["it's-a-token", 'a "quoted" one', "plain-token", "with # sign"]),
}


def _file(folder: Path, data: bytes, mode: int = 0o600) -> Path:
    path = private(folder / "config" / "env" / "home.env", data)
    path.chmod(mode)
    return path


def _values(data: bytes) -> dict[str, str]:
    return {key: entry.value for key, entry in envfile.parse(data).entries.items()}


@st.composite
def _files(draw: st.DrawFn) -> bytes:
    """Env files as people keep them: lines gone, comments and blank lines anywhere, other quotes, no last newline."""
    lines = home().splitlines()
    keep = draw(st.integers(1, 4))
    lines = [line for at, line in enumerate(lines) if line[:1] not in ("#", "") or at % keep == 0]
    for gone in draw(st.sets(st.sampled_from(sorted(CHANGES)))):
        lines = [line for line in lines if not line.startswith(f"{gone}=")]
    for at in draw(st.lists(st.integers(0, len(lines)), max_size=6)):
        lines.insert(at, draw(st.sampled_from(["", "# K3S_VERSION=v1.0.0+k3s1", "#", "# ==== mine =="])))
    quoted = [re.sub(r"^(WORKERS|K3S_VERSION)=([^'\"]+)$", r"\1='\2'", line) for line in lines]
    return "\n".join(quoted).encode() + draw(st.sampled_from([b"", b"\n", b"\n\n\n"]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_files(), st.fixed_dictionaries({}, optional=CHANGES))
def test_only_those_lines_change(tmp_path: Path, data: bytes, wanted: dict[str, str]) -> None:
    path = _file(tmp_path, data)
    before = _values(data)
    edit.set_values(path, wanted)
    after = path.read_bytes()
    assert _values(after) == {**before, **wanted}
    changed = {key for key, text in wanted.items() if before.get(key) != text}
    missing = changed - before.keys()
    old, new = data.split(b"\n"), after.split(b"\n")

    def of(line: bytes, names: set[str]) -> bool:
        return line.split(b"=")[0].decode("utf-8", "replace") in names

    kept = [line for line in new if not of(line, missing)]
    assert len(kept) == len(old) == len(new) - len(missing)
    assert all(a == b or of(a, changed) for a, b in zip(old, kept, strict=True))
    assert not envfile.parse(after).problems
    edit.set_values(path, wanted)
    assert path.read_bytes() == after, "the second time nothing is left to do"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | _files().map(lambda data: data.replace(b"\n", b"\r\n")) | st.just(b"A=1\nA=2\n"))
def test_a_file_that_cannot_be_read_is_left_alone(tmp_path: Path, data: bytes) -> None:
    """CRLF, a key twice, any bytes: what the reader refuses is not written either."""
    path = _file(tmp_path, data)
    if not envfile.parse(data).problems:
        edit.set_values(path, {"K3S_TOKEN": "geheim" * 5})
        assert _values(path.read_bytes()) == {**_values(data), "K3S_TOKEN": "geheim" * 5}
        return
    with pytest.raises(errors.ConfigError) as caught:
        edit.set_values(path, {"K3S_TOKEN": "geheim" * 5})
    assert path.read_bytes() == data
    assert caught.value.evidence
    assert "geheim" not in str((caught.value, caught.value.fix, caught.value.evidence))


@pytest.mark.parametrize("data", [b"WORKERS=1\r\n", b"WORKERS=1\nWORKERS=2\n", b"WORKERS = 1\n", b"\xff=1\n"])
def test_what_the_reader_refuses_is_refused(tmp_path: Path, data: bytes) -> None:
    path = _file(tmp_path, data)
    for workers in ("1", "3"):  # also where nothing would have to change
        with pytest.raises(errors.ConfigError, match=r"^config/env/home.env was not changed$"):
            edit.set_values(path, {"WORKERS": workers})
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("K3S_VERSION", "geheim", "K3S_VERSION: the value is not a K3s release, like v1.36.4+k3s1"),
        ("K3S_VERSION", "", "K3S_VERSION: is empty; leave the line out to get v1.36.4+k3s1"),
        ("K3S_TOKEN", "", "K3S_TOKEN: is empty, and required"),
        ("K3S_TOKEN", "geheim", "K3S_TOKEN: the value is not 16 to 128 letters and digits"),
        ("K3S_TOKEN", "geheim\nWORKERS=9", "K3S_TOKEN: an env file holds no control characters"),
        (
            "CF_API_TOKEN",
            "geheim\"'",
            "CF_API_TOKEN: a value with both kinds of quotes cannot be written in an env file",
        ),
        ("GEHEIM", "1", "GEHEIM: there is no such key"),
    ],
)
def test_a_wrong_value_is_refused_and_not_shown(tmp_path: Path, key: str, text: str, said: str) -> None:
    path = _file(tmp_path, home().encode())
    with pytest.raises(errors.ConfigError) as caught:
        edit.set_values(path, {"WORKERS": "1", key: text})
    assert caught.value.evidence == (said,)
    assert "geheim" not in str((caught.value, caught.value.fix, caught.value.evidence))
    assert path.read_text() == home()


def test_a_missing_key_comes_at_the_end_of_its_section(tmp_path: Path) -> None:
    text = "# ==== Machines ====\nWORKERS=1\n\n# mine\n# ==== K3s ====\nK3S_VERSION=v1.36.4+k3s1\n# last\n\nZ=1\n"
    wanted = {"K3S_TOKEN_NEXT": "n" * 32, "NODE_W1_LABELS": "a=b", "K3S_SOURCE": "push", "GIT_BRANCH": "next"}
    path = _file(tmp_path, text.encode())
    edit.set_values(path, wanted)
    assert path.read_text() == (
        "# ==== Machines ====\nWORKERS=1\nNODE_W1_LABELS=a=b\n\n# mine\n# ==== K3s ====\nK3S_VERSION=v1.36.4+k3s1\n"
        f"K3S_SOURCE=push\nK3S_TOKEN_NEXT={'n' * 32}\n# last\n\nZ=1\nGIT_BRANCH=next\n"
    )


def test_a_section_without_keys_is_found_by_its_heading(tmp_path: Path) -> None:
    path = _file(tmp_path, b"# ==== K3s ====\n# nothing yet\n\n\n# ==== Flux ====\nFLUX_VERSION=v2.9.4\n")
    edit.set_values(path, {"K3S_SOURCE": "push"})
    assert path.read_text() == (
        "# ==== K3s ====\n# nothing yet\nK3S_SOURCE=push\n\n\n# ==== Flux ====\nFLUX_VERSION=v2.9.4\n"
    )


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_the_mode_stays(tmp_path: Path, mode: int) -> None:
    path = _file(tmp_path, home().encode(), mode)
    edit.set_values(path, {"K3S_VERSION": "v1.36.5+k3s1"})
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert config.load(path).k3s.version == "v1.36.5+k3s1"
    assert [entry.name for entry in path.parent.iterdir()] == ["home.env"]


def test_a_file_that_others_can_read_is_not_touched(tmp_path: Path) -> None:
    path = _file(tmp_path, home().encode(), 0o644)
    with pytest.raises(errors.ConfigError) as caught:
        edit.set_values(path, {"WORKERS": "1"})
    assert "has mode 0644" in caught.value.evidence[0]
    assert path.read_text() == home()


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    path = _file(tmp_path, home().encode())
    link = path.with_name("link.env")
    link.symlink_to(path)
    with pytest.raises(errors.ConfigError):
        edit.set_values(link, {"WORKERS": "1"})
    assert link.is_symlink()
    assert path.read_text() == home()


def test_a_file_that_would_grow_too_large(tmp_path: Path) -> None:
    data = home().encode() + b"# x\n" * ((envfile.MAX_BYTES - len(home().encode())) // 4)
    path = _file(tmp_path, data)
    with pytest.raises(errors.ConfigError) as caught:
        edit.set_values(path, {"K3S_EXTRA_CONFIG": "kubelet-arg=max-pods=150"})
    assert caught.value.evidence == ("it would be larger than 64 KiB",)
    assert path.read_bytes() == data


def test_whoever_reads_meanwhile_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """The name leads to another file afterwards; the old one, still open, is as it was."""
    path = _file(tmp_path, home().encode())
    fd = os.open(path, os.O_RDONLY)
    try:
        edit.set_values(path, {"WORKERS": "1"})
        assert os.read(fd, 1 << 20) == home().encode()
        assert os.fstat(fd).st_ino != path.stat().st_ino
    finally:
        os.close(fd)


def test_nothing_to_do_is_nothing_written(tmp_path: Path) -> None:
    path = _file(tmp_path, home().encode())
    before = path.stat()
    edit.set_values(path, {"WORKERS": "2"})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_line_that_says_the_same_in_other_quotes_keeps_its_bytes(tmp_path: Path) -> None:
    path = _file(tmp_path, b"WORKERS='2'\nBRIDGE=\"vmbr0\"\n")
    edit.set_values(path, {"WORKERS": "2", "BRIDGE": "vmbr1"})
    assert path.read_bytes() == b"WORKERS='2'\nBRIDGE=vmbr1\n"


def test_every_key_has_a_section() -> None:
    for name in (*keys.known().keys, *(f"NODE_W1_{field}" for field in keys.NODE_FIELDS)):
        assert edit._section(name)[1]
