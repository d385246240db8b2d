"""What the plugin makes of a command line: settings, the certificate, the public URL, errors of one line.

What the real `twistd` does with it is shown in `tests/process/test_twistd.py`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.python.usage import UsageError

from docxy.daemon import certificates
from docxy.settings.model import ConfigError
from docxy.tap import Options, check_twistd, derived_url
from tests.harness.certificates import PairCase, issue


def parse(*args: str, **environ: str) -> Options:
    options = Options(environ)
    options.parseOptions(list(args))
    return options


class OptionsTests(PairCase):
    def refused(self, pattern: str, *args: str, **environ: str) -> None:
        error = self.assertRaises(UsageError, parse, *args, **environ)
        self.assertRegex(str(error), rf"\A{pattern}\Z")
        self.assertNotIn("\n", str(error))

    def test_places(self) -> None:
        """The command line beats the environment, which is the one that is handed in."""
        self.assertEqual(parse("--cert=off", "--tag-ttl=1", TAG_TTL="2").config.tag_ttl, 1)
        self.assertEqual(parse("--cert=off", TAG_TTL="2").config.tag_ttl, 2)

    def test_flags(self) -> None:
        """--no-auth and --no-prefetch are flags; --auth takes a value."""
        config = parse("--no-auth", "--no-prefetch", CERT_PATH="off").config
        self.assertEqual((config.auth.value, config.prefetch), ("none", False))
        self.assertEqual(parse("--auth", "transparent", CERT_PATH="off").config.auth.value, "transparent")

    def test_misspelt(self) -> None:
        """An option that is nearly right is told the right one."""
        self.refused(r"option --prt not recognized; did you mean --port\?", "--prt", "8080")
        self.refused(r"option --cache-sizes not recognized; did you mean --cache-size\?", "--cache-sizes=1")

    def test_certificate(self) -> None:
        """The pair is read while options are parsed: later there may be no right to."""
        issued = issue("mirror.example")
        options = parse(*self.pair(issued))
        assert options.pair is not None
        self.assertEqual(options.pair.dns_names, ("mirror.example",))
        self.assertIsNone(parse(CERT_PATH="off").pair)

    def test_refused(self) -> None:
        """Errors of parsing, of settings and of PEM files are all UsageErrors of one line."""
        self.refused("option --bogus not recognized", "--bogus")
        self.refused("option --cert requires argument", "--cert")
        self.refused("option --no-auth must not have an argument", "--no-auth=1")
        self.refused("unexpected argument 'start'", "start")
        self.refused("--port: '99999' is not a port: .*", "--port=99999")
        self.refused("CERT_PATH in the environment: '/missing' does not exist", CERT_PATH="/missing")
        cert, key = self.pair(issue("a.example"))[1::2]
        _, other = self.pair(issue("a.example"), "other")[1::2]
        self.refused(f"--cert: '{re.escape(cert)}' is given without its key .*", "--cert", cert)
        self.refused(f"key {other}: does not match the certificate {cert}", "--cert", cert, "--key", other)
        Path(cert).write_text("-----BEGIN CERTIFICATE-----\n")
        self.refused(f"certificate {cert}: malformed PEM: .+", "--cert", cert, "--key", key)
        Path(cert).write_text("")
        self.refused(f"certificate {cert}: not a PEM certificate", "--cert", cert, "--key", key)


class TwistdOptionsTests(PairCase):
    """What twistd would fail at with a traceback."""

    def refused(self, line: str, **options: object) -> None:
        self.assertEqual(str(self.assertRaises(ConfigError, check_twistd, options)), line)

    def test_files(self) -> None:
        """A pidfile or a logfile that cannot be written is named, with the way to do without."""
        gone = self.directory / "gone"
        self.refused(
            f"--logfile: there is no directory {gone}; --logfile=- prints the log", logfile=f"{gone}/docxy.log"
        )
        self.refused(f"--pidfile: there is no directory {gone}; --pidfile= writes none", pidfile="p", rundir=str(gone))
        self.patch(os, "access", lambda path, mode: False)  # as for a user who is not root
        pid = self.directory / "twistd.pid"
        line = f"--pidfile: {pid} cannot be written to; --pidfile= writes none"
        self.refused(line, pidfile="twistd.pid", rundir=str(self.directory))
        check_twistd({"pidfile": "", "logfile": "-"})
        check_twistd({"pidfile": "", "logfile": None})

    def test_user(self) -> None:
        """Only root becomes somebody else."""
        self.patch(os, "geteuid", lambda: 1000)
        self.refused("--uid: only root can become another user", pidfile="", uid=1001)
        check_twistd({"pidfile": "", "uid": 1000})
        self.patch(os, "geteuid", lambda: 0)
        check_twistd({"pidfile": "", "uid": 1000})


class DerivedURLTests(PairCase):
    def test_from_the_certificate(self) -> None:
        """The certificate's name, and the port unless it is 443."""
        config = parse(*self.pair(issue("*.example", "mirror.example"))).config
        assert config.cert is not None and config.key is not None
        pair = certificates.load(config.cert, config.key)
        for port, wanted in ((443, "https://mirror.example"), (8443, "https://mirror.example:8443")):
            self.assertEqual(derived_url(pair, IPv6Address("TCP", "::", port), config, "host"), wanted)
        self.assertEqual(derived_url(pair, UNIXAddress("/s"), config, "host"), "https://mirror.example")

    def test_wildcard_only(self) -> None:
        """A wildcard names nobody: the host's own name stands in."""
        config = parse(*self.pair(issue("*.example"))).config
        assert config.cert is not None and config.key is not None
        pair = certificates.load(config.cert, config.key)
        self.assertEqual(derived_url(pair, IPv6Address("TCP", "::", 443), config, "host"), "https://host")

    def test_plain(self) -> None:
        """The address bound to, or the host's name when it is all of them; 80 is not written."""
        config = parse("--cert=off").config
        for address, wanted in (
            (IPv4Address("TCP", "10.0.0.1", 8080), "http://10.0.0.1:8080"),
            (IPv6Address("TCP", "::1", 80), "http://[::1]"),
            (IPv6Address("TCP", "::", 8080), "http://host:8080"),
            (IPv4Address("TCP", "0.0.0.0", 80), "http://host"),
        ):
            self.assertEqual(derived_url(None, address, config, "host"), wanted)
