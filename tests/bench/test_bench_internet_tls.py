"""The bench's CA: made once, kept private, and good for every name."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from bench.internet.tls import Authority


def test_it_is_made_once_and_its_key_is_private(tmp_path: Path) -> None:
    first = Authority(tmp_path)
    assert Authority(tmp_path).certificate() == first.certificate()
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600


def test_parallel_first_uses_agree(tmp_path: Path) -> None:
    seen: list[bytes] = []
    threads = [threading.Thread(target=lambda: seen.append(Authority(tmp_path).certificate())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1


@pytest.mark.parametrize("name", ["ghcr.io", "10.77.0.1"])
def test_a_certificate_names_what_it_is_for(authority: Authority, name: str) -> None:
    issued = x509.load_pem_x509_certificate(authority.issue(name)[0])
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate()))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(n.value) for n in names] == [name]


def _handshake(authority: Authority, asked: str) -> str:
    """The name in the certificate that a client sees who trusts the CA and asks for ``asked``."""
    server, client = socket.socketpair()
    context = authority.context("10.77.0.1")

    def serve() -> None:
        with server, context.wrap_socket(server, server_side=True) as tls:
            tls.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        trust = ssl.create_default_context(cadata=authority.certificate().decode())
        trust.set_alpn_protocols(["h2", "http/1.1"])
        with trust.wrap_socket(client, server_hostname=asked) as tls:
            assert tls.selected_alpn_protocol() == "http/1.1"
            return str(dict(pair[0] for pair in tls.getpeercert()["subject"])["commonName"])  # type: ignore
    finally:
        client.close()
        thread.join(5)


@pytest.mark.parametrize("name", ["ghcr.io", "registry-1.docker.io", "10.77.0.1"])
def test_each_client_sees_the_name_it_asked_for(authority: Authority, name: str) -> None:
    assert _handshake(authority, name) == name
