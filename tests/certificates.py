"""Certificates and keys for tests, made in memory; each test writes the files it needs."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta, timezone

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

SEC1 = PKCS1 = PrivateFormat.TraditionalOpenSSL
PKCS8 = PrivateFormat.PKCS8


@frozen
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, form: PrivateFormat = PKCS8, password: bytes | None = None) -> bytes:
        return self.key.private_bytes(
            Encoding.PEM, form, NoEncryption() if password is None else BestAvailableEncryption(password)
        )


def issue(
    *names: str,
    by: Issued | None = None,
    key: Key | None = None,
    common_name: str = "docxy test",
    days: int = 30,
) -> Issued:
    """A certificate for DNS names and IP addresses, self-signed or issued by another."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
    return Issued(builder.sign(key if by is None else by.key, hashes.SHA256()), key)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
