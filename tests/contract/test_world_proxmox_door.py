"""The wire to Proxmox: whom it talks to, and what it makes of every kind of answer."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import door_bench
import pve_bench
import pytest
from door_bench import UPID, VERSION, House, Leaping, data, refused, scripted, silent, times, versioned
from pve_bench import FO, SECRET

from funoffshore import errors
from funoffshore.lab.pve import certificate
from funoffshore.lab.pve.wire import Reply, Request
from funoffshore.world import proxmox, routes


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with door_bench.house(tmp_path) as made:
        yield made


# The certificate


def test_not_a_byte_is_sent_to_whom_the_pin_does_not_name(tmp_path: Path) -> None:
    address = f"{pve_bench.subnet()}.2"
    der, pem = certificate.make("somebody else", address)
    (tmp_path / "tls.pem").write_bytes(pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "tls.pem")
    heard: list[bytes] = []
    finished: list[bool] = []
    with contextlib.closing(socket.create_server((address, 8006))) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError), tls.wrap_socket(listener.accept()[0], server_side=True) as line:
                finished.append(True)
                while chunk := line.recv(4096):
                    heard.append(chunk)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        client = proxmox.Proxmox(door_bench.lent(address, "a" * 64), routes.Routes(), Leaping())
        with pytest.raises(errors.TrustError) as refusal:
            client.start("pve", 900)
        thread.join(5)
    assert finished == [True], "the handshake itself must have been completed"
    assert b"".join(heard) == b""
    assert "a" * 64 in refusal.value.message
    assert hashlib.sha256(der).hexdigest() in refusal.value.message
    assert "PROXMOX_FINGERPRINT" in refusal.value.fix
    assert SECRET not in str(refusal.value)


def test_a_certificate_that_changes_while_fo_runs(tmp_path: Path) -> None:
    address = f"{pve_bench.subnet()}.5"
    heard: list[Request] = []

    def answer(request: Request) -> Reply:
        heard.append(request)
        return data(VERSION)

    with door_bench.served(tmp_path, address) as (place, use):
        use(answer)
        client = proxmox.Proxmox(door_bench.lent(address, place.fingerprint), routes.Routes(), Leaping())
        assert client.version().release == (9, 1)
        assert len(heard) == 1
    with door_bench.served(tmp_path, address, "somebody else") as (other, use):
        use(answer)
        for call in (client.version, lambda: client.start("pve", 900), lambda: client.delete("pve", 900)):
            with pytest.raises(errors.TrustError, match=other.fingerprint):
                call()
        assert len(heard) == 1
    with door_bench.served(tmp_path, address) as (_, use):
        use(answer)
        assert client.version().release == (9, 1)


def test_no_tls_at_all(tmp_path: Path) -> None:
    address = f"{pve_bench.subnet()}.2"
    with contextlib.closing(socket.create_server((address, 8006))) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listener.accept()[0] as line:
                        line.recv(4096)
                        line.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        threading.Thread(target=serve, daemon=True).start()
        client = proxmox.Proxmox(door_bench.lent(address, "a" * 64), routes.Routes(), Leaping())
        with pytest.raises(errors.UnreachableError, match="TLS handshake failed"):
            client.version()


def test_nobody_is_contacted_by_constructing() -> None:
    proxmox.Proxmox(door_bench.lent("127.0.0.1", "a" * 64), routes.Routes(), Leaping())


# Answers that are none


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(body=b"<html><title>Log in</title></html>", content_type="text/html"), "not the Proxmox API's JSON"),
        (Reply(body=b""), "not the Proxmox API's JSON"),
        (Reply(204, "No Content"), "not the Proxmox API's JSON"),
        (Reply(body=b'{"data":'), "not the Proxmox API's JSON"),
        (Reply(body=b"\xff\xfe"), "not the Proxmox API's JSON"),
        (Reply(body=b'{"success":1}'), "JSON that has no data"),
        (Reply(body=b"[]"), "JSON that has no data"),
        (Reply(body=b'"data"'), "JSON that has no data"),
        (Reply(body=b"null"), "JSON that has no data"),
        (Reply(body=b"[" * 100_000), "JSON that has no data"),
        (Reply(body=b'{"data":null}'), "something unexpected"),
        (Reply(body=b'{"data":{"version":"nine"}}'), "something unexpected"),
        (Reply(body=b'{"data":[{}]}'), "something unexpected"),
    ],
)
def test_an_answer_of_another_shape_is_a_refusal(tmp_path: Path, reply: Reply, words: str) -> None:
    with scripted(tmp_path, lambda request: reply) as (client, heard):
        with pytest.raises(errors.RefusedError, match=words) as refusal:
            client.version()
        assert len(heard) == 1
        assert "GET /version" in refusal.value.message


@pytest.mark.parametrize(
    "where", ["https://elsewhere.example/", "http://127.0.0.1/", "/api2/json/nodes", "//x", "", None]
)
@pytest.mark.parametrize("status", [301, 302, 304, 307, 308])
def test_redirects_are_never_followed(tmp_path: Path, status: int, where: str | None) -> None:
    reply = Reply(status, "Found", extra=[] if where is None else [("Location", where)])
    with scripted(tmp_path, versioned(lambda request: reply)) as (client, heard):
        with pytest.raises(errors.UnreachableError, match="redirects elsewhere"):
            client.create_pool("fo")
        assert [request.method for request in heard] == ["GET", "POST"]


@pytest.mark.parametrize("answer", [None, "", "OK", 4711, {"upid": UPID}, "UPID:pve:x", f"{UPID[:20]}"])
def test_a_write_without_a_task(tmp_path: Path, answer: Any) -> None:
    words = "where the id of a task was due"
    with (
        scripted(tmp_path, versioned(lambda request: data(answer))) as (client, _),
        pytest.raises(errors.RefusedError, match=words),
    ):
        client.start("pve", 900)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{",
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Encoding: gzip\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_an_answer_that_breaks_off(tmp_path: Path, head: bytes) -> None:
    address = f"{pve_bench.subnet()}.2"
    der, pem = certificate.make("short", address)
    (tmp_path / "tls.pem").write_bytes(pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "tls.pem")
    with contextlib.closing(socket.create_server((address, 8006))) as listener:

        def serve() -> None:
            for _ in range(3):
                with contextlib.suppress(OSError), tls.wrap_socket(listener.accept()[0], server_side=True) as line:
                    line.recv(4096)
                    line.sendall(head)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        config = door_bench.lent(address, hashlib.sha256(der).hexdigest())
        with pytest.raises(errors.UnreachableError, match="did not answer GET /version"):
            proxmox.Proxmox(config, routes.Routes(), Leaping()).version()
        thread.join(5)
        assert not thread.is_alive(), "asked three times"


# Refusals in Proxmox's words


@pytest.mark.parametrize(
    ("text", "meaning", "fix"),
    [
        ("No ticket", "no token has reached it", "Authorization header"),
        ("no tokenid specified", "no token has reached it", "Authorization header"),
        ("invalid token value!", "the token's secret is wrong", "PROXMOX_TOKEN_SECRET"),
        ("no such user ('fo@pve')", "does not know the user", "PROXMOX_TOKEN_ID"),
        ("no such token 't1' for user 'fo@pve'", "does not know a token", "PROXMOX_TOKEN_ID"),
        ("'fo@pve!x' is not a valid token ID - not able to split", "does not know a token", "PROXMOX_TOKEN_ID"),
        ("token 'old' access expired", "has expired", "pveum user token add"),
        ("permission denied - invalid PVE ticket", "login ticket", "something in between"),
        ("Permission denied - invalid csrf token", "login ticket", "something in between"),
        ("Authentication failed!", "Authentication failed!", "PROXMOX_TOKEN_ID"),
        ("", "401", "PROXMOX_TOKEN_ID"),
    ],
)
def test_a_token_that_is_not_accepted(tmp_path: Path, text: str, meaning: str, fix: str) -> None:
    with scripted(tmp_path, lambda request: silent(401, text)) as (client, heard):
        with pytest.raises(errors.PreflightError) as refusal:
            client.version()
        assert len(heard) == 1, "a wrong token is not tried again"
    assert meaning in refusal.value.message
    assert FO in refusal.value.message
    assert fix in refusal.value.fix
    assert SECRET not in str(refusal.value) + refusal.value.fix


@pytest.mark.parametrize("token", ["fo@pve!t1", "weak@pve!t1", "fo@pve!old", "nobody@pve!t1", "fo@pve!nope"])
def test_tokens_of_the_lab(house: House, token: str) -> None:
    client = house.another(token_id=token)
    if token in ("fo@pve!t1", "weak@pve!t1"):
        assert client.version().release == (9, 1)
    else:
        with pytest.raises(errors.PreflightError, match="does not accept the token"):
            client.version()


def test_a_secret_that_is_wrong(house: House) -> None:
    with pytest.raises(errors.PreflightError, match="secret is wrong") as refusal:
        house.another(secret="hunter2").version()
    assert "hunter2" not in str(refusal.value) + refusal.value.fix + "".join(refusal.value.evidence)


PEERS = [
    (595, "No route to host", "Proxmox node pve2 did not answer", "is up, but cannot reach that node"),
    (595, "Connection refused", "Proxmox node pve2 did not answer", "is up, but cannot reach that node"),
    (596, "ssl3_get_server_certificate: certificate verify failed", "pve2", "distrust each other"),
    (596, "tls_process_server_certificate: certificate verify failed", "pve2", "the pin of fo has no part in it"),
    (596, "Connection timed out", "Proxmox node pve2 did not answer", "may still be done"),
    (599, "Too many redirections", "Proxmox node pve2 did not answer", "may still be done"),
]


@pytest.mark.parametrize(("status", "text", "who", "what"), PEERS)
def test_a_peer_that_is_down_is_named(tmp_path: Path, status: int, text: str, who: str, what: str) -> None:
    with scripted(tmp_path, versioned(lambda request: silent(status, text))) as (client, heard):
        with pytest.raises(errors.UnreachableError) as silence:
            client.start("pve2", 900)
        assert [request.method for request in heard] == ["GET", "POST"], "a write is sent once"
    assert who in silence.value.message
    assert what in silence.value.message
    assert str(status) in silence.value.message
    assert "pve2" in silence.value.fix


@pytest.mark.parametrize("status", [502, 503, 504, 595, 596, 597, 598, 599])
def test_a_call_to_nobody_in_particular(tmp_path: Path, status: int) -> None:
    with scripted(tmp_path, lambda request: silent(status, "Connection timed out")) as (client, heard):
        with pytest.raises(errors.UnreachableError, match=f"did not answer GET /cluster/resources: {status}"):
            client.resources()
        assert len(heard) == 3, "reads are repeated"


def test_a_read_is_repeated_until_it_is_answered(house: House) -> None:
    house.mishaps.append(times(2, "GET", "/version", silent(596, "Connection timed out")))
    assert house.client.version().release == (9, 1)
    assert house.counted("GET /version") == 3


def test_a_configuration_store_that_restarts_is_silence(tmp_path: Path) -> None:
    text = "RPCEnvironment init request failed: Unable to load access control list: Connection refused"
    with scripted(tmp_path, lambda request: silent(500, text)) as (client, heard):
        with pytest.raises(errors.UnreachableError, match="access control list"):
            client.pools()
        assert len(heard) == 3


def test_all_lines_of_a_refusal_are_kept(tmp_path: Path) -> None:
    text = "command failed\nsecond line: Größe\nthird"
    with (
        scripted(tmp_path, lambda request: refused(500, text)) as (client, _),
        pytest.raises(errors.RefusedError, match="third") as refusal,
    ):
        client.pools()
    assert refusal.value.status == 500
    assert "Größe" in refusal.value.message


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b'{"message":7,"errors":[]}', b"[" * 100_000])
def test_a_refusal_whose_body_says_nothing_has_its_reason(tmp_path: Path, body: bytes) -> None:
    reason = "hostname lookup 'Grün' failed".encode().decode("latin-1")
    with (
        scripted(tmp_path, lambda request: Reply(500, reason, body)) as (client, _),
        pytest.raises(errors.RefusedError, match="hostname lookup 'Grün' failed"),
    ):
        client.pools()


def test_a_forbidden_call_names_path_and_privilege(house: House) -> None:
    house.bench.api.add_token("weak@pve!weak", SECRET, {"/vms": ["VM.Audit"]})
    house.bench.api.add_stranger(9100, "pbx")
    with pytest.raises(errors.PreflightError) as refusal:
        house.another(token_id="weak@pve!weak").start("pve", 9100)
    assert "VM.PowerMgmt on /vms/9100" in refusal.value.message
    assert "pveum acl modify /vms/9100 --users 'weak@pve' --tokens 'weak@pve!weak'" in refusal.value.fix


def test_creating_without_the_right_names_what_proxmox_leaves_out(house: House) -> None:
    house.bench.api.add_token("weak@pve!weak", SECRET, {"/vms": ["VM.Audit"]})
    with pytest.raises(errors.PreflightError, match=r"VM\.Allocate on /vms"):
        house.another(token_id="weak@pve!weak").create_vm("pve", {"vmid": 900})


def test_another_refusal_without_a_name_guesses_nothing(tmp_path: Path) -> None:
    text = "Permission check failed (pool 'nope' does not exist)"
    with (
        scripted(tmp_path, versioned(lambda request: refused(403, text))) as (client, _),
        pytest.raises(errors.PreflightError, match="pool 'nope' does not exist") as refusal,
    ):
        client.create_pool("nope")
    assert "fo doctor" in refusal.value.fix
