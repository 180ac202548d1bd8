"""A cluster of the lab behind HTTPS on an address of its own, with a kubeconfig for it."""

from __future__ import annotations

import base64
import datetime
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from funoffshore.lab import base
from funoffshore.lab.kube.api import HttpRequest, HttpResponse
from funoffshore.lab.kube.cluster import KubeCluster

_numbers = itertools.count()


def address() -> str:
    """An address in a /24 that no other test uses."""
    return f"127.{64 + os.getpid() % 150}.{next(_numbers) % 250}.{os.getpid() // 150 % 250 + 1}"


@dataclass(frozen=True)
class Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def pair(name: str, issuer: Pair | None = None, ip: str = "") -> Pair:
    """A CA, a client's or (with ``ip``) a server's certificate."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
        .issuer_name(issuer.certificate.subject if issuer else subject).serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )  # fmt: skip
    if issuer is None:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if ip else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(signer, critical=False)
    if ip:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(ip))])
        builder = builder.add_extension(names, critical=False)
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


class Served:
    """The cluster ``cluster`` at ``host``:6443; ``kubeconfig`` is the administrator's file."""

    def __init__(self, directory: Path, *, detour: bool = False, **latencies: float) -> None:
        store = base.Store(directory / "lab.sqlite")
        self.kit = base.Kit(
            directory, base.LabClock(), store, base.Latencies(**latencies), base.Faults(store), base.Ledger(store),
            base.Routes(directory, detour=detour),
        )  # fmt: skip
        self.host = address()
        self.ca = pair("k3s-ca")
        self.admin = pair("system:admin", self.ca)
        self.cluster = KubeCluster(self.kit, "demo", load_balancer="127.0.0.9", ca=self.ca.pem.decode())
        self.before: Callable[[HttpRequest], HttpResponse | None] = lambda request: None
        self.server = pair("k3s", self.ca, self.host)
        self.listen()
        self.kubeconfig = directory / "kubeconfig"
        self.write_kubeconfig()

    def listen(self) -> None:
        def first(request: HttpRequest) -> HttpResponse | None:
            return self.before(request)

        self.cluster.listen(self.host, 6443, self.server.pem, self.server.key_pem, self.ca.pem, first)

    def write_kubeconfig(self, ca: Pair | None = None, user: dict[str, Any] | None = None) -> None:
        def text(data: bytes) -> str:
            return base64.b64encode(data).decode()

        certificates = {"client-certificate-data": text(self.admin.pem), "client-key-data": text(self.admin.key_pem)}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": f"https://{self.host}:6443",
                          "certificate-authority-data": text((ca or self.ca).pem)}}],
            "users": [{"name": "lab", "user": certificates if user is None else user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        }  # fmt: skip
        self.kubeconfig.write_text(yaml.safe_dump(document))
        self.kubeconfig.chmod(0o600)

    def add_node(self, name: str = "n1") -> None:
        self.cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}, "kubelet")
        status = {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}
        self.cluster.change_status("v1/Node", "", name, lambda _: status)

    def close(self) -> None:
        self.cluster.close()
        self.kit.clock.stop()
        self.kit.store.close()
