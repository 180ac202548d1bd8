"""The bench's own certificate authority, and a server certificate for every name that a client asks for."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import ipaddress
import os
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

_AHEAD = datetime.timedelta(days=1)
_LIFE = datetime.timedelta(days=3650)
_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "funoffshore bench, opens nothing else")])


class Authority:
    """A CA that lives in ``folder`` as ``ca.crt`` and ``ca.key`` (mode 0600), made on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._contexts: dict[str, ssl.SSLContext] = {}
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / "ca.lock"):
            if not self.bundle().exists():
                self._make()
        pem = (folder / "ca.key").read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{folder / 'ca.key'} is no ECDSA key")
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(self.certificate())

    def bundle(self) -> Path:
        """The file with the CA's certificate, PEM: what a client has to trust."""
        return self._folder / "ca.crt"

    def certificate(self) -> bytes:
        """The CA's certificate, PEM."""
        return self.bundle().read_bytes()

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """A fresh certificate for a host name or address, and its key, both PEM. Raises ValueError for no name."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _AHEAD)
            .not_valid_after(min(now + _LIFE, self._certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName([_subject(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return built.public_bytes(serialization.Encoding.PEM), _private(key)

    def context(self, fallback: str) -> ssl.SSLContext:
        """A server's TLS settings: a certificate for whatever name is asked for, ``fallback`` for who names none."""
        context = self._for(fallback)

        def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> int | None:
            if name and name != fallback:
                try:
                    connection.context = self._for(name.lower())
                except ValueError:
                    return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            return None

        context.sni_callback = choose
        return context

    def _for(self, name: str) -> ssl.SSLContext:
        with self._lock:
            if name not in self._contexts:
                certificate, key = self.issue(name)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                context.set_alpn_protocols(["http/1.1"])
                with tempfile.NamedTemporaryFile() as file:  # the only way in; its mode is 0600
                    file.write(certificate + key)
                    file.flush()
                    context.load_cert_chain(file.name)
                self._contexts[name] = context
            return self._contexts[name]

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"), False,
        )  # fmt: skip
        built = (
            x509.CertificateBuilder()
            .subject_name(_NAME)
            .issuer_name(_NAME)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _AHEAD)
            .not_valid_after(now + _LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        hidden = self._folder / "ca.key"
        hidden.unlink(missing_ok=True)
        with os.fdopen(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(_private(key))
        fresh = self._folder / "ca.crt.new"
        fresh.write_bytes(built.public_bytes(serialization.Encoding.PEM))
        fresh.replace(self.bundle())


def _subject(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
