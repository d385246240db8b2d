"""PEM files: what is served with them, what is said when they cannot be, and what happens when they change."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from docxy.daemon import certificates
from docxy.settings.model import ConfigError
from tests.harness.certificates import PKCS1, PKCS8, SEC1, Issued, issue


def handshake(context: Any, method: int = SSL.TLS_METHOD, highest: int | None = None) -> SSL.Connection:
    """A client that has shaken hands with a server of this context factory, in memory; raises SSL.Error."""

    @implementer(IProtocolNegotiationFactory)
    class Served(Factory[Protocol]):
        protocol = Protocol
        noisy = False

        def acceptableProtocols(self) -> list[bytes]:
            return [b"http/1.1"]

    factory = TLSMemoryBIOFactory(context, False, Served(), MemoryReactorClock())
    server, transport = factory.buildProtocol(None), StringTransport()
    assert server is not None
    server.makeConnection(transport)
    options = SSL.Context(method)
    if highest is not None:
        options.set_max_proto_version(highest)
        options.set_cipher_list(b"ALL:@SECLEVEL=0")
    client = SSL.Connection(options, None)
    client.set_connect_state()
    for _ in range(10):
        try:
            client.do_handshake()
        except SSL.WantReadError:
            server.dataReceived(client.bio_read(1 << 16))
            client.bio_write(transport.value())
            transport.clear()
        else:
            return client
    raise AssertionError("no handshake after ten rounds")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        self.cert, self.key = str(self.directory / "cert.pem"), str(self.directory / "key.pem")

    def write(self, cert: bytes | None = None, key: bytes | None = None) -> None:
        """Replace the files, as an ACME client does."""
        for path, content in ((self.cert, cert), (self.key, key)):
            if content is not None:
                Path(path + ".new").write_bytes(content)
                os.replace(path + ".new", path)

    def put(self, issued: Issued) -> None:
        self.write(issued.pem, issued.key_pem())

    def refused(self, line: str) -> None:
        error = self.assertRaises(ConfigError, certificates.load, self.cert, self.key)
        self.assertRegex(str(error).replace(str(self.directory), "DIR"), rf"\A{line}\Z")
        self.assertNotIn("\n", str(error))


class LoadTests(Case):
    def test_forms_of_keys(self) -> None:
        """SEC1, PKCS#1 and PKCS#8 keys, and one with the curve's parameters before it, all serve."""
        curve = ec.generate_private_key(ec.SECP256R1())
        old = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        for key, form, head, before in (
            (curve, SEC1, b"BEGIN EC PRIVATE KEY", b""),
            (curve, SEC1, b"BEGIN EC PRIVATE KEY", parameters),
            (curve, PKCS8, b"BEGIN PRIVATE KEY", b""),
            (old, PKCS1, b"BEGIN RSA PRIVATE KEY", b""),
            (old, PKCS8, b"BEGIN PRIVATE KEY", b""),
        ):
            issued = issue("mirror.example", key=key)
            self.assertIn(head, issued.key_pem(form))
            self.write(issued.pem, before + issued.key_pem(form))
            client = handshake(certificates.load(self.cert, self.key).options)
            served = client.get_peer_certificate(as_cryptography=True)
            self.assertEqual(served, issued.certificate)

    def test_whole_chain(self) -> None:
        """The leaf goes first and the rest of the file after it, in its order."""
        root = issue(common_name="root")
        middle = issue(common_name="middle", by=root)
        leaf = issue("mirror.example", by=middle)
        self.write(b"some text\n" + leaf.pem + b"\n\n" + middle.pem + root.pem, leaf.key_pem())
        client = handshake(certificates.load(self.cert, self.key).options)
        chain = client.get_peer_cert_chain(as_cryptography=True)
        self.assertEqual(chain, [leaf.certificate, middle.certificate, root.certificate])

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, 1.1 is not."""
        self.put(issue("mirror.example"))
        options = certificates.load(self.cert, self.key).options
        self.assertEqual(handshake(options).get_protocol_version_name(), "TLSv1.3")
        self.assertEqual(handshake(options, highest=SSL.TLS1_2_VERSION).get_protocol_version_name(), "TLSv1.2")
        self.assertRaises(SSL.Error, handshake, options, highest=SSL.TLS1_1_VERSION)

    def test_versions_are_our_own_choice(self) -> None:
        """The lowest version is set here, as not every system's OpenSSL refuses the old ones by itself."""
        made: dict[str, Any] = {}

        def options(**chosen: Any) -> CertificateOptions:
            made.update(chosen)
            return CertificateOptions(**chosen)

        self.patch(certificates, "CertificateOptions", options)
        self.put(issue("mirror.example"))
        certificates.load(self.cert, self.key)
        self.assertIs(made["raiseMinimumTo"], TLSVersion.TLSv1_2)

    def test_names(self) -> None:
        """What the certificate covers is known; the URL takes its first name that is no wildcard."""
        for names, common_name, host in (
            (("*.mirror.example", "Mirror.example", "other.example"), "x", "mirror.example"),
            (("*.mirror.example",), "x", None),
            (("*.mirror.example", "10.0.0.1"), "x", "10.0.0.1"),
            (("2001:db8::1",), "x", "[2001:db8::1]"),
            ((), "mirror.example", "mirror.example"),
            ((), "*.mirror.example", None),
            ((), "A nice mirror", None),
            (("mirror.example",), "other.example", "mirror.example"),
        ):
            self.put(issue(*names, common_name=common_name))
            self.assertEqual(certificates.load(self.cert, self.key).url_host(), host, (names, common_name))

    def test_expiry(self) -> None:
        """An expired certificate serves, with a warning, as does one that is about to expire."""
        for days, warning in (
            (30, None),
            (3, r"the certificate expires on \d"),
            (-1, r"the certificate expired on .*"),
        ):
            self.put(issue("mirror.example", days=days))
            said = certificates.expiry_warning(certificates.load(self.cert, self.key))
            if warning is None:
                self.assertIsNone(said)
            else:
                self.assertRegex(said or "", warning)

    def test_not_yet_valid(self) -> None:
        """One whose time has not come serves with a warning, which points at the clock."""
        self.put(issue("mirror.example", begins=1))
        said = certificates.expiry_warning(certificates.load(self.cert, self.key)) or ""
        self.assertRegex(said, r"is not valid before \d.*clock of this machine")

    def test_expiry_has_a_clock(self) -> None:
        """The warning compares with the time it is given."""
        self.put(issue("mirror.example", days=30))
        pair = certificates.load(self.cert, self.key)
        self.assertIn("expired", certificates.expiry_warning(pair, lambda: pair.expires + timedelta(seconds=1)) or "")


