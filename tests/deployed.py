"""What the tests of the deployment share: the files as data, and daemons that are started and ended."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from email.message import Message
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from docxy.config import Config
from docxy.option_table import OPTIONS
from docxy.tap import Options

TOP = Path(__file__).resolve().parent.parent
VARIABLES = {option.env for option in OPTIONS}
SECONDS = 60.0
"""For a daemon to answer /health."""


def configure(args: Sequence[str], environ: Mapping[str, str]) -> Config:
    """What these settings come to; raises usage.UsageError for what docxy does not take."""
    options = Options(environ)
    options.parseOptions(list(args))
    return options.config


def read(name: str) -> str:
    return (TOP / name).read_text("utf-8")


def need(program: str) -> str:
    """Its path.  Where it is missing the test is skipped, but not in CI, which installs it."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        if os.environ.get("CI"):
            raise AssertionError(f"{program} is not installed; tests/live/setup.sh does that")
        raise SkipTest(f"{program} is not installed; tests/live/setup.sh does that")
    return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def bare_environment(**more: str) -> dict[str, str]:
    """This process's environment without docxy's settings, and more."""
    return {**{k: v for k, v in os.environ.items() if k not in VARIABLES}, **more}


def fetch(url: str, **headers: str) -> tuple[int, Message, bytes]:
    """Status, headers and body; raises OSError when nobody answers.  Certificates are not checked."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=5) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


class Daemon:
    """A process that is asked for its health until it answers, and ended with the test."""

    def __init__(self, test: SynchronousTestCase, args: Sequence[str], **popen: Any) -> None:
        self.log = Path(test.mktemp())
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **popen)
        test.addCleanup(self.stop)

    def until(self, ready: Callable[[], bool], seconds: float = SECONDS) -> None:
        """Returns when `ready` says so.  Asking is the only way to know, hence the short sleep."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.output()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not ready in {seconds} s:\n{self.output()}")
            time.sleep(0.1)

    def healthy(self, url: str, seconds: float = SECONDS) -> None:
        """Returns when `url` answers 200."""

        def answers() -> bool:
            try:
                return fetch(url)[0] == 200
            except OSError:
                return False

        self.until(answers, seconds)

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")[-4000:]

    def stop(self) -> int:
        """SIGTERM, and SIGKILL when that does not help; the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(SECONDS)


def start_docxy(test: SynchronousTestCase, environ: Mapping[str, str], args: Sequence[str] = ()) -> Daemon:
    """The daemon of this checkout, without a cache unless the environment says where."""
    run = "from twisted.scripts.twistd import run; run()"
    env = bare_environment(**{"CACHE_DIR": "off", "PYTHONPATH": str(TOP), **environ})
    return Daemon(test, [sys.executable, "-c", run, "--nodaemon", "--pidfile=", "docxy", *args], env=env)


def certificate(directory: Path, name: str) -> tuple[str, str]:
    """Paths of a self-signed certificate for `name` and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir(parents=True)
    cert_path, key_path = directory / "cert.pem", directory / "key.pem"
    cert_path.write_bytes(signed.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(cert_path.resolve()), str(key_path.resolve())


def copy_of_checkout(directory: Path) -> Path:
    """What an operator gets: the files of the project, nothing that was built from them."""
    built = shutil.ignore_patterns(
        ".git",
        ".venv*",
        ".tox",
        ".*_cache",
        "build",
        "dist",
        "*.egg-info",
        "_trial_temp*",
        "__pycache__",
        "dropin.cache",
    )
    shutil.copytree(TOP, directory, ignore=built)
    return directory.resolve()


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Instruction and argument, with comments dropped and continued lines joined."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word
    ]


def unit(text: str) -> dict[str, list[tuple[str, str]]]:
    """Sections of a systemd unit; keys repeat."""
    sections: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in text.splitlines():
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
            continue
        key, equals, value = line.partition("=")
        assert equals, line
        current.append((key, value))
    return sections


def pairs(words: str) -> dict[str, str]:
    """`A=1 B=2` as Dockerfile's ENV and systemd's Environment have it."""
    return dict(word.split("=", 1) for word in shlex.split(words))


def commands(shell: str) -> list[list[str]]:
    """The words of every simple command in a shell text that holds no more than `&&`, `;` and `|`."""
    joined = re.sub(r"\\\n", " ", shell)
    found = []
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word and set(word) <= set("&;|"):
                if words:
                    found.append(words)
                words = []
            else:
                words.append(word)
    return found


def without(args: Sequence[str], *options: str) -> list[str]:
    """The arguments without these options and their values."""
    dropped = {i + offset for i, arg in enumerate(args) if arg in options for offset in (0, 1)}
    return [arg for i, arg in enumerate(args) if i not in dropped]


def docxy_arguments(words: Sequence[str]) -> list[str] | None:
    """What stands after `docxy` in a command that starts the daemon, or None."""
    names = [Path(word).name for word in words]
    if "twistd" in names and "docxy" in words:
        return list(words[words.index("docxy") + 1 :])
    if "docker" in names and "run" in words and "docxy" in words:
        # The image's name is `docxy` too, and is the last word that is no option of docxy.
        return list(words[len(words) - words[::-1].index("docxy") :])
    return None
