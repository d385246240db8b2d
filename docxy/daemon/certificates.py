"""PEM files -> what TLS is served with; and again when the files have changed.

The law: a certificate is served only with the key that fits it, and always with the rest of
its chain.  A pair that cannot be used is a ConfigError at start; later it is logged, and the
pair that worked goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from docxy.daemon.reloads import Reloaded
from docxy.file_mark import mark
from docxy.settings.model import Config, ConfigError

_ENABLE_PARTIAL_WRITE = 0x1
"""SSL_MODE_ENABLE_PARTIAL_WRITE of <openssl/ssl.h>: to seal one record a call, however much is given."""
_PRIVATE_KEY = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


@frozen
class KeyPair:
    """A certificate and its key, ready to be served."""

    options: CertificateOptions
    pem: tuple[bytes, bytes] = field(repr=False)
    """The certificate with its chain, and the key."""
    dns_names: tuple[str, ...]
    """What the certificate covers, wildcards too, in its order."""
    addresses: tuple[str, ...]
    """IP addresses it covers."""
    begins: datetime
    """In UTC."""
    expires: datetime
    """In UTC."""

    def url_host(self) -> str | None:
        """The first name that can stand in a URL: no wildcard, brackets around IPv6; None if there is none."""
        hosts = [name for name in self.dns_names if "*" not in name]
        hosts += [f"[{address}]" if ":" in address else address for address in self.addresses]
        return hosts[0] if hosts else None


def load(cert: str, key: str) -> KeyPair:
    """Read the two PEM files.  Raises ConfigError, which names the file that is wrong.

    `cert` holds the certificate and then the rest of its chain, `key` an unencrypted EC
    (SEC1), RSA (PKCS#1) or PKCS#8 key.
    """
    pem = _read(cert, "certificate")
    return make_pair(cert, key, (pem, pem if key == cert else _read(key, "key")))


def standing(config: Config) -> KeyPair | None:
    """What to serve TLS with; None: plain HTTP, or a certificate that docxy is still to get.  Raises ConfigError."""
    if config.cert is None or config.key is None:
        return None
    if config.issuing is None:
        return load(config.cert, config.key)
    try:
        return load(config.cert, config.key)
    except ConfigError:  # docxy gets a new one
        return None


def make_pair(cert: str, key: str, pem: tuple[bytes, bytes]) -> KeyPair:
    """What `load` makes of the contents of the files.  Raises ConfigError."""
    chain = _chain(cert, pem[0])
    private = _key(key, pem[1])
    leaf = chain[0]
    if _spki(leaf.public_key()) != _spki(private.public_key()):
        raise ConfigError(f"key {key}: does not match the certificate {cert}")
    try:
        options = CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(private),  # type: ignore[arg-type]  # DH is no signing key
            certificate=crypto.X509.from_cryptography(leaf),
            extraCertChain=[crypto.X509.from_cryptography(other) for other in chain[1:]],
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        options.getContext().clear_mode(_ENABLE_PARTIAL_WRITE)
    except (SSL.Error, crypto.Error, TypeError, ValueError) as error:
        raise ConfigError(f"certificate {cert}: OpenSSL cannot serve it with its key: {_reason(error)}") from None
    dns_names, addresses = _names(leaf)
    return KeyPair(options, pem, dns_names, addresses, leaf.not_valid_before_utc, leaf.not_valid_after_utc)


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise ConfigError(f"{what} {path}: {error.strerror}") from None


def _chain(path: str, pem: bytes) -> list[x509.Certificate]:
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise ConfigError(f"certificate {path}: not a PEM certificate")
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError(f"certificate {path}: malformed PEM: {_reason(error)}") from None


def _key(path: str, pem: bytes) -> PrivateKeyTypes:
    # Only the key itself: `openssl ecparam` puts the curve's parameters before it.
    block = _PRIVATE_KEY.search(pem)
    if block is None:
        raise ConfigError(f"key {path}: not a PEM private key")
    try:
        return load_pem_private_key(block.group(0), None)
    except TypeError:
        raise ConfigError(f"key {path}: is encrypted; docxy needs it without a passphrase") from None
    except Exception as error:  # cryptography has its own exceptions besides ValueError
        raise ConfigError(f"key {path}: malformed PEM: {_reason(error)}") from None


def _spki(key: object) -> bytes:
    """A public key's bytes, to compare it by; every kind of key has this method."""
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]  # see above
    return encoded


def _reason(error: Exception) -> str:
    """The start of a library's message, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else text[:97] + "..."


def _names(leaf: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        text = str(common[0].value) if common else ""
        return ((text,) if re.fullmatch(r"(?:\*\.)?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+", text) else ()), ()
    except ValueError:
        return (), ()
    dns = tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
    return dns, tuple(str(address) for address in names.get_values_for_type(x509.IPAddress))


@implementer(IOpenSSLServerConnectionCreator)
@define
class ReloadingContext:
    """The contextFactory: new handshakes use the pair that was loaded last."""

    cert: str
    key: str
    pair: KeyPair | None
    """None: docxy is still to get one; no handshake may begin."""
    _seen: tuple[object, object] = field(init=False)

    _log = Logger()

    def __attrs_post_init__(self) -> None:
        self._seen = self._signature()

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        assert self.pair is not None
        return self.pair.options.serverConnectionForTLS(tlsProtocol)

    def is_ready(self) -> bool:
        """Whether there is a certificate."""
        return self.pair is not None

    def expires(self) -> float | None:
        """When the certificate in use ends, in seconds since the epoch; None: there is none yet."""
        return None if self.pair is None else self.pair.expires.timestamp()

    def check(self) -> None:
        """Load the files again if they have changed since they were looked at last."""
        if self._signature() != self._seen:
            self.reload()

    def reload(self) -> Sequence[Reloaded]:
        """Load the files again; when they cannot be used, say so and keep the certificate in use."""
        self._seen = self._signature()
        try:
            pair = self.pair = load(self.cert, self.key)
        except ConfigError as error:
            if self.pair is None and not os.path.exists(self.cert):
                return [Reloaded("certificate", True, "there is none yet: docxy is getting one")]
            self._log.error("the certificate in use stays: {error}", error=error)
            return [Reloaded("certificate", False, str(error))]
        self._log.info("loaded certificate {cert}, valid until {expires}", cert=self.cert, expires=pair.expires)
        return [Reloaded("certificate", True, f"{self.cert}, valid until {pair.expires:%Y-%m-%d}")]

    def _signature(self) -> tuple[object, object]:
        return mark(self.cert), mark(self.key)


def expiry_warning(pair: KeyPair, now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> str | None:
    """A warning about a certificate that is not valid yet, has expired or soon will; None if all is well."""
    if now() < pair.begins:
        return (
            f"the certificate is not valid before {pair.begins:%Y-%m-%d %H:%M} UTC: clients will refuse it; "
            f"check that the clock of this machine is right"
        )
    left = pair.expires - now()
    if left.total_seconds() <= 0:
        return f"the certificate expired on {pair.expires:%Y-%m-%d}: clients will refuse it"
    if left.days < 7:
        return f"the certificate expires on {pair.expires:%Y-%m-%d}"
    return None
