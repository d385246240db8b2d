"""Settings: where each comes from, what it comes to, and the line when it cannot be used.

Nothing is started here; `tests/unit/test_tap.py` shows what `twistd` makes of the errors.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import jsonschema
from twisted.internet.endpoints import serverFromString
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from docxy.settings import parsers
from docxy.settings.load import load
from docxy.settings.model import DOCKER_HUB, AuthMode, Config, ConfigError, Timeouts, Upstream
from docxy.settings.options import OPTIONS
from docxy.settings.schema import schema

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = schema()


class Case(SynchronousTestCase):
    """With a directory for files and a default certificate that is not there."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()
        self.directory.mkdir()

    def file(self, text: str, name: str = "docxy.toml") -> str:
        path = self.directory / name
        path.write_text(text, "utf-8")
        return str(path)

    def load(self, toml: str = "", environ: dict[str, str] | None = None, **given: Any) -> Config:
        """`given`: options, their dashes as underscores."""
        if toml:
            given["config"] = self.file(toml)
        options = {name.replace("_", "-"): value for name, value in given.items()}
        # No test depends on what is at the default paths of the machine.
        found = load(options if "cert" in options else {**options, "cert": "off"}, environ or {})
        if toml:
            # What docxy takes, an editor must not mark as wrong.
            jsonschema.validate(tomllib.loads(toml), SCHEMA)
        return found

    def refused(self, *, line: str, toml: str = "", environ: dict[str, str] | None = None, **given: Any) -> None:
        """The settings are refused with exactly this line; FILE stands for the path of the TOML file."""
        error = self.assertRaises(ConfigError, self.load, toml, environ, **given)
        self.assertEqual(str(error).replace(str(self.directory / "docxy.toml"), "FILE"), line)
        self.assertNotIn("\n", str(error))


class PrecedenceTests(Case):
    def test_defaults(self) -> None:
        """With nothing given every setting is what the table of options says."""
        config = load({}, {"HOME": "/home/someone"}) if not os.path.exists(OPTIONS[1].default or "") else self.load()
        self.assertEqual(config.http, r"tcp6:8080:interface=\:\::backlog=1024")
        self.assertEqual(config.https, r"tcp6:443:interface=\:\::backlog=1024")
        self.assertEqual(config.redirect, r"tcp6:80:interface=\:\::backlog=1024")
        self.assertEqual(config.upstreams, (DOCKER_HUB,))
        self.assertEqual(config.timeouts, Timeouts())
        self.assertEqual((config.tag_ttl, config.prefetch, config.cache_size), (60.0, True, None))
        self.assertIsNone(config.public_url)
        self.assertIsNone(config.cert)
        self.assertIs(config.auth, AuthMode.NONE)

    def test_each_place_beats_the_next(self) -> None:
        """Command line, environment, file, default: taking one away uncovers the next."""
        toml, environ = "tag_ttl = 3", {"TAG_TTL": "2"}
        self.assertEqual(self.load(toml, environ, tag_ttl="1").tag_ttl, 1.0)
        self.assertEqual(self.load(toml, environ).tag_ttl, 2.0)
        self.assertEqual(self.load(toml).tag_ttl, 3.0)
        self.assertEqual(self.load().tag_ttl, 60.0)

    def test_every_option_has_every_place(self) -> None:
        """Each option of the table is read from its variable and its key, the file's own name excepted."""
        for option in OPTIONS:
            if option.name == "config":
                continue
            with self.subTest(option.name):
                error = self.assertRaises(ConfigError, self.load, "", {option.env: "\0"}, cert=None)
                self.assertIn(f"{option.env} in the environment: ", str(error))
                error = self.assertRaises(ConfigError, self.load, f"{option.key} = [1]", cert=None)
                self.assertIn(f"{option.key} in {self.directory}/docxy.toml: ", str(error))

    def test_config_from_the_environment(self) -> None:
        """DOCXY_CONFIG names the file as --config does, and --config beats it."""
        path, other = self.file("tag_ttl = 5"), self.file("tag_ttl = 6", "other.toml")
        self.assertEqual(self.load(environ={"DOCXY_CONFIG": path}).tag_ttl, 5)
        self.assertEqual(self.load(environ={"DOCXY_CONFIG": path}, config=other).tag_ttl, 6)

    def test_empty_variable_is_unset(self) -> None:
        """A variable that a platform sets to nothing is one that is not there."""
        self.assertIsNone(self.load(environ={"PUBLIC_URL": ""}).public_url)

    def test_flags(self) -> None:
        """--no-auth and the pair of --prefetch are texts like any other, and beat the environment."""
        self.assertIs(self.load(environ={"AUTH": "transparent"}, no_auth=1).auth, AuthMode.NONE)
        self.assertFalse(self.load(no_prefetch=1).prefetch)
        self.assertTrue(self.load("prefetch = false", prefetch=1).prefetch)
        self.assertFalse(self.load("prefetch = false").prefetch)
        self.assertFalse(self.load(environ={"PREFETCH": "0"}).prefetch)
        self.assertIs(self.load(auth="none", no_auth=1).auth, AuthMode.NONE)
        self.refused(prefetch=1, no_prefetch=1, line="--no-prefetch and --prefetch contradict each other")
        self.refused(auth="transparent", no_auth=1, line="--auth and --no-auth contradict each other")


