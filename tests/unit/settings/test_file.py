"""Settings from the file, and the certificate that they name."""

from __future__ import annotations

import os
import re

from twisted.trial.unittest import SynchronousTestCase

from docxy.settings.model import AuthMode, ConfigError
from docxy.settings.options import OPTIONS
from tests.unit.settings.test_load import Case


class FileTests(Case):
    def test_unreadable(self) -> None:
        """A file that is missing, a directory, not TOML or not UTF-8: the line names it."""
        missing = str(self.directory / "missing.toml")
        self.refused(config=missing, line=f"--config: {missing}: No such file or directory")
        self.refused(
            environ={"DOCXY_CONFIG": str(self.directory)},
            line=f"DOCXY_CONFIG in the environment: {self.directory}: Is a directory",
        )
        (self.directory / "docxy.toml").write_bytes(b"\xff")
        self.refused(config=str(self.directory / "docxy.toml"), line="--config: FILE: not UTF-8")
        error = self.assertRaises(ConfigError, self.load, "port = = 1")
        self.assertRegex(str(error), r"--config: .*docxy\.toml: not TOML: .*line 1")

    def test_unknown_key(self) -> None:
        """A key nobody knows is refused, with the one that was perhaps meant."""
        self.refused(toml="htps_port = 1", line="FILE: unknown key 'htps_port'; did you mean https_port?")

    def test_misspelt_in_tables(self) -> None:
        """In each table a key that is nearly right is told the right one."""
        for toml, line in (
            ('[[upstream]]\nname = "ghcr.io"', "FILE: [[upstream]] is unknown; did you mean [[upstreams]]?"),
            ('[upstream]\nname = "ghcr.io"', "FILE: [[upstream]] is unknown; did you mean [[upstreams]]?"),
            ("[acces]\nallow = []", "FILE: unknown key 'acces'; did you mean access?"),
            (
                '[[upstreams]]\nname = "ghcr.io"\nendpoint = []',
                "[[upstreams]] 1 in FILE: unknown key 'endpoint'; did you mean endpoints?",
            ),
            (
                '[[upstreams]]\nname = "a.io"\ncredentials = [{ user_name = "a" }]',
                "credentials 1 of [[upstreams]] 1 in FILE: unknown key 'user_name'; did you mean username?",
            ),
            ("[access]\nalow = []", "[access] in FILE: unknown key 'alow'; did you mean allow?"),
            (
                '[access]\nhtpasswd = "/x"\n[[access.rules]]\nrepository = []',
                "[[access.rules]] 1 in FILE: unknown key 'repository'; did you mean repositories?",
            ),
        ):
            self.refused(toml=toml, line=line)
        self.refused(toml="zzz = 1", line="FILE: unknown key 'zzz'")
        self.refused(toml='config = "x"', line="FILE: unknown key 'config'")

    def test_wrong_type(self) -> None:
        """The line says what the value is and what it should be."""
        self.refused(toml="cert = 1", environ={}, cert=None, line="cert in FILE: 1 is an integer, not a string")
        self.refused(toml='prefetch = "on"', line="prefetch in FILE: 'on' is a string, not a boolean")
        self.refused(
            toml="tag_ttl = 1979-05-27",
            line=r"tag_ttl in FILE: datetime.date(1979, 5, 27) is a date, not an integer or a float",
        )


class CertificateTests(Case):
    def setUp(self) -> None:
        super().setUp()
        self.cert, self.key = self.file("", "cert.pem"), self.file("", "key.pem")

    def test_given(self) -> None:
        """Both given: HTTPS, and with it transparent auth unless told otherwise."""
        config = self.load(cert=self.cert, key=self.key)
        self.assertEqual((config.cert, config.key), (self.cert, self.key))
        self.assertIs(config.auth, AuthMode.TRANSPARENT)
        self.assertIs(self.load(cert=self.cert, key=self.key, no_auth=1).auth, AuthMode.NONE)

    def test_from_different_places(self) -> None:
        """The certificate may come from the environment and the key from the file."""
        config = self.load(f'key = "{self.key}"', {"CERT_PATH": self.cert}, cert=None)
        self.assertEqual((config.cert, config.key), (self.cert, self.key))

    def test_off(self) -> None:
        """`off` is plain HTTP even with a key in the environment."""
        config = self.load(environ={"KEY_PATH": self.key}, cert="off")
        self.assertEqual((config.cert, config.key), (None, None))

    def test_half(self) -> None:
        """One without the other is refused, as is a file that does not exist."""
        self.refused(cert=self.cert, key=None, line=f"--cert: {self.cert!r} is given without its key (--key, KEY_PATH)")
        self.refused(
            cert=None,
            environ={"KEY_PATH": self.key},
            line=f"KEY_PATH in the environment: {self.key!r} is given without its certificate (--cert, CERT_PATH)",
        )
        gone = str(self.directory / "gone.pem")
        self.refused(cert=gone, key=self.key, line=f"--cert: {gone!r} does not exist")
        self.refused(cert=gone, key=None, line=f"--cert: {gone!r} does not exist")
        self.refused(
            cert=None, environ={"CERT_PATH": gone}, line=f"CERT_PATH in the environment: {gone!r} does not exist"
        )
        self.refused(cert=self.cert, key=gone, line=f"--key: {gone!r} does not exist")

    def test_relative_paths_are_made_absolute(self) -> None:
        """The daemon changes its directory; what the operator meant stays."""
        config = self.load(cert=os.path.relpath(self.cert), key=os.path.relpath(self.key))
        self.assertEqual((config.cert, config.key), (self.cert, self.key))


class TableTests(SynchronousTestCase):
    def test_defaults_are_values(self) -> None:
        """Each default in the table is one that its own parser takes, and each help says what it is."""
        for option in OPTIONS:
            with self.subTest(option.name):
                if option.default is not None:
                    option.parse(option.default)
                self.assertTrue(option.default or option.default_help)
                self.assertRegex(option.env, r"\A[A-Z][A-Z_]*\Z")

    def test_names_are_unique(self) -> None:
        """No name, flag or variable stands for two options."""
        names = [option.name for option in OPTIONS if option.metavar]
        names += [flag for option in OPTIONS for flag in option.flags]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(len(OPTIONS), len({option.env for option in OPTIONS}))
        self.assertFalse([name for name in names if re.search("[^a-z-]", name)])
