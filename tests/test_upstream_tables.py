"""The registries of the file: by name, as tables, and the line when one cannot be used."""

from __future__ import annotations

from typing import Any

from docxy import values
from docxy.config import DOCKER_HUB, AuthMode, ConfigError, Credential, Upstream
from tests.certificates import issue
from tests.test_config import Case

SECRET = "hunter2"


class PresetTests(Case):
    def test_names_are_enough(self) -> None:
        """Each of the well-known registries is what it has to be when there is only its name."""
        plain = [
            "ghcr.io",
            "quay.io",
            "registry.k8s.io",
            "gcr.io",
            "mcr.microsoft.com",
            "public.ecr.aws",
            "nvcr.io",
            "europe-west1-docker.pkg.dev",
            "registry.example:5000",
        ]
        config = self.load(f"upstreams = {['docker.io', 'registry.gitlab.com', *plain]}")
        gitlab = Upstream("registry.gitlab.com", "https://registry.gitlab.com", realm_hosts=frozenset({"gitlab.com"}))
        self.assertEqual(config.upstreams, (DOCKER_HUB, gitlab, *(Upstream(name, f"https://{name}") for name in plain)))

    def test_aliases_of_docker_hub(self) -> None:
        """Any of its names is Docker Hub, and two of them are one registry twice."""
        self.assertEqual(self.load('upstreams = ["index.docker.io"]').upstreams, (DOCKER_HUB,))
        self.refused(
            toml='upstreams = ["docker.io", "registry-1.docker.io"]',
            line="FILE: two of the [[upstreams]] have the name 'docker.io'",
        )

    def test_mixed(self) -> None:
        """Names and tables may stand in one array."""
        config = self.load('upstreams = ["ghcr.io", {name = "docker.io", tag_ttl = 5}]')
        self.assertEqual(
            [(each.name, each.tag_ttl) for each in config.upstreams], [("ghcr.io", None), ("docker.io", 5)]
        )

    def test_short_form(self) -> None:
        """--upstream knows the same registries."""
        (gitlab,) = self.load(upstream="https://registry.gitlab.com").upstreams
        self.assertEqual(gitlab.realm_hosts, {"gitlab.com"})
        (local,) = self.load(upstream="http://127.0.0.1:5000").upstreams
        self.assertTrue(local.private)


