"""The grammar of single settings: a text as an operator writes it -> a value.

Pure.  The law: what cannot be used is a ValueError whose message follows the value in a
sentence ("is not a port"); it never repeats the value, which may hold a password.
"""

from __future__ import annotations

import enum
import ipaddress
import math
import os.path
import re
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

E = TypeVar("E", bound=enum.Enum)

_ENDPOINT = re.compile(r"[a-z][a-z0-9]*:[!-~]+")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)*\.?")
_URL_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}
_SWITCH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}

OFF = "off"
"""Instead of a path: do without."""

DAEMON = "-"
"""Instead of a path: the daemon's own log."""

LOOPBACK = "127.0.0.1"

BACKLOG = 1024
"""Connections the kernel keeps for us until they are accepted."""


def path(text: str) -> str:
    """A path, made absolute: the daemon changes its working directory."""
    if not text or "\0" in text:
        raise ValueError("is not a path")
    return os.path.abspath(text)


def text_in_file(text: str) -> str:
    """What is in the file at a path."""
    try:
        with open(path(text), encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


def password_in_file(text: str) -> str:
    """The password in the file at a path."""
    return password(text_in_file(text), "is empty")


def password(text: str, when_empty: str) -> str:
    """A password without the end of its line."""
    found = text.rstrip("\r\n")
    if not found:
        raise ValueError(when_empty)
    if not found.isprintable():
        raise ValueError("leads to more than one line, or to characters that cannot be in a password")
    return found


def path_or_off(text: str) -> str | None:
    """A path; None: off."""
    return None if text == OFF else path(text)


def path_or_log(text: str) -> str | None:
    """A path; `DAEMON` for the daemon's own log; None: off."""
    return text if text == DAEMON else path_or_off(text)


def port(text: str) -> int | str:
    """A port number, or the description of an endpoint (`systemd:domain=INET6:index=0`)."""
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 10 else math.inf
        if number > 65535:
            raise ValueError("is not a port: ports go from 0 to 65535")
        return int(number)
    if _ENDPOINT.fullmatch(text) is None:
        raise ValueError("is neither a port (0 to 65535) nor an endpoint such as tcp:8080:interface=127.0.0.1")
    if text.startswith("ssl:"):
        raise ValueError("is no endpoint for this: docxy adds TLS itself, use tcp: or tcp6:")
    return text


def endpoint(opening: int | str, interface: str) -> str:
    """The description of the endpoint for a port at an interface; a description stays what it is.

    `interface` is an address literal; "" stands for all of IPv4, "::" for all there is.
    """
    if isinstance(opening, str):
        return opening
    kind = "tcp6" if ":" in interface else "tcp"
    where = ":interface=" + interface.replace(":", r"\:") if interface else ""
    return f"{kind}:{opening}{where}:backlog={BACKLOG}"


def interface(text: str) -> str:
    """An IPv4 or IPv6 address literal, without brackets."""
    literal = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(literal))
    except ValueError:
        raise ValueError("is not an IPv4 or IPv6 address") from None


def host(text: str) -> str:
    """`name[:port]`, in lower case."""
    try:
        url = _url(f"https://{text}")
    except ValueError:
        url = None
    if url is None or url.path:
        raise ValueError("is not a host name with or without a port")
    return url.netloc


def host_name(text: str) -> str:
    """A host name without a port, in lower case."""
    name = host(text)
    if re.search(r":\d+$", name):
        raise ValueError("must be without a port")
    return name


def registry(text: str) -> str:
    """The URL of a registry, without a trailing slash; its path is that of a proxy project, or has /v2 in it."""
    url = _url(text)
    path = url.path.rstrip("/")
    if _URL_PATH.fullmatch(path) is None or not {".", ".."}.isdisjoint(path.split("/")):
        raise ValueError("has a path that cannot be used")
    # Every registry has its API there.
    return f"{url.scheme}://{url.netloc}{'' if path == '/v2' else path}"


def url_or_off(text: str) -> str | None:
    """As `public_url`; None: off."""
    return None if text == OFF else public_url(text)


def public_url(text: str) -> str:
    """What clients call us, without a trailing slash; a path is allowed."""
    url = _url(text)
    prefix = url.path.rstrip("/")
    if _URL_PATH.fullmatch(prefix) is None:
        raise ValueError("has a path that cannot be used")
    return f"{url.scheme}://{url.netloc}{prefix}"


def webhook(text: str) -> str:
    """Where events are sent: with a path and a query, which receivers use as a secret."""
    bare, question, query = text.partition("?")
    url = _url(bare)
    if re.search(r"[^!$&-;=?-~]", url.path + query):
        raise ValueError("has a path or a query that cannot be used")
    return f"{url.scheme}://{url.netloc}{url.path or '/'}{question}{query}"


