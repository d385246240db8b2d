"""Which hosts may be an upstream's token service.

The law: a credential goes to the upstream's own host and to those that the operator or what is known
of the registry lists, and nowhere else (CVE-2026-33540, CVE-2020-15157); over https unless the upstream
itself is plain http.  A host of the same registrable domain is asked without credentials only: it may be
another customer's (azurecr.io, jfrog.io).
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from attrs import frozen
from publicsuffixlist import PublicSuffixList

from docxy.addresses import is_literal
from docxy.errors import UpstreamError
from docxy.settings.model import Upstream
from docxy.upstream.fetch import origin

_KNOWN = {
    "registry-1.docker.io": frozenset({"auth.docker.io"}),
    "registry.gitlab.com": frozenset({"gitlab.com"}),
}
"""Registries whose token service is on another host, whatever the operator calls them."""


@frozen
class Realms:
    """Which realms docxy may ask for tokens, and which may see credentials."""

    suffixes: Callable[[], PublicSuffixList]
    """The list of public suffixes, which is large and not needed for many upstreams."""

    def check(self, upstream: Upstream, realm: str) -> str:
        """The realm's URL; raises UpstreamError when nothing vouches for its host."""
        try:
            theirs = urlsplit(realm)
            host = (theirs.hostname or "").lower()
            port_is_valid = theirs.port is None or theirs.port > 0
        except ValueError:
            host, port_is_valid = "", False
        if not host or not port_is_valid or theirs.scheme not in ("http", "https") or theirs.username:
            raise UpstreamError(f"{upstream.name}: its token realm is not an http or https URL")
        urls = (upstream.url, *upstream.endpoints)
        if theirs.scheme == "http" and all(url.startswith("https:") for url in urls):
            raise UpstreamError(f"{upstream.name}: its token realm {origin(realm)} is plain http; refused")
        if host not in upstream.realm_hosts and not any(self.related(url, realm) for url in urls):
            raise UpstreamError(
                f"{upstream.name}: its token realm is on {host}, another domain than {upstream.url}; "
                f"list it in realm_hosts if it is right"
            )
        return realm

    def may_know(self, upstream: Upstream, realm: str) -> bool:
        """Whether a realm may see credentials for the upstream."""
        own = [upstream.url, *(url for url in upstream.endpoints if self.may_share(upstream, url))]
        known = _KNOWN.get(_host(upstream.url), frozenset())
        return _host(realm) in upstream.realm_hosts | known or _host(realm) in map(_host, own)

    def refuse(self, upstream: Upstream, realm: str, form: bool) -> None:
        """Credentials would go to a realm that may not know them.  Raises UpstreamError where that matters.

        An endpoint that was never to know them is asked without; a form is nothing without them.
        """
        if form or self.related(upstream.url, realm):
            raise UpstreamError(
                f"{upstream.name}: docxy sends no credentials to its token realm, which is on another host "
                f"({_host(realm)}); if that is this registry's token service, list it in realm_hosts"
            )

    def may_share(self, upstream: Upstream, endpoint: str) -> bool:
        """Whether an endpoint that the operator lists may know the upstream's credentials."""
        return _host(endpoint) in upstream.realm_hosts or self.related(upstream.url, endpoint)

    def related(self, one: str, other: str) -> bool:
        """Whether two URLs are of the same host or the same registrable domain."""
        hosts = [_host(url) for url in (one, other)]
        if hosts[0] == hosts[1]:
            return True
        if any(is_literal(host) for host in hosts):
            return False
        registrable = self.suffixes().privatesuffix(hosts[0])
        return registrable is not None and registrable == self.suffixes().privatesuffix(hosts[1])


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower().removesuffix(".")
