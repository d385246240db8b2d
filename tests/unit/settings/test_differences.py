"""Settings that a reload puts in force, and what it tells of those that only a new docxy takes up."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon import changing
from docxy.daemon.changing import Changing, Started
from docxy.daemon.reloads import Reloaded
from docxy.settings.load import load
from docxy.settings.model import Config, ConfigError, Upstream
from tests.harness.certificates import issue
from tests.unit.access.harness import logged

FILE = """\
cert = "off"
tag_ttl = 60
shutdown_grace = 10
[access]
htpasswd = "/a"
allow = ["192.0.2.0/24"]
[[access.rules]]
groups = ["anonymous"]
repositories = ["docker.io/library/*"]
[[upstreams]]
name = "docker.io"
ca_file = "DIR/ca.pem"
username = "u"
password_file = "DIR/secret"
[[upstreams]]
name = "ghcr.io"
[[upstreams]]
name = "*"
proxy = "off"
"""


class DifferencesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()
        self.file = self.directory / "docxy.toml"
        self.good = FILE.replace("DIR", str(self.directory))
        self.put("ca.pem", issue("a.example").pem.decode())
        self.put("secret", "old")
        self.put("docxy.toml", self.good)
        read = partial(load, {"config": str(self.file)}, {"CACHE_DIR": str(self.directory / "cache")})
        self.running = self.started = read()
        self.puts = 0
        self.settings = Changing(Started(self.started, read), lambda: self.running, self.take)

    def take(self, config: Config) -> None:
        self.running = config
        self.puts += 1

    def put(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def told(self) -> Reloaded:
        (told,) = self.settings.reload()
        return told

    def changed(self, before: str, after: str) -> str:
        """What is told of a change of the file."""
        self.assertIn(before, self.good)
        self.put("docxy.toml", self.good.replace(before, after, 1))
        told = self.told()
        self.assertTrue(told.ok, told.says)
        return told.says.removeprefix("not in force yet, docxy upgrade does that: ")

    def test_nothing(self) -> None:
        """What is the same is no difference, nor what a reload puts in force: the policy and passwords in files."""
        self.assertEqual(self.told(), Reloaded("settings", True, "as before"))
        self.put("secret", "new")
        self.put("docxy.toml", self.good + '[[recall]]\nimage = "ghcr.io/o/i:*"\nreason = "old"\n')
        self.assertEqual(self.told().says, "as before")

    def test_names(self) -> None:
        """Each kind is told by name, without a value, and logged."""
        for before, after, name in (
            ("tag_ttl = 60", "tag_ttl = 61", "tag_ttl"),
            ("shutdown_grace = 10", "upgrade_grace = 10", "shutdown_grace, upgrade_grace"),
            ('["192.0.2.0/24"]', '["192.0.2.0/24"]\nproxy_protocol_from = ["192.0.2.1"]', "access (addresses)"),
            ('"/a"', '"/b"', "access (htpasswd)"),
            (
                '"ghcr.io"',
                '"ghcr.io"\nmax_connections = 3\ntag_ttl = 9',
                "upstreams.ghcr.io (max_connections, tag_ttl)",
            ),
            ('username = "u"', 'username = "v"', "upstreams.docker.io (accounts)"),
            ('proxy = "off"', 'proxy = "http://proxy.example:1"', "upstreams.* (proxy)"),
            ('"ghcr.io"', '"quay.io"', "upstreams.quay.io (new), upstreams.ghcr.io (gone)"),
        ):
            with logged() as lines:
                self.assertEqual(self.changed(before, after), name)
            self.assertEqual(lines, [f"not in force yet, docxy upgrade does that: {name}"])
        self.assertEqual((self.puts, self.running), (0, self.started))

    def test_in_force(self) -> None:
        """What can change while docxy runs is in force at once, and goes back with the file."""
        self.put("webhook", "0123456789abcdef01234567")
        hook = f'[[webhook]]\nurl = "https://a.example/"\nsecret_file = "{self.directory}/webhook"\n'
        hook += 'events = ["tag-moved"]\n'
        for before, after, name in (
            ('["192.0.2.0/24"]', '["192.0.2.0/25"]', "access (addresses)"),
            ("library/*", "library/**", "access (rules, groups)"),
            ('"ghcr.io"', '"ghcr.io"\nproxy = "http://proxy.example:3128"', "upstreams.ghcr.io (proxy)"),
            ('"ghcr.io"', '"ghcr.io"\nprivate = true', "upstreams.ghcr.io (private)"),
            ('"ghcr.io"', '"ghcr.io"\ndeny = ["team/**"]', "upstreams.ghcr.io (deny)"),
            ('name = "*"', 'name = "*"\nallow = ["quay.io/**"]', "upstreams.* (allow)"),
            ('ca.pem"', 'ca.pem"\nca_only = true', "upstreams.docker.io (ca_only)"),
            ('"ghcr.io"', '"ghcr.io"\nmin_age = "3d"\non_new = "deny"', "upstreams.ghcr.io (min_age)"),
            ('"ghcr.io"', '"ghcr.io"\nimmutable = ["*:v*"]', "upstreams.ghcr.io (immutable)"),
            ('name = "*"', 'name = "*"\nmin_age = "1d"', "upstreams.* (min_age)"),
            ("tag_ttl = 60", 'tag_ttl = 60\nhistory = "30d"', "history"),
            ("[access]", f"{hook}[access]", "[[webhook]]"),
        ):
            self.puts = 0
            with logged() as lines:
                self.assertEqual(self.changed(before, after), f"in force now: {name}")
            self.assertEqual(lines, [f"in force now: {name}"])
            self.assertEqual((self.puts, self.running == self.started), (1, False))
            self.assertEqual(self.told().says, "as before")
            self.put("docxy.toml", self.good)
            self.assertEqual(self.told().says, f"in force now: {name}")
            self.assertEqual((self.puts, self.running), (2, self.started))

    def test_authorities(self) -> None:
        """Another certificate in a `ca_file` is in force, whether or not the file of the settings changed."""
        pem = issue("b.example").pem
        self.put("ca.pem", pem.decode())
        self.assertEqual(self.told().says, "in force now: upstreams.docker.io (ca_file)")
        self.assertEqual(self.running.upstreams[0].authorities, pem)

    def test_identity(self) -> None:
        """So is docxy's own certificate, once it and its key belong together."""
        pairs = [issue("docxy"), issue("docxy")]
        self.put("c.pem", pairs[0].pem.decode())
        self.put("k.pem", pairs[0].key_pem().decode())
        keys = f'client_cert = "{self.directory}/c.pem"\nclient_key = "{self.directory}/k.pem"\n'
        self.put("docxy.toml", self.good.replace('name = "ghcr.io"\n', f'name = "ghcr.io"\n{keys}'))
        self.assertEqual(self.told().says, "in force now: upstreams.ghcr.io (client_cert)")
        self.put("c.pem", pairs[1].pem.decode())
        self.assertFalse(self.told().ok)
        self.assertEqual(self.running.upstreams[1].identity, (pairs[0].pem, pairs[0].key_pem()))
        self.put("k.pem", pairs[1].key_pem().decode())
        self.assertTrue(self.told().ok)
        self.assertEqual(self.running.upstreams[1].identity, (pairs[1].pem, pairs[1].key_pem()))

    def test_unreadable(self) -> None:
        """Where another file is for root alone, who may come in changes nonetheless, if that part is right."""

        def denied() -> Config:
            raise ConfigError("client_key: '/k.pem' cannot be read: Permission denied")

        settings = Changing(Started(self.started, denied), lambda: self.running, self.take)
        for addresses, ok, says in (
            (
                "2.0/25",
                True,
                "in force now: access (addresses); those of [[upstreams]] and all others cannot be compared",
            ),
            ("2.0/25", True, "those of [[upstreams]] and all others cannot be compared"),
            ("2.0/99", False, "192.0.2.0/99"),
            ("2.0/24", True, "in force now: access (addresses); those"),
        ):
            self.put("docxy.toml", self.good.replace("2.0/24", addresses).replace("tag_ttl = 60", "tag_ttl = 61"))
            with logged():
                (told,) = settings.reload()
            self.assertEqual(told.ok, ok)
            self.assertIn(says, told.says)
        self.assertEqual((self.puts, self.running), (2, self.started))

    def test_both(self) -> None:
        """Of a change of which a part needs a new docxy the rest is in force; each is told."""
        self.put("docxy.toml", self.good.replace("tag_ttl = 60", "tag_ttl = 61").replace("2.0/24", "2.0/25"))
        for _ in range(2):
            told = self.told().says
        self.assertEqual(told, "not in force yet, docxy upgrade does that: tag_ttl")
        self.assertEqual((self.puts, self.running.tag_ttl), (1, 60))

    def test_accounts_and_rules(self) -> None:
        """Rules without the accounts that they are for, or for others, wait together with these."""
        both = self.good.replace('"/a"', '"/b"').replace("library/*", "library/**")
        none = self.good.replace('htpasswd = "/a"\n', "")
        none = none.replace('[[access.rules]]\ngroups = ["anonymous"]\nrepositories = ["docker.io/library/*"]\n', "")
        for text in (both, none):
            self.put("docxy.toml", text)
            self.assertIn(
                "not in force yet, docxy upgrade does that: access (htpasswd), access (rules", self.told().says
            )
            self.assertEqual(self.running.access.rules, self.started.access.rules)

    def test_unusable(self) -> None:
        """Where docxy could not reach an upstream in the new way nothing at all changes."""

        def refuse(upstream: Upstream) -> None:
            raise ValueError("holds a PEM certificate that cannot be read")

        self.patch(changing, "trust_of", refuse)
        self.put("ca.pem", issue("b.example").pem.decode())
        self.put("docxy.toml", self.good.replace("2.0/24", "2.0/25"))
        with logged():
            told = self.told()
        self.assertEqual((told.ok, self.puts), (False, 0))
        self.assertIn("upstreams.docker.io: ca_file or client_cert holds", told.says)

    def test_wrong(self) -> None:
        """What docxy would not start with is refused, with the line of such a start; nothing has changed."""
        for before, after, line in (
            ("tag_ttl = 60", "tag_ttl = -1", "tag_ttl"),
            ('["192.0.2.0/24"]', '["192.0.2.0/99"]', "192.0.2.0/99"),
            ('repositories = ["docker.io/library/*"]', "repositories = 5", "repositories"),
            ('"ghcr.io"', '"docker.io"', "docker.io"),
            ("ca.pem", "gone.pem", "cannot be read: No such file"),
            ('"ghcr.io"', '"ghcr.io"\nclient_cert = "/gone"\nclient_key = "/gone"', "client_key"),
            ("[access]", "[access", "not TOML"),
        ):
            self.put("docxy.toml", self.good.replace(before, after, 1))
            with logged() as lines:
                told = self.told()
            self.assertFalse(told.ok, line)
            self.assertIn(line, told.says)
            self.assertIn(told.says, lines[0])
        self.assertEqual(self.puts, 0)
        self.put("docxy.toml", self.good)
        self.assertEqual(self.told().says, "as before")