def _url(text: str) -> SplitResult:
    """An http or https URL of a host, a port and a path, its host in lower case."""
    example = "is not a URL such as https://registry.example"
    if not text.isascii() or re.search(r"[\x00-\x20\x7f\\]", text):
        raise ValueError(example)
    try:
        url = urlsplit(text)
        number = url.port
    except ValueError:
        raise ValueError(example) from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(example)
    if "@" in url.netloc:
        raise ValueError("must not hold a user name or password")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or a fragment")
    name = url.hostname.lower()
    if ":" in name:
        try:
            name = f"[{ipaddress.IPv6Address(name)}]"
        except ValueError:
            raise ValueError(example) from None
    elif _HOST.fullmatch(name) is None:
        raise ValueError(example)
    if number == 0 or url.netloc.endswith(":"):
        raise ValueError(example)
    default = {"http": 80, "https": 443}[url.scheme]
    return url._replace(netloc=name if number in (None, default) else f"{name}:{number}")


def size(text: str) -> int:
    """Bytes: `20GB` (powers of 1000), `20GiB` (powers of 1024), `500000`."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("is not a size such as 20GB or 512MiB")
    number, unit, binary = match.groups()
    total = float(number) * (1024 if binary else 1000) ** (_POWERS[unit.lower()] if unit else 0)
    if not 1 <= total < 2**63:
        raise ValueError("is not a size that can be used")
    return int(total)


SLOWEST = 100_000
"""Bytes a second of a limit, at least: clients of a slower one give up."""


def rate(text: str) -> int | None:
    """Bytes a second: `50MB/s`; None: `off`."""
    if text == OFF:
        return None
    try:
        found = size(text.strip().removesuffix("/s"))
    except ValueError:
        raise ValueError("is not a rate such as 50MB/s") from None
    if found < SLOWEST:
        raise ValueError(f"is less than {SLOWEST // 1000} kB/s")
    return found


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

SMALLEST_CACHE = 16 * 1000**2
"""Bytes: below that hardly a layer fits, and a number without its unit is probably meant otherwise."""


def cache_size(text: str) -> int:
    """As `size`, large enough for a cache."""
    total = size(text)
    if total < SMALLEST_CACHE:
        raise ValueError(f"is too small for a cache: at least {shown_size(SMALLEST_CACHE)}, or --cache off")
    return total


def shown_size(count: int) -> str:
    """Bytes as people read them, in powers of 1000: `20 GB`, `1.5 MB`."""
    number, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if number < 999.5:
            break
        number, unit = number / 1000, larger
    return f"{number:.3g} {unit}"


def seconds(text: str) -> float:
    """A time of zero seconds or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise ValueError("is not a number of seconds")
    return value


def some_seconds(text: str) -> float:
    """A time above zero."""
    value = seconds(text)
    if value == 0:
        raise ValueError("must be more than zero seconds")
    return value


def duration(text: str) -> float:
    """A time as `3d`, `12h`, `30m`, `45s` or a number of seconds, in seconds."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    try:
        value = seconds(number) * _UNITS[unit]
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise ValueError("is not a time such as 3d, 12h, 30m or 45s")
    return value


def share(text: str) -> float:
    """More than 0, at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise ValueError("is not a share between 0 and 1, as 0.2")
    return value


def count(text: str) -> int:
    """A whole number of zero or more."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError("is not a whole number of zero or more")
    return int(text)


def some(text: str) -> int:
    """A whole number above zero."""
    value = count(text)
    if value == 0:
        raise ValueError("must be more than zero")
    return value


def username(text: str) -> str:
    """A name that can stand before the colon of Basic credentials (RFC 7617)."""
    if not text or ":" in text or not text.isprintable():
        raise ValueError("is not a user name")
    return text


def choice(kind: type[E], otherwise: str) -> Callable[[str], E]:
    """A parser of the values of an enumeration; `otherwise`: what it says of any other text."""

    def parse(text: str) -> E:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(otherwise) from None

    return parse


def switch(text: str) -> bool:
    """`on` or `off`, in any of their usual spellings."""
    try:
        return _SWITCH[text.lower()]
    except KeyError:
        raise ValueError("is neither on nor off") from None


def shown(value: object) -> str:
    """A value as it may stand in a line for the operator: printable, short, without credentials."""
    text = value if isinstance(value, str) else repr(value)
    # Up to the last @, for a password may hold any of /?#@ itself.
    text = re.sub(r"(?s)(?<=://).*@", "…@", text)
    text = re.sub(r"(?s)\A[^/@]*:(?!//).*@", "…@", text)
    text = text if len(text) <= 120 else text[:117] + "..."
    return repr(text) if isinstance(value, str) else ascii(text)[1:-1]
