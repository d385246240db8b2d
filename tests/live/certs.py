"""Keys and certificates of the test bed, made anew for every run.

A root signs an intermediate, which signs the leaf: clients are told the root only, so a
server that does not send its whole chain is found out.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@frozen
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key, as SEC1, which is what acme.sh writes."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )


def make(name: str, issuer: Pair | None, *, names: Sequence[str] = (), authority: bool = False) -> Pair:
    """A new pair signed by `issuer` (None: by itself), good for a day and for these DNS names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = key if issuer is None else issuer.key
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), critical=False)
    return Pair(builder.sign(signer, hashes.SHA256()), key)


def _alternative(name: str) -> x509.GeneralName:
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
    root: Path
    """What clients trust."""


def server_files(directory: Path, names: Sequence[str]) -> Files:
    """A root, an intermediate and a leaf for these names, written to `directory`."""
    root = make("docxy test root", None, authority=True)
    middle = make("docxy test intermediate", root, authority=True)
    leaf = make(names[0], middle, names=names)
    files = Files(directory / "fullchain.pem", directory / "key.pem", directory / "root.pem")
    files.chain.write_bytes(leaf.pem + middle.pem)
    files.key.touch(mode=0o600)
    files.key.write_bytes(leaf.key_pem)
    files.root.write_bytes(root.pem)
    return files
