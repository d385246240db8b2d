"""Whom docxy speaks to over TLS: the chain is OpenSSL's to check, the name is ours.

The law: *no byte of a request leaves before the certificate was checked*, and what cannot be checked
is refused.  Twisted's own check of the name lets a certificate pass when reading it raises anything
but VerificationError, as one without a name, with only an e-mail address, or with `DNS:*.lab` does.

A certificate is for a host when one of its subjectAltNames is (RFC 9525 section 6): a DNS name that
is equal, a wildcard that stands for the whole first label of a name of at least three, or an IP
address that is equal.  The common name counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL.crypto import X509, PKey
from OpenSSL.crypto import Error as OpenSSLError
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection, Context
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions, platformTrust, trustRootFromCertificates
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from docxy.addresses import is_literal
from docxy.errors import UpstreamError

_MOST_SHOWN = 5
"""Names of a certificate in a message."""
_EXPIRED, _NOT_YET_VALID, _REVOKED = 10, 9, 23
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21, 27})
"""What X509_STORE_CTX_get_error says (openssl-verification-options(1)); the last: not trusted for this purpose."""


class CertificateRefused(UpstreamError):
    """The certificate is not for this host or not to be trusted; the message follows the host in a sentence."""


@frozen
class CertificateNames:
    """The hosts that a certificate is for."""

    dns: tuple[str, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()

    @classmethod
    def of(cls, certificate: x509.Certificate) -> CertificateNames:
        """From its subjectAltName; none when it has none.  Raises ValueError and others for one that is malformed."""
        try:
            told = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return cls()
        addresses = (each for each in told.get_values_for_type(x509.IPAddress))
        return cls(
            tuple(told.get_values_for_type(x509.DNSName)),
            tuple(each for each in addresses if isinstance(each, (IPv4Address, IPv6Address))),
        )

    def cover(self, host: str) -> bool:
        """Whether the certificate is for this host: a name, or an address without brackets."""
        try:
            return ip_address(host) in self.addresses
        except ValueError:
            return any(_covers(pattern, host) for pattern in self.dns)

    def __str__(self) -> str:
        shown = [ascii(name)[1:-1] for name in (*self.dns, *map(str, self.addresses))]
        more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
        return ", ".join(shown[:_MOST_SHOWN]) + more


def _covers(pattern: str, host: str) -> bool:
    pattern, host = pattern.lower().removesuffix("."), host.lower().removesuffix(".")
    if "*" not in pattern:
        return pattern == host
    first, _, parent = pattern.partition(".")
    return first == "*" and "*" not in parent and "." in parent and host.partition(".")[2] == parent and host[0] != "."


def wrong_name(certificate: x509.Certificate, host: str) -> str | None:
    """Why a certificate is not for a host, as the end of a sentence; None when it is.  Raises nothing."""
    try:
        names = CertificateNames.of(certificate)
        if names.cover(host):
            return None
    except Exception as error:
        # Whatever a parser of an impostor's bytes may raise: it fails closed.
        return f"its certificate's names cannot be read ({type(error).__name__})"
    if not names.dns and not names.addresses:
        return "its certificate names no host (it has no DNS name or IP address as subjectAltName)"
    return f"its certificate is for {names}, not for {host}"


def untrusted(certificate: X509, code: int) -> str:
    """Why OpenSSL does not trust a certificate of a chain, as the end of a sentence; `code`: its verify error."""
    its = "its certificate"
    try:
        parsed = certificate.to_cryptography()
        if code == _EXPIRED:
            return f"{its} expired on {_day(parsed.not_valid_after_utc)}; it must be renewed"
        if code == _NOT_YET_VALID:
            return (
                f"{its} is not valid before {_day(parsed.not_valid_before_utc)}; "
                f"check that the clock of this machine is right"
            )
        issuer = ascii(parsed.issuer.rfc4514_string())[1:-1][:120]
    except ValueError:
        return f"{its} cannot be read"
    if code in _UNKNOWN_AUTHORITY:
        return (
            f"{its} was issued by an authority that is not trusted here ({issuer}); "
            f"if it should be, name the authority's PEM file in ca_file"
        )
    return f"{its} was revoked" if code == _REVOKED else f"{its} is not acceptable (OpenSSL's verify error {code})"


def _day(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class CheckedHost:
    """Makes connections to one host."""

    context: Context
    host: str
    """As in a URL, without brackets."""

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> Connection:
        connection = Connection(self.context, None)
        if not is_literal(self.host):
            connection.set_tlsext_host_name(self.host.encode("ascii"))
        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, self._check(protocol))
        return connection

    def _check(self, protocol: TLSMemoryBIOProtocol) -> Callable[[Connection, X509, int, int, int], bool]:
        def check(connection: Connection, certificate: X509, code: int, depth: int, good: int) -> bool:
            try:
                wrong = None if good else untrusted(certificate, code)
                if wrong is None and depth == 0:
                    wrong = wrong_name(certificate.to_cryptography(), self.host)
            except Exception as error:
                # OpenSSL called us: whatever happens here must refuse, and be heard of.
                wrong = f"its certificate cannot be read ({type(error).__name__})"
            if wrong is None:
                return True
            protocol.failVerification(Failure(CertificateRefused(wrong)))
            return False

        return check


@implementer(IPolicyForHTTPS)
@frozen
class Trust:
    """One upstream's: which authorities are believed, and where docxy shows a certificate of its own."""

    context: Context
    identified: Context
    """For the upstream itself: with the client's certificate, where there is one."""
    own_hosts: frozenset[str]
    """Hosts that may see that certificate."""

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        host = hostname.decode("ascii").strip("[]").lower().removesuffix(".")
        return CheckedHost(self.identified if host in self.own_hosts else self.context, host)


