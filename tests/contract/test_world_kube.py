"""fo's door to Kubernetes where the server is not as it should be: only the lab's can be made to behave so.

What a well-behaved server does, the contract says (``test_kube_contract_*``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kube_server
import pytest

from funoffshore import errors
from funoffshore.clock import WallClock
from funoffshore.lab.kube.api import HttpResponse
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.kube import Kube
from funoffshore.world.routes import Routes

CM = "v1/ConfigMap"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[kube_server.Served]:
    made = kube_server.Served(tmp_path)
    made.add_node()
    yield made
    made.close()


@pytest.fixture
def door(served: kube_server.Served) -> Kube:
    return Kube(served.kubeconfig, Routes(), WallClock())


def value(reading: Reading[Any]) -> Any:
    assert isinstance(reading, Present), reading
    return reading.value


def why(reading: Reading[Any]) -> str:
    assert isinstance(reading, Unreadable), reading
    return reading.why


def config_map(name: str = "a", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def test_without_a_kubeconfig_there_is_no_cluster(door: Kube, served: kube_server.Served) -> None:
    served.kubeconfig.unlink()
    assert not door.available
    assert (door.readyz(), door.cluster_uid(), door.list(CM)) == (Absent(), Absent(), Absent())
    with pytest.raises(errors.UnreachableError, match="there is no kubeconfig"):
        door.apply([config_map()], "fo")


def test_another_ca_is_a_matter_of_trust(door: Kube, served: kube_server.Served) -> None:
    value(door.readyz())
    served.write_kubeconfig(ca=kube_server.pair("k3s-ca"))
    assert "does not vouch for" in why(door.readyz())
    with pytest.raises(errors.TrustError):
        door.apply([config_map()], "fo")
    assert door.calls == 3


def test_a_foreign_client_certificate_is_not_taken(door: Kube, served: kube_server.Served) -> None:
    served.write_kubeconfig(user=kube_server.pair("system:admin"))
    why(door.readyz())
    with pytest.raises((errors.TrustError, errors.UnreachableError)):
        door.apply([config_map()], "fo")


def test_a_shut_door_is_unreadable_and_opens_again(door: Kube, served: kube_server.Served) -> None:
    value(door.readyz())
    served.cluster.unlisten(served.host, 6443)
    assert "does not answer" in why(door.readyz())
    with pytest.raises(errors.UnreachableError):
        door.apply([config_map()], "fo")
    served.listen()
    value(door.readyz())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HttpResponse(503, b'{"kind":"Status","message":"starting","reason":"ServiceUnavailable"}'), "starting"),
        (HttpResponse(404, b"<html>not here</html>", "text/html"), "HTTP 404"),
        (HttpResponse(200, b"<html>hotel wifi</html>", "text/html"), "no Kubernetes API"),
        (HttpResponse(500, b"[+]ping ok\n[-]etcd failed: reason withheld\n"), "500"),
    ],
)
def test_strange_answers_are_unreadable(
    door: Kube, served: kube_server.Served, answer: HttpResponse, said: str
) -> None:
    served.before = lambda _: answer
    assert said in why(door.list(CM))
    if answer.status == 500:
        assert "[-]etcd failed" in why(door.readyz())


@pytest.mark.parametrize("text", ["", "[", "a: b", "clusters: []\ncurrent-context: x\ncontexts: []\nusers: []"])
def test_a_broken_kubeconfig_is_unreadable_and_not_quoted(door: Kube, served: kube_server.Served, text: str) -> None:
    served.kubeconfig.write_text(text + "\n# hunter2")
    assert "cannot be read" in why(door.readyz())
    assert "hunter2" not in why(door.readyz())
    with pytest.raises(errors.StateError):
        door.apply([config_map()], "fo")


def test_the_routes_are_followed_and_the_name_still_checked(tmp_path: Path) -> None:
    served = kube_server.Served(tmp_path, detour=True)
    try:
        door = Kube(served.kubeconfig, Routes(tmp_path / "routes.json"), WallClock())
        value(door.readyz())
        served.server = kube_server.pair("k3s", served.ca, "127.9.9.9")
        served.cluster.unlisten(served.host, 6443)
        served.listen()
        fresh = Kube(served.kubeconfig, Routes(tmp_path / "routes.json"), WallClock())
        assert "does not vouch for" in why(fresh.readyz())
    finally:
        served.close()


def test_what_changes_is_in_the_ledger_and_what_reads_is_not(door: Kube, served: kube_server.Served) -> None:
    door.list(CM)
    assert served.kit.ledger.count() == 0
    door.apply([config_map(a="1")], "fo")
    door.patch(CM, "default", "a", {"data": {"b": "2"}})
    door.delete(CM, "default", "a")
    with pytest.raises(errors.RefusedError):
        door.patch(CM, "default", "a", {})
    assert [e["what"] for e in served.kit.ledger.entries()] == [
        "PATCH v1/ConfigMap default/a", "PATCH v1/ConfigMap default/a", "DELETE v1/ConfigMap default/a",
    ]  # fmt: skip
