"""A registry on loopback that answers well, and badly on request.

The law: what it says happened has happened on a real socket.  Nothing here is imitated that a real
client, proxy or registry would see otherwise; what a real registry does by itself is the live bed's to show.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from attrs import define, evolve, field
from twisted.internet.defer import gatherResults
from twisted.internet.protocol import Factory

from docxy.names import OCI_INDEX
from tests.fakes.auth import Auth
from tests.fakes.content import Body, Bytes, Content, Manifest
from tests.fakes.faults import Fault, Rule
from tests.fakes.recorder import Recorder
from tests.fakes.wire import Answer, Channel, Received, Transmission, oci_error
from tests.harness.processes import free_port

SEND_BUFFER = 1 << 18
"""Bytes that the kernel holds for a client which does not read; Linux doubles it."""

_PATHS = {
    "manifest": re.compile(r"/v2/(.+)/manifests/([^/]+)"),
    "blob": re.compile(r"/v2/(.+)/blobs/([^/]+)"),
    "tags": re.compile(r"/v2/(.+)/tags/(list)"),
    "referrers": re.compile(r"/v2/(.+)/referrers/([^/]+)"),
}
_CDN = re.compile(r"/cdn/([0-9]+)/(blob|manifest)/(.+)/([^/]+)")
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")


@define
class Cdn:
    """Where the registry sends its clients instead of answering; every field may be changed at any time."""

    status: int = 307
    kinds: frozenset[str] = frozenset({"blob"})
    """Of blob and manifest."""
    hops: int = 1
    """Redirects until the content comes."""
    relative: frozenset[int] = frozenset()
    """Which hops (from 1 on) have a relative Location; the first then stays on the registry's origin."""
    loop: bool = False
    """The last hop leads back to the first."""
    closed: bool = False
    """To a port on which nobody listens."""
    host: str = "127.0.0.1"
    """Or localhost."""
    lifetime: float = 300.0
    """Seconds that a signature is good for."""


