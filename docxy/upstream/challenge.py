"""`WWW-Authenticate`, read and written (RFC 9110 section 11, and the distribution token spec).

Pure.  The law: what cannot be understood is left out, never guessed at; a registry may
send several challenges in one header, in several headers, with or without parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import field, frozen

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*')
_SCHEME = re.compile(rf"\s*({_TOKEN})(?=\s|,|$)(?:\s+(?![=]))?")
_ESCAPED = re.compile(r"\\(.)")


@frozen
class Challenge:
    """One way in: `Bearer realm="https://auth.example/token",service="…",scope="…"`."""

    scheme: str
    """Lower case."""
    parameters: Mapping[str, str] = field(factory=dict)
    """Names in lower case."""

    def __str__(self) -> str:
        quoted = (f'{name}="{_quoted(value)}"' for name, value in self.parameters.items())
        return f"{self.scheme.capitalize()} {','.join(quoted)}".rstrip()


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def parse(values: Iterable[str]) -> list[Challenge]:
    """Every challenge in these header values, in their order."""
    return [challenge for value in values for challenge in _parse_value(value)]


def _parse_value(value: str) -> Iterable[Challenge]:
    position = 0
    while position < len(value):
        scheme = _SCHEME.match(value, position)
        if scheme is None:
            # A token68, or noise: go on behind the next comma.
            comma = value.find(",", position)
            position = len(value) if comma < 0 else comma + 1
            continue
        position = scheme.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(value, position)) is not None:
            name, quoted, plain = parameter.groups()
            parameters.setdefault(name.lower(), plain if quoted is None else _ESCAPED.sub(r"\1", quoted))
            position = parameter.end()
            if value[position : position + 1] != ",":
                break
            position += 1
        yield Challenge(scheme.group(1).lower(), parameters)


def bearer(challenges: Iterable[Challenge]) -> Challenge | None:
    """The first Bearer challenge that names a realm."""
    return next((c for c in challenges if c.scheme == "bearer" and c.parameters.get("realm")), None)
