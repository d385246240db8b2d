"""The steps of an order, and the line for each of them that fails."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from acme import client
from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.certificates import KeyPair, make_pair
from docxy.daemon.issuing.acme import LARGEST, LATEST_LOOK, LATEST_SHARE, SOONEST_LOOK, USUAL_LOOK, AcmeIssuer
from docxy.daemon.issuing.issuer import IssueError, by_life
from docxy.daemon.issuing.state import StateDirectory
from docxy.settings.model import Acme, Binding
from tests.fakes.acme import FakeAcme, problem

NAMES = ("mirror.example", "203.0.113.5")
LIMITED = problem("rateLimited", "too many certificates already issued")


class AcmeTests(SynchronousTestCase):
    def setUp(self) -> None:
        # The library sleeps between two questions.
        self.patch(client.time, "sleep", lambda seconds: None)
        self.server = FakeAcme()
        self.addCleanup(self.server.close)
        self.state = StateDirectory(os.path.abspath(self.mktemp()))
        self.state.create()
        self.issuer = self.make()

    def make(self, *names: str, **settings: Any) -> AcmeIssuer:
        directory = settings.pop("directory", f"{self.server.url}/directory")
        return AcmeIssuer(Acme(directory, **settings), names or NAMES[:1], self.state)

    def issue(self, issuer: AcmeIssuer | None = None) -> KeyPair:
        pem = (issuer or self.issuer).issue()
        return make_pair("c", "k", (pem, pem))

    def refused(self, why: str, pause: float = 0.0, issuer: AcmeIssuer | None = None) -> None:
        """The order fails with this line, and leaves no challenge open."""
        error = self.assertRaises(IssueError, (issuer or self.issuer).issue)
        self.assertRegex(str(error), why)
        self.assertNotIn("\n", str(error))
        self.assertLess(len(str(error)), 1000)
        self.assertEqual(error.pause, pause)
        for number in range(2):
            self.assertIsNone(self.state.challenge(self.server.token(number)))

    def test_issued(self) -> None:
        """A chain for the names, with a key that is new each time and that no server ever saw."""
        pair, again = self.issue(), self.issue()
        self.assertEqual(pair.dns_names, ("mirror.example",))
        self.assertEqual(pair.pem[0].count(b"BEGIN CERTIFICATE"), 2)
        self.assertNotEqual(pair.pem[0][-200:], again.pem[0][-200:])
        agreed = self.server.payload("account")
        self.assertEqual((agreed["termsOfServiceAgreed"], agreed.get("contact")), (True, None))

    def test_challenges_are_open_while_asked(self) -> None:
        """Every name's challenge is answered before the server is told to look, and none is afterwards."""
        seen: list[bytes | None] = []

        def look(token: str) -> None:
            seen.extend(self.state.challenge(self.server.token(number)) for number in range(2))

        self.server.validate = look
        self.issue(self.make(*NAMES))
        self.assertEqual(len(seen), 4)
        for number, answer in enumerate(seen):
            assert answer is not None
            self.assertEqual(answer.partition(b".")[0].decode(), self.server.token(number % 2))
        self.assertIsNone(self.state.challenge(self.server.token(0)))

    def test_profiles(self) -> None:
        """An IP address asks for the short-lived profile, a name for the server's own, and the operator decides."""
        for names, settings, wanted in (
            (NAMES[:1], {}, ""),
            (NAMES, {}, "shortlived"),
            (NAMES[1:], {}, "shortlived"),
            (NAMES, {"profile": "classic"}, "classic"),
        ):
            pair = self.issue(self.make(*names, **settings))
            self.assertEqual({*pair.dns_names, *pair.addresses}, set(names))
            order = self.server.payload("order")
            # The last request of this step only reads; the one before made it.
            order = next(payload for step, payload in reversed(self.server.seen) if step == "order" and payload)
            self.assertEqual(order.get("profile", ""), wanted)

    def test_the_account_stays(self) -> None:
        """A restart goes on with the account that it has; another server gets another one."""
        self.issue()
        key = self.state.read(self.state.account(self.issuer.source))
        self.server.is_known = True
        self.issue(self.make(email="you@mirror.example"))
        self.assertEqual(self.state.read(self.state.account(self.issuer.source)), key)
        self.assertNotEqual(self.state.account("https://other.example/dir"), self.state.account(self.issuer.source))
        self.assertEqual(self.server.payload("account")["contact"], ["mailto:you@mirror.example"])

    def test_accounts_that_are_known(self) -> None:
        """Where the server asks for a binding, the line names the options; with them the account is bound."""
        self.server.binding_required = True
        self.refused("set --acme-eab-key-id and --acme-eab-key-file")
        self.issue(self.make(binding=Binding("kid-1", "c2VjcmV0")))
        self.assertIn("externalAccountBinding", self.server.payload("account"))

    def test_refused_challenge(self) -> None:
        """The server's reason, and where to look: DNS and port 80."""
        self.server.validate = lambda token: problem("connection", "203.0.113.5: Connection refused\nagain")
        self.refused(
            r"^mirror.example was not validated: connection: 203.0.113.5: Connection refused again; "
            r"check that DNS leads mirror.example to this machine and that its port 80 leads to --http-port$"
        )

    def test_each_step(self) -> None:
        """Whatever step fails, the line has the server's own words, and a rate limit its pause."""
        hour: Mapping[str, str] = {"Retry-After": "3600"}
        for step in ("account", "order", "authorization", "challenge", "finalize"):
            self.server.broken = {step: (429, LIMITED, hour)}
            self.refused("refuses: rateLimited: too many certificates already issued", 3600.0)
            self.server.broken = {step: (500, "<html>nginx", {})}
            self.refused("does not answer as an ACME server")
        for broken in (
            {"finalize": (403, problem("badCSR", "no"), {})},
            {"certificate": (500, problem("serverInternal", "no"), {})},
        ):
            self.server.broken = broken
            self.refused("refuses: (badCSR|serverInternal): no")
        self.server.broken = {}
        self.issue()

    def test_not_issued(self) -> None:
        """An order that the server ends after all."""
        ended = {"status": "invalid", "error": problem("serverInternal", "the signer is away"), "finalize": "x"}
        right = self.server.answer

        def answer(path: str, payload: Any) -> Any:
            if path == "order/1":
                return 200, ended, {}
            return right(path, payload)

        self.patch(self.server, "answer", answer)
        self.refused("did not issue it: serverInternal: the signer is away")

    def test_directory(self) -> None:
        """A server that is down, is none, or asks for other things than docxy can do."""
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/directory"
            self.refused(r"cannot be reached: .*Connection refused.*HTTPS_PROXY", issuer=self.make(directory=url))
        self.server.broken = {"directory": (200, "<html>", {})}
        self.refused("does not answer as an ACME server")
        self.server.broken = {"directory": (200, {}, {})}
        self.refused("does not answer as an ACME server")
        self.server.broken = {}
        self.server.types = ["dns-01"]
        self.refused("offers no HTTP-01 challenge for mirror.example")

    def test_endless(self) -> None:
        """An answer that is larger than anything an ACME server has to say is not read to its end."""
        for step in ("directory", "certificate"):
            self.server.broken = {step: (200, "x" * (LARGEST + 1), {})}
            self.refused(f"an answer is longer than {LARGEST} bytes")
        self.server.broken = {}
        self.issue()

    def test_untrusted(self) -> None:
        """A CA file that cannot be used is told as what it is, before anybody is asked."""
        path = os.path.abspath(self.mktemp())
        self.refused(f"^the CAs in {path} cannot be used: No such file", issuer=self.make(ca_file=path))
        with open(path, "w") as file:
            file.write("rubbish")
        self.refused(f"^the CAs in {path} cannot be used: ", issuer=self.make(ca_file=path))
        self.assertEqual(self.server.seen, [])

    def test_a_broken_account(self) -> None:
        """Its key's file is named, and nothing overwrites it."""
        path = self.state.account(self.issuer.source)
        self.state.write(path, b"rubbish")
        self.refused(f"{path} cannot be used")
        self.assertEqual(self.state.read(path), b"rubbish")

    def test_renewal(self) -> None:
        """The server's window decides, and when to ask again has bounds; without one it is the certificate's life."""
        pair = self.issue()
        now = datetime.now(timezone.utc)
        plan = self.issuer.plan(pair.pem[0], pair, now.timestamp())
        self.assertEqual(plan.renew, by_life(pair))
        self.assertLess(abs(plan.look - now.timestamp() - USUAL_LOOK), 60)
        for days in (-1, 10):
            at = now + timedelta(days=days)
            text = at.strftime("%Y-%m-%dT%H:%M:%SZ")
            self.server.window = text, text
            plan = self.issuer.plan(pair.pem[0], pair, now.timestamp())
            self.assertLess(abs(plan.renew - at.timestamp()), 2)
            self.assertTrue(SOONEST_LOOK - 60 <= plan.look - now.timestamp() <= LATEST_LOOK)
        late = (pair.expires + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.server.window = late, late
        self.assertEqual(self.issuer.plan(pair.pem[0], pair, now.timestamp()).renew, by_life(pair, LATEST_SHARE))

    def test_renewal_unknown(self) -> None:
        """A server that does not answer about renewal, or answers rubbish, is no reason to renew or not to."""
        pair = self.issue()
        self.server.window = ("x", "y")
        for answer in ((500, "no", {}), (200, {"suggestedWindow": 3}, {}), (200, "<html>", {})):
            self.server.broken = {"renewal": answer}
            self.assertEqual(self.issuer.plan(pair.pem[0], pair, 1.0).renew, by_life(pair))
        self.server.broken = {"directory": (500, "no", {})}
        self.assertEqual(self.issuer.plan(pair.pem[0], pair, 1.0).renew, by_life(pair))
