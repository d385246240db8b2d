"""The `[access]` table."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.addresses import AddressHeader
from docxy.settings.access import parse
from docxy.settings.model import AccessSettings, ConfigError


class SettingsTests(SynchronousTestCase):
    def test_nothing(self) -> None:
        """An empty table is as none."""
        self.assertEqual(parse({}, "docxy.toml"), AccessSettings())

    def test_everything(self) -> None:
        """Every key is understood."""
        settings = parse(
            {
                "htpasswd": "/etc/docxy/htpasswd",
                "token_key_file": "/etc/docxy/token-keys",
                "allow": ["10.0.0.0/8", "::1", "unix"],
                "deny": ["10.0.0.5"],
                "trusted_proxies": ["127.0.0.1", "unix"],
                "address_header": "forwarded",
                "proxy_protocol_from": ["10.0.0.10"],
                "groups": {"devs": ["alice", "bob"]},
                "reserve": {"devs": 0.2},
                "rules": [
                    {"users": ["alice"], "groups": ["devs", "anonymous"], "repositories": ["docker.io/library/*"]}
                ],
            },
            "docxy.toml",
        )
        self.assertEqual(settings.htpasswd, "/etc/docxy/htpasswd")
        self.assertEqual(settings.token_key_file, "/etc/docxy/token-keys")
        self.assertTrue(settings.perimeter.allow.unix)
        self.assertIn("10.9.9.9", settings.perimeter.allow)
        self.assertIn("10.0.0.5", settings.perimeter.deny)
        self.assertIn("127.0.0.1", settings.perimeter.trusted_proxies)
        self.assertIs(settings.perimeter.address_header, AddressHeader.FORWARDED)
        self.assertIn("10.0.0.10", settings.perimeter.proxy_protocol_from)
        self.assertEqual(settings.rules.members, {"devs": frozenset({"alice", "bob"})})
        self.assertEqual(settings.rules.reserve, {"devs": 0.2})
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
            ({"address_header": "X-Real-IP"}, ("address_header: 'X-Real-IP' is neither X-Forwarded-For nor",)),
            ({"proxy_protocol_from": ["lb.example"]}, ("proxy_protocol_from: 'lb.example' is neither",)),
            ({"rules": [rule]}, ("need htpasswd",)),
            ({"groups": {}}, ("need htpasswd",)),
            ({"reserve": {}}, ("need htpasswd",)),
        ]
        more: list[tuple[dict[str, Any], tuple[str, ...]]] = [
            ({"groups": []}, ("access.groups must be a table",)),
            ({"reserve": 0.2}, ("access.reserve must be a table",)),
            ({"reserve": {"prod": 0.2}}, ("access.reserve in docxy.toml", "unknown key 'prod'")),
            ({"groups": {"a": []}, "reserve": {"a": 0}}, ("a: '0' is not a share",)),
            ({"groups": {"a": []}, "reserve": {"a": True}}, ("a: True is not a number",)),
            ({"groups": {"a": [], "b": []}, "reserve": {"a": 0.6, "b": 0.6}}, ("more than 1 together",)),
            ({"groups": {"devs": "alice"}}, ("[access.groups] in docxy.toml", "devs: 'alice' is not an array")),
            ({"groups": {"devs": ["a:b"]}}, ("devs: 'a:b' is not a user name",)),
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
