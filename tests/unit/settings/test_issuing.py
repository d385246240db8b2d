"""Certificates that docxy gets for itself: what the options come to, and the line for what cannot be."""

from __future__ import annotations

from typing import Any
from unittest import mock

from docxy.settings import issuing
from docxy.settings.issuing import LETS_ENCRYPT, MOST_NAMES, names
from docxy.settings.load import load
from docxy.settings.model import Acme, AuthMode, Binding, Config, ConfigError, Issuing
from tests.unit.settings.test_load import Case as SettingsCase


class Case(SettingsCase):
    def load(self, toml: str = "", environ: dict[str, str] | None = None, **given: Any) -> Config:
        """With a cache in `/cache`, and nothing said of certificates but by the test."""
        if toml:
            given["config"] = self.file(toml)
        options = {"cache": "/cache"} | {name.replace("_", "-"): value for name, value in given.items()}
        with mock.patch("socket.gethostname", lambda: "box"):
            return load(options, environ or {})

    def issuing(self, **given: Any) -> Issuing:
        found = self.load(**given).issuing
        assert found is not None
        return found


class InternalTests(Case):
    def test_names(self) -> None:
        """The names that are given and the public URL's host; else the bound address; else this machine's name."""
        for given, wanted in (
            ({}, ("box",)),
            ({"interface": "10.0.0.5"}, ("10.0.0.5",)),
            ({"interface": "::"}, ("box",)),
            ({"public_url": "https://mirror.lan:8443"}, ("mirror.lan",)),
            (
                {"tls_names": "Mirror.LAN., 192.168.1.5,[fd00:0::5],mirror.lan"},
                ("mirror.lan", "192.168.1.5", "fd00::5"),
            ),
            ({"tls_names": "a.lan", "public_url": "https://b.lan", "interface": "10.0.0.5"}, ("b.lan", "a.lan")),
        ):
            self.assertEqual(self.issuing(tls="internal", **given).names, wanted)

    def test_it_is_https(self) -> None:
        """Certificate and key are one file in the state directory, which need not be there; clients log in."""
        config = self.load(tls="internal")
        self.assertEqual((config.cert, config.key), ("/cache/tls/certificate.pem",) * 2)
        self.assertEqual((config.auth, config.redirect is not None), (AuthMode.TRANSPARENT, True))
        self.assertEqual(self.issuing(tls="internal", state="/var/lib/docxy").state, "/var/lib/docxy")

    def test_refused(self) -> None:
        """What contradicts, or means nothing, is one line that names it."""
        for line, given in (
            ("--tls: 'own' is neither files nor internal", {"tls": "own"}),
            ("--acme and --tls contradict each other: choose one", {"tls": "internal", "acme": "a.example"}),
            ("--tls and --cert contradict each other: choose one", {"tls": "internal", "cert": "/c"}),
            (
                "--tls: with the cache off, --state must say where certificates are kept",
                {"tls": "internal", "cache": "off"},
            ),
            ("--tls-names: means nothing without --tls internal", {"tls_names": "a.lan"}),
        ):
            self.refused(line=line, **given)
        with mock.patch("socket.gethostname", lambda: "my box!"):
            self.assertRaisesRegex(ConfigError, "set --tls-names", load, {"tls": "internal", "cache": "/c"}, {})


class AcmeTests(Case):
    def test_plain(self) -> None:
        """Names and an address are enough; the rest has its defaults."""
        wanted = Issuing(("mirror.example",), "/cache/tls", Acme(LETS_ENCRYPT, "you@mirror.example"))
        given = {"acme": "mirror.example", "acme_email": "you@mirror.example"}
        self.assertEqual(self.issuing(**given), wanted)
        environ = {"ACME": "mirror.example", "ACME_EMAIL": "you@mirror.example"}
        self.assertEqual(self.load(environ=environ).issuing, wanted)
        toml = "".join(f'{key} = "{value}"\n' for key, value in given.items())
        self.assertEqual(self.load(toml).issuing, wanted)

    def test_all(self) -> None:
        """Another server with its CA, a profile, an account that it knows."""
        key, ca = self.file("c2VjcmV0\n", "eab.key"), self.file("", "ca.pem")
        found = self.issuing(
            acme="a.example,203.0.113.5",
            acme_directory="https://ca.lan:14000/dir",
            acme_ca_file=ca,
            acme_profile="shortlived",
            acme_eab_key_id="kid-1",
            acme_eab_key_file=key,
        )
        self.assertEqual(found.names, ("a.example", "203.0.113.5"))
        self.assertEqual(
            found.acme, Acme("https://ca.lan:14000/dir", None, ca, "shortlived", Binding("kid-1", "c2VjcmV0"))
        )
        self.assertNotIn("c2VjcmV0", repr(found))

    def test_refused(self) -> None:
        """What cannot be used is one line; the key of an account is in none."""
        secret = self.file("not base64!\n", "eab.key")
        wildcard = "has a wildcard, for which HTTP-01 proves nothing: list each name"
        for line, given in (
            (f"--acme: '*.example' {wildcard}", {"acme": "*.example"}),
            (
                "--acme: 'a b' is not a list of host names and IP addresses, as mirror.example,192.0.2.1",
                {"acme": "a b"},
            ),
            ("--acme: the ACME server asks at --http-port, which is off", {"acme": "a.example", "http_port": "0"}),
            ("--acme-email: 'you' is not an e-mail address", {"acme": "a.example", "acme_email": "you"}),
            ("--acme-email: means nothing without --acme", {"acme_email": "you@a.example"}),
            (
                "--acme-directory: 'http://ca.lan/dir' is not an https URL",
                {"acme": "a.example", "acme_directory": "http://ca.lan/dir"},
            ),
            ("--acme-ca-file: '/none.pem' cannot be read", {"acme": "a.example", "acme_ca_file": "/none.pem"}),
            (
                "--acme-eab-key-id: --acme-eab-key-id and --acme-eab-key-file go together",
                {"acme": "a.example", "acme_eab_key_id": "kid"},
            ),
            (
                f"--acme-eab-key-file: '{secret}' holds no base64url",
                {"acme": "a.example", "acme_eab_key_id": "kid", "acme_eab_key_file": secret},
            ),
        ):
            self.refused(line=line, **given)

    def test_the_library_is_missing(self) -> None:
        """One line says what to install, where ACME is configured; elsewhere nobody needs it."""
        with mock.patch.object(issuing, "find_spec", lambda name: None):
            self.refused(
                line="--acme: needs certbot's library acme, which is not installed: pip install 'docxy[acme]'",
                acme="mirror.example",
            )
            self.issuing(tls="internal")

    def test_bounded(self) -> None:
        """No more names than a certificate takes."""
        self.assertEqual(len(names(",".join(f"a{n}.example" for n in range(MOST_NAMES)))), MOST_NAMES)
        self.assertRaises(ValueError, names, ",".join(f"a{n}.example" for n in range(MOST_NAMES + 1)))
