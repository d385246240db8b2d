"""From a request's path, query and Host to an endpoint, a repository and its upstream.

Pure.  The law: an upstream is found by path prefix, then `ns`, then Host, then default,
and only among the configured ones: what is not configured is NAME_UNKNOWN, never contacted.  Where the
operator lets clients name any registry, what is not configured is one by the rules of
`docxy.settings.any_registry`, or NAME_UNKNOWN.

Shapes of path, for the endpoints of OCI distribution-spec v1.1:

    /v2/                                      ping
    /v2/<name>/<kind>/<reference>             containerd, podman, dockerd
    /v2/<upstream>/…                          k3s, BuildKit, podman's prefix
    /<upstream>/v2/…                          dockerd's mirror with a path

A moment may stand before the name, before `v2` or in the Host: the tags of that repository as they were then.

    /v2/as-of/<moment>/<name>/…               docker pull mirror/as-of/2026-10-01/ghcr.io/o/i
    /as-of/<moment>/v2/…                      containerd's host with a path
    as-of-<moment>.mirror.example             a client that can only be given a host
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote_to_bytes

from attrs import frozen

from docxy.errors import Denied, NameUnknown, NotFound
from docxy.globs import matches
from docxy.moments import moment
from docxy.names import Digest, Reference, Tag, check_repository
from docxy.settings.any_registry import elsewhere
from docxy.settings.image_names import parse_exact
from docxy.settings.model import Upstream

_HOSTLIKE = re.compile(r"[a-z0-9.-]+\.[a-z0-9-]+(?::\d+)?|[a-z0-9.-]+:\d+|localhost")


class EndpointKind(enum.Enum):
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
    kind: EndpointKind
    repository: str = ""
    """As the upstream calls it: without our prefix, with `library/` where it belongs."""
    reference: str = ""
    """Tag or digest, not checked yet."""
    named: bool = False
    """Whether the request itself named the upstream (prefix, ns or Host)."""
    as_of: float | None = None
    """The time that is asked about, in seconds since the epoch; None: now."""


@frozen
class Named:
    """An image as a user names it."""

    upstream: Upstream
    repository: str
    """As the upstream calls it."""
    tag: Tag | None
    digest: Digest | None

    @property
    def reference(self) -> Reference:
        """What to ask for: the digest where there is one, `latest` where nothing is said."""
        return self.digest or self.tag or Tag("latest")

    @property
    def label(self) -> Tag | None:
        """The tag that it goes under; None for one that is known by its digest alone."""
        return self.tag or (None if self.digest is not None else Tag("latest"))

    @property
    def name(self) -> str:
        """In full: `docker.io/library/alpine:3`, `…@sha256:…` without a tag."""
        label = self.label
        return f"{self.upstream.name}/{self.repository}{f'@{self.digest}' if label is None else f':{label}'}"


class Router:
    """Knows the configured upstreams by all their names."""

    def __init__(
        self, upstreams: Sequence[Upstream], ourselves: Iterable[str] = (), any_registry: Upstream | None = None
    ) -> None:
        """`ourselves`: hosts (with and without port) that mean docxy; an `ns` of these says nothing.

        `any_registry`: see `Config.any_registry`.
        """
        self._ourselves = frozenset(host.lower() for host in ourselves)
        self.take_up(upstreams, any_registry)

    def take_up(self, upstreams: Sequence[Upstream], any_registry: Upstream | None) -> None:
        """Know these from now on: the same upstreams, of which the lists may be others."""
        self.any_registry = any_registry
        self.upstreams = tuple(upstreams)
        self.default = upstreams[0]
        self._names = {name.lower(): upstream for upstream in upstreams for name in (upstream.name, *upstream.aliases)}
        self._hosts = {host.lower(): upstream for upstream in upstreams for host in upstream.hosts}

    def is_prefix(self, segment: str) -> bool:
        """Whether a first path segment can be an upstream's name, configured or not."""
        return segment.lower() in self._names or _HOSTLIKE.fullmatch(segment.lower()) is not None

    def route(self, path: str, ns: str | None, host: str | None) -> Target:
        """`path`: raw, percent-encoded, without query.  Raises NameUnknown, NameInvalid, NotFound."""
        segments = _segments(path)
        upstream: Upstream | None = None
        host, as_of = _dated_host(host)
        as_of = _dated(segments, as_of)
        if segments and segments[0] != "v2":
            upstream = self._named(segments.pop(0))
        if not segments or segments.pop(0) != "v2":
            raise NotFound("nothing is here; a registry's paths start with /v2/")
        if segments and segments[-1] == "":
            segments.pop()
        as_of = _dated(segments, as_of)
        if upstream is None and segments and segments[0].lower() in self._names:
            upstream = self._named(segments.pop(0))
        is_prefixed = upstream is not None
        named = upstream or self._by_ns(ns, host) or self._by_host(host)
        # Two segments behind it are the end of a repository's path: `/v2/node.js/manifests/20`.
        if not is_prefixed and len(segments) != 3 and self._begins_elsewhere(segments, named):
            named, is_prefixed = self._named(segments.pop(0)), True
        upstream = named or self.default
        if not is_prefixed and self._is_elsewhere(segments, upstream):
            raise self._unknown(segments[0])
        if not segments:
            return Target(upstream, EndpointKind.PING, named=named is not None, as_of=as_of)
        if segments == ["_catalog"]:
            return Target(upstream, EndpointKind.CATALOG, named=named is not None, as_of=as_of)
        kind, name, reference = _endpoint(segments)
        return Target(upstream, kind, self.repository(upstream, name), reference, named is not None, as_of)

    def scoped(self, name: str, asked_for: Upstream | None) -> tuple[Upstream, str]:
        """The upstream and repository that a token's scope names, as the client wrote it.

        `asked_for`: the upstream whose challenge the client answers; its scope may have the prefix
        that the client uses, or be as the upstream itself wrote it.  Raises NameUnknown, NameInvalid.
        """
        segments = name.split("/")
        _dated(segments, None)
        upstream = asked_for or self.default
        first = segments[0].lower()
        if len(segments) > 1 and (first in self._names or self._begins_elsewhere(segments, asked_for)):
            upstream = self._named(segments.pop(0))
        elif self._is_elsewhere(segments, upstream):
            raise self._unknown(segments[0])
        return upstream, self.repository(upstream, "/".join(segments))

    def repository(self, upstream: Upstream, name: str) -> str:
        """A name as the upstream knows it; raises NameInvalid."""
        check_repository(name)
        return check_repository(f"library/{name}") if upstream.library and "/" not in name else name

    def image(self, text: str) -> Named:
        """What a user calls an image, as docker does: `alpine`, `ghcr.io/o/i:tag`, `alpine:3@sha256:…`.

        Raises NameUnknown, NameInvalid, TagInvalid, DigestInvalid.
        """
        others = [] if self.any_registry is None else [self.any_registry]
        image = parse_exact(text, [*self.upstreams, *others])
        return Named(
            self._named(image.upstream),
            image.repository,
            None if image.tag is None else Tag(image.tag),
            image.digest,
        )

    def permits(self, upstream: Upstream, repository: str) -> bool:
        """See `permitted`; by the lists that are known now."""
        return permitted(self._names.get(upstream.name.lower(), upstream), repository)

    def by_name(self, name: str) -> Upstream | None:
        """The configured upstream with this name or alias."""
        return self._names.get(name.lower())

    def registry(self, name: str) -> Upstream | None:
        """The upstream with this name or alias, or the registry that a client may call so; None: neither."""
        upstream = self.by_name(name)
        if upstream is not None or self.any_registry is None or name.lower() in self._ourselves:
            return upstream
        try:
            return elsewhere(self.any_registry, name.lower(), self.upstreams)
        except ValueError:
            return None

    def _named(self, name: str) -> Upstream:
        upstream = self.registry(name)
        if upstream is None:
            raise self._unknown(name)
        return upstream

    def _unknown(self, name: str) -> NameUnknown:
        if self.any_registry is None:
            return NameUnknown(f"no upstream {name[:80]!a} is configured here")
        return NameUnknown(
            f"no upstream {name[:80]!a} is configured here, nor is that a registry's name on the internet"
        )

    def _begins_elsewhere(self, segments: Sequence[str], named: Upstream | None) -> bool:
        """Whether a path begins with a registry that only the client names.

        `named`: by the client already; if names there may begin with a domain, it is part of the name.
        """
        if self.any_registry is None or not segments or not (named is None or named.library):
            return False
        return self.registry(segments[0]) is not None

    def _is_elsewhere(self, segments: Sequence[str], upstream: Upstream) -> bool:
        """Whether the first segment of a name can only be a registry that is not configured.

        Docker Hub has no name whose first of several components has a dot or a colon; others do, such as
        gcr.io's domain-scoped projects (`gcr.io/example.com/project/image`).
        """
        return len(segments) > 1 and upstream.library and _HOSTLIKE.fullmatch(segments[0].lower()) is not None

    def _by_ns(self, ns: str | None, host: str | None) -> Upstream | None:
        if ns is None or ns == "":
            return None
        upstream = self._names.get(ns.lower())
        if upstream is not None:
            return upstream
        if ns.lower() in self._ourselves or (host is not None and ns.lower() == host.lower()):
            return None
        upstream = self.registry(ns)
        if upstream is None:
            raise NameUnknown(f"no upstream for the namespace {ns[:80]!a} is configured here")
        return upstream

    def _by_host(self, host: str | None) -> Upstream | None:
        if host is None:
            return None
        bare = re.sub(r":\d+$", "", host.lower())
        upstream = self._hosts.get(bare)
        if upstream is None and self.any_registry is not None:
            # The name alone: a port of docxy's own is no port of the registry.
            is_theirs = any(matches(pattern, bare) for pattern in self.any_registry.hosts)
            return self.registry(bare) if is_theirs else None
        return upstream


