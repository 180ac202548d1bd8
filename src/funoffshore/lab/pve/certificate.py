"""The API's certificate: the same bytes for the same secret and address, so that a pin outlives the lab's folder."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_BORN = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
_ENDS = datetime.datetime(2044, 1, 1, tzinfo=datetime.UTC)
_SERIAL = 0x66756E6F666673686F7265


def lab_fingerprint(secret_for_tls: str, address: str) -> str:
    """SHA-256 of the certificate that the lab shows at ``address``, 64 lower-case hex digits. Starts nothing."""
    return hashlib.sha256(make(secret_for_tls, address)[0]).hexdigest()


def make(secret_for_tls: str, address: str) -> tuple[bytes, bytes]:
    """Certificate (DER) and certificate with key (PEM). Ed25519 signs deterministically (RFC 8032)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509.oid import NameOID

    seed = hashlib.sha256(b"funoffshore lab proxmox tls" + secret_for_tls.encode()).digest()
    key = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "pve.lab"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "funoffshore lab"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(_SERIAL)
        .not_valid_before(_BORN)
        .not_valid_after(_ENDS)
        .add_extension(x509.SubjectAlternativeName([_alternative(address), x509.DNSName("pve.lab")]), critical=False)
        .sign(key, None)
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.DER), pem


def _alternative(address: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
