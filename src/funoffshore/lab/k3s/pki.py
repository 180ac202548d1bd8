"""Certificates as K3s makes them: ECDSA P-256, authorities for ten years, leaves for one.

Validity follows the wall clock, not the lab's: the clients that check it are real.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITIES = ("server-ca", "client-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca")
_USES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


def authority(name: str, now: float) -> Pair:
    """A self-signed CA, CN ``k3s-<name>@<now>``."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"k3s-{name.replace('/', '-')}@{int(now)}")])
    builder = _builder(subject, subject, key.public_key(), datetime.timedelta(days=3650))
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _sign(builder, key, key)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says."""

    subject: str
    """Common name."""
    issuer: str
    uses: tuple[str, ...]
    """``ClientAuth``, ``ServerAuth``; ``CertSign`` of authorities."""
    begin: datetime.datetime
    end: datetime.datetime

    @property
    def left(self) -> datetime.timedelta:
        """How long it is still good; negative once it has expired."""
        return self.end - datetime.datetime.now(datetime.UTC)


def leaf(
    ca: Pair, common_name: str, *, uses: Iterable[str], organization: str = "", names: Iterable[str] = (),
    left: datetime.timedelta | None = None,
) -> Pair:  # fmt: skip
    """A certificate signed by ``ca``, for a year, or as if ``left`` of that year were left.

    ``uses``: ``server``, ``client``. ``names`` are DNS names and addresses.
    """
    issuer = x509.load_pem_x509_certificate(ca.certificate)
    issuer_key = serialization.load_pem_private_key(ca.key, None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise TypeError("authorities of the lab have EC keys")
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(subject, issuer.subject, key.public_key(), datetime.timedelta(days=365), left)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USES[use] for use in uses]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    alternatives = [_name(n) for n in names]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return _sign(builder, key, issuer_key)


def names_in(certificate: bytes) -> set[str]:
    """DNS names and addresses that the certificate is good for."""
    try:
        found = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in found.value}


def read(certificate: bytes) -> Certificate:
    """The certificate in a PEM text, the first one of a chain."""
    parsed = x509.load_pem_x509_certificate(certificate)
    names = {ExtendedKeyUsageOID.CLIENT_AUTH: "ClientAuth", ExtendedKeyUsageOID.SERVER_AUTH: "ServerAuth"}
    try:
        uses = [names[use] for use in parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value]
    except x509.ExtensionNotFound:
        uses = ["CertSign"]
    return Certificate(
        _common(parsed.subject), _common(parsed.issuer), tuple(uses), parsed.not_valid_before_utc,
        parsed.not_valid_after_utc,
    )  # fmt: skip


def _common(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, lifetime: datetime.timedelta,
    left: datetime.timedelta | None = None,
) -> x509.CertificateBuilder:  # fmt: skip
    now = datetime.datetime.now(datetime.UTC)
    start = now - datetime.timedelta(hours=1) if left is None else now + left - lifetime
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=not signs, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _sign(
    builder: x509.CertificateBuilder, own: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> Pair:
    certificate = builder.sign(signer, hashes.SHA256())
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