def check_permitted(upstream: Upstream, repository: str) -> None:
    """Raises Denied for a repository that is not `permitted`."""
    if not permitted(upstream, repository):
        raise not_permitted(upstream, repository)


def not_permitted(upstream: Upstream, repository: str) -> Denied:
    """The error for a repository that is not `permitted`."""
    return Denied(f"this mirror's allow and deny lists do not permit {upstream.name}/{repository}")


def permitted(upstream: Upstream, repository: str) -> bool:
    """Whether an upstream's `allow` and `deny` let a repository be pulled, under the name the upstream has for it.

    A pattern for a registry with `library/` may leave it out, as clients do.
    """
    registry = "" if upstream.is_named else f"{upstream.name}/"
    names = [repository]
    short = repository.removeprefix("library/")
    if upstream.library and "/" not in short:
        names.append(short)

    def covered(patterns: tuple[str, ...]) -> bool:
        return any(matches(pattern, f"{registry}{name}") for pattern in patterns for name in names)

    return not covered(upstream.deny) and (not upstream.allow or covered(upstream.allow))


AS_OF = "as-of"
"""The segment before a moment."""
_DATED_HOST = re.compile(rf"{AS_OF}-([0-9tz-]+)\.(.+)", re.ASCII | re.IGNORECASE)


