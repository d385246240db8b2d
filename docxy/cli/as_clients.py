"""A pull from the docxy that runs, as docker, containerd and podman do it: their requests, in their order.

The laws: nothing is asked but docxy, no redirect is followed, and no credential is sent that docxy did not give out for
this; of a layer no more than `ENOUGH` is read.  A server that answers one of them may fail another: docker and
containerd begin with HEAD and need its headers, containerd and not the others says `ns=`.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from attrs import define, field, frozen

from docxy.cli.checks import Finding
from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, INDEX_TYPES, OCI_INDEX, OCI_MANIFEST
from docxy.observe.verdict import duration
from docxy.settings.image_names import HUB, ImageName
from docxy.upstream.challenge import bearer, parse

PATIENCE = 30.0
"""Seconds for an answer's head: containerd's."""
ENOUGH = 1 << 20
"""Bytes of a layer."""
_LARGEST = 8 << 20
_FOUR = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
_SIX = (OCI_MANIFEST, DOCKER_MANIFEST, "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v1+json", DOCKER_LIST, OCI_INDEX)  # fmt: skip


@frozen
class Client:
    """How one of them pulls."""

    name: str
    agent: str
    pings: bool
    heads: bool
    """Whether it asks for the tag by HEAD, then by GET for the digest."""
    accept: tuple[str, ...]
    """The lines with which it asks for a tag."""
    path: Callable[[ImageName], str]
    """Of a repository, behind `/v2/`."""
    namespace: bool = False
    """Whether it says `ns=`."""
    hub_only: bool = False
    """Whether it uses a mirror for Docker Hub only."""


CLIENTS = (
    Client("docker", "docker/29.0.1", True, True, _FOUR, lambda image: image.repository, hub_only=True),
    Client(
        "containerd",
        "containerd/2.2.0",
        False,
        True,
        (", ".join((*_FOUR, "*/*")),),
        lambda image: image.repository,
        True,
    ),
    Client("podman", "containers/5.36.2 (github.com/containers/image)", True, False, _SIX, lambda image: image.full),
)


class Wrong(Exception):
    """The pull ends here; the message says at which request, and why."""

    def __init__(self, message: str, status: int = 0) -> None:
        Exception.__init__(self, message)
        self.status = status


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@define
class PullingClient:
    """One client at docxy."""

    url: str
    client: Client
    token: str | None
    """Given out by docxy; None: what the token service that docxy names gives to anybody."""
    requests: int = 0
    _authorization: str | None = field(default=None, init=False)

    def pull(self, image: ImageName) -> None:
        """Raises Wrong."""
        base, query = f"/v2/{self.client.path(image)}", {"ns": image.upstream} if self.client.namespace else {}
        if self.client.pings:
            answer = self._get("GET", "/v2/", (), {})
            if answer.status == 401 and self._login(answer, image):
                pass
            elif answer.status != 200:
                raise self._wrong("GET /v2/", answer)
        reference = str(image.digest or image.tag or "latest")
        manifest = self._manifest(base, reference, self.client.accept, query, image, self.client.heads)
        parsed = _parsed(manifest)
        if manifest.headers.get("content-type") in INDEX_TYPES:
            child = _child(parsed)
            accept = (f"{child['mediaType']}, */*",) if self.client.namespace else self.client.accept
            parsed = _parsed(self._manifest(base, child["digest"], accept, query, image, False))
        for part in [parsed.get("config"), *parsed.get("layers", [])][:2]:
            if isinstance(part, dict):
                answer = self._asked("GET", f"{base}/blobs/{part['digest']}", (), query, image)
                if int(part.get("size", 0)) <= ENOUGH:
                    _check(f"blob {part['digest'][:19]}", str(part["digest"]), answer.body)

    def _manifest(
        self, base: str, reference: str, accept: Sequence[str], query: Mapping[str, str], image: ImageName, heads: bool
    ) -> Answer:
        digest = reference if ":" in reference else None
        if heads:
            path = f"{base}/manifests/{reference}"
            head = self._asked("HEAD", path, accept, query, image)
            for name in ("docker-content-digest", "content-length", "content-type"):
                if name not in head.headers:
                    raise Wrong(f"HEAD {path} has no {name.title()}, which {self.client.name} needs")
            digest = reference = head.headers["docker-content-digest"]
        answer = self._asked("GET", f"{base}/manifests/{reference}", accept, query, image)
        _check(f"manifest {reference[:19]}", digest or answer.headers.get("docker-content-digest"), answer.body)
        return answer

    def _asked(
        self, method: str, path: str, accept: Sequence[str], query: Mapping[str, str], image: ImageName
    ) -> Answer:
        answer = self._get(method, path, accept, query)
        if answer.status == 401 and self._login(answer, image):
            answer = self._get(method, path, accept, query)
        if answer.status != 200:
            raise self._wrong(f"{method} {path}", answer)
        return answer

    def _login(self, answer: Answer, image: ImageName) -> bool:
        """Get a token as the challenge says; whether that is a new one."""
        if self._authorization is not None:
            return False
        challenge = bearer(parse([answer.headers.get("www-authenticate", "")]))
        if challenge is None:
            raise Wrong("docxy answers 401 without a Bearer challenge", 401)
        token = self.token
        if token is None:
            realm = urlsplit(challenge.parameters.get("realm", ""))
            if realm.netloc != urlsplit(self.url).netloc:
                raise Wrong(f"docxy sends clients to {realm.netloc} for a token, not to itself: check public_url")
            scope = f"repository:{self.client.path(image)}:pull"
            asked = {"service": challenge.parameters.get("service", ""), "scope": scope}
            answer = self._get("GET", realm.path, (), asked)
            if answer.status != 200:
                raise self._wrong(f"GET {realm.path}", answer)
            token = str(_parsed(answer).get("token", ""))
        self._authorization = f"Bearer {token}"
        return True

    def _get(self, method: str, path: str, accept: Sequence[str], query: Mapping[str, str]) -> Answer:
        split = urlsplit(self.url)
        # Whether clients trust its certificate is looked at elsewhere.
        context = ssl._create_unverified_context()
        connection = (
            HTTPSConnection(str(split.hostname), split.port, timeout=PATIENCE, context=context)
            if split.scheme == "https"
            else HTTPConnection(str(split.hostname), split.port, timeout=PATIENCE)
        )
        self.requests += 1
        try:
            connection.putrequest(method, f"{path}?{urlencode(query)}" if query else path, skip_accept_encoding=True)
            connection.putheader("User-Agent", self.client.agent)
            for line in accept:
                connection.putheader("Accept", line)
            if self._authorization is not None:
                connection.putheader("Authorization", self._authorization)
            connection.endheaders()
            response = connection.getresponse()
            most = ENOUGH if "/blobs/" in path else _LARGEST
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read(most))
        except TimeoutError:
            raise Wrong(f"{method} {path}: no answer within {PATIENCE:.0f} s") from None
        except (OSError, HTTPException) as error:
            raise Wrong(f"{method} {self.url}{path}: {getattr(error, 'strerror', None) or error}") from None
        finally:
            connection.close()

    def _wrong(self, what: str, answer: Answer) -> Wrong:
        try:
            why = f": {json.loads(answer.body)['errors'][0]['message']}"[:300]
        except (ValueError, LookupError, TypeError):
            why = ""
        return Wrong(f"{what} answers {answer.status}{why}", answer.status)


def _parsed(answer: Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Wrong("a manifest is no JSON object")
    return found


def _child(index: Mapping[str, Any]) -> Mapping[str, Any]:
    """The manifest for Linux on the most usual machine, else the first."""
    children = [each for each in index.get("manifests", []) if isinstance(each, dict) and "digest" in each]
    if not children:
        raise Wrong("the index has no manifests")
    usual = [each for each in children if (each.get("platform") or {}).get("architecture") == "amd64"]
    found: Mapping[str, Any] = {"mediaType": OCI_MANIFEST, **(usual or children)[0]}
    return found


def _check(what: str, digest: str | None, body: bytes) -> None:
    if digest is not None and digest.startswith("sha256:") and digest[7:] != hashlib.sha256(body).hexdigest():
        raise Wrong(f"the bytes of {what} are not those of its digest")


def as_clients(url: str, default: str, image: ImageName, token: Callable[[], str | None]) -> Iterator[Finding]:
    """A finding for each client.

    `url`: of docxy; `default`: its default registry; `token`: gives one where docxy has accounts of its own, or None.
    """
    for client in CLIENTS:
        if client.hub_only and not image.upstream == default == HUB:
            continue
        what = f"as {client.name}"
        puller = PullingClient(url, client, token())
        begun = time.monotonic()
        try:
            puller.pull(image)
        except Wrong as error:
            yield Finding("bad", what, f"a pull of {image.full} fails: {error}", _mend(error.status))
        else:
            took = duration(time.monotonic() - begun)
            yield Finding("good", what, f"a pull of {image.full} works: {puller.requests} requests in {took}")


def _mend(status: int) -> str:
    if status in (401, 403):
        return "check [access.rules] and who may pull it at the registry; --user NAME pulls as one of docxy's accounts"
    if status == 404:
        return "name an image that is there with --image; allow and deny of its registry may exclude it"
    if status == 429:
        return "wait, or give docxy an account at the registry: docxy quota"
    return "docxy errors and docxy's log say more"
