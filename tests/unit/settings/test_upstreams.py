"""The registries of the file: by name, as tables, and the line when one cannot be used."""

from __future__ import annotations

from typing import Any

from docxy.settings import parsers
from docxy.settings.cooldown import Cooldown, OnNew
from docxy.settings.model import DOCKER_HUB, AuthMode, ConfigError, Upstream
from tests.harness.certificates import issue
from tests.unit.settings.test_load import Case

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

    def test_ollama(self) -> None:
        """Ollama's registry puts what has one name into `library/`, as Docker Hub does."""
        (ollama,) = self.load('upstreams = ["registry.ollama.ai"]').upstreams
        self.assertEqual((ollama.url, ollama.library), ("https://registry.ollama.ai", True))

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

    def test_cooldown(self) -> None:
        """How old an image must be, and tags that never move; bad values are named, and so is what is missing."""
        self.assertEqual(self.one('min_age = "3d"').cooldown, Cooldown(3 * 86400.0, OnNew.SERVE))
        self.assertEqual(self.one('min_age = 90\non_new = "deny"').cooldown, Cooldown(90.0, OnNew.DENY))
        self.assertIsNone(self.one('min_age = "0s"').cooldown)
        (pattern, other) = self.one('immutable = ["*:v*.*.*", "team/app:R?"]').immutable
        for glob, repository, tag, covered in (
            (pattern, "a/b/c", "v1.2.3", True),
            (pattern, "a", "1.2.3", False),
            (other, "team/app", "R1", True),
            (other, "library/team/app", "R1", True),
            (other, "team/app/x", "R1", False),
        ):
            self.assertEqual(glob.covers(repository, tag), covered, (repository, tag))
        for toml, why in (
            ('min_age = "soon"', "min_age: 'soon' is not a time such as 3d, 12h, 30m or 45s"),
            ("min_age = true", "min_age: 'True' is not a time such as 3d, 12h, 30m or 45s"),
            ('min_age = "-1d"', "min_age: '-1d' is not a time such as 3d, 12h, 30m or 45s"),
            ('on_new = "deny"', "on_new needs min_age, which says what is new"),
            ('min_age = "1d"\non_new = "maybe"', "on_new: 'maybe' is not one of serve, deny and observe"),
            ('immutable = ["v1"]', "immutable: 'v1' is not a pattern of tags such as *:v*.*.* or library/python:3.*"),
        ):
            self.refused(toml=f"[[upstreams]]\nname = 'a.test'\n{toml}", line=f"[[upstreams]] 1 in FILE: {why}")
        self.refused(
            toml="cache = 'off'\n[[upstreams]]\nname = 'a.test'\nmin_age = '1d'",
            line="FILE: min_age needs a cache, which --cache turns off",
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
                line=f"[[upstreams]] 1 in FILE: ca_file: {parsers.shown(path)} {why}",
            )

    def test_ca_only(self) -> None:
        """`ca_only` is for the CAs of `ca_file`."""
        pem = self.file(issue("ca.example").pem.decode("ascii"), "ca.pem")
        self.assertEqual(self.one(f'ca_file = "{pem}"\nca_only = true').ca_only, True)
        self.refused(
            toml='[[upstreams]]\nname = "a"\nca_only = true',
            line="[[upstreams]] 1 in FILE: ca_only needs ca_file, which names the CAs to trust alone",
        )

    def test_client_certificate(self) -> None:
        """A certificate and its key are read at the start; half a pair, or two that do not fit, stop it."""
        own, other = issue("docxy"), issue("other")
        cert, key = self.file(own.pem.decode(), "cert.pem"), self.file(own.key_pem().decode(), "key.pem")
        wrong = self.file(other.key_pem().decode(), "wrong.pem")
        found = self.one(f'client_cert = "{cert}"\nclient_key = "{key}"')
        self.assertEqual(found.identity, (own.pem, own.key_pem()))
        self.assertNotIn("PRIVATE", repr(found))
        for given, line in (
            (f'client_cert = "{cert}"', "client_cert and client_key belong together"),
            (f'client_key = "{key}"', "client_cert and client_key belong together"),
            (
                f'client_cert = "{cert}"\nclient_key = "{wrong}"',
                f"client_cert: {parsers.shown(cert)} does not belong to client_key",
            ),
        ):
            self.refused(toml=f'[[upstreams]]\nname = "a"\n{given}', line=f"[[upstreams]] 1 in FILE: {line}")

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
            ("nome = 'x'", "unknown key 'nome'; did you mean name?"),
            ("name = 'a/b'", "name: 'a/b' is not a host name with or without a port"),
            ("library = 1", "library: 1 is not true or false"),
            ("private = 'no'", "private: 'no' is not true or false"),
            ("hosts = 'b'", "hosts: 'b' is not an array of strings"),
            ("hosts = ['b:1']", "hosts: 'b:1' must be without a port"),
            ("endpoints = [1]", "endpoints: 1 is not a string"),
            (
                "endpoints = ['https://b/a/../c']",
                "endpoints: 'https://b/a/../c' has a path that cannot be used",
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


class RateTests(Case):
    def test_rate(self) -> None:
        """A rate of one upstream, and of all; less than clients bear with is refused."""
        config = self.load('max_rate = "1GB/s"\n[[upstreams]]\nname = "docker.io"\nmax_rate = "50MB/s"')
        self.assertEqual((config.max_rate, config.upstreams[0].max_rate), (1_000_000_000, 50_000_000))
        self.assertIsNone(self.load('max_rate = "off"').max_rate)
        self.assertEqual(self.load("", {"MAX_RATE": "512KiB/s"}).max_rate, 524_288)
        for value, words in (("10kB/s", "is less than 100 kB/s"), ("fast", "is not a rate such as 50MB/s")):
            with self.assertRaisesRegex(ConfigError, words):
                self.load(f'max_rate = "{value}"')


class SearchTests(Case):
    BOTH = '[[upstreams]]\nname = "docker.io"\n[[upstreams]]\nname = "corp.example"\n'

    def test_search(self) -> None:
        """A name for other upstreams, by their names or aliases; no client logs in there."""
        toml = f'{self.BOTH}[[upstreams]]\nname = "all.example"\nsearch = ["corp.example", "index.docker.io"]'
        found = self.load(toml, auth="none").upstreams[2]
        self.assertEqual((found.search, found.auth), (("corp.example", "docker.io"), AuthMode.NONE))

    def test_refused(self) -> None:
        """One line says what is wrong."""
        for toml, words in (
            ('search = ["x.example"]', "'x.example' is none of the"),
            ('search = ["all.example"]', "'all.example' is searched itself"),
            ('search = ["docker.io", "index.docker.io"]', "one registry is there twice"),
            ('search = ["docker.io"]\nurl = "https://x.example"', "url is not for a table with search"),
            ('search = ["docker.io"]\nprivate = true', "private is not for a table with search"),
        ):
            with self.assertRaisesRegex(ConfigError, words):
                self.load(f'{self.BOTH}[[upstreams]]\nname = "all.example"\n{toml}', auth="none")
        with self.assertRaisesRegex(ConfigError, "'docker.io' has transparent auth"):
            toml = f'{self.BOTH}[[upstreams]]\nname = "all.example"\nsearch = ["docker.io"]'
            self.load(toml, auth="transparent")


class AnyRegistryTests(Case):
    def any(self, toml: str, environ: dict[str, str] | None = None) -> Upstream:
        config = self.load(f'[[upstreams]]\nname = "docker.io"\n[[upstreams]]\nname = "*"\n{toml}', environ)
        assert config.any_registry is not None
        self.assertEqual([each.name for each in config.upstreams], ["docker.io"])
        self.assertEqual(config.registries, (*config.upstreams, config.any_registry))
        return config.any_registry

    def test_forms(self) -> None:
        """A star among the names is the same as a table that says nothing more; without either there is none."""
        short = self.load('upstreams = ["docker.io", "*"]')
        self.assertEqual((short.upstreams, short.any_registry), ((DOCKER_HUB,), self.any("")))
        self.assertIsNone(self.load('upstreams = ["docker.io"]').any_registry)

    def test_keys(self) -> None:
        """Patterns are of registry and repository; there is never an account."""
        found = self.any('allow = ["quay.io/**", "*.gcr.io/team/*"]\ndeny = ["**"]\nhosts = ["*.gcr.io"]\ntag_ttl = 5')
        self.assertEqual((found.allow, found.deny), (("quay.io/**", "*.gcr.io/team/*"), ("**",)))
        self.assertEqual((found.hosts, found.tag_ttl, found.auth), ({"*.gcr.io"}, 5, AuthMode.NONE))
        self.assertFalse(found.private)

    def test_refused(self) -> None:
        """One line says what is wrong."""
        for toml, line in (
            (
                'upstreams = ["*"]',
                'FILE: the first of the [[upstreams]] is "*", but it must be the registry for requests '
                'that name none, as in upstreams = ["docker.io", "*"]',
            ),
            ('upstreams = ["docker.io", "*", "*"]', 'FILE: two of the [[upstreams]] have the name "*"'),
            (
                'upstreams = ["docker.io", {name = "*", private = true}]',
                '[[upstreams]] 2 in FILE: private is not for "*": give the registry that it is for a table of its own',
            ),
            (
                'upstreams = ["docker.io", {name = "*", username = "x"}]',
                '[[upstreams]] 2 in FILE: username is not for "*": give the registry that it is for a table of its own',
            ),
            (
                'upstreams = ["docker.io", {name = "*", allow = ["quay.io"]}]',
                "[[upstreams]] 2 in FILE: allow: 'quay.io' "
                "matches nothing: a pattern is <upstream>/<repository>, as docker.io/library/*",
            ),
            (
                'upstreams = ["docker.io", {name = "*", hosts = ["a/b"]}]',
                "[[upstreams]] 2 in FILE: hosts: 'a/b' is not a pattern of hosts such as quay.io or *.gcr.io",
            ),
        ):
            self.refused(toml=toml, line=line)

    def test_behind_a_proxy(self) -> None:
        """A proxy of the environment is not gone through unasked: where it leads, docxy cannot see."""
        proxied = {"HTTPS_PROXY": "http://proxy.corp:3128"}
        with self.assertRaisesRegex(ConfigError, "behind a proxy docxy cannot tell"):
            self.any("", proxied)
        self.assertIsNone(self.any('proxy = "off"', proxied).proxy)
        self.assertEqual(self.any('proxy = "http://p:1"', proxied).proxy, "http://p:1")

    def test_policy(self) -> None:
        """Orders may name images of any registry, as they may pull from any."""
        recall = '[[recall]]\nimage = "quay.io/evil/**"\nreason = "x"'
        self.assertEqual(
            [str(each.image) for each in self.load(f'upstreams = ["docker.io", "*"]\n{recall}').policy.recalls],
            ["quay.io/evil/**"],
        )
        with self.assertRaisesRegex(ConfigError, "which docxy does not mirror"):
            self.load(f'upstreams = ["docker.io"]\n{recall}')