def _dated(segments: list[str], as_of: float | None) -> float | None:
    """The moment at the front of a name, which is taken off; `as_of`: what was found before.

    A name that only begins like it is a name.
    """
    if len(segments) < 2 or segments[0] != AS_OF:
        return as_of
    found = moment(segments[1])
    if found is None:
        return as_of
    del segments[:2]
    return found


def _dated_host(host: str | None) -> tuple[str | None, float | None]:
    """A Host without its moment, and the moment."""
    match = None if host is None else _DATED_HOST.fullmatch(host)
    found = None if match is None else moment(match[1])
    return (host, None) if match is None or found is None else (match[2], found)


def _segments(path: str) -> list[str]:
    """The path's segments, each decoded once; an encoded slash or a byte that is not ASCII is in no name."""
    decoded = []
    for segment in path.removeprefix("/").split("/"):
        raw = unquote_to_bytes(segment)
        if b"/" in raw or not raw.isascii():
            raise NotFound("nothing is here: the path holds an encoded slash or a character that is not ASCII")
        decoded.append(raw.decode("ascii"))
    return decoded


def _endpoint(segments: Sequence[str]) -> tuple[EndpointKind, str, str]:
    """Kind, name and reference of `<name>/<kind>/<reference>`."""
    if len(segments) >= 3:
        name, kind, reference = "/".join(segments[:-2]), segments[-2], segments[-1]
        if kind == "tags" and reference == "list":
            return EndpointKind.TAGS, name, ""
        if kind in ("manifests", "blobs", "referrers") and reference:
            return EndpointKind(kind), name, reference
    raise NotFound("nothing is here; see the endpoints of the OCI distribution specification")