class PortTests(Case):
    def test_forms(self) -> None:
        """A port goes to the interface; an endpoint stays what it is; 0 turns the redirects off."""
        self.assertEqual(self.load(port="80", interface="127.0.0.1").http, "tcp:80:interface=127.0.0.1:backlog=1024")
        self.assertEqual(self.load(port="80", interface="[::1]").http, r"tcp6:80:interface=\:\:1:backlog=1024")
        self.assertEqual(self.load("port = 90").http, r"tcp6:90:interface=\:\::backlog=1024")
        systemd = "systemd:domain=INET6:index=0"
        self.assertEqual(self.load(https_port=systemd, interface="::1").https, systemd)
        self.assertEqual(self.load(f'http_port = "{systemd}"').redirect, systemd)
        self.assertIsNone(self.load("http_port = 0").redirect)

    def test_without_ipv6(self) -> None:
        """Where there is no IPv6, all of IPv4 is bound."""
        config = load({"cert": "off"}, {}, ipv6=False)
        self.assertEqual(config.http, "tcp:8080:backlog=1024")

    def test_twisted_takes_the_descriptions(self) -> None:
        """What is made of a port is an endpoint that Twisted parses, with the address it was given."""
        for address in ("::", "::1", "127.0.0.1", ""):
            reactor = MemoryReactor()
            description = parsers.endpoint(8123, address)
            self.successResultOf(serverFromString(reactor, description).listen(None))
            port, _, backlog, interface = reactor.tcpServers[0]
            self.assertEqual((port, backlog, interface), (8123, 1024, address))

    def test_refused(self) -> None:
        """Each line names where it was set, the value, and what would be right."""
        self.refused(port="65536", line="--port: '65536' is not a port: ports go from 0 to 65535")
        self.refused(port="-1", line=f"--port: '-1' {NEITHER}")
        self.refused(environ={"PORT": "http"}, line=f"PORT in the environment: 'http' {NEITHER}")
        self.refused(
            toml="https_port = 70000", line="https_port in FILE: '70000' is not a port: ports go from 0 to 65535"
        )
        self.refused(toml="https_port = true", line="https_port in FILE: True is a boolean, not an integer or a string")
        self.refused(
            https_port="ssl:443",
            line="--https-port: 'ssl:443' is no endpoint for this: docxy adds TLS itself, use tcp: or tcp6:",
        )
        self.refused(interface="eth0", line="--interface: 'eth0' is not an IPv4 or IPv6 address")


NEITHER = "is neither a port (0 to 65535) nor an endpoint such as tcp:8080:interface=127.0.0.1"


