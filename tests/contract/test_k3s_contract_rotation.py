"""Other tokens and other certificates, on the embedded lab's K3s and on the bench's stand-in with a real etcd and
kube-apiserver. The cases of this module are one story and follow each other."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509
from k3s_backends import (
    AGENT_SECRET,
    DATA,
    KUBECONFIG,
    SECRET,
    SERVER,
    Answer,
    Machine,
    Place,
    ask,
    await_end,
    await_ready,
    cause_of,
    place,
    read,
    settings,
    tail,
    token,
    until,
)

NEW = "00112233445566778899aabbccddeeff"
THIRD = "ffeeddccbbaa99887766554433221100"
SEALED = (
    "Error: preparing server: failed to bootstrap cluster data: failed to reconcile with local datastore: "
    "bootstrap data already found and encrypted with different token"
)
LEAVES = (
    "client-admin", "client-controller", "client-scheduler", "client-kube-apiserver", "client-auth-proxy",
    "client-supervisor", "serving-kube-apiserver", "etcd/client", "etcd/server-client", "etcd/peer-server-client",
)  # fmt: skip
AUTHORITIES = ("server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca")


@dataclass
class Scene:
    """Two servers without kubelets."""

    place: Place
    first: Machine
    second: Machine

    def configure(self, machine: Machine, password: str, **more: object) -> None:
        told = settings(machine, token=password, **{"disable-agent": True})
        told |= {"cluster-init": True} if machine is self.first else {"server": f"https://{self.first.address}:6443"}
        machine.configure(**{**told, **more})

    def restart(self, machine: Machine, password: str) -> None:
        machine.stop()
        self.configure(machine, password)
        machine.start()


@pytest.fixture(scope="module", params=["lab", pytest.param("real", marks=pytest.mark.real)])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with place(request.param, tmp_path_factory.mktemp(f"k3s-{request.param}")) as made:
        scene = Scene(made, made.machine("lab-c1", 11), made.machine("lab-c2", 12))
        for machine in (scene.first, scene.second):
            scene.configure(machine, SECRET)
            machine.start()
            await_ready(machine)
        yield scene


def put(machine: Machine, user: str, fresh: str) -> Answer:
    return ask(machine.address, "/v1-k3s/token", user=user, method="PUT", body={"newToken": fresh})


def knows(machine: Machine, password: str) -> bool:
    """Whether the server lets in who says ``password`` as a server."""
    status = ask(machine.address, "/v1-k3s/readyz", user=f"server:{password}").status
    assert status in (401, 403)
    return status == 403


def passwd(machine: Machine) -> dict[str, str]:
    lines = [line.split(",") for line in read(machine, f"{SERVER}/cred/passwd").splitlines()]
    return {user: password for password, user, *_ in lines}


def is_ready(machine: Machine) -> bool:
    return ask(machine.address, "/readyz", admin=machine).body == "ok"


def test_only_a_server_may_change_the_token(scene: Scene) -> None:
    first = scene.first
    assert put(first, f"node:{AGENT_SECRET}", NEW).status == 403
    assert put(first, "server:wrong", NEW).status == 401
    assert put(first, "", NEW).status == 403
    assert ask(first.address, "/v1-k3s/token", user=f"server:{SECRET}").status == 405
    assert knows(first, SECRET)
    assert not knows(first, NEW)


def test_a_new_token_holds_at_once_where_it_was_said(scene: Scene) -> None:
    first, before = scene.first, token(scene.first)
    assert put(first, f"server:{SECRET}", NEW) == Answer(200)
    assert (knows(first, NEW), knows(first, SECRET)) == (True, False)
    assert token(first) == before.replace(SECRET, NEW)
    assert passwd(first) == {"server": NEW, "node": AGENT_SECRET}
    assert ask(first.address, "/v1-k3s/readyz", user=f"node:{AGENT_SECRET}").body == "ok"
    assert NEW not in "\n".join(first.lines())


def test_the_other_server_goes_on_with_the_old_one(scene: Scene) -> None:
    second = scene.second
    assert (knows(second, NEW), knows(second, SECRET)) == (False, True)
    assert token(second).endswith(f"::server:{SECRET}")
    assert is_ready(second)


def test_a_server_does_not_come_back_with_the_old_one(scene: Scene) -> None:
    second = scene.second
    scene.restart(second, SECRET)
    assert await_end(second) == 1
    [line] = [line for line in second.lines() if "level=fatal" in line]
    assert line.endswith(f'msg="{SEALED}"')
    said = "Unable to reconcile with remote datastore: "
    assert any(said in line and "not authorized" in line for line in second.lines())
    cause = cause_of(second)
    assert cause is not None
    assert (cause.says, cause.hopeless) == ("its datastore was made with another token", True)


def test_a_server_comes_back_with_the_new_one(scene: Scene) -> None:
    first, second = scene.first, scene.second
    scene.restart(second, NEW)
    await_ready(second)
    assert token(second) == token(first)
    assert passwd(second) == passwd(first)
    assert (knows(second, NEW), knows(second, SECRET)) == (True, False)
    assert read(second, f"{SERVER}/tls/server-ca.crt") == read(first, f"{SERVER}/tls/server-ca.crt")


def test_so_does_the_server_where_it_was_said(scene: Scene) -> None:
    first = scene.first
    scene.restart(first, SECRET)
    assert await_end(first) == 1
    assert SEALED in tail(first)
    scene.restart(first, NEW)
    await_ready(first)
    until(lambda: is_ready(first), said=lambda: tail(first))
    until(lambda: is_ready(scene.second), said=lambda: tail(scene.second))


def test_the_command_does_the_same_and_says_what_to_do_next(scene: Scene) -> None:
    first = scene.first
    ran = first.run("token", "rotate", "--token", token(first), "--new-token", THIRD)
    assert ran.code == 0, ran.err
    assert "Recommended to keep a record of the old token" in ran.out
    assert ran.out.splitlines()[-1] == "Token rotated, restart k3s nodes with new token"
    assert (knows(first, THIRD), knows(first, NEW)) == (True, False)
    ran = first.run("token", "rotate", "--token", "wrong", "--new-token", NEW)
    assert ran.code == 1
    assert "not authorized" in ran.err
    assert THIRD not in ran.err
    scene.restart(scene.second, THIRD)
    await_ready(scene.second)


def certificates(machine: Machine, *argv: str) -> list[dict[str, Any]]:
    ran = machine.run("certificate", "check", "--output", "json", *argv)
    assert ran.code == 0, ran.err
    found: list[dict[str, Any]] = json.loads(ran.out)["Certificates"]
    return found


def test_certificates_and_how_long_they_are_good(scene: Scene) -> None:
    first = scene.first
    found = {one["Filename"]: one for one in certificates(first) if "CertSign" not in one["Usages"]}
    assert {leaf.rpartition("/")[2] + ".crt" for leaf in LEAVES} <= found.keys()
    admin = found["client-admin.crt"]
    assert (admin["Subject"], admin["Usages"], admin["Status"]) == ("system:admin", ["ClientAuth"], "OK")
    assert 363 * 24 * 3600 < admin["ResidualTime"] / 1e9 < 366 * 24 * 3600
    plain = x509.load_pem_x509_certificate(first.path(f"{SERVER}/tls/client-admin.crt").read_bytes())
    until_ = plain.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert admin["ExpiryTime"] == until_
    ran = first.run("certificate", "check")
    assert ran.code == 0
    assert f"client-admin.crt: certificate system:admin (ClientAuth) is ok, expires at {until_}" in ran.err
    assert "Server detected, checking agent and server certificates" in ran.err
    [head] = [
        line for line in first.run("certificate", "check", "--output", "table").out.splitlines() if "FILENAME" in line
    ]
    assert re.split(r"\s{2,}", head.strip()) == ["FILENAME", "SUBJECT", "USAGES", "EXPIRES", "RESIDUAL TIME", "STATUS"]


def test_one_part_of_k3s_can_be_asked_for(scene: Scene) -> None:
    only = {one["Filename"] for one in certificates(scene.first, "--service", "etcd")}
    assert only == {"client.crt", "server-client.crt", "peer-server-client.crt"}
    ran = scene.first.run("certificate", "check", "--service", "no-such")
    assert (ran.code, "service no-such is not recognized" in ran.err) == (1, True)


def serial(content: bytes | str) -> int:
    return x509.load_pem_x509_certificate(content if isinstance(content, bytes) else content.encode()).serial_number


def serials(machine: Machine, names: tuple[str, ...]) -> dict[str, int]:
    return {name: serial(machine.path(f"{SERVER}/tls/{name}.crt").read_bytes()) for name in names}


def shown(machine: Machine) -> int:
    """Of the certificate that port 6443 shows."""
    return serial(ssl.get_server_certificate((machine.address, 6443)))


def test_rotation_puts_the_old_ones_aside_and_the_next_start_makes_new_ones(scene: Scene) -> None:
    second = scene.second
    leaves, authorities, door = serials(second, LEAVES), serials(second, AUTHORITIES), shown(second)
    before, config = token(second), read(second, KUBECONFIG)
    second.stop()
    ran = second.run("certificate", "rotate")
    assert ran.code == 0, ran.err
    [aside] = second.path(SERVER).glob("tls-*")
    assert ran.err.splitlines()[-1].endswith(
        f'msg="Successfully backed up certificates to {second.data}/server/{aside.name}, '
        'please restart k3s server or agent to rotate certificates"'
    )
    assert serial((aside / "client-admin.crt").read_bytes()) == leaves["client-admin"]
    assert not [leaf for leaf in LEAVES if second.path(f"{SERVER}/tls/{leaf}.crt").exists()]
    assert second.path(f"{SERVER}/tls/dynamic-cert-regenerate").exists()
    second.start()
    await_ready(second)
    fresh = serials(second, LEAVES)
    assert not [leaf for leaf in LEAVES if fresh[leaf] == leaves[leaf]]
    assert serials(second, AUTHORITIES) == authorities
    assert not second.path(f"{SERVER}/tls/dynamic-cert-regenerate").exists()
    assert (token(second), read(second, KUBECONFIG) == config) == (before, False)
    assert shown(second) != door
    until(lambda: is_ready(second), said=lambda: tail(second))


def test_the_certificate_of_port_6443_stays_good_for_both(scene: Scene) -> None:
    for machine in (scene.first, scene.second):
        plain = ssl.get_server_certificate((machine.address, 6443)).encode()
        names = x509.load_pem_x509_certificate(plain).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert machine.address in {str(name.value) for name in names.value}


def test_only_what_is_named_is_rotated(scene: Scene) -> None:
    second = scene.second
    before = serials(second, LEAVES)
    second.stop()
    ran = second.run("certificate", "rotate", "--service", "admin,scheduler")
    assert ran.code == 0, ran.err
    assert {leaf for leaf in LEAVES if not second.path(f"{SERVER}/tls/{leaf}.crt").exists()} == {
        "client-admin", "client-scheduler"
    }  # fmt: skip
    second.start()
    await_ready(second)
    after = serials(second, LEAVES)
    assert {leaf for leaf in LEAVES if after[leaf] != before[leaf]} == {"client-admin", "client-scheduler"}
    ran = second.run("certificate", "rotate", "--service", "no-such")
    assert (ran.code, "service no-such is not recognized" in ran.err) == (1, True)


def test_a_host_without_a_server_has_an_agent_s_certificates(scene: Scene) -> None:
    bare = scene.place.machine("lab-w1", 21)
    ran = bare.run("certificate", "check")
    assert ran.code == 0
    assert "Agent detected, checking agent certificates" in ran.err
    assert not bare.path(f"{DATA}/server").exists()