@define(eq=False)
class Upstream(Recorder, Content):
    """The registry, its token service and its CDN: three ports of 127.0.0.1."""

    seconds: Callable[[], float] | None = None
    """The time by which tokens and signatures expire; None: the reactor's."""
    context_factory: Any = None
    """Serve HTTPS on all ports with this."""
    auth: Auth = field(factory=Auth)
    cdn: Cdn | None = None
    ranges: bool = True
    """Whether Range is understood."""
    referrers: bool = True
    """Whether there is a referrers API; else 404."""
    strict_accept: bool = False
    """Whether a manifest is 404 to those whose Accept does not name its type."""
    page_size: int = 100
    """Most tags in one answer."""

    rules: list[Rule] = field(factory=list, init=False)

    _ports: dict[str, Any] = field(factory=dict, init=False)
    _numbers: dict[str, int] = field(factory=dict, init=False)

    # Life

    async def start(self) -> None:
        """Listen on free ports, after a `stop` on the same ones again."""
        for origin in ("registry", "auth", "cdn"):
            self._listen(origin)
        self._numbers.setdefault("closed", free_port())

    def _listen(self, origin: str) -> None:
        factory = Factory.forProtocol(lambda: Channel(self, origin, self._parse))
        factory.noisy = False
        # No port that a connection may be given while this one is stopped.
        number = self._numbers.get(origin) or free_port()
        if self.context_factory is None:
            port = self.reactor.listenTCP(number, factory, interface="127.0.0.1")
        else:
            port = self.reactor.listenSSL(number, factory, self.context_factory, interface="127.0.0.1")
        # Connections inherit it: without, the kernel alone takes some 4 MiB for a client that reads nothing.
        port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._ports[origin] = port
        self._numbers[origin] = port.getHost().port

    async def stop(self) -> None:
        """Close the ports and reset every connection, whatever is under way.  May be called twice."""
        ports, self._ports = self._ports, {}
        for port in ports.values():
            await port.stopListening()
        await self.drop_connections()
        self._forget_all()

    async def drop_connections(self) -> None:
        """Reset every connection, idle ones too; the ports stay open."""
        lost = [channel.lost for channel in self._channels]
        for channel in list(self._channels):
            channel.abort()
        await gatherResults(lost)

    def origin(self, name: str = "registry", host: str = "127.0.0.1") -> str:
        """`http://127.0.0.1:port` of registry, auth, cdn or closed."""
        scheme = "http" if self.context_factory is None else "https"
        return f"{scheme}://{host}:{self._numbers[name]}"

    @property
    def url(self) -> str:
        return self.origin()

    @property
    def realm(self) -> str:
        """Where challenges send clients."""
        origin, host = {
            "same": ("registry", "127.0.0.1"),
            "port": ("auth", "127.0.0.1"),
            "foreign": ("auth", "localhost"),
        }[self.auth.realm]
        return self.origin(origin, host) + "/token"

    def now(self) -> float:
        return float((self.seconds or self.reactor.seconds)())

    # What goes wrong

    def on(
        self,
        kind: str | None,
        fault: Fault,
        *,
        times: int | None = 1,
        skip: int = 0,
        method: str | None = None,
        path: str | None = None,
    ) -> Rule:
        """Let a fault strike the next `times` (None: all) requests of a kind, after `skip` of them.

        `path` is a part of the path.  Kind None is every kind.  Of several rules the first that matches
        strikes, alone.  A redirected blob's bytes come from the kind "cdn".
        """
        rule = Rule(fault, kind, method, path, times, skip)
        self.rules.append(rule)
        return rule

    # Requests

    def _parse(self, origin: str, connection: int, lines: list[str], body: bytes) -> Received:
        method, target, _ = lines[0].split(" ")
        url = urlsplit(target)
        header_lines = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        headers: dict[str, str] = {}
        for name, value in header_lines:
            lower = name.lower()
            headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
        query = parse_qs(url.query, keep_blank_values=True)
        request = Received(origin, connection, method, url.path, url.query, query, headers, header_lines, body)
        self._classify(request)
        return request

    def _classify(self, request: Received) -> None:
        if request.path == "/token":
            request.kind = "token"
        elif request.path.startswith("/cdn/"):
            request.kind = "cdn"
        elif request.origin == "registry" and request.path == "/v2/":
            request.kind = "ping"
        elif request.origin == "registry":
            for kind, pattern in _PATHS.items():
                if (match := pattern.fullmatch(request.path)) is not None:
                    request.kind = kind
                    request.repository, request.reference = match.groups()

    def answer(self, channel: Channel, request: Received) -> Transmission:
        """Record a request and prepare its answer, with the fault whose turn it is."""
        self.requests.append(request)
        answer = self._answer(request)
        rule = next((each for each in self.rules if each.matches(request.kind, request.method, request.path)), None)
        if rule is not None and not (rule.fault.replaces or answer.status in (200, 206)):
            rule = None
        if rule is not None and not rule.take():
            rule = None
        if rule is not None:
            answer = _replaced(answer, rule.fault)
            if rule.fault.ignore_range:
                whole = {name: value for name, value in request.headers.items() if name != "range"}
                answer = self._answer(evolve(request, headers=whole))
        self._changed()
        return Transmission(channel, request, answer, rule, self.reactor, self._changed)

    def _answer(self, request: Received) -> Answer:
        if request.kind == "token":
            return self.auth.issue(request, self.now())
        if request.kind == "cdn":
            return self._answer_cdn(request)
        if request.kind == "other":
            return oci_error(404, "UNSUPPORTED")
        if request.method not in ("GET", "HEAD"):
            return oci_error(405, "UNSUPPORTED", headers={"Allow": "GET, HEAD"})
        refusal = self.auth.refusal(request, self.now(), self.realm)
        if refusal is not None:
            return refusal
        if request.kind == "ping":
            headers = {"Content-Type": "application/json", "Docker-Distribution-API-Version": "registry/2.0"}
            return Answer.of(b"{}", headers)
        if request.repository not in self.repositories:
            return oci_error(404, "NAME_UNKNOWN")
        return {
            "manifest": self._answer_manifest,
            "blob": self._answer_blob,
            "tags": self._answer_tags,
            "referrers": self._answer_referrers,
        }[request.kind](request)

    def _answer_manifest(self, request: Received) -> Answer:
        manifest = self.repositories[str(request.repository)].manifest(str(request.reference))
        if manifest is None or (self.strict_accept and not _accepts(request, manifest)):
            return oci_error(404, "MANIFEST_UNKNOWN")
        if self.cdn is not None and "manifest" in self.cdn.kinds:
            return self._redirect(1, "manifest", str(request.repository), str(manifest.digest))
        return self._content(request, Bytes(manifest.body), str(manifest.digest), manifest.media_type)

    def _answer_blob(self, request: Received) -> Answer:
        digest = str(request.reference)
        blob = self.repositories[str(request.repository)].blobs.get(digest)
        if blob is None:
            return oci_error(404, "BLOB_UNKNOWN")
        if self.cdn is not None and "blob" in self.cdn.kinds:
            return self._redirect(1, "blob", str(request.repository), digest)
        return self._content(request, blob, digest, "application/octet-stream")

    def _content(self, request: Received, body: Body, digest: str, media_type: str) -> Answer:
        """A body, the range of it that was asked, or 304."""
        etag = f'"{digest}"'
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest, "ETag": etag}
        if etag in request.headers.get("if-none-match", ""):
            return Answer(304, headers, Bytes(), 0, 0)
        if self.ranges:
            headers["Accept-Ranges"] = "bytes"
        asked = _RANGE.fullmatch(request.headers.get("range", ""))
        if not self.ranges or asked is None or not any(asked.groups()):
            return Answer.of(body, headers)
        start, end = asked.groups()
        first = int(start) if start else max(0, body.size - int(end))
        last = min(int(end), body.size - 1) if start and end else body.size - 1
        if first > last:
            return oci_error(416, "RANGE_INVALID", headers={"Content-Range": f"bytes */{body.size}"})
        length = last - first + 1
        # nginx does not say so where it sends a part.
        headers.pop("Accept-Ranges")
        headers.update({"Content-Length": str(length), "Content-Range": f"bytes {first}-{last}/{body.size}"})
        return Answer(206, headers, body, first, length)

    def _answer_tags(self, request: Received) -> Answer:
        asked = request.query.get("n", [str(self.page_size)])[0]
        if not asked.isdigit():
            return oci_error(400, "PAGINATION_NUMBER_INVALID")
        count = min(int(asked), self.page_size)
        after = request.query.get("last", [""])[0]
        tags = [tag for tag in sorted(self.repositories[str(request.repository)].tags) if tag > after]
        headers = {"Content-Type": "application/json"}
        if 0 < count < len(tags):
            headers["Link"] = (
                f'</v2/{request.repository}/tags/list?last={quote(tags[count - 1])}&n={count}>; rel="next"'
            )
        return Answer.of(json.dumps({"name": request.repository, "tags": tags[:count]}).encode(), headers)

    def _answer_referrers(self, request: Received) -> Answer:
        if not self.referrers:
            return oci_error(404, "UNSUPPORTED")
        wanted = request.query.get("artifactType", [None])[0]
        found = []
        for manifest in self.repositories[str(request.repository)].manifests.values():
            parsed = manifest.parsed()
            artifact_type = parsed.get("artifactType")
            if parsed.get("subject", {}).get("digest") == request.reference and wanted in (None, artifact_type):
                found.append({**manifest.descriptor(), "artifactType": artifact_type})
        headers = {"Content-Type": OCI_INDEX}
        if wanted is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
        return Answer.of(json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}).encode(), headers)

    # The CDN

    def _redirect(self, hop: int, kind: str, repository: str, digest: str) -> Answer:
        cdn = self.cdn or Cdn()
        path = f"/cdn/{hop}/{kind}/{repository}/{digest}"
        expires = int(self.now() + cdn.lifetime)
        target = f"{path}?{self._signed(path, expires)}"
        if hop not in cdn.relative:
            target = self.origin("closed" if cdn.closed else "cdn", cdn.host) + target
        return Answer.of(b"moved\n", {"Location": target, "Content-Type": "text/plain"}, cdn.status)

    def _signed(self, path: str, expires: int) -> str:
        """A query that counts only as it stands, escapes and order included."""
        signature = hashlib.sha256(f"{path} {expires}".encode()).hexdigest()[:16]
        return f"X-Expires={expires}&X-Signature={signature}%2F%2b%3D&X-Key=a~b%20c"

    def _answer_cdn(self, request: Received) -> Answer:
        cdn, match = self.cdn or Cdn(), _CDN.fullmatch(request.path)
        if match is None or request.method not in ("GET", "HEAD"):
            return oci_error(404, "UNSUPPORTED")
        if request.origin == "cdn" and "authorization" in request.headers:
            return Answer.of(b"<Error>Only one auth mechanism allowed</Error>", status=403)
        expires = request.query.get("X-Expires", ["0"])[0]
        if not expires.isdigit() or request.raw_query != self._signed(request.path, int(expires)):
            return Answer.of(b"<Error>SignatureDoesNotMatch</Error>", status=403)
        if int(expires) <= self.now():
            return Answer.of(b"<Error>Request has expired</Error>", status=403)
        hop, kind, repository, digest = match.groups()
        request.repository, request.reference = repository, digest
        if int(hop) < cdn.hops or cdn.loop:
            return self._redirect(int(hop) % cdn.hops + 1, kind, repository, digest)
        held = self.repositories[repository]
        if kind == "blob":
            return self._content(request, held.blobs[digest], digest, "application/octet-stream")
        manifest = held.manifests[digest]
        return self._content(request, Bytes(manifest.body), digest, manifest.media_type)


def _accepts(request: Received, manifest: Manifest) -> bool:
    accepted = {part.partition(";")[0].strip() for part in request.headers.get("accept", "*/*").split(",")}
    return not accepted.isdisjoint({manifest.media_type, "*/*"})


def _replaced(answer: Answer, fault: Fault) -> Answer:
    """What the fault answers instead; the answer itself when it only deforms."""
    if fault.body is not None:
        kept = {"Content-Type": answer.headers.get("Content-Type", "text/plain")}
        return Answer.of(fault.body, kept, fault.status or 200)
    if fault.status is not None:
        return oci_error(fault.status)
    return answer
