"""The `[[webhook]]` tables, and the line when one cannot be used."""

from __future__ import annotations

import base64

from docxy.settings.webhooks import EVENTS, MOST
from tests.unit.settings.test_load import Case

SECRET = "0123456789abcdef01234567"


class WebhookTests(Case):
    def table(self, rest: str = "", secret: str = SECRET, url: str = "https://hooks.example/t0ken?key=1") -> str:
        return f"[[webhook]]\nurl = '{url}'\nsecret_file = '{self.file(secret, 'secret')}'\n{rest}\n"

    def test_receiver(self) -> None:
        """A receiver with its secret and its events; nothing of it is in what a bug report shows."""
        config = self.load(self.table("events = ['tag-moved', 'quota-low', 'tag-moved']"))
        (hook,) = config.webhooks
        self.assertEqual((hook.url, hook.secret), ("https://hooks.example/t0ken?key=1", SECRET.encode()))
        self.assertEqual(hook.events, ("tag-moved", "quota-low"))
        self.assertNotIn("t0ken", repr(config))
        self.assertNotIn(SECRET, repr(config))
        self.assertEqual(self.load(self.table(url="http://10.0.0.1:8000")).webhooks[0].events, EVENTS)

    def test_base64(self) -> None:
        """A secret as the Standard Webhooks write it."""
        secret = bytes(range(32))
        (hook,) = self.load(self.table(secret=f"whsec_{base64.b64encode(secret).decode()}\n")).webhooks
        self.assertEqual(hook.secret, secret)

    def test_refused(self) -> None:
        """Each mistake is one line, without the URL and the secret."""
        where = "[[webhook]] 1 in FILE"
        path = self.file(SECRET, "secret")
        for toml, why in (
            (self.table("event = []"), "unknown key 'event'; did you mean events?"),
            (self.table("events = ['moved']"), f"events: 'moved' is not one of {', '.join(EVENTS)}"),
            (self.table("events = []"), "events: it names none, so nothing would be sent"),
            (self.table("secret = 'x'"), "secret: use secret_file, this file is no place for it"),
            (f"[[webhook]]\nsecret_file = '{path}'", "url is missing"),
            ("[[webhook]]\nurl = 'https://a.example'", "secret_file is missing"),
            (self.table(url="ftp://a"), "url is not a URL such as https://registry.example"),
            (self.table(url="https://u:p@a"), "url must not hold a user name or password"),
        ):
            self.refused(toml=toml, line=f"{where}: {why}")
        for secret, why in (
            ("short", "holds a secret of fewer than 24 bytes"),
            ("whsec_c2hvcnQ=", "holds a secret of fewer than 24 bytes"),
            ("whsec_***", "holds no base64 behind whsec_"),
        ):
            self.refused(toml=self.table(secret=secret), line=f"{where}: secret_file: '{path}' {why}")
        self.refused(toml="webhook = 5", line="FILE: webhook must be [[webhook]] tables")
        self.refused(
            toml=self.table() * (MOST + 1),
            line=f"FILE: there are {MOST + 1} [[webhook]] tables, and docxy serves {MOST}",
        )
