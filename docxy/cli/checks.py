"""What `docxy doctor` looks at on this machine: certificate, disk, ports, limits.

The law: nothing is changed; each finding that is not good names its mend.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import socket
import ssl
from collections.abc import Iterator
from datetime import datetime, timezone
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from attrs import frozen

from docxy.cli.admin import Daemon
from docxy.cli.failure import NotReachable
from docxy.daemon.certificates import KeyPair
from docxy.daemon.issuing.state import StateDirectory
from docxy.observe.verdict import amount, duration
from docxy.settings.model import Config, Issuing

EXPIRES_SOON = 14
"""Days before its end from which a certificate is a warning."""
FEW_FILES = 4096
"""Open files below which many clients at once fail; a client and a fetch take some each."""
PATIENCE = 5.0
"""Seconds for a port of this machine to answer."""


@frozen
class Finding:
    """One thing that was looked at."""

    level: str
    """`good`, `warn` or `bad`."""
    what: str
    words: str
    mend: str = ""
    """What to do; empty where all is well."""


def certificate(config: Config, pair: KeyPair | None, now: datetime | None = None) -> Iterator[Finding]:
    """Whether clients will accept it for the name that they know."""
    own = config.issuing
    if pair is None and own is None:
        yield Finding("good", "certificate", "none: plain HTTP")
        return
    if pair is None:
        assert own is not None
        yield _none_yet(own)
        return
    renew = f"renew {config.cert}; docxy loads the new one by itself"
    if own is not None:
        renew = "docxy renews it: docxy status and its log say what keeps it from that"
    left = pair.expires - (now or datetime.now(timezone.utc))
    ends = f"ends on {pair.expires:%Y-%m-%d}"
    if left.total_seconds() <= 0:
        ended = f"ended on {pair.expires:%Y-%m-%d}: clients refuse it"
        yield Finding("bad", "certificate", ended, renew)
    elif left.days < EXPIRES_SOON and own is None:
        yield Finding("warn", "certificate", ends, renew)
    else:
        yield Finding("good", "certificate", f"fits its key, {ends}")
    names = (*pair.dns_names, *pair.addresses)
    host = "" if config.public_url is None else urlsplit(config.public_url).hostname or ""
    if not host:
        return
    if any(covers(name, host) for name in names):
        yield Finding("good", "certificate", f"covers {host}")
    else:
        shown = ", ".join(names) or "no name"
        yield Finding("bad", "certificate", f"covers {shown}, not {host}", "change public_url, or get one for its name")


def _none_yet(own: Issuing) -> Finding:
    """docxy is still to get it; what went wrong the last time stands in its state directory."""
    names = ", ".join(own.names)
    if own.acme is None:
        return Finding("good", "certificate", f"none yet: docxy makes one for {names} when it starts")
    error = StateDirectory(own.state).record().error
    mend = f"DNS must lead {names} here, and port 80 to docxy's http_port; then docxy reload"
    if error:
        return Finding("bad", "certificate", f"none: {error}", mend)
    return Finding("warn", "certificate", f"none that this user can read: docxy asks {own.acme.directory}", mend)


def covers(name: str, host: str) -> bool:
    """Whether a certificate's name covers a host (RFC 6125 section 6.4.3: a wildcard is one label)."""
    name, host = name.lower(), host.lower()
    return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def disk(config: Config, daemon: Daemon | None) -> Iterator[Finding]:
    """Whether the cache fits on its disk."""
    if config.cache is None:
        yield Finding("good", "cache", "off: docxy is a pure proxy")
        return
    place = os.path.abspath(config.cache)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("bad", "cache", f"this user cannot write to {place}", f"run as docxy's user, or chown {place}")
        return
    free, used = shutil.disk_usage(place).free, 0
    if daemon is not None:
        try:
            used = (daemon.status()["cache"] or {"used": 0})["used"]
        except NotReachable:
            used = 0
    words = f"{amount(free)} free in {place}"
    if config.cache_size is None:
        yield Finding("good", "cache", f"{words}; docxy takes 80 % of what is free when it starts")
    elif config.cache_size > free + used:
        less = f"{words}, and {amount(used)} cached, but cache_size is {amount(config.cache_size)}"
        yield Finding("warn", "cache", less, f"set cache_size below {amount(free + used)}, or make room")
    else:
        yield Finding("good", "cache", f"{words}, cache_size {amount(config.cache_size)}")


