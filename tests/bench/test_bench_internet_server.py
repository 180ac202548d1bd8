"""The internet of the bench as its clients see it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from internet_kit import ADDRESS, GIT_HOST, INFRA, Client

from bench.internet.body import span
from bench.internet.server import Internet
from bench.internet.tls import Authority

K3S = "github.com/k3s/v1%2Bk3s1/k3s"
CONTROLLER = "ghcr.io/v2/fluxcd/source-controller"
TEMPLATE = "ghcr.io/v2/bjw-s-labs/helm/app-template"


def test_a_pull_as_containerd_does_it(client: Client) -> None:
    assert client.get("ghcr.io/v2/").status == 200
    head = client.get(f"{CONTROLLER}/manifests/v1.9.4", "HEAD")
    assert head.status == 200
    assert head.body == b""
    digest = head.headers["docker-content-digest"]
    manifest = client.get(f"{CONTROLLER}/manifests/{digest}")
    assert f"sha256:{hashlib.sha256(manifest.body).hexdigest()}" == digest
    assert manifest.headers["content-type"] == json.loads(manifest.body)["mediaType"]
    layer = json.loads(manifest.body)["layers"][0]
    blob = client.get(f"{CONTROLLER}/blobs/{layer['digest']}")
    assert f"sha256:{hashlib.sha256(blob.body).hexdigest()}" == layer["digest"]
    rest = client.get(f"{CONTROLLER}/blobs/{layer['digest']}", Range="bytes=1000-")
    assert (rest.status, rest.body) == (206, blob.body[1000:])


def test_docker_hub_has_another_host_than_its_images(client: Client) -> None:
    path = "v2/library/postgres/manifests/17.11-bookworm"
    assert client.get(f"registry-1.docker.io/{path}").status == 200
    assert client.get(f"quay.io/{path}").status == 404


def test_what_a_registry_says_of_unknown_things(client: Client) -> None:
    for url, code in (
        (f"{CONTROLLER}-gone/manifests/v1", "MANIFEST_UNKNOWN"),
        (f"{TEMPLATE}/manifests/0.0.1", "MANIFEST_UNKNOWN"),
        (f"{CONTROLLER}/blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN"),
        ("ghcr.io/v2/nobody/nothing/tags/list", "NAME_UNKNOWN"),
    ):
        answer = client.get(url)
        assert answer.status == 404
        assert json.loads(answer.body)["errors"][0]["code"] == code


def test_a_chart_in_a_registry(client: Client) -> None:
    tags = json.loads(client.get(f"{TEMPLATE}/tags/list").body)["tags"]
    manifest = json.loads(client.get(f"{TEMPLATE}/manifests/{tags[0]}").body)
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json"
    [layer] = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
    config = json.loads(client.get(f"{TEMPLATE}/blobs/{manifest['config']['digest']}").body)
    assert (config["name"], config["version"]) == ("app-template", tags[0])
    assert b"app-template/Chart.yaml" in gzip.decompress(client.get(f"{TEMPLATE}/blobs/{layer['digest']}").body)


def test_every_chart_repository_of_the_tree_has_an_index(client: Client) -> None:
    urls = [
        d["spec"]["url"].removeprefix("https://").rstrip("/")
        for p in INFRA.rglob("source.yaml")
        for d in yaml.safe_load_all(p.read_text())
        if d["kind"] == "HelmRepository"
    ]
    assert urls
    for url in urls:
        [entries] = yaml.safe_load(client.get(f"{url}/index.yaml").body)["entries"].values()
        archive = client.get(f"{url}/{entries[0]['urls'][0]}")
        assert hashlib.sha256(archive.body).hexdigest() == entries[0]["digest"]


def test_downloads_whole_and_in_parts(client: Client) -> None:
    whole = client.get(K3S)
    assert whole.body == bytes(range(256)) * 16
    assert client.get(K3S.replace("%2B", "+")).body == whole.body
    head = client.get(K3S, "HEAD")
    assert (head.headers["content-length"], head.headers["accept-ranges"]) == ("4096", "bytes")
    part = client.get(K3S, Range="bytes=10-19")
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert part.headers["content-range"] == "bytes 10-19/4096"
    assert client.get(K3S, Range="bytes=4096-").status == 416
    assert client.get("example.org/sums").body == b"sums\n"
    assert client.get("example.org/nothing").status == 404


def test_nothing_can_be_written_but_git(client: Client) -> None:
    assert client.get("ghcr.io/v2/a/b/blobs/uploads/", "POST", b"x").status == 405
    assert client.get("ghcr.io/v2/").status == 200  # on the same connection, as the body was read


def test_requests_are_counted(client: Client, internet: Internet) -> None:
    before = internet.seen["GET example.org/sums 200"]
    client.get("example.org/sums")
    assert internet.seen["GET example.org/sums 200"] == before + 1


def test_plain_http_tells_the_host_by_its_header(internet: Internet) -> None:
    with socket.create_connection((ADDRESS, internet.ports[1]), timeout=10) as raw:
        raw.sendall(b"GET /sums HTTP/1.1\r\nHost: example.org:80\r\nConnection: close\r\n\r\n")
        said = b""
        while part := raw.recv(4096):
            said += part
    assert said.endswith(b"\r\n\r\nsums\n")


@given(st.text(max_size=40), st.integers(0, 1000))
def test_ranges_stay_within_the_body(header: str, size: int) -> None:
    for text in (header, f"bytes={header}", f"bytes={size}-", f"bytes=-{size}"):
        found = span(text, size)
        assert found is None or 0 <= found[0] <= found[1] <= size


def test_a_client_that_stalls_or_speaks_nonsense_stops_nobody(client: Client, internet: Internet) -> None:
    stalled = [socket.create_connection((ADDRESS, internet.ports[0])) for _ in range(20)]
    stalled[0].sendall(b"GET / HTTP/1.0\r\n\r\n")  # no TLS at all
    assert client.get("ghcr.io/v2/").status == 200
    for raw in stalled:
        raw.close()


def test_many_clients_at_once(internet: Internet, authority: Authority) -> None:
    failed: list[BaseException] = []

    def pull(number: int) -> None:
        client = Client(internet, ADDRESS, authority.certificate())
        try:
            for tag in ("v1", "v2", f"v{number}"):
                assert client.get(f"{CONTROLLER}/manifests/{tag}").status == 200
        except BaseException as why:
            failed.append(why)
        finally:
            client.close()

    threads = [threading.Thread(target=pull, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed


def test_a_stranger_does_not_trust_it(internet: Internet) -> None:
    context = ssl.create_default_context()
    with (
        socket.create_connection((ADDRESS, internet.ports[0])) as raw,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        context.wrap_socket(raw, server_hostname="ghcr.io")


def _git(folder: Path, authority: Authority, internet: Internet, *argv: str) -> str:
    port = internet.ports[0]
    resolve = ["-c", f"http.curloptResolve={GIT_HOST}:{port}:{ADDRESS}"]
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "GIT_SSL_CAINFO": str(authority.bundle()),
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
    }  # fmt: skip
    ended = subprocess.run(
        ["git", *resolve, *identity, *argv], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return ended.stdout


def test_git_is_pushed_to_and_cloned_from(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", folder / "root" / "home.git"], check=True)
    internet = Internet(
        ADDRESS, authority=authority, tree=folder, binaries=lambda name: folder / name, offers={},
        git_root=folder / "root", git_host=GIT_HOST, cache=folder / "images", ports=(0, 0),
    )  # fmt: skip
    internet.start()
    try:
        url = f"https://{GIT_HOST}:{internet.ports[0]}/home.git"
        work = folder / "work"
        work.mkdir()
        _git(work, authority, internet, "init", "-q", "-b", "main")
        (work / "large").write_bytes(os.urandom(3 << 20))  # more than git sends in one piece, so it comes in chunks
        _git(work, authority, internet, "add", ".")
        _git(work, authority, internet, "commit", "-q", "-m", "one")
        _git(work, authority, internet, "push", "-q", url, "main")
        commit = _git(work, authority, internet, "rev-parse", "HEAD").strip()
        assert commit in _git(work, authority, internet, "ls-remote", url)
        _git(folder, authority, internet, "clone", "-q", url, "copy")
        assert (folder / "copy" / "large").read_bytes() == (work / "large").read_bytes()
    finally:
        internet.stop()
