"""What a real Proxmox 8.4 API answered, read by the door. The recording lies beside the repository, or nowhere."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pve_transcripts
import pytest
from door_bench import scripted

from funoffshore.lab.pve.wire import Reply
from funoffshore.world import proxmox

RECORDED: list[tuple[str, Callable[[proxmox.Proxmox, Sequence[str]], Any]]] = [
    (r"/version", lambda client, _: client.version()),
    (r"/access/permissions", lambda client, _: client.grants()),
    (r"/cluster/resources", lambda client, _: client.resources()),
    (r"/cluster/status", lambda client, _: client.cluster_status()),
    (r"/cluster/backup", lambda client, _: client.backup_jobs()),
    (r"/cluster/ha/resources", lambda client, _: client.ha_resources()),
    (r"/nodes", lambda client, _: client.nodes()),
    (r"/pools", lambda client, _: client.pools()),
    (r"/nodes/pve/network", lambda client, _: client.bridges("pve")),
    (r"/nodes/pve/storage", lambda client, _: client.storages("pve")),
    (r"/nodes/pve/storage/(\w+)/content", lambda client, found: client.content("pve", found[0])),
    (r"/nodes/pve/qemu", lambda client, _: client.vms("pve")),
    (r"/nodes/pve/qemu/(\d+)/config", lambda client, found: client.config("pve", int(found[0]))),
    (r"/nodes/pve/qemu/(\d+)/pending", lambda client, found: client.pending("pve", int(found[0]))),
    (r"/nodes/pve/qemu/(\d+)/status/current", lambda client, found: client.running("pve", int(found[0]))),
    (r"/nodes/pve/qemu/(\d+)/firewall/rules", lambda client, found: client.firewall_rules("pve", int(found[0]))),
    (r"/nodes/pve/qemu/(\d+)/firewall/options", lambda client, found: client.firewall_options("pve", int(found[0]))),
    (r"/nodes/pve/capabilities/qemu/cpu", lambda client, _: client.cpu_models("pve")),
    (r"/nodes/pve/time", lambda client, _: client.time("pve")),
    (r"/nodes/pve/tasks", lambda client, _: client.tasks("pve", 0)),
    (r"/nodes/pve/tasks/(UPID:[^/]+)/status", lambda client, found: client.task(found[0])),
    (r"/nodes/pve/tasks/(UPID:[^/]+)/log", lambda client, found: client.task_log(found[0])),
]


@pytest.mark.skipif(not pve_transcripts.PLACE.exists(), reason="the recording is no part of the repository")
def test_recorded_answers_are_read(tmp_path: Path) -> None:
    answered: list[Any] = []
    read: Counter[str] = Counter()
    with scripted(tmp_path, lambda request: Reply(body=json.dumps(answered[-1]).encode())) as (client, _):
        for exchange in pve_transcripts.load({}):
            body = exchange.body
            if (
                exchange.method != "GET"
                or exchange.status != 200
                or type(body) is not dict
                or "type" in dict(exchange.sent)
            ):
                continue
            for pattern, ask in RECORDED:
                if found := re.fullmatch(pattern, exchange.path):
                    answered.append(body)
                    # An answer with a permission that is not there, or about nothing, is one as well.
                    assert ask(client, found.groups()) is not None, (exchange.line, exchange.text)
                    read[pattern] += 1
    assert sum(read.values()) > 60
    assert {r"/access/permissions", r"/nodes/pve/qemu", r"/cluster/backup"} <= set(read)
