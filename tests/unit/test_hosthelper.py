"""The helper as a program: real python3, its text and the request on stdin."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from funoffshore.world import hostdisks, hostfiles, hosthelper, hostlook
from funoffshore.world.ssh import program

ME = f"{os.getuid()}:{os.getgid()}"


def ask(request: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-I", "-"], input=program.script(request), capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def file(path: Path, text: str, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "content": base64.b64encode(text.encode()).decode(), "owner": ME, **more}


def test_it_parses_as_python_3_9_and_imports_only_the_standard_library() -> None:
    tree = ast.parse(program.helper(), feature_version=(3, 9))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_its_parts_do_not_stand_in_each_others_way() -> None:
    named: list[str] = []
    for module in (hosthelper, hostdisks, hostfiles, hostlook):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        kinds = (ast.FunctionDef, ast.ClassDef)
        found = {node.name for node in tree.body if isinstance(node, kinds)}
        found |= {str(ast.unparse(node.targets[0])) for node in tree.body if isinstance(node, ast.Assign)}
        named += found
    assert sorted(named) == sorted(set(named))
    assert "funoffshore.world" not in program.helper()


def test_writing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x"
    request = {"write": [file(path, "hello", mode="0640", folder_mode="0700")]}
    assert ask(request)["changes"]["write"] == [{"on": str(path), "result": "changed"}]
    assert path.read_text() == "hello"
    assert path.stat().st_mode & 0o7777 == 0o640
    assert path.parent.stat().st_mode & 0o7777 == 0o700
    assert ask(request)["changes"]["write"] == [{"on": str(path), "result": "same"}]
    assert ask({"write": [file(path, "other", only_if_absent=True)]})["changes"]["write"][0]["result"] == "kept"
    assert os.listdir(path.parent) == ["x"]


def test_a_link_in_the_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other")
    (tmp_path / "x").symlink_to(tmp_path / "other")
    ask({"write": [file(tmp_path / "x", "mine")]})
    assert not (tmp_path / "x").is_symlink()
    assert (tmp_path / "other").read_text() == "other"


def test_a_failure_skips_what_follows_but_reads(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    request = {
        "write": [file(tmp_path / "plain" / "x", ""), file(tmp_path / "y", "")],
        "remove": [str(tmp_path / "plain")],
        "read": {"files": [{"path": str(tmp_path / "plain")}, {"path": str(tmp_path / "y")}]},
    }
    answer = ask(request)
    first, second = answer["changes"]["write"]
    assert (first["result"], first["kind"]) == ("failed", "os")
    assert str(tmp_path / "plain") in first["error"]
    assert (second["result"], answer["changes"]["remove"][0]["result"]) == ("skipped", "skipped")
    assert answer["read"]["files"][str(tmp_path / "plain")]["state"] == "present"
    assert answer["read"]["files"][str(tmp_path / "y")] == {"state": "absent"}


def test_download_takes_only_the_pinned_bytes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"bytes")
    right = hashlib.sha256(b"bytes").hexdigest()
    item = {"url": source.as_uri(), "path": str(tmp_path / "got"), "mode": "0755", "sha256": right.upper()}
    wrong = ask({"download": [{**item, "sha256": "0" * 64}]})["changes"]["download"][0]
    assert (wrong["result"], wrong["kind"]) == ("failed", "digest")
    assert right in wrong["error"]
    assert sorted(os.listdir(tmp_path)) == ["source"]
    if os.getuid() == 0:
        assert ask({"download": [item]})["changes"]["download"][0]["result"] == "changed"
        assert ask({"download": [item]})["changes"]["download"][0]["result"] == "same"
        assert (tmp_path / "got").stat().st_mode & 0o7777 == 0o755


def test_removing(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    (tmp_path / "d").mkdir()
    outcomes = ask({"remove": [str(tmp_path / "x"), str(tmp_path / "x"), str(tmp_path / "d")]})["changes"]["remove"]
    assert [outcome["result"] for outcome in outcomes] == ["removed", "absent", "failed"]


def test_facts_of_this_very_machine() -> None:
    read = ask({"read": {"commands": ["k3s-version", "rm -rf"], "space": ["/", "/nowhere/at/all"]}})["read"]
    assert read["facts"]["cpus"] == os.cpu_count()
    assert read["facts"]["hostname"] == os.uname().nodename
    assert read["space"]["/nowhere/at/all"] == read["space"]["/"]
    assert read["commands"]["rm -rf"]["state"] == "unreadable"


def test_disks_are_asked_for_by_folder() -> None:
    answer = ask({"read": {"file_systems": ["/proc", "/nowhere"]}, "grow": [{"path": "/nowhere"}, {"path": "/proc"}]})
    assert answer["read"]["file_systems"]["/nowhere"] == {"state": "absent"}
    assert answer["read"]["file_systems"]["/proc"]["device"] == ""
    first, second = answer["changes"]["grow"]
    assert (first["result"], first["kind"], first["on"]) == ("failed", "disk", "/nowhere")
    assert second["result"] == "skipped"


@pytest.mark.parametrize(
    "item",
    [{}, {"path": "/nowhere/x"}, {"path": 5, "content": ""}, {"path": "/x", "content": "", "owner": "nobody-here:x"}],
)
def test_a_request_that_makes_no_sense_is_an_answer_too(item: dict[str, Any]) -> None:
    assert ask({"write": [item]})["changes"]["write"][0]["result"] == "failed"


def test_units_without_systemd_are_unreadable_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    units = hosthelper.read({"units": [{"name": "a.service"}, {"name": "b.service"}]}, {})["units"]
    assert {name: unit["state"] for name, unit in units.items()} == {
        "a.service": "unreadable",
        "b.service": "unreadable",
    }
