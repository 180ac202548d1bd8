"""Every request of a recording of a real Proxmox 8.4 API, in order, against the lab's: status, reason, body, tasks.

The recording lies outside this repository (``pve_transcripts.PLACE``); without it only its reader is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pve_bench
import pve_stage
import pve_transcripts
import pytest
from pve_bench import Bench
from pve_replay import Player, compare
from pve_transcripts import Cut, Exchange

from funoffshore.lab.base import LabClock

RECORDED = 1795493900.0
"""Unix time shortly before the first request; the lab's clock starts there."""
REPLAYED = 698
"""How many of the recorded requests are answered alike. It may grow, and must not shrink."""

needs_recording = pytest.mark.skipif(
    not pve_transcripts.PLACE.exists(), reason=f"the recording is not there: {pve_transcripts.PLACE}"
)


@dataclass
class Played:
    """What came of a replay."""

    alike: list[Exchange] = field(default_factory=list)
    different: list[tuple[Exchange, list[str]]] = field(default_factory=list)
    recorded: list[Exchange] = field(default_factory=list)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    directory = tmp_path_factory.mktemp("replay")
    kit = replace(pve_bench.kit(directory), clock=LabClock(20.0, epoch=RECORDED))
    bench = Bench(kit, pve_bench.Guests(), pve_bench.subnet(), "8.4")
    pve_stage.prepare(bench)
    with pve_bench.web(pve_stage.web_files()) as url:
        bench.api.start()
        try:
            bench.call("POST", "/pools", poolid="fo")
            yield play(bench, url)
        finally:
            kit.faults.off("task-hang")
            bench.session.close()
            bench.api.stop()
            kit.clock.stop()
            kit.store.close()


def play(bench: Bench, url: str) -> Played:
    """The whole recording, from its first request to its last."""
    found = Played(recorded=pve_transcripts.load(pve_stage.renamed(bench, url)))
    player, moves = Player(bench), sorted(pve_stage.BEFORE)
    for recorded in found.recorded:
        while moves and moves[0] <= recorded.line:
            pve_stage.BEFORE[moves.pop(0)](player)
        if pve_stage.left_out(recorded.line):
            continue
        pve_stage.complete(recorded, url)
        answer = player.send(recorded, pve_stage.NAMED.get(recorded.text))
        differences = player.differences(recorded, answer, wait=recorded.line not in pve_stage.RUNNING)
        if recorded.line in pve_stage.UNCOMPARED:
            continue
        if differences:
            found.different.append((recorded, differences))
        else:
            found.alike.append(recorded)
    return found


@needs_recording
def test_the_lab_answers_as_the_real_server_did(played: Played) -> None:
    told = [f"line {one.line}: {one.text[:120]}\n    " + "\n    ".join(why[:6]) for one, why in played.different]
    assert not told, "\n".join(told)


@needs_recording
def test_most_of_the_recording_is_replayed(played: Played) -> None:
    assert len(played.alike) >= REPLAYED
    assert len(played.recorded) >= 765


@needs_recording
def test_every_gap_has_a_request_and_a_reason(played: Played) -> None:
    lines = [recorded.line for recorded in played.recorded]
    for first, last, why in pve_stage.LEFT_OUT:
        assert any(first <= line <= last for line in lines), (first, last)
        assert len(why) > 10
    assert set(pve_stage.UNCOMPARED) | set(pve_stage.RUNNING) <= set(lines)


SAMPLE = """# head
> /version -H Authorization: PVEAPIToken=root@pam!full=SECRET
HTTP/1.1 401 No ticket
> GET /cluster/nextid?vmid=5 -d vmid=5 -d a=b\\,c   [Token=fo@pve!t]
HTTP/1.1 400 Parameter verification failed.
{"errors":{"vmid":"no"},"data":null}
> POST /nodes/pve/qemu vmid=120 description=line one
line two pool=fo   [Token=root@pam]
HTTP/1.1 200 OK
{"data":"UPID:pve:1:"}
TASK {"data":{"exitstatus":"OK","id":"120"}}
{"data":[{"n":2,"t":"TASK OK"},{"n":1,"t":"begun"}],"total":2}
HTTP/1.1 200 OK
{"data":{"stray":1}}
> gzip big
HTTP/1.1 200 OK
Content-Encoding: gzip
[curl rc 0]
> GET /nodes   [Token=root@pam]
HTTP/1.1 200 OK
{"data":[{"node":"pve","level":""},{"node":"oth…
"""


def test_the_reader_knows_every_notation(tmp_path: Path) -> None:
    (tmp_path / "sample.txt").write_text(SAMPLE)
    curl, unencoded, encoded, named, cut = pve_transcripts.load({"SECRET": "s3"}, tmp_path / "sample.txt")
    assert (curl.method, curl.path, curl.headers) == (
        "GET",
        "/version",
        {"sent Authorization": "PVEAPIToken=root@pam!full=s3"},
    )
    assert (curl.status, curl.reason, curl.body) == (401, "No ticket", None)
    assert (unencoded.raw, unencoded.who, unencoded.status) == ("vmid=5&a=b,c", "fo@pve!t", 400)
    assert encoded.sent == [("vmid", "120"), ("description", "line one\nline two"), ("pool", "fo")]
    assert (encoded.task, encoded.log) == ({"exitstatus": "OK", "id": "120"}, ["begun", "TASK OK"])
    assert (named.named, named.text, named.headers) == (True, "gzip big", {"Content-Encoding": "gzip"})
    assert isinstance(cut.body, Cut)
    assert cut.body == {"data": [{"node": "pve", "level": ""}]}


def test_the_comparison_sees_what_differs() -> None:
    row = {"vmid": 1, "name": "a", "digest": "0" * 40}
    assert compare({"data": [row]}, {"data": [{**row, "digest": "f" * 40}]}, False, "") == []
    assert compare({"data": [row]}, {"data": [{**row, "name": "b"}]}, False, "") == [".data[1].name: 'a' != 'b'"]
    assert compare({"data": [row]}, {"data": []}, False, "") == [f".data: no row {row}"]
    assert compare({"data": []}, {"data": [row]}, False, "") == [f".data: row too much {row}"]
    assert compare({"data": []}, {"data": [row]}, True, "") == []
    assert compare({"a": 1}, {"a": 1, "b": 2}, False, "") == [": b too much"]