Identity = tuple[bytes, bytes]
"""docxy's own certificate with its chain, and the key, PEM."""


def make_trust(
    authorities: bytes | None = None,
    only: bool = False,
    identity: Identity | None = None,
    own_hosts: Iterable[str] = (),
) -> Trust:
    """Trust in the system's authorities and those of a PEM file; with `only`, in those of the file alone.

    `own_hosts`: who may see docxy's own certificate.  Raises ValueError whose message follows the
    file in a sentence.
    """
    found = [] if authorities is None else _authorities(authorities)

    def context(identity: Identity | None) -> Context:
        if identity is None and not found:
            return _system()
        roots = trustRootFromCertificates(found) if only else platformTrust()
        made: Context = CertificateOptions(trustRoot=roots, **({} if identity is None else _own(identity))).getContext()
        store = made.get_cert_store()
        assert store is not None
        for each in [] if only else found:
            store.add_cert(each.original)
        return made

    plain = context(None)
    return Trust(plain, plain if identity is None else context(identity), frozenset(own_hosts))


@cache
def _system() -> Context:
    """Trusts the system's authorities.  Reading those takes long, so all upstreams that need no more share it."""
    made: Context = CertificateOptions(trustRoot=platformTrust()).getContext()
    return made


def _authorities(pem: bytes) -> list[Certificate]:
    end = b"-----END CERTIFICATE-----"
    try:
        found = [Certificate.loadPEM(part + end) for part in pem.split(end)[:-1]]
    except OpenSSLError:
        raise ValueError("holds a PEM certificate that cannot be read") from None
    if not found:
        raise ValueError("holds no PEM certificate")
    return found


def _own(identity: Identity) -> dict[str, Any]:
    try:
        chain = x509.load_pem_x509_certificates(identity[0])
    except ValueError:
        raise ValueError("holds no PEM certificate that can be read") from None
    try:
        key = load_pem_private_key(identity[1], None)
    except TypeError:
        raise ValueError("needs a key without a passphrase") from None
    except Exception:  # cryptography has its own exceptions besides ValueError
        raise ValueError("comes with a client_key that is no PEM private key") from None
    if key.public_key() != chain[0].public_key():
        raise ValueError("does not belong to client_key")
    return {
        "privateKey": PKey.from_cryptography_key(key),  # type: ignore[arg-type]  # DH is no signing key
        "certificate": X509.from_cryptography(chain[0]),
        "extraCertChain": [X509.from_cryptography(each) for each in chain[1:]],
    }
