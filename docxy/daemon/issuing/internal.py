"""docxy's own authority, and the certificates that it issues to docxy.

The law: the authority's key leaves its file for nobody, and signs nothing but docxy's own certificate;
an authority that is there is never replaced, for clients trust it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from zope.interface import implementer

from docxy.daemon.certificates import KeyPair
from docxy.daemon.issuing.issuer import IIssuer, IssueError, RenewalPlan, by_life
from docxy.daemon.issuing.state import StateDirectory

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=90)
EARLY = timedelta(hours=1)
"""How long ago a certificate begins: clocks of clients differ."""
LOOK = 24 * 3600.0
"""Seconds."""


def _now() -> datetime:
    return datetime.now(timezone.utc)


@implementer(IIssuer)
class InternalIssuer:
    """Issues to some names, as an authority of its own."""

    source = "internal"

    def __init__(self, state: StateDirectory, names: Sequence[str], now: Callable[[], datetime] = _now) -> None:
        self._state = state
        self._names = names
        self._now = now

    def issue(self) -> bytes:
        ca, ca_key = self._authority()
        key = ec.generate_private_key(ec.SECP256R1())
        now = self._now()
        if ca.not_valid_after_utc <= now:
            raise IssueError(
                f"docxy's own authority {self._state.ca} ended on {ca.not_valid_after_utc:%Y-%m-%d}: move it and "
                f"{self._state.ca_key} away, restart docxy, and give clients the new one"
            )
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLY)
            .not_valid_after(min(now + LEAF_LIFE, ca.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in self._names]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        return leaf.public_bytes(Encoding.PEM) + ca.public_bytes(Encoding.PEM) + _pem(key)

    def plan(self, pem: bytes, pair: KeyPair, now: float) -> RenewalPlan:
        return RenewalPlan(by_life(pair), now + LOOK)

    def _authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """The authority that is there, or a new one.  Raises IssueError, OSError."""
        certificate, key = self._state.read(self._state.ca), self._state.read(self._state.ca_key)
        if key is None:
            if certificate is not None:
                raise IssueError(
                    f"{self._state.ca_key} is missing, so that nothing can be issued by {self._state.ca}: put it back, "
                    f"or move {self._state.ca} away too, and give clients the new one"
                )
            key = _pem(ec.generate_private_key(ec.SECP256R1()))
            # The key first: without its certificate one is made again, the other way round clients would be lost.
            self._state.write(self._state.ca_key, key)
        try:
            private = load_pem_private_key(key, None)
            if not isinstance(private, ec.EllipticCurvePrivateKey):
                raise ValueError("not an EC key")
            if certificate is None:
                certificate = self._root(private)
                self._state.write(self._state.ca, certificate)
            found = x509.load_pem_x509_certificate(certificate)
        except (ValueError, TypeError) as error:
            raise IssueError(f"docxy's own authority {self._state.ca} cannot be used: {error}") from None
        if found.public_key() != private.public_key():
            raise IssueError(f"{self._state.ca_key} is not the key of {self._state.ca}")
        return found, private

    def _root(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        now = self._now()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"docxy internal CA of {self._names[0]}"[:64])])
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLY)
            .not_valid_after(now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )


def _usage(**wanted: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: wanted.get(name, False) for name in names})


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
