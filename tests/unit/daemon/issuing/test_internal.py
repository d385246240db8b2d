"""docxy's own authority: whom clients come to trust, and what it signs."""

from __future__ import annotations

import os
import stat
from datetime import datetime, timedelta, timezone

from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.certificates import KeyPair, make_pair
from docxy.daemon.issuing.internal import CA_LIFE, LEAF_LIFE, InternalIssuer
from docxy.daemon.issuing.issuer import IssueError
from docxy.daemon.issuing.state import StateDirectory

NAMES = ("mirror.lan", "192.168.1.5", "fd00::5")


class InternalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = StateDirectory(os.path.abspath(self.mktemp()))
        self.now = datetime.now(timezone.utc)
        self.issuer = InternalIssuer(self.state, NAMES, lambda: self.now)

    def issue(self) -> KeyPair:
        pem = self.issuer.issue()
        return make_pair("c", "k", (pem, pem))

    def test_leaf(self) -> None:
        """It covers the names and the addresses, lasts as long as it should, and is the authority's."""
        pair = self.issue()
        leaf, ca = x509.load_pem_x509_certificates(pair.pem[0])
        self.assertEqual((*pair.dns_names, *pair.addresses), NAMES)
        self.assertAlmostEqual((pair.expires - self.now) / LEAF_LIFE, 1, places=3)
        leaf.verify_directly_issued_by(ca)
        self.assertEqual(ca, x509.load_pem_x509_certificate(self.state.read(self.state.ca) or b""))
        self.assertEqual(pair.url_host(), "mirror.lan")

    def test_authority(self) -> None:
        """Ten years, for certificates of servers only that are its own children; its key is private."""
        self.issue()
        ca = x509.load_pem_x509_certificate(self.state.read(self.state.ca) or b"")
        self.assertAlmostEqual((ca.not_valid_after_utc - self.now) / CA_LIFE, 1, places=3)
        constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints).value
        self.assertEqual((constraints.ca, constraints.path_length), (True, 0))
        self.assertEqual(stat.S_IMODE(os.stat(self.state.ca_key).st_mode), 0o600)

    def test_the_authority_stays(self) -> None:
        """A renewal, and a restart, sign with the authority that clients trust already; the key is a new one."""
        first, ca = self.issue(), self.state.read(self.state.ca)
        self.issuer = InternalIssuer(StateDirectory(self.state.directory), NAMES, lambda: self.now)
        second = self.issue()
        self.assertEqual(self.state.read(self.state.ca), ca)
        self.assertNotEqual(first.pem, second.pem)

    def test_renewal(self) -> None:
        """Planned at two thirds of the leaf's life."""
        pair = self.issue()
        plan = self.issuer.plan(pair.pem[0], pair, self.now.timestamp())
        self.assertAlmostEqual((plan.renew - self.now.timestamp()) / LEAF_LIFE.total_seconds(), 2 / 3, places=2)

    def test_never_beyond_the_authority(self) -> None:
        """In the authority's last days a leaf ends with it; afterwards nothing is issued, and docxy says what to do."""
        self.issue()
        began = self.now
        self.now = began + CA_LIFE - timedelta(days=1)
        self.assertLessEqual(self.issue().expires, began + CA_LIFE)
        self.now = began + CA_LIFE
        self.assertRaisesRegex(IssueError, "ended on .* give clients the new one", self.issuer.issue)

    def test_files_that_cannot_be_used(self) -> None:
        """Neither a missing, broken nor foreign key makes docxy replace an authority that clients trust."""
        self.issue()
        ca, key = self.state.read(self.state.ca), self.state.read(self.state.ca_key)
        other = StateDirectory(os.path.abspath(self.mktemp()))
        InternalIssuer(other, NAMES).issue()
        for content, why in (
            (None, "ca.key is missing"),
            (b"-----BEGIN PRIVATE KEY-----\n", "cannot be used"),
            (other.read(other.ca_key), "is not the key of"),
        ):
            if content is None:
                os.unlink(self.state.ca_key)
            else:
                self.state.write(self.state.ca_key, content)
            self.assertRaisesRegex(IssueError, why, self.issuer.issue)
            self.assertEqual(self.state.read(self.state.ca), ca)
        self.state.write(self.state.ca_key, key or b"")
        self.issue()

    def test_a_key_without_its_certificate(self) -> None:
        """A start that ended between the two files: the next one makes the certificate of the same key."""
        self.issue()
        os.unlink(self.state.ca)
        self.issue()
        self.assertIsNotNone(self.state.read(self.state.ca))
