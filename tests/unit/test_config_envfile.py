"""The file itself, and the grammar of its lines."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from config_samples import home, private, refuse
from hypothesis import given
from hypothesis import strategies as st

from funoffshore import config
from funoffshore.config import envfile


def _parse(text: str | bytes) -> tuple[dict[str, str], list[str]]:
    lines = envfile.parse(text if isinstance(text, bytes) else text.encode())
    return {k: e.value for k, e in lines.entries.items()}, [str(p) for p in lines.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=", ""),
        ("A=''", ""),
        ('A=""', ""),
        ("A=x", "x"),
        ("A=x=y==", "x=y=="),
        ("A=$HOME", "$HOME"),
        ("A=`id`", "`id`"),
        ("A=$(id)", "$(id)"),
        ("A=~/x", "~/x"),
        ("A=a\\nb", "a\\nb"),
        ("A=ü€", "ü€"),
        ("A='a b'", "a b"),
        ("A=' a '", " a "),
        ('A="a # b"', "a # b"),
        ("A='say \"yes\"'", 'say "yes"'),
        ('A="it\'s"', "it's"),
        ("A='a\\'", "a\\"),
    ],
)
def test_a_value_is_what_stands_there(text: str, value: str) -> None:
    assert _parse(text) == ({"A": value}, [])


_QUOTE = "a value that starts with a quote ends with the same one, and has none in between"
_WHOLE = "in its value; put quotes around the whole value (comments have lines of their own)"
_ENDS = "has spaces at the start or end of its value; remove them or put quotes around the whole"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A='x", f"line 1: A: {_QUOTE}"),
        ("A='", f"line 1: A: {_QUOTE}"),
        ("A=\"x'", f"line 1: A: {_QUOTE}"),
        ("A='x'y'", f"line 1: A: {_QUOTE}"),
        ("A='x' # c", f"line 1: A: {_QUOTE}"),
        ("A=x y", f"line 1: A: has a space {_WHOLE}"),
        ("A=x\u00a0y", f"line 1: A: has a space {_WHOLE}"),
        ("A=x#y", f"line 1: A: has a # {_WHOLE}"),
        ("A=#", f"line 1: A: has a # {_WHOLE}"),
        ("A=it's", f"line 1: A: has a quote {_WHOLE}"),
        ("A= x", f"line 1: A: {_ENDS}"),
        ("A=x ", f"line 1: A: {_ENDS}"),
        ("A =x", "line 1: has spaces before the key or around its =; write KEY=value"),
        (" A=x", "line 1: has spaces before the key or around its =; write KEY=value"),
        ("export A=x", 'line 1: starts with "export"; write KEY=value'),
        ("a=x", "line 1: is neither KEY=value nor a # comment"),
        ("1A=x", "line 1: is neither KEY=value nor a # comment"),
        ("A-B=x", "line 1: is neither KEY=value nor a # comment"),
        ("A", "line 1: is neither KEY=value nor a # comment"),
        (" ", "line 1: is neither KEY=value nor a # comment"),
        (" # x", "line 1: is neither KEY=value nor a # comment"),
        ("K" * 65 + "=x", "line 1: is neither KEY=value nor a # comment"),
        ("A=x\0y", "line 1: holds NUL"),
        ("A=x\ty", "line 1: holds a tab"),
        ("A=x\x1by", "line 1: holds the character U+001B"),
        ("A=x\u202ey", "line 1: holds the character U+202E"),
        ("A=x\u2028y", "line 1: holds the character U+2028"),
        ("A=x\x85y", "line 1: holds the character U+0085"),
        ("# a\u200bb", "line 1: holds the character U+200B"),
        ("\ufeffA=x", "line 1: starts with a byte order mark; save the file without one"),
        ("A=x\r", "line 1: ends in a carriage return; save the file with Unix line ends"),
        ("A=x\ry", "line 1: holds a carriage return"),
        ("A=" + "x" * 4095, "line 1: is longer than 4 KiB"),
        (b"A=x\xff", "line 1: is not UTF-8"),
        (b"A=\xed\xa0\x80", "line 1: is not UTF-8"),
    ],
)
def test_a_wrong_line_is_one_problem_without_its_text(text: str | bytes, problem: str) -> None:
    assert _parse(text)[1] == [problem]


def test_a_line_of_4_kib_is_taken() -> None:
    assert _parse("A=" + "x" * 4094) == ({"A": "x" * 4094}, [])


def test_duplicates_name_both_lines_and_the_first_counts() -> None:
    assert _parse("A=1\n\nA=2\nA=3") == (
        {"A": "1"},
        ["line 3: A: is already on line 1", "line 4: A: is already on line 1"],
    )


def test_windows_line_ends_are_one_problem() -> None:
    text = "ends in a carriage return; save the file with Unix line ends"
    assert _parse("A=1\r\nB=2\r\nC=3\r\n")[1] == [f"line 1: {text} (and 2 more lines)"]


def test_keys_of_unreadable_lines_are_not_missing() -> None:
    assert envfile.parse(b"A=x y\nB\t=1\n export C =1\n").broken == {"A", "B"}


@given(st.text(max_size=60))
def test_what_is_quoted_reads_back(value: str) -> None:
    try:
        quoted = envfile.quote(value)
    except ValueError:
        return
    assert _parse(f"A={quoted}") == ({"A": value}, [])


@given(st.binary(max_size=400))
def test_any_bytes_parse_to_something(data: bytes) -> None:
    envfile.parse(data)


# The file


def _only(path: Path) -> str:
    error = refuse(path)
    assert len(error.evidence) == 1
    return error.evidence[0]


def _env(tmp_path: Path) -> Path:
    return private(tmp_path / "config" / "env" / "home.env", home().encode())


def test_a_right_file_loads_and_knows_its_root(tmp_path: Path) -> None:
    path = _env(tmp_path)
    assert config.load(path).root == tmp_path
    path.chmod(0o400)
    assert config.load(path).name == "home"
    assert config.load(path, root=tmp_path / "x").root == tmp_path / "x"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602, 0o700, 0o4600])
def test_loose_modes(tmp_path: Path, mode: int) -> None:
    path = _env(tmp_path)
    path.chmod(mode)
    error = refuse(path)
    assert str(error) == "config/env/home.env: 1 problem"
    assert error.evidence == (f"has mode {mode:04o}; it holds secrets and must have 0600",)
    assert error.fix == "chmod 600 config/env/home.env"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_foreign_owner(tmp_path: Path) -> None:
    path = _env(tmp_path)
    os.chown(path, 12345, 12345)
    error = refuse(path)
    assert error.evidence == ("belongs to uid 12345, and fo runs as uid 0",)
    assert "chown" in error.fix


def test_symlink_folder_fifo_socket_device(tmp_path: Path) -> None:
    real = _env(tmp_path)
    folder = real.parent
    (folder / "link.env").symlink_to("home.env")
    (folder / "dangling.env").symlink_to("nowhere")
    (folder / "folder.env").mkdir()
    os.mkfifo(folder / "fifo.env", 0o600)
    assert _only(folder / "link.env") == "is a symlink; the file itself must stand there"
    assert _only(folder / "dangling.env") == "is a symlink; the file itself must stand there"
    assert _only(folder / "folder.env") == "is a folder, not a regular file"
    assert _only(folder / "fifo.env") == "is a FIFO, not a regular file"
    assert _only(Path("/dev/null")) == "is a device, not a regular file"
    with socket.socket(socket.AF_UNIX) as door:
        previous = Path.cwd()
        os.chdir(folder)  # a socket's path has about a hundred bytes
        try:
            door.bind("socket.env")
        finally:
            os.chdir(previous)
        assert _only(folder / "socket.env") == "is not a regular file"


def test_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    (tmp_path / "config" / "env").mkdir(parents=True)
    error = refuse(tmp_path / "config" / "env" / "home.env")
    assert error.evidence == ("cannot be opened: No such file or directory",)
    assert error.fix == "run `fo init home`, which writes it"


@pytest.mark.parametrize("data", [b"A" * 10_000_000, b"#\n" * 40_000, b"\0" * 65_537])
def test_huge_files(tmp_path: Path, data: bytes) -> None:
    assert _only(private(tmp_path / "config/env/home.env", data)) == "is larger than 64 KiB"


def test_64_kib_are_looked_at(tmp_path: Path) -> None:
    text = home()
    text += "#\n" * ((65_536 - len(text.encode())) // 2)
    assert config.load(private(tmp_path / "config/env/home.env", text.encode())).name == "home"


def test_thousands_of_problems_are_counted_and_cut(tmp_path: Path) -> None:
    keys = "".join(f"K{n:X}=1\n" for n in range(8_000))
    error = refuse(private(tmp_path / "config/env/home.env", keys.encode()))
    assert int(str(error).split(": ")[1].split()[0]) > 8_000
    assert len(error.evidence) == 201
    assert error.evidence[-1].startswith("… and ")


def test_a_file_of_root_s_own_folder_is_shown_relative_and_printable(tmp_path: Path) -> None:
    path = private(tmp_path / "config/env/a\nb\x1b.env", b"")
    assert str(refuse(path)).startswith("config/env/a?b?.env: ")