def ports(config: Config, is_running: bool) -> Iterator[Finding]:
    """Whether docxy can open its ports; `is_running`: whether it runs, and has them already."""
    listening = [config.http] if config.cert is None else [config.https, config.redirect]
    for description in (*listening, config.metrics):
        found = None if description is None else re.match(r"tcp6?:(\d+)(?::interface=((?:\\.|[^:])*))?", description)
        if found is not None:
            yield _port(int(found[1]), (found[2] or "").replace("\\:", ":"), is_running)


def _port(number: int, interface: str, is_running: bool) -> Finding:
    what = f"port {number}"
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    if is_running and _answers(number, interface):
        return Finding("good", what, "in use by the docxy that runs")
    try:
        with socket.socket(family, socket.SOCK_STREAM) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind((interface, number))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Finding("bad", what, "in use by another program", f"find it with: ss -ltnp 'sport = :{number}'")
        if error.errno == errno.EACCES:
            return Finding("bad", what, "this user may not open it", "start docxy as root, or take one above 1023")
        return Finding("bad", what, f"{interface}: {error.strerror}", "set interface to an address of this machine")
    return Finding("good", what, "free")


def _answers(number: int, interface: str) -> bool:
    """Whether what listens there answers as docxy does: with its health, its metrics, or a redirect to HTTPS."""
    host = {"": "127.0.0.1", "::": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.get(interface, interface)
    plain = HTTPConnection(host, number, timeout=PATIENCE)
    # Whose certificate it is does not matter here.
    secure = HTTPSConnection(host, number, timeout=PATIENCE, context=ssl._create_unverified_context())
    for connection in (plain, secure):
        try:
            connection.request("GET", "/health")
            status = connection.getresponse().status
        except (OSError, HTTPException):
            continue
        finally:
            connection.close()
        if status in (200, 301, 308, 404):
            return True
    return False


def limits(pid: int | None = None) -> Iterator[Finding]:
    """Open files; `pid`: of the docxy that runs."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    where = "in this shell"
    theirs = None if pid is None else _limit_of(pid)
    if theirs is not None:
        soft, where = theirs, "in the docxy that runs"
    if soft < FEW_FILES:
        words = f"{soft} {where}: many clients at once would fail"
        yield Finding("warn", "open files", words, "LimitNOFILE=65536 in docxy's unit, or ulimit -n 65536")
    else:
        yield Finding("good", "open files", f"{soft} {where}")


def _limit_of(pid: int) -> int | None:
    """How many files a process may have open; None where that cannot be known, or there is no limit."""
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            found = re.search(r"^Max open files +(\d+)", file.read(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1])


def resolved(url: str) -> Finding:
    """Whether this machine knows an address for the name by which clients call docxy."""
    host = urlsplit(url).hostname or ""
    try:
        found = sorted({str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except OSError:
        words = f"no address for {host}, which clients are told to use"
        return Finding("bad", "name", words, "add it to DNS, or set public_url to a name that clients can resolve")
    return Finding("good", "name", f"{host} is {', '.join(found[:3])}")


def skewed(name: str, seconds: float) -> Finding | None:
    """What a difference between the clock of a registry and ours means."""
    if abs(seconds) < 60:
        return None
    way = "behind" if seconds > 0 else "ahead of"
    words = f"this machine's clock is {duration(abs(seconds))} {way} that of {name}"
    return Finding(
        "bad" if abs(seconds) > 300 else "warn", "clock", words, "set it by NTP: tokens and certificates fail"
    )