class URLTests(Case):
    def test_public_url(self) -> None:
        """Trailing slashes, default ports and capitals go; a path stays."""
        for given, wanted in (
            ("https://Mirror.Example/", "https://mirror.example"),
            ("https://mirror.example:443", "https://mirror.example"),
            ("http://mirror.example:443/", "http://mirror.example:443"),
            ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
            ("https://mirror.example/docker/hub/", "https://mirror.example/docker/hub"),
        ):
            self.assertEqual(self.load(public_url=given).public_url, wanted)

    def test_public_url_refused(self) -> None:
        """Nothing that could turn a challenge or a Link into something else is taken."""
        for bad, why in (
            ("mirror.example", "is not a URL such as https://registry.example"),
            ("ftp://mirror.example", "is not a URL such as https://registry.example"),
            ("https://", "is not a URL such as https://registry.example"),
            ("https://mirror.example:0", "is not a URL such as https://registry.example"),
            ("https://mirror.example:99999", "is not a URL such as https://registry.example"),
            ("https://a b", "is not a URL such as https://registry.example"),
            ("https://[::1", "is not a URL such as https://registry.example"),
            ("https://mirror.example?", "must not have a query or a fragment"),
            ("https://mirror.example/?x=1", "must not have a query or a fragment"),
            ("https://mirror.example#x", "must not have a query or a fragment"),
            ('https://mirror.example/"', "has a path that cannot be used"),
            ("https://mirror.example//a", "has a path that cannot be used"),
        ):
            self.refused(public_url=bad, line=f"--public-url: {bad!r} {why}")
        self.refused(
            public_url="https://a\r\nX: y",
            line=r"--public-url: 'https://a\r\nX: y' " + "is not a URL such as https://registry.example",
        )

    def test_upstream(self) -> None:
        """The short form: Docker Hub's preset for its hosts, else a registry called what its host is."""
        self.assertEqual(self.load(upstream="https://registry-1.docker.io/").upstreams, (DOCKER_HUB,))
        self.assertEqual(self.load(upstream="https://docker.io").upstreams, (DOCKER_HUB,))
        self.assertEqual(
            self.load(upstream="http://Registry.example:5000").upstreams,
            (Upstream(name="registry.example:5000", url="http://registry.example:5000"),),
        )

    def test_upstream_refused(self) -> None:
        """Paths, queries and credentials are refused, and a password is not repeated."""
        self.refused(
            upstream="https://registry.example/a//b",
            line="--upstream: 'https://registry.example/a//b' has a path that cannot be used",
        )
        self.refused(
            environ={"UPSTREAM": "https://someone:secret@registry.example"},
            line="UPSTREAM in the environment: 'https://…@registry.example' must not hold a user name or password",
        )
        self.refused(
            toml='upstream = "https://registry.example?a"',
            line="upstream in FILE: 'https://registry.example?a' must not have a query or a fragment",
        )


