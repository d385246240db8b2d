"""TLS with a certificate that docxy gets for itself: nothing before it is there, and then all of it."""

from __future__ import annotations

import os
import time
from typing import Any

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from docxy import front
from docxy.broadcast import Broadcast
from docxy.daemon.issuing.issuer import IssueError
from docxy.daemon.issuing.state import StateDirectory
from docxy.front import make_front, own_certificate
from docxy.observe.condition import Condition
from docxy.settings.load import load
from docxy.settings.model import Config
from docxy.siblings import Siblings
from docxy.web.health import Health

HERE = IPv4Address("TCP", "127.0.0.1", 1)
NOW = time.time()


class FrontTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        self.config = load({"tls": "internal", "tls-names": "mirror.lan", "cache": "off", "state": self.directory}, {})

    def sent(self, topic: str, facts: str) -> None:
        """To the other processes."""

    def make(self, config: Config, first: bool = False) -> front.TLSFront:
        """Of a worker that does not get certificates, unless it is the first."""
        registry: Any = Factory.forProtocol(Protocol)
        self.services = MultiService()
        siblings = evolve(Siblings.alone(), first=first, broadcast=Broadcast(self.sent))
        self.broadcast = siblings.broadcast
        clock: Any = Clock()
        return make_front(
            config,
            lambda: config.access.perimeter,
            None,
            registry,
            Health(Condition(False)),
            siblings,
            "https://mirror.lan",
            self.services,
            clock,
            clock,
        )

    def test_own_authority(self) -> None:
        """Before anything is served there is a certificate, and the next start goes on with it."""
        pair = own_certificate(self.config, None, NOW)
        assert pair is not None
        self.assertEqual(pair.dns_names, ("mirror.lan",))
        again = own_certificate(self.config, pair, NOW)
        self.assertEqual(again and again.pem, pair.pem)

    def test_start_with_what_there_is(self) -> None:
        """A certificate that stands is served though no new one can be made; without one the start ends, with why."""
        state = StateDirectory(self.directory)
        state.create()
        with open(state.ca, "w") as file:
            file.write("rubbish")
        self.assertRaises(IssueError, own_certificate, self.config, None, NOW)
        os.unlink(state.ca)
        pair = own_certificate(self.config, None, NOW)
        assert pair is not None and self.config.issuing is not None
        os.unlink(state.ca_key)
        other = evolve(self.config, issuing=evolve(self.config.issuing, names=("other.lan",)))
        again = own_certificate(other, None, NOW)
        self.assertEqual(again and again.pem, pair.pem)

    def test_start_beside_another(self) -> None:
        """Another docxy is making it, as in an upgrade: this one sees it come."""
        with StateDirectory(self.directory).alone():
            self.assertIsNone(own_certificate(self.config, None, NOW))

    def test_no_connection_before_the_certificate(self) -> None:
        """Until it is there connections are closed; every process sees by itself that it has come."""
        made = self.make(self.config)
        self.assertIsNone(made.factory.buildProtocol(HERE))
        self.assertFalse(made.is_certified())
        assert made.expires is not None
        self.assertIsNone(made.expires())
        own_certificate(self.config, None, NOW)
        (told,) = [each for reload in made.reloads for each in reload()]
        self.assertTrue(told.ok)
        self.assertTrue(made.is_certified())
        self.assertIsNotNone(made.factory.buildProtocol(HERE))
        self.assertGreater(made.expires() or 0.0, NOW)

    def test_word_of_it(self) -> None:
        """A process that hears that there is a new one looks at once."""
        made = self.make(self.config)
        own_certificate(self.config, None, NOW)
        self.assertFalse(made.is_certified())
        self.broadcast.received("certificate", "[]")
        self.assertTrue(made.is_certified())

    def test_one_process_gets_it(self) -> None:
        """The first one looks after it, and tells how that goes; the others only look at the files."""
        self.assertIsNone(self.make(self.config).standing)
        first = self.make(self.config, first=True)
        assert first.standing is not None
        self.assertEqual(first.standing().to_json()["names"], ["mirror.lan"])

    def test_the_authority_is_shown_where_there_is_one(self) -> None:
        """`/ca.pem` is there with `--tls internal` alone."""
        self.assertIsNotNone(self.make(self.config).authority)
        acme = load({"acme": "mirror.example", "cache": "off", "state": self.directory}, {})
        self.assertIsNone(self.make(acme).authority)
        self.assertIsNone(self.make(evolve(self.config, cert=None)).authority)

    def test_acme_waits_for_nothing(self) -> None:
        """With ACME nothing is asked before the ports answer."""
        acme = load({"acme": "mirror.example", "cache": "off", "state": self.directory}, {})
        self.assertIsNone(own_certificate(acme, None, NOW))
        self.assertFalse(os.path.exists(StateDirectory(self.directory).certificate))
