"""The plain port beside HTTPS: challenges of an ACME server, the own authority, and nothing else but redirects."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from docxy.addresses import Networks, Perimeter
from docxy.observe.condition import Condition
from docxy.web.beside import Authority, Beside
from docxy.web.guarded import Guarded
from docxy.web.health import Health
from docxy.web.redirect import HTTPSRedirect
from tests.unit.web.exchange import Answer, exchange

PUBLIC = "https://mirror.example"
KNOWN = {"known-Token_1": b"known-Token_1.thumb"}
CHALLENGE = b"/.well-known/acme-challenge/"


class BesideTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.is_ready = True
        self.asked: list[str] = []
        self.perimeter = Perimeter()

    def ask(self, uri: bytes, method: bytes = b"GET", authority: bool = False) -> Answer:
        def challenge(token: str) -> Any:
            self.asked.append(token)
            return succeed(KNOWN.get(token))

        def guarded(resource: Any) -> Guarded:
            return Guarded(resource, lambda: self.perimeter, local=False)

        condition = Condition(cached=False, certified=lambda: self.is_ready)
        condition.looked = True
        pem = Authority(lambda: succeed(b"-----BEGIN CERTIFICATE-----\n"))
        root = Beside(
            challenge,
            guarded(pem) if authority else None,
            guarded(HTTPSRedirect(PUBLIC)),
            guarded(Health(condition)),
            lambda: self.is_ready,
        )
        return exchange(root, method, uri)

    def closed(self) -> None:
        """Nobody may come in."""
        self.perimeter = Perimeter(Networks(), Networks.of(["0.0.0.0/0", "::/0", "unix"]), Networks())

    def test_a_known_token(self) -> None:
        """It is answered, to addresses that may not use the registry too, before and after there is a certificate."""
        self.closed()
        for self.is_ready in (False, True):
            answer = self.ask(CHALLENGE + b"known-Token_1")
            self.assertEqual((answer.status, answer.body), (200, KNOWN["known-Token_1"]))
            self.assertEqual(answer.headers["content-type"], "application/octet-stream")

    def test_unknown_tokens(self) -> None:
        """404, and never a redirect: nothing leads an ACME server elsewhere."""
        for token in ("other", "", "known-Token_1/", "../known-Token_1", quote("known-Token_1\n"), "known-Token_1%00"):
            answer = self.ask(CHALLENGE + token.encode())
            self.assertEqual(answer.status, 404, token)
            self.assertNotIn("location", answer.headers)

    def test_only_reading(self) -> None:
        """Other methods are refused, and ask for no token."""
        self.assertEqual(self.ask(CHALLENGE + b"known-Token_1", b"POST").status, 405)
        self.assertEqual(self.asked, [])

    def test_everything_else_is_guarded(self) -> None:
        """An address that may not use the registry gets neither the authority nor a redirect, only challenges."""
        self.closed()
        for path in (b"/", b"/ca.pem", b"/v2/", b"/.well-known/acme-challenge", b"/.well-known/other"):
            self.assertEqual(self.ask(path, authority=True).status, 403, path)

    def test_redirects(self) -> None:
        """With a certificate all but health is redirected, also `/ca.pem` where there is no authority."""
        self.assertEqual(self.ask(b"/health").status, 200)
        for path in ("/", "/healthy", "/ca.pem", "/v2/library/alpine/manifests/latest"):
            answer = self.ask(path.encode())
            self.assertEqual((answer.status, answer.headers["location"]), (301, PUBLIC + path))

    def test_the_authority(self) -> None:
        """What clients are to trust, with or without a certificate of it."""
        for self.is_ready in (False, True):
            answer = self.ask(b"/ca.pem", authority=True)
            self.assertEqual((answer.status, answer.body), (200, b"-----BEGIN CERTIFICATE-----\n"))

    def test_no_certificate_yet(self) -> None:
        """Health says that docxy lives and has not started; a client is told to come again, not sent to HTTPS."""
        self.is_ready = False
        self.assertEqual(self.ask(b"/health").status, 200)
        for path in (b"/startup", b"/ready"):
            answer = self.ask(path)
            self.assertEqual(answer.status, 503)
            self.assertIn("no certificate yet", json.loads(answer.body)["missing"]["startup"])
        answer = self.ask(b"/v2/")
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "10"))
        self.assertNotIn("location", answer.headers)
