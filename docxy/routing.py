"""From a request's path, query and Host to what is asked of which upstream.

Pure.  The law: an upstream is found by path prefix, then `ns`, then Host, then default,
and only among the configured ones: what is not configured is NAME_UNKNOWN, never contacted.

Shapes of path, for the endpoints of OCI distribution-spec v1.1:

    /v2/                                      ping
    /v2/<name>/<kind>/<reference>             containerd, podman, dockerd
    /v2/<upstream>/…                          k3s, BuildKit, podman's prefix
    /<upstream>/v2/…                          dockerd's mirror with a path
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote_to_bytes

from attrs import frozen

from docxy.config import Upstream
from docxy.errors import NameUnknown, NotFound
from docxy.globs import matches
from docxy.names import check_repository

_HOSTLIKE = re.compile(r"[a-z0-9.-]+\.[a-z0-9-]+(?::\d+)?|[a-z0-9.-]+:\d+|localhost")


class Kind(enum.Enum):
    """What an endpoint offers."""

    PING = "ping"
    MANIFESTS = "manifests"
    BLOBS = "blobs"
    TAGS = "tags"
    REFERRERS = "referrers"
    CATALOG = "_catalog"


@frozen
class Target:
    """One endpoint of one upstream."""

    upstream: Upstream
    kind: Kind
    repository: str = ""
    """As the upstream calls it: without our prefix, with `library/` where it belongs."""
    reference: str = ""
    """Tag or digest, not checked yet."""
    named: bool = False
    """Whether the request itself named the upstream (prefix, ns or Host)."""


class Router:
    """Knows the configured upstreams by all their names."""

    def __init__(self, upstreams: Sequence[Upstream], ourselves: Iterable[str] = ()) -> None:
        """`ourselves`: hosts (with and without port) that mean docxy; an `ns` of these says nothing."""
        self.upstreams = tuple(upstreams)
        self.default = upstreams[0]
        self._names = {name.lower(): upstream for upstream in upstreams for name in (upstream.name, *upstream.aliases)}
        self._hosts = {host.lower(): upstream for upstream in upstreams for host in upstream.hosts}
        self._ourselves = frozenset(host.lower() for host in ourselves)

    def is_prefix(self, segment: str) -> bool:
        """Whether a first path segment can be an upstream's name, configured or not."""
        return segment.lower() in self._names or _HOSTLIKE.fullmatch(segment.lower()) is not None

    def route(self, path: str, ns: str | None, host: str | None) -> Target:
        """`path`: raw, percent-encoded, without query.  Raises NameUnknown, NameInvalid, NotFound."""
        segments = _segments(path)
        upstream: Upstream | None = None
        if segments[0] != "v2":
            upstream = self._named(segments.pop(0))
        if not segments or segments.pop(0) != "v2":
            raise NotFound("nothing is here; a registry's paths start with /v2/")
        if segments and segments[-1] == "":
            segments.pop()
        if upstream is None and segments and self._is_upstream(segments):
            upstream = self._named(segments.pop(0))
        named = upstream or self._by_ns(ns, host) or self._by_host(host)
        upstream = named or self.default
        if not segments:
            return Target(upstream, Kind.PING, named=named is not None)
        if segments == ["_catalog"]:
            return Target(upstream, Kind.CATALOG, named=named is not None)
        kind, name, reference = _endpoint(segments)
        return Target(upstream, kind, self.repository(upstream, name), reference, named is not None)

    def scoped(self, name: str, asked_for: Upstream | None) -> tuple[Upstream, str]:
        """The upstream and repository that a token's scope names, as the client wrote it.

        `asked_for`: the upstream whose challenge the client answers; its scope may have the prefix
        that the client uses, or be as the upstream itself wrote it.  Raises NameUnknown, NameInvalid.
        """
        segments = name.split("/")
        upstream = asked_for or self.default
        if len(segments) > 1 and self._is_upstream(segments):
            upstream = self._named(segments.pop(0))
        return upstream, self.repository(upstream, "/".join(segments))

    def repository(self, upstream: Upstream, name: str) -> str:
        """A name as the upstream knows it; raises NameInvalid."""
        check_repository(name)
        return check_repository(f"library/{name}") if upstream.library and "/" not in name else name

    def by_name(self, name: str) -> Upstream | None:
        """The upstream with this name or alias."""
        return self._names.get(name.lower())

    def _named(self, name: str) -> Upstream:
        upstream = self._names.get(name.lower())
        if upstream is None:
            raise NameUnknown(f"no upstream {name[:80]!a} is configured here")
        return upstream

    def _is_upstream(self, segments: Sequence[str]) -> bool:
        """Whether the first segment of a name is an upstream's and no part of a repository.

        Docker Hub has no name whose first of several components has a dot or a colon, so
        there such a one can only be a registry that is not configured.
        """
        if segments[0].lower() in self._names:
            return True
        return len(segments) > 1 and self.default.library and _HOSTLIKE.fullmatch(segments[0].lower()) is not None

    def _by_ns(self, ns: str | None, host: str | None) -> Upstream | None:
        if ns is None or ns == "":
            return None
        upstream = self._names.get(ns.lower())
        if upstream is not None:
            return upstream
        if ns.lower() in self._ourselves or (host is not None and ns.lower() == host.lower()):
            return None
        raise NameUnknown(f"no upstream for the namespace {ns[:80]!a} is configured here")

    def _by_host(self, host: str | None) -> Upstream | None:
        if host is None:
            return None
        bare = re.sub(r":\d+$", "", host.lower())
        return self._hosts.get(bare)


def permitted(upstream: Upstream, repository: str) -> bool:
    """Whether an upstream's `allow` and `deny` let a repository be pulled, under the name the upstream has for it.

    A pattern for a registry with `library/` may leave it out, as clients do.
    """
    names = [repository]
    short = repository.removeprefix("library/")
    if upstream.library and "/" not in short:
        names.append(short)

    def covered(patterns: tuple[str, ...]) -> bool:
        return any(matches(pattern, name) for pattern in patterns for name in names)

    return not covered(upstream.deny) and (not upstream.allow or covered(upstream.allow))


def _segments(path: str) -> list[str]:
    """The path's segments, each decoded once; an encoded slash or a byte that is not ASCII is in no name."""
    decoded = []
    for segment in path.removeprefix("/").split("/"):
        raw = unquote_to_bytes(segment)
        if b"/" in raw or not raw.isascii():
            raise NotFound("nothing is here: the path holds an encoded slash or a character that is not ASCII")
        decoded.append(raw.decode("ascii"))
    return decoded


def _endpoint(segments: Sequence[str]) -> tuple[Kind, str, str]:
    """Kind, name and reference of `<name>/<kind>/<reference>`."""
    if len(segments) >= 3:
        name, kind, reference = "/".join(segments[:-2]), segments[-2], segments[-1]
        if kind == "tags" and reference == "list":
            return Kind.TAGS, name, ""
        if kind in ("manifests", "blobs", "referrers") and reference:
            return Kind(kind), name, reference
    raise NotFound("nothing is here; see the endpoints of the OCI distribution specification")