class TableTests(Case):
    def one(self, toml: str, environ: dict[str, str] | None = None, **given: Any) -> Upstream:
        """The only upstream of a file, `registry.example` unless it has a name."""
        name = "" if "name =" in toml else 'name = "registry.example"\n'
        (upstream,) = self.load(f"[[upstreams]]\n{name}{toml}", environ, **given).upstreams
        return upstream

    def test_tables(self) -> None:
        """The first is the default; what is left out is what is known of the name."""
        config = self.load(
            """
            [[upstreams]]
            name = "docker.io"
            url = "http://127.0.0.1:5000"
            realm_hosts = ["auth.example"]
            [[upstreams]]
            name = "GHCR.io"
            hosts = ["ghcr.mirror.example"]
            [[upstreams]]
            name = "local"
            url = "http://10.0.0.1"
            library = true
            aliases = ["other:5000"]
            """
        )
        self.assertEqual(
            config.upstreams,
            (
                Upstream(
                    "docker.io",
                    "http://127.0.0.1:5000",
                    True,
                    DOCKER_HUB.aliases,
                    frozenset(),
                    frozenset({"auth.example"}),
                    private=True,
                ),
                Upstream("ghcr.io", "https://ghcr.io", hosts=frozenset({"ghcr.mirror.example"})),
                Upstream("local", "http://10.0.0.1", True, frozenset({"other:5000"}), private=True),
            ),
        )

    def test_the_rest(self) -> None:
        """Every other key comes to its field."""
        upstream = self.one(
            """
            endpoints = ["https://b.example/", "http://c.example:80"]
            max_connections = 4
            auth = "transparent"
            tag_ttl = 1.5
            allow = ["team/**"]
            deny = ["team/secret", "**/old-*"]
            """
        )
        self.assertEqual(
            upstream,
            Upstream(
                "registry.example",
                "https://registry.example",
                endpoints=("https://b.example", "http://c.example"),
                max_connections=4,
                auth=AuthMode.TRANSPARENT,
                tag_ttl=1.5,
                allow=("team/**",),
                deny=("team/secret", "**/old-*"),
            ),
        )

    def test_private(self) -> None:
        """Derived from any of the URLs, the one made of the name too, unless the operator says it."""
        for toml, private in (
            ("", False),
            ('url = "http://10.0.0.1"', True),
            ('url = "https://8.8.8.8"', False),
            ('name = "registry.lan"', True),
            ('endpoints = ["http://[::1]:5000"]', True),
            ('url = "http://10.0.0.1"\nprivate = false', False),
            ("private = true", True),
        ):
            self.assertIs(self.one(toml).private, private, toml)

    def test_ca_file(self) -> None:
        """A PEM file with certificates; anything else stops the start."""
        pem = issue("ca.example").pem
        there = self.file(pem.decode("ascii"), "ca.pem")
        self.assertEqual(self.one(f'ca_file = "{there}"').authorities, pem)
        gone, empty = str(self.directory / "gone.pem"), self.file("", "empty.pem")
        broken = self.file("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "broken.pem")
        for path, why in (
            (gone, "cannot be read: No such file or directory"),
            (str(self.directory), "cannot be read: Is a directory"),
            (empty, "holds no PEM certificate"),
            (broken, "holds a PEM certificate that cannot be read"),
        ):
            self.refused(
                toml=f'[[upstreams]]\nname = "a"\nca_file = "{path}"',
                line=f"[[upstreams]] 1 in FILE: ca_file: {values.shown(path)} {why}",
            )

    def test_refused(self) -> None:
        """Each line names the file, the table and the key."""
        not_tables = 'FILE: upstreams must be names, as ["docker.io", "ghcr.io"], or [[upstreams]] tables'
        for toml, line in (
            ("[[upstreams]]", "[[upstreams]] 1 in FILE: name is missing"),
            ("upstreams = []", not_tables),
            ('upstreams = "x"', not_tables),
            ("upstreams = [1]", not_tables),
            ("[upstreams]\nname = 'x'", not_tables),
            (
                'upstreams = ["ghcr.io", "https://x"]',
                "[[upstreams]] 2 in FILE: name: 'https://x' is not a host name with or without a port",
            ),
            (
                "[[upstreams]]\nname = 'a'\n[[upstreams]]\nname = 'b'\nurl = 'b'",
                "[[upstreams]] 2 in FILE: url: 'b' is not a URL such as https://registry.example",
            ),
            (
                "[[upstreams]]\nname = 'a'\n[[upstreams]]\nname = 'A'",
                "FILE: two of the [[upstreams]] have the name 'a'",
            ),
            (
                "[[upstreams]]\nname = 'a'\nhosts = ['x']\n[[upstreams]]\nname = 'b'\nhosts = ['x']",
                "FILE: two of the [[upstreams]] have the host 'x'",
            ),
        ):
            self.refused(toml=toml, line=line)

    def test_keys_refused(self) -> None:
        """Each kind of value is checked, and the value is in the line."""
        for toml, why in (
            ("name = 1", "name: 1 is not a string"),
            ("nome = 'x'", "unknown key 'nome'"),
            ("name = 'a/b'", "name: 'a/b' is not a host name with or without a port"),
            ("library = 1", "library: 1 is not true or false"),
            ("private = 'no'", "private: 'no' is not true or false"),
            ("hosts = 'b'", "hosts: 'b' is not an array of strings"),
            ("hosts = ['b:1']", "hosts: 'b:1' must be without a port"),
            ("endpoints = [1]", "endpoints: 1 is not a string"),
            (
                "endpoints = ['https://b/v2']",
                "endpoints: 'https://b/v2' must end after the host and port: a path cannot be used",
            ),
            ("endpoints = ['https://registry.example']", "endpoints: one is there twice, or is the url itself"),
            ("max_connections = -1", "max_connections: '-1' is not a whole number of zero or more"),
            ("max_connections = true", "max_connections: True is not a number"),
            ("max_connections = 1.5", "max_connections: 1.5 is not a number"),
            ("tag_ttl = -1", "tag_ttl: '-1' is not a number of seconds"),
            ("tag_ttl = '60'", "tag_ttl: '60' is not a number"),
            ("auth = 'basic'", "auth: 'basic' is not an auth mode: transparent or none"),
            ("allow = 'x'", "allow: 'x' is not an array of strings"),
            ("allow = ['X']", "allow: 'X' is not a pattern such as library/* or team/**"),
            ("deny = ['/x']", "deny: '/x' is not a pattern such as library/* or team/**"),
        ):
            name = "" if toml.startswith("name =") else "name = 'registry.example'\n"
            self.refused(toml=f"[[upstreams]]\n{name}{toml}", line=f"[[upstreams]] 1 in FILE: {why}")

    def test_not_together_with_the_short_form(self) -> None:
        """--upstream beside [[upstreams]] could mean two things, so it is refused."""
        self.refused(
            toml="[[upstreams]]\nname = 'a'",
            upstream="https://b",
            line="--upstream: https://b cannot be combined with the [[upstreams]] of FILE",
        )


class CredentialTests(Case):
    def refused_in(self, table: str, why: str, environ: dict[str, str] | None = None, **given: Any) -> None:
        """A table is refused, and the password is not in the line, wherever it was put."""
        toml = f"[[upstreams]]\nname = 'a'\n{table}"
        self.assertNotIn(SECRET, why)
        self.refused(toml=toml, environ=environ, line=f"[[upstreams]] 1 in FILE: {why}", **given)

    def test_one(self) -> None:
        """The password is in a file, whose last line end is not part of it, or in a variable."""
        path = self.file(f"{SECRET}\n", "password")
        for place, environ in ((f"password_file = '{path}'", {}), ("password_env = 'PULL'", {"PULL": SECRET})):
            (upstream,) = self.load(f"[[upstreams]]\nname = 'a'\nusername = 'me'\n{place}", environ).upstreams
            self.assertEqual(upstream.credentials, (Credential("me", SECRET),))

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
                f"password_file: {values.shown(gone)} cannot be read: No such file or directory",
            ),
            (f"username = 'me'\npassword_file = '{empty}'", f"password_file: {values.shown(empty)} is empty"),
            (f"username = 'me'\npassword_file = '{lines}'", f"password_file: {values.shown(lines)} {more}"),
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
