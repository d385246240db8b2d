"""The `[access]` table."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.config import ConfigError
from docxy.gate.settings import GateSettings
from docxy.gate.table import parse


class SettingsTests(SynchronousTestCase):
    def test_nothing(self) -> None:
        """An empty table is as none."""
        self.assertEqual(parse({}, "docxy.toml"), GateSettings())

    def test_everything(self) -> None:
        """Every key is understood."""
        settings = parse(
            {
                "htpasswd": "/etc/docxy/htpasswd",
                "allow": ["10.0.0.0/8", "::1", "unix"],
                "deny": ["10.0.0.5"],
                "trusted_proxies": ["127.0.0.1", "unix"],
                "groups": {"devs": ["alice", "bob"]},
                "rules": [
                    {"users": ["alice"], "groups": ["devs", "anonymous"], "repositories": ["docker.io/library/*"]}
                ],
            },
            "docxy.toml",
        )
        self.assertEqual(settings.htpasswd, "/etc/docxy/htpasswd")
        self.assertTrue(settings.perimeter.allow.unix)
        self.assertIn("10.9.9.9", settings.perimeter.allow)
        self.assertIn("10.0.0.5", settings.perimeter.deny)
        self.assertIn("127.0.0.1", settings.perimeter.trusted_proxies)
        self.assertEqual(settings.rules.members, {"devs": frozenset({"alice", "bob"})})
        self.assertEqual(settings.rules.rules[0].users, {"alice"})

    def test_errors(self) -> None:
        """Each error is one line that names where, the key and the value."""
        rule = {"users": ["a"], "repositories": ["**"]}
        cases: list[tuple[Any, tuple[str, ...]]] = [
            ("x", ("access must be a table",)),
            ({"alow": []}, ("[access] in docxy.toml", "unknown key 'alow'")),
            ({"htpasswd": 5}, ("htpasswd: 5 is not a string",)),
            ({"htpasswd": ""}, ("htpasswd: '' is not a path",)),
            ({"allow": "10.0.0.0/8"}, ("allow: '10.0.0.0/8' is not an array",)),
            ({"allow": [10]}, ("allow: 10 is not a string",)),
            ({"allow": ["10.0.0.0/33"]}, ("allow: '10.0.0.0/33' is neither an address",)),
            ({"deny": ["example.com"]}, ("deny: 'example.com' is neither",)),
            ({"deny": ["10.0.0.1/8"]}, ("deny: '10.0.0.1/8' has bits set", "10.0.0.0/8 is probably meant")),
            ({"trusted_proxies": ["::ffff:10.0.0.0/104"]}, ("trusted_proxies: ", "IPv4 written as IPv6")),
            ({"rules": [rule]}, ("need htpasswd",)),
            ({"groups": {}}, ("need htpasswd",)),
        ]
        more: list[tuple[dict[str, Any], tuple[str, ...]]] = [
            ({"groups": []}, ("access.groups must be a table",)),
            ({"groups": {"devs": "alice"}}, ("[access.groups] in docxy.toml", "'devs': 'alice' is not an array")),
            ({"groups": {"devs": ["a:b"]}}, ("'devs': 'a:b' is not a user name",)),
            ({"groups": {"anonymous": []}}, ("'anonymous' is a group that docxy has already",)),
            ({"rules": {}}, ("access.rules must be [[access.rules]] tables",)),
            ({"rules": [rule, {**rule, "user": []}]}, ("[[access.rules]] 2 in docxy.toml", "unknown key 'user'")),
            ({"rules": [{**rule, "groups": ["devs"]}]}, ("groups: 'devs' is not in [access.groups]",)),
            ({"rules": [{"repositories": ["**"]}]}, ("for nobody",)),
            ({"rules": [{"users": ["a"]}]}, ("repositories is missing",)),
            ({"rules": [{"users": ["a"], "repositories": ["alpine"]}]}, ("repositories: 'alpine' matches nothing",)),
        ]
        cases += [({"htpasswd": "/x", **table}, wanted) for table, wanted in more]
        for table, wanted in cases:
            error = self.assertRaises(ConfigError, parse, table, "docxy.toml")
            for part in wanted:
                self.assertIn(part, str(error))
            self.assertNotIn("\n", str(error))