class ValueTests(Case):
    def test_sizes(self) -> None:
        """Decimal and binary units; the file may hold a number of bytes."""
        for given, wanted in (
            ("20GB", 20 * 10**9),
            ("20g", 20 * 10**9),
            ("1.5 GiB", 3 * 2**29),
            ("512MiB", 512 * 2**20),
            ("1TB", 10**12),
            ("16000000", 16_000_000),
            ("30000000B", 30_000_000),
        ):
            self.assertEqual(self.load(cache_size=given).cache_size, wanted)
        self.assertEqual(self.load("cache_size = 20_000_000").cache_size, 20_000_000)
        for bad in ("lots", "-1GB", "20XB", "GB", "1e9", ""):
            self.refused(cache_size=bad, line=f"--cache-size: {bad!r} is not a size such as 20GB or 512MiB")
        self.refused(cache_size="0", line="--cache-size: '0' is not a size that can be used")
        for small in ("1", "15MB"):
            line = f"--cache-size: {small!r} is too small for a cache: at least 16 MB, or --cache off"
            self.refused(cache_size=small, line=line)

    def test_shown_sizes(self) -> None:
        """Three digits and a unit."""
        for count, shown in (
            (0, "0 B"),
            (999, "999 B"),
            (1500, "1.5 kB"),
            (999_999, "1 MB"),
            (20 * 10**9, "20 GB"),
            (10**15, "1e+03 TB"),
        ):
            self.assertEqual(parsers.shown_size(count), shown)

    def test_seconds(self) -> None:
        """Fractions are taken; negative, infinite and absent numbers are not; no timeout is zero."""
        self.assertEqual(self.load("silence_timeout = 1.5").timeouts.silence, 1.5)
        self.assertEqual(self.load(shutdown_grace="0").timeouts.shutdown, 0.0)
        for bad in ("-1", "inf", "nan", "soon"):
            self.refused(header_timeout=bad, line=f"--header-timeout: {bad!r} is not a number of seconds")
        self.refused(connect_timeout="0", line="--connect-timeout: '0' must be more than zero seconds")

    def test_each_timeout_goes_to_its_field(self) -> None:
        """No two of the timeouts are mixed up."""
        config = self.load(
            connect_timeout="1", header_timeout="2", silence_timeout="3", client_timeout="4", shutdown_grace="5"
        )
        self.assertEqual(config.timeouts, Timeouts(1, 2, 3, 4, 5))

    def test_auth(self) -> None:
        """Only the two modes there are."""
        self.assertIs(self.load(auth="transparent").auth, AuthMode.TRANSPARENT)
        self.refused(auth="basic", line="--auth: 'basic' is not an auth mode: transparent or none")

    def test_prefetch(self) -> None:
        """A word that is neither yes nor no is not guessed at."""
        self.refused(environ={"PREFETCH": "maybe"}, line="PREFETCH in the environment: 'maybe' is neither on nor off")

    def test_cache(self) -> None:
        """off, a directory made absolute, or the platform's place for caches."""
        self.assertIsNone(self.load(cache="off").cache)
        self.assertEqual(self.load(cache="here").cache, os.path.abspath("here"))
        off = {"cert": "off"}
        self.assertEqual(load(off, {}, root=True).cache, "/var/cache/docxy")
        self.assertEqual(load(off, {"XDG_CACHE_HOME": "/x", "HOME": "/h"}).cache, "/x/docxy")
        self.assertEqual(load(off, {"XDG_CACHE_HOME": "x", "HOME": "/h"}).cache, "/h/.cache/docxy")
        self.assertEqual(load(off, {"HOME": "/h", "CACHE_DIR": "off"}).cache, None)


class CollectorTests(Case):
    """Where traces go."""

    def test_places(self) -> None:
        """The base URL gets the path of traces, one that is for traces alone stays, and the command line beats both."""
        base, exact = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        self.assertIsNone(self.load().collector)
        self.assertEqual(self.load(otlp_endpoint="http://a:4318/").collector, "http://a:4318/v1/traces")
        self.assertEqual(self.load(environ={base: "https://b/otlp"}).collector, "https://b/otlp/v1/traces")
        both = {base: "http://b", exact: "http://c/spans"}
        self.assertEqual(self.load(environ=both).collector, "http://c/spans")
        self.assertEqual(self.load(environ=both, otlp_endpoint="http://a").collector, "http://a/v1/traces")
        self.assertIsNone(self.load(environ=both, otlp_endpoint="off").collector)

    def test_off(self) -> None:
        """OpenTelemetry's own switches turn traces off."""
        for switch in ({"OTEL_SDK_DISABLED": "TRUE"}, {"OTEL_TRACES_EXPORTER": "none"}):
            self.assertIsNone(self.load(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://b", **switch}).collector)

    def test_refused(self) -> None:
        """What is no URL, or holds a password, is refused in one line, which does not repeat the password."""
        self.refused(
            environ={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "localhost:4318"},
            line="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT in the environment: 'localhost:4318' is not a URL such as "
            "https://registry.example",
        )
        self.refused(
            otlp_endpoint="http://user:secret@a",
            line="--otlp-endpoint: 'http://…@a' must not hold a user name or password",
        )
