"""The HTTP layer of the lab's Proxmox against a real 8.4 one's, and hostile bytes against its parsers."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

import pve_bench
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pve_bench import ROOT, Bench

from funoffshore.lab.pve import bodies
from funoffshore.lab.pve.refusal import RefusalError
from funoffshore.lab.pve.wire import Request

Q = "/nodes/pve/qemu"
UNKNOWN = "property is not defined in schema and the schema does not allow additional properties"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pve_bench.bench(tmp_path_factory.mktemp("pve")) as made:
        assert made.done("POST", Q, vmid=115, scsi0="vmstore:1", net0="virtio,bridge=vmbr0", cores=2) == "OK"
        yield made


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "No ticket"),
        ({"Authorization": "Bearer abc"}, "No ticket"),
        ({"Authorization": f"PVEAPIToken={ROOT}=wrong"}, "invalid token value!"),
        ({"Authorization": "PVEAPIToken=nobody@pve!tok=x"}, "no such user ('nobody@pve')"),
        (
            {"Authorization": "PVEAPIToken=nobody@pve!x=x"},
            "'nobody@pve!x' is not a valid token ID - not able to split into user and token parts",
        ),
        ({"Authorization": f"PVEAPIToken=fo@pve!old={pve_bench.SECRET}"}, "token 'old' access expired"),
        ({"Authorization": "PVEAPIToken=garbage"}, "no tokenid specified"),
        ({"Cookie": "PVEAuthCookie=PVE:root@pam:1::x"}, "permission denied - invalid PVE ticket"),
    ],
)
def test_unauthorised_says_why_only_in_its_reason(bench: Bench, headers: dict[str, str], reason: str) -> None:
    for path in ("/version", "/nope"):
        answer = bench.raw("GET", path, "", headers=headers)
        assert (answer.status, answer.reason, answer.body) == (401, reason, "")


def test_http_layer_departs_from_the_rfcs_as_recorded(bench: Bench) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = bench.raw("POST", Q, data="vmid=103&net0=virtio,bridge=vmbr0", headers=form)
    assert answer.errors == {"net0": "invalid format - duplicate key in comma-separated list property: model\n"}
    answer = bench.raw("PUT", f"{Q}/115/config", data="tags=a;b", headers=form)
    assert answer.errors == {"b": UNKNOWN}
    answer = bench.raw("PUT", f"{Q}/115/config", data={"cores": [1, 2]})
    assert answer.errors == {"cores": "type check ('integer') failed - got ARRAY"}
    answer = bench.raw("PUT", f"{Q}/115/config", json={"onboot": None})
    assert (answer.status, answer.reason) == (500, "unable to parse value of 'onboot' - got undefined value")
    assert bench.raw("PUT", f"{Q}/115/config", json={"onboot": True, "delete": ["agent"]}).data is None
    assert bench.config(115)["onboot"] == 1
    answer = bench.raw("PUT", f"{Q}/115/config", data="{", headers={"Content-Type": "application/json"})
    assert answer.status == 500
    assert answer.reason.startswith("malformed JSON string")
    answer = bench.raw("PUT", f"{Q}/115/config", data="x", headers={"Content-Type": "text/plain"})
    assert (answer.status, answer.reason) == (506, "upload 'Content-Type 'text/plain' not implemented")
    answer = bench.raw("PUT", f"{Q}/115/config", params={"cores": 4}, data={"memory": 512})
    assert answer.data is None
    assert (bench.config(115)["cores"], bench.config(115)["memory"]) == (4, "512")


def test_http_layer_refuses_what_the_real_one_does(bench: Bench) -> None:
    for method in ("HEAD", "PATCH", "OPTIONS"):
        answer = bench.raw(method, "/version")
        assert (answer.status, answer.reason, answer.body) == (501, f"method '{method}' not available", "")
    for method in ("DELETE", "GET"):
        answer = bench.raw(method, f"{Q}/115", data={"purge": 1})
        assert (answer.status, answer.body) == (501, f"Unexpected content for method '{method}'")
    answer = bench.raw("PUT", f"{Q}/115/config", data=iter([b"cores=1"]))
    assert (answer.status, answer.body) == (501, "chunked transfer encoding not supported")
    answer = bench.raw("PUT", f"{Q}/115/config", data={"description": "x" * 600_000})
    assert (answer.status, answer.body) == (501, "for data too large")
    answer = bench.raw("GET", f"https://{bench.address}:8006/api2/json//version")
    assert (answer.status, answer.body) == (500, "no such file '/json//version'")
    answer = bench.raw("GET", f"http://{bench.address}:8006/api2/json/version", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (301, f"https://{bench.address}:8006/api2/json/version")
    answer = bench.raw("GET", f"https://{bench.address}:8006/api2/extjs{Q}/900/config")
    assert (answer.status, answer.body["success"], answer.body["status"]) == (200, 0, 500)


def test_connection_headers_and_gzip(bench: Bench) -> None:
    assert bench.raw("GET", "/version").headers["Connection"] == "Keep-Alive"
    assert bench.raw("GET", Q).headers["Connection"].startswith("close")
    assert "Content-Encoding" not in bench.raw("GET", "/version").headers
    assert bench.raw("GET", "/access/permissions").headers["Content-Encoding"] == "gzip"


def test_unknown_operations_are_noted(bench: Bench) -> None:
    bench.raw("GET", "/cluster/ceph/metadata")
    assert "GET /cluster/ceph/metadata" in (bench.kit.directory / "pve" / "unknown.log").read_text()


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.text())
def test_form_parser_takes_every_text(text: str) -> None:
    for name, value in bodies.form(text).items():
        assert isinstance(name, str)
        assert isinstance(value, str | list)


@FUZZ
@given(st.one_of(st.binary(), st.recursive(st.none(), lambda s: st.lists(s)).map(lambda v: repr(v).encode())))
def test_json_parser_refuses_or_gives_parameters(body: bytes) -> None:
    try:
        assert all(value is not None for value in bodies.document(body).values())
    except RefusalError as why:
        assert why.status == 500, body  # noqa: PT017 - refusing is one of two right outcomes


PARTS = st.lists(
    st.tuples(
        st.sampled_from(["content", "checksum", "checksum-algorithm", "filename", "file", "", "x"]),
        st.sampled_from(["", '; filename="a.iso"', '; filename="../b.iso"', '; filename=""']),
        st.binary(max_size=40),
    ),
    max_size=5,
)


@FUZZ
@given(PARTS, st.booleans(), st.binary(max_size=20))
def test_multipart_parser_refuses_or_gives_a_file(
    parts: list[tuple[str, str, bytes]], closed: bool, junk: bytes
) -> None:
    body = b"".join(
        b'--B\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (n.encode(), f.encode(), d)
        for n, f, d in parts
    )
    try:
        found = bodies.upload("multipart/form-data; boundary=B", body + (b"--B--\r\n" if closed else junk))
    except RefusalError as why:
        assert why.status in (400, 500), body  # noqa: PT017 - refusing is one of two right outcomes
    else:
        assert set(found.fields) <= {"content", "checksum", "checksum-algorithm"}


def test_a_file_swallows_what_follows_it() -> None:
    def part(rest: str, content: str) -> str:
        return f"--B\r\nContent-Disposition: form-data; {rest}\r\n\r\n{content}\r\n"

    file = part('name="filename"; filename="a.iso"', "BYTES")
    whole = part('name="content"', "iso") + file + part('name="checksum"', "00") + "--B--\r\n"
    found = bodies.upload("multipart/form-data; boundary=B", whole.encode())
    assert found.fields == {"content": "iso"}
    assert found.data.startswith(b"BYTES\r\n--B")
    alone = bodies.upload(
        "multipart/form-data; boundary=B", (part('name="content"', "iso") + file + "--B--\r\n").encode()
    )
    assert alone.data == b"BYTES"
    trailing = (part('name="content"', "iso") + file.replace("BYTES", "BYTES\r\n\n") + "--B--\r\n").encode()
    assert bodies.upload("multipart/form-data; boundary=B", trailing).data == b"BYTES\r\n\n"


METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE"])
PATHS = st.sampled_from(
    [
        "/version",
        Q,
        f"{Q}/115/config",
        f"{Q}/x/config",
        "/nodes/pve/storage/local/upload",
        "/nodes/pve/storage/local/content/local:iso/../../x.iso",
        "/nodes/pve/tasks/x/log",
        "/nodes//qemu",
        "/pools",
        "/cluster/nextid",
        "/%00/%ff",
        "",
    ]
)
TYPES = st.sampled_from(
    ["", "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=B"]
)


@FUZZ
@given(METHODS, PATHS, TYPES, st.text(max_size=20), st.binary(max_size=200))
def test_no_request_ends_in_an_internal_error(
    bench: Bench, method: str, path: str, kind: str, query: str, body: bytes
) -> None:
    headers = {"authorization": f"PVEAPIToken={ROOT}={pve_bench.SECRET}", "content-type": kind}
    reply = bench.api.answer(Request(method, f"/api2/json{path}?{query}", headers, body))
    assert reply.status in (200, 400, 403, 500, 501, 506)
    assert "internal error" not in reply.reason
    assert b"Traceback" not in reply.body


@settings(FUZZ, max_examples=25)
@given(st.binary(min_size=1, max_size=300))
def test_bytes_that_are_no_http_only_close_the_connection(bench: Bench, garbage: bytes) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname = False
    tls.verify_mode = ssl.CERT_NONE
    with socket.create_connection((bench.address, 8006), timeout=5) as raw, tls.wrap_socket(raw) as stream:
        stream.sendall(garbage + b"\r\n\r\n")
        got = stream.recv(1000)
    assert got == b"" or re.match(rb"HTTP/1\.\d \d{3} ", got)


def test_a_client_that_never_shakes_hands_holds_up_nobody(bench: Bench) -> None:
    with socket.create_connection((bench.address, 8006)):
        assert bench.call("GET", "/version").status == 200