class RefusalTests(Case):
    """One line each, which names the file."""

    def setUp(self) -> None:
        super().setUp()
        self.issued = issue("mirror.example")
        self.put(self.issued)

    def test_missing(self) -> None:
        """A file that is gone."""
        os.unlink(self.cert)
        self.refused("certificate DIR/cert.pem: No such file or directory")
        self.put(self.issued)
        os.unlink(self.key)
        self.refused("key DIR/key.pem: No such file or directory")

    def test_unreadable(self) -> None:
        """A directory in a file's place stands for all that cannot be read: root may read every file."""
        os.unlink(self.key)
        os.mkdir(self.key)
        self.refused("key DIR/key.pem: Is a directory")

    def test_not_pem(self) -> None:
        """DER, an empty file, and the two files swapped."""
        self.write(cert=b"")
        self.refused("certificate DIR/cert.pem: not a PEM certificate")
        self.write(cert=self.issued.certificate.public_bytes(Encoding.DER))
        self.refused("certificate DIR/cert.pem: not a PEM certificate")
        self.write(self.issued.key_pem(), self.issued.pem)
        self.refused("certificate DIR/cert.pem: not a PEM certificate")
        self.put(self.issued)
        self.write(key=self.issued.pem)
        self.refused("key DIR/key.pem: not a PEM private key")

    def test_malformed(self) -> None:
        """PEM around something else."""
        lines = self.issued.pem.splitlines(keepends=True)
        self.write(cert=b"".join(lines[:2] + lines[3:]))
        self.refused("certificate DIR/cert.pem: malformed PEM: .+")
        self.put(self.issued)
        lines = self.issued.key_pem().splitlines(keepends=True)
        self.write(key=b"".join([*lines[:1], b"!!!!\n", *lines[2:]]))
        self.refused("key DIR/key.pem: malformed PEM: .+")

    def test_encrypted(self) -> None:
        """A key with a passphrase, in either form: nobody is asked for it, the line says what to do."""
        for form in (PKCS8, SEC1):
            self.write(key=self.issued.key_pem(form, b"secret"))
            self.refused("key DIR/key.pem: is encrypted; docxy needs it without a passphrase")

    def test_mismatch(self) -> None:
        """The key of another certificate, of the same kind and of another."""
        for key in (None, rsa.generate_private_key(public_exponent=65537, key_size=2048)):
            self.write(key=issue("mirror.example", key=key).key_pem())
            self.refused("key DIR/key.pem: does not match the certificate DIR/cert.pem")

    def test_too_weak(self) -> None:
        """A pair that OpenSSL refuses to serve is refused at start, not at the first client."""
        self.put(issue("mirror.example", key=rsa.generate_private_key(public_exponent=65537, key_size=1024)))
        self.refused("certificate DIR/cert.pem: OpenSSL cannot serve it with its key: .+")


class ReloadTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.old, self.new = issue("old.example"), issue("new.example")
        self.put(self.old)
        self.context = certificates.ReloadingContext(self.cert, self.key, certificates.load(self.cert, self.key))
        self.logged: list[Any] = []
        observer = cast(ILogObserver, self.logged.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def served(self) -> Any:
        return handshake(self.context).get_peer_certificate(as_cryptography=True)

    def errors(self) -> list[str]:
        return [str(event["error"]) for event in self.logged if event["log_level"] is LogLevel.error]

    def test_changed(self) -> None:
        """New handshakes get the new pair; without a change nothing is loaded."""
        self.assertEqual(self.served(), self.old.certificate)
        pair = self.context.pair
        self.context.check()
        self.assertIs(self.context.pair, pair)
        self.put(self.new)
        self.context.check()
        self.assertEqual(self.served(), self.new.certificate)
        self.assertEqual(self.errors(), [])

    def test_broken(self) -> None:
        """A pair that cannot be used is told once, the old one goes on, and its repair is noticed."""
        self.write(cert=self.new.pem)
        self.context.check()
        self.context.check()
        self.assertEqual(self.errors(), [f"key {self.key}: does not match the certificate {self.cert}"])
        self.assertEqual(self.served(), self.old.certificate)
        self.write(key=self.new.key_pem())
        self.context.check()
        self.assertEqual(self.served(), self.new.certificate)

    def test_symbolic_links(self) -> None:
        """certbot's way: both paths are links, which lead to new files after a renewal."""
        live = Path(self.mktemp()).resolve()
        live.mkdir()
        for number, pair in enumerate((self.old, self.new), 1):
            (live / f"cert{number}.pem").write_bytes(pair.pem)
            (live / f"key{number}.pem").write_bytes(pair.key_pem())
        cert, key = live / "cert.pem", live / "key.pem"
        cert.symlink_to("cert1.pem")
        key.symlink_to("key1.pem")
        self.context = certificates.ReloadingContext(str(cert), str(key), certificates.load(str(cert), str(key)))
        for link in (cert, key):
            link.unlink()
            link.symlink_to(f"{link.stem}2.pem")
        self.context.check()
        self.assertEqual(self.served(), self.new.certificate)

    def test_a_directory_that_is_swapped(self) -> None:
        """Kubernetes' and others' way: a link above the files leads elsewhere, and both change at once."""
        top = Path(self.mktemp()).resolve()
        for name, pair in (("one", self.old), ("two", self.new)):
            (top / name).mkdir(parents=True)
            (top / name / "cert.pem").write_bytes(pair.pem)
            (top / name / "key.pem").write_bytes(pair.key_pem())
        link = top / "now"
        link.symlink_to("one")
        cert, key = str(link / "cert.pem"), str(link / "key.pem")
        self.context = certificates.ReloadingContext(cert, key, certificates.load(cert, key))
        (top / "new").symlink_to("two")
        (top / "new").replace(link)
        self.context.check()
        self.assertEqual(self.served(), self.new.certificate)

    def test_gone(self) -> None:
        """Files that are taken away do not end the service."""
        os.unlink(self.cert)
        self.context.check()
        self.assertEqual(self.errors(), [f"certificate {self.cert}: No such file or directory"])
        self.assertEqual(self.served(), self.old.certificate)

    def test_told_to(self) -> None:
        """`reload` loads whether or not the files look changed."""
        pair = self.context.pair
        self.context.reload()
        self.assertIsNot(self.context.pair, pair)
