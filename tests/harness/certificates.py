"""Certificates and keys for tests, made anew for every run."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

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
from twisted.trial.unittest import SynchronousTestCase

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
    days: float = 30,
    begins: float = -60,
    general: Sequence[x509.GeneralName] | None = None,
) -> Issued:
    """A certificate for DNS names and IP addresses, self-signed or issued by another; without names an authority's.

    `general`: subjectAltNames of any kind, in place of `names`; `days`, `begins`: its time, from today on.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .add_extension(x509.BasicConstraints(ca=not names and general is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((key if by is None else by.key).public_key()),
            critical=False,
        )
    )
    general = [_general(name) for name in names] if general is None else general
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), False)
    return Issued(builder.sign(key if by is None else by.key, hashes.SHA256()), key)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@frozen
class Files:
    """What a server and its clients are given."""

    chain: Path
    """Leaf and intermediate, as a server's `--cert`."""
    key: Path
    """As SEC1, which is what acme.sh writes."""
    root: Path
    """What clients trust: the root only, so that a server that does not send its whole chain is found out."""


def server_files(directory: Path, names: Sequence[str]) -> Files:
    """A root, an intermediate and a leaf for these names, written to `directory`, which is there."""
    root = issue(common_name="docxy test root")
    middle = issue(common_name="docxy test intermediate", by=root)
    leaf = issue(*names, common_name=names[0], by=middle)
    files = Files(directory / "fullchain.pem", directory / "key.pem", directory / "root.pem")
    files.chain.write_bytes(leaf.pem + middle.pem)
    files.key.touch(mode=0o600)
    files.key.write_bytes(leaf.key_pem(SEC1))
    files.root.write_bytes(root.pem)
    return files


def write_pair(directory: Path, issued: Issued, name: str = "pair") -> list[str]:
    """docxy's options for a certificate and its key, which are files of this directory afterwards."""
    cert, key = directory / f"{name}.cert.pem", directory / f"{name}.key.pem"
    cert.write_bytes(issued.pem)
    key.write_bytes(issued.key_pem())
    return ["--cert", str(cert), "--key", str(key)]


class PairCase(SynchronousTestCase):
    """A test with a directory of its own, in which certificates and keys lie."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def pair(self, issued: Issued, name: str = "pair") -> list[str]:
        """Options for the certificate and its key."""
        return write_pair(self.directory, issued, name)
