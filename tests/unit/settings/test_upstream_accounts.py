"""With what docxy goes to registries: accounts, and proxies on the way."""

from __future__ import annotations

from typing import Any

from docxy.settings import parsers
from docxy.settings.model import ConfigError, Credential
from tests.unit.settings.test_load import Case

SECRET = "hunter2"


class CredentialTests(Case):
    def refused_in(self, table: str, why: str, environ: dict[str, str] | None = None, **given: Any) -> None:
        """A table is refused, and the password is not in the line, wherever it was put."""
        toml = f"[[upstreams]]\nname = 'a'\n{table}"
        self.assertNotIn(SECRET, why)
        self.refused(toml=toml, environ=environ, line=f"[[upstreams]] 1 in FILE: {why}", **given)

    def test_one(self) -> None:
        """The password is in a file, whose last line end is not part of it, or in a variable."""
        path = self.file(f"{SECRET}\n", "password")
        for place, environ, file in (
            (f"password_file = '{path}'", {}, path),
            ("password_env = 'PULL'", {"PULL": SECRET}, None),
        ):
            (upstream,) = self.load(f"[[upstreams]]\nname = 'a'\nusername = 'me'\n{place}", environ).upstreams
            self.assertEqual(upstream.credentials, (Credential("me", SECRET, file),))

    def test_pool(self) -> None:
        """Several accounts, in their order."""
        config = self.load(
            "[[upstreams]]\nname = 'a'\nauth = 'none'\n"
            "credentials = [{username = 'b', password_env = 'B'}, {username = 'c', password_env = 'C'}]",
            {"B": "1", "C": "2"},
            auth="transparent",
        )
        self.assertEqual(config.upstreams[0].credentials, (Credential("b", "1"), Credential("c", "2")))

    def test_not_shown(self) -> None:
        """Neither a password nor a proxy's is in what a Config looks like in a log."""
        config = self.load(
            "[[upstreams]]\nname = 'a'\nusername = 'me'\npassword_env = 'PULL'\n"
            f"proxy = 'http://me:{SECRET}@proxy.example'",
            {"PULL": SECRET},
        )
        self.assertIn(SECRET, str(config.upstreams[0].proxy))
        self.assertNotIn(SECRET, repr(config))

    def test_not_with_transparent(self) -> None:
        """Where clients log in themselves an account of docxy's own would never be used, or given away unasked."""
        account, environ = "username = 'me'\npassword_env = 'PULL'\n", {"PULL": SECRET}
        why = (
            "credentials are not used with transparent auth, where clients log in themselves; "
            'auth = "none" gives all clients what docxy may read'
        )
        self.refused_in(account + "auth = 'transparent'", why, environ)
        self.refused_in(account, why, environ, auth="transparent")

    def test_refused(self) -> None:
        """Each line says what is missing and where."""
        gone, empty = str(self.directory / "gone"), self.file("\n", "empty")
        lines = self.file(f"{SECRET}\n{SECRET}\n", "lines")
        more = "leads to more than one line, or to characters that cannot be in a password"
        both = "username needs one of password_file and password_env"
        tables = "credentials must be an array of tables with username and password_file"
        for table, why in (
            (f"username = 'me'\npassword = '{SECRET}'", NO_PLACE),
            (f"credentials = [{{username = 'me', password = '{SECRET}'}}]", None),
            ("username = 'me'", both),
            ("username = 'me'\npassword_file = '/x'\npassword_env = 'X'", both),
            ("password_env = 'X'", "username is missing"),
            ("username = 'a:b'\npassword_env = 'X'", "username: 'a:b' is not a user name"),
            (f"username = 'me'\npassword_env = '{SECRET}'", "password_env names a variable that is not set"),
            (f"username = 'me'\npassword_env = ['{SECRET}']", "password_env is not a string"),
            (
                f"username = 'me'\npassword_file = '{gone}'",
                f"password_file: {parsers.shown(gone)} cannot be read: No such file or directory",
            ),
            (f"username = 'me'\npassword_file = '{empty}'", f"password_file: {parsers.shown(empty)} is empty"),
            (f"username = 'me'\npassword_file = '{lines}'", f"password_file: {parsers.shown(lines)} {more}"),
            (f"credentials = ['me:{SECRET}']", tables),
            (f"credentials = {{username = 'me', password = '{SECRET}'}}", tables),
            (
                "credentials = []\nusername = 'me'",
                "credentials and username cannot be combined: put all into credentials",
            ),
        ):
            if why is None:
                self.refused(
                    toml=f"[[upstreams]]\nname = 'a'\n{table}",
                    line=f"credentials 1 of [[upstreams]] 1 in FILE: {NO_PLACE}",
                )
            else:
                self.refused_in(table, why)

    def test_url_with_a_password(self) -> None:
        """However a password got into a URL, it is not repeated."""
        for url in (f"https://me:{SECRET}@b", f"https://me:/{SECRET}?#@b", f"me:{SECRET}@b", f"https://me:@{SECRET}@b"):
            error = str(self.assertRaises(ConfigError, self.load, f"[[upstreams]]\nname = 'a'\nurl = '{url}'"))
            self.assertIn("url: '", error)
            self.assertNotIn(SECRET, error)


NO_PLACE = "password: use password_file or password_env, this file is no place for it"


class ProxyTests(Case):
    def proxy(self, toml: str, environ: dict[str, str]) -> str | None:
        (upstream,) = self.load(f"[[upstreams]]\nname = 'registry.example'\n{toml}", environ).upstreams
        return upstream.proxy

    def test_given(self) -> None:
        """The table's proxy, no proxy at all, or the environment's."""
        environ = {"HTTPS_PROXY": "http://everyone.example:3128"}
        self.assertEqual(self.proxy("proxy = 'http://mine.example:1'", environ), "http://mine.example:1")
        self.assertIsNone(self.proxy("proxy = 'off'", environ))
        self.assertEqual(self.proxy("", environ), "http://everyone.example:3128")
        self.assertIsNone(self.proxy("", {**environ, "NO_PROXY": "example"}))
        self.assertIsNone(self.proxy("url = 'http://registry.example'", environ))

    def test_short_form(self) -> None:
        """The environment's proxy is for Docker Hub without any file too."""
        environ = {"HTTPS_PROXY": "http://everyone.example:3128"}
        self.assertEqual(self.load(environ=environ).upstreams[0].proxy, "http://everyone.example:3128")

    def test_refused(self) -> None:
        """What is no http proxy stops the start; its URL is not repeated."""
        wrong = "is not the URL of an http proxy, as http://proxy.example:3128"
        for proxy in (
            f"socks5://me:{SECRET}@proxy",
            f"http://me:{SECRET}",
            f"http://me:{SECRET}@",
            f"http://[{SECRET}",
        ):
            self.refused(
                toml=f"[[upstreams]]\nname = 'a'\nproxy = '{proxy}'", line=f"[[upstreams]] 1 in FILE: proxy {wrong}"
            )
            self.refused(
                environ={"ALL_PROXY": proxy},
                line=f"HTTPS_PROXY, HTTP_PROXY or ALL_PROXY in the environment, for docker.io: {wrong}",
            )
        self.refused(
            toml=f"[[upstreams]]\nname = 'a'\nproxy = ['{SECRET}']",
            line="[[upstreams]] 1 in FILE: proxy is not a string",
        )
