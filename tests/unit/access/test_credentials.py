"""What Authorization says."""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from docxy.access.credentials import Bearer, Password, Unreadable, parse


def basic(text: bytes) -> str:
    return "basic  " + base64.b64encode(text).decode()


class ParseTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """Basic and Bearer in any case, UTF-8 or else Latin-1; all else is unreadable and no error."""
        for text, wanted in (
            ("", None),
            ("  ", None),
            ("bearer  a.b ", Bearer("a.b")),
            ("Bearer", Unreadable()),
            (basic(b"a:b:c"), Password("a", "b:c")),
            (basic("ä:ö".encode()), Password("ä", "ö")),
            (basic("ä:ö".encode("latin-1")), Password("ä", "ö")),
            (basic(b":"), Password("", "")),
            (basic(b"ab"), Unreadable()),
            ("Basic", Unreadable()),
            ("Basic ä", Unreadable()),
            ("Basic YTpi YTpi", Unreadable()),
            ("Negotiate x", Unreadable()),
        ):
            self.assertEqual(parse(text), wanted, text)

    def test_no_secrets(self) -> None:
        """Neither a password nor a token is shown by accident."""
        self.assertNotIn("secret", repr((Password("a", "secret"), Bearer("secret"))))
