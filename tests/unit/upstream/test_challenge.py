"""`WWW-Authenticate`, as registries really write it."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from docxy.upstream.challenge import Challenge, bearer, parse


class ParseTests(SynchronousTestCase):
    def test_bearer(self) -> None:
        """Docker Hub's, with commas and colons in quotes, with or without spaces."""
        parameters = {
            "realm": "https://auth.docker.io/token",
            "service": "registry.docker.io",
            "scope": "a:b/c:pull,push",
        }
        text = ",".join(f'{name}="{value}"' for name, value in parameters.items())
        for value in (f"Bearer {text}", f"bearer   {text.replace(',s', ' , s')}", f"BEARER {text},"):
            self.assertEqual(parse([value]), [Challenge("bearer", parameters)], value)

    def test_several(self) -> None:
        """Several challenges, in one header or in several, in any order."""
        expected = [Challenge("basic", {"realm": "x, y"}), Challenge("bearer", {"realm": "r"})]
        for values in (
            ['Basic realm="x, y", Bearer realm="r"'],
            ['Basic realm="x, y"', 'Bearer realm="r"'],
            ['Basic realm="x, y",Bearer realm=r'],
        ):
            self.assertEqual(parse(values), expected, values)

    def test_without_parameters(self) -> None:
        """A scheme alone is a challenge, before and behind others."""
        self.assertEqual(parse(["Negotiate"]), [Challenge("negotiate")])
        found = parse(['Negotiate, Bearer realm="r", NTLM'])
        self.assertEqual([each.scheme for each in found], ["negotiate", "bearer", "ntlm"])

    def test_token68(self) -> None:
        """A token68, which is no parameter, does not hide what follows."""
        found = parse(['Negotiate dG9rZW42OA==, Bearer realm="r"'])
        self.assertEqual(bearer(found), Challenge("bearer", {"realm": "r"}))

    def test_quoting(self) -> None:
        """Escapes in quotes are undone, and done again."""
        challenge = Challenge("bearer", {"realm": 'a"b\\c'})
        self.assertEqual(str(challenge), 'Bearer realm="a\\"b\\\\c"')
        self.assertEqual(parse([str(challenge)]), [challenge])

    def test_first_wins(self) -> None:
        """Of a parameter that comes twice the first counts; names are in lower case."""
        self.assertEqual(parse(['Bearer Realm="a",REALM="b"']), [Challenge("bearer", {"realm": "a"})])

    def test_nonsense(self) -> None:
        """Nothing, noise and unended quotes make no challenge that could be answered, and no error."""
        for value in (
            "",
            " ",
            ",",
            ",,,",
            "=",
            '"',
            'Bearer realm="x',
            "Bearer realm",
            'realm="x"',
            "\x00",
            "é é",
            "Bearer =",
        ):
            self.assertIsNone(bearer(parse([value])), value)

    def test_long_nonsense(self) -> None:
        """Noise of a header's greatest length is done with at once."""
        began = time.perf_counter()
        for value in ("," * 16384, "a " * 8192, 'a="' * 5000, "Bearer " + "a=b " * 4000, "\\" * 16384, " " * 16384):
            parse([value])
        self.assertLess(time.perf_counter() - began, 2.0)


class BearerTests(SynchronousTestCase):
    def test_bearer(self) -> None:
        """The first Bearer challenge that names a realm, whatever comes before it."""
        usable = Challenge("bearer", {"realm": "r"})
        self.assertEqual(bearer([Challenge("basic", {"realm": "x"}), Challenge("bearer"), usable]), usable)
        self.assertIsNone(bearer([Challenge("basic", {"realm": "x"})]))
        self.assertIsNone(bearer([Challenge("bearer", {"realm": ""})]))
        self.assertIsNone(bearer([]))

    def test_text(self) -> None:
        """A challenge without parameters is its scheme."""
        self.assertEqual(str(Challenge("negotiate")), "Negotiate")
