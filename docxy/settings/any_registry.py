"""Registries that no operator named: what `"*"` among the upstreams lets clients name.

Pure.  The law: such a registry is at `https://<name>`, on the public internet, and has no account; its name is
that of a host which can be there: with a dot, no address, no kind of name that only private networks have.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import idna
from attrs import evolve

from docxy.settings import parsers
from docxy.settings.model import AuthMode, Upstream
from docxy.settings.presets import is_private, preset

LONGEST = 253
"""Characters of a host's name (RFC 1035)."""
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NOT_PUBLIC = (".arpa", ".onion", ".alt", ".invalid", ".intranet", ".corp", ".home", ".private", ".cluster")
"""Names that the public DNS does not have (RFC 6761, RFC 7686, RFC 9476), and those that ICANN keeps out of it."""
FIRST_FREE_PORT = 1024
"""Below it are the ports of other protocols; registries are at 443 or from here on."""


def registry_name(text: str) -> str:
    """The name of a registry that anybody may name, in lower case and without the port 443.

    Raises ValueError whose message follows the text in a sentence.
    """
    if len(text) > LONGEST + len(":65535"):
        raise ValueError("is too long for the name of a registry")
    name = parsers.host(text)
    host, _, port = name.partition(":")
    labels = host.split(".")
    if len(host) > LONGEST or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("is not the full name of a host")
    if not labels[-1][0].isalpha():
        # 127.1 and 0x7f.1 are addresses to a resolver.
        raise ValueError("is an address, or looks like one")
    if is_private(f"https://{host}") or host.endswith(_NOT_PUBLIC):
        raise ValueError("is not a name of the public internet")
    for label in labels:
        _check_idna(label)
    if port and int(port) < FIRST_FREE_PORT:
        raise ValueError(f"has a port below {FIRST_FREE_PORT} that is not 443")
    return name


def _check_idna(label: str) -> None:
    if label[2:4] != "--":
        return
    try:
        if not label.startswith("xn--"):
            raise ValueError
        idna.ulabel(label)
    except ValueError:  # idna's own errors are of this kind
        raise ValueError("has a label that is not of any international name") from None


def elsewhere(any_registry: Upstream, text: str, named: Sequence[Upstream]) -> Upstream:
    """The registry of this name; one of those that the operator named, if it is that.

    `any_registry`: what the operator said of all others.  Raises ValueError as `registry_name` does.
    """
    known = preset(registry_name(text))
    for upstream in named:
        if known.name in (upstream.name, *upstream.aliases):
            return upstream
    ours = {urlsplit(url).netloc for upstream in named for url in (upstream.url, *upstream.endpoints)}
    if {known.name, urlsplit(known.url).netloc} & ours:
        # Under its other name it would have other rules.
        raise ValueError("is a registry that has another name here")
    return evolve(
        any_registry,
        name=known.name,
        url=known.url,
        library=known.library,
        realm_hosts=known.realm_hosts,
        aliases=known.aliases,
        hosts=frozenset(),
        private=False,
        auth=AuthMode.NONE,
        is_named=False,
    )
