"""docxy's whole site in front of the fake upstream, and clients whose every byte is accounted for.

Real sockets on loopback.  The catalog's seconds stand still unless a test moves them, so what
ages does so by a test's word; what is waited for is an event.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, cast

from attrs import define, field, frozen
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from zope.interface import implementer

from docxy.assembly import Cache, build_site
from docxy.config import AuthMode, Config, Timeouts, Upstream
from docxy.names import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from docxy.serving import Watched
from docxy.storage.catalog import Catalog
from docxy.storage.interfaces import IBlobStore
from docxy.storage.memory import MemoryStore
from docxy.upstream.agent import make_agent
from tests import fakes

reactor: Any = _reactor

NAME = "fake.test"
REPOSITORY = "team/app"
ACCEPT = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
BUDGET = 1 << 30
PUBLIC_URL = "https://mirror.test"


class Seconds:
    """The time as the catalog sees it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@implementer(IReactorTime)
@frozen
class ShiftedClock:
    """The reactor's, but that it is as late as a test's seconds say."""

    shifted: Seconds
    began: float = field(factory=lambda: float(reactor.seconds()))

    def seconds(self) -> float:
        return float(reactor.seconds()) - self.began + self.shifted()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> IDelayedCall:
        return cast(IDelayedCall, reactor.callLater(delay, callable, *args, **kw))

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return cast(Sequence[IDelayedCall], reactor.getDelayedCalls())


@frozen
class Answer:
    """A response that is over."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)

    @property
    def cache_status(self) -> str:
        return self.header("Cache-Status") or ""

    @property
    def json(self) -> dict[str, Any]:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def code(self) -> str:
        """The error code of the distribution-spec."""
        return str(json.loads(self.body)["errors"][0]["code"])


class Client(Protocol):
    """Takes one response's body: counted and hashed, kept only when asked to be."""

    def __init__(self, keep: bool = True) -> None:
        self.received = 0
        self.whole = False
        self.ended: Deferred[None] = Deferred()
        self._over = False
        self._hasher = hashlib.sha256()
        self._kept = bytearray() if keep else None
        self._waiting: list[tuple[int, Deferred[None]]] = []

    @property
    def digest(self) -> str:
        """Of what came so far."""
        return f"sha256:{self._hasher.hexdigest()}"

    @property
    def body(self) -> bytes:
        assert self._kept is not None
        return bytes(self._kept)

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        self._hasher.update(data)
        if self._kept is not None:
            self._kept += data
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.whole = reason.check(ResponseDone) is not None
        self._over = True
        self._tell()
        self.ended.callback(None)

    def _tell(self) -> None:
        ready = [waiting for count, waiting in self._waiting if self._over or count <= self.received]
        self._waiting = [each for each in self._waiting if each[1] not in ready]
        for waiting in ready:
            waiting.callback(None)

    def reached(self, count: int) -> Deferred[None]:
        """Fires once so many bytes are here, or no more come."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((count, waiting))
        self._tell()
        return waiting

    @property
    def _producer(self) -> Any:
        return self.transport

    def pause(self) -> None:
        self._producer.pauseProducing()

    def resume(self) -> None:
        self._producer.resumeProducing()

    def vanish(self) -> None:
        """Close the connection in the middle."""
        self._producer.stopProducing()


@frozen
class Streamed:
    """A response whose body is under way."""

    status: int
    headers: Headers
    length: int | None
    client: Client

    def header(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return None if values is None else ", ".join(values)

    @property
    def cache_status(self) -> str:
        return self.header("Cache-Status") or ""


@define(eq=False)
class Mirror:
    """One docxy: a site on a port of loopback."""

    upstream: fakes.Upstream
    store: IBlobStore
    catalog: Catalog
    seconds: Seconds
    auth: AuthMode = AuthMode.NONE
    tag_ttl: float = 60.0
    prefetch: bool = False
    fetch_connections: int = 1
    keep_gone: bool = False
    listed: bool = False
    """Whether `_catalog` is on."""
    timeouts: Timeouts = field(factory=Timeouts)
    others: tuple[Upstream, ...] = ()
    """More upstreams, after the first."""
    cache: Cache = field(init=False)
    _port: Any = field(init=False, default=None)
    _watched: Watched = field(init=False)
    _pool: Any = field(init=False)

    def start(self) -> None:
        first = Upstream(NAME, self.upstream.url, realm_hosts=frozenset({"localhost"}), private=True)
        config = Config(
            cert=None,
            key=None,
            https="",
            redirect=None,
            http="",
            public_url=PUBLIC_URL,
            auth=self.auth,
            upstreams=(first, *self.others),
            timeouts=self.timeouts,
            tag_ttl=self.tag_ttl,
            prefetch=self.prefetch,
            fetch_connections=self.fetch_connections,
            keep_gone=self.keep_gone,
            catalog=self.listed,
        )
        clock = ShiftedClock(self.seconds)
        agent, self._pool = make_agent(reactor, self.timeouts, config.upstreams[0])
        self.cache = Cache.of(self.store, self.catalog, clock)
        self._watched = Watched(build_site(config, PUBLIC_URL, lambda _: agent, clock, self.cache), reactor)
        self._port = reactor.listenTCP(0, cast(Any, self._watched), interface="127.0.0.1", backlog=200)

    async def stop(self) -> None:
        """End everything, and wait until it has ended.  May be called twice."""
        port, self._port = self._port, None
        if port is None:
            return
        await port.stopListening()
        drained = self._watched.drain(5.0)
        await self.cache.fills.stop()
        await drained
        # What was just read to its end goes back to the pool a little later; another mirror's stay open.
        for _ in range(20):
            await self._pool.closeCachedConnections()
            if not self.upstream.open_connections:
                break
            await deferLater(reactor, 0.01, lambda: None)

    async def stream(
        self,
        path: str,
        headers: dict[str, str | list[str]] | None = None,
        method: str = "GET",
        keep: bool = True,
        paused: bool = False,
    ) -> Streamed:
        """Ask on a connection of its own; `paused`: take nothing of the body yet."""
        sent = Headers({"Host": ["mirror.test"]})
        for name, value in (headers or {}).items():
            sent.setRawHeaders(name, [value] if isinstance(value, str) else value)
        url = f"http://127.0.0.1:{self._port.getHost().port}{path}"
        response = await Agent(reactor).request(method.encode(), url.encode(), sent)
        client = Client(keep)
        response.deliverBody(client)
        if paused and client.transport is not None:
            client.pause()
        length = response.length if isinstance(response.length, int) else None
        return Streamed(response.code, response.headers, length, client)

    async def ask(self, path: str, headers: dict[str, str | list[str]] | None = None, method: str = "GET") -> Answer:
        """Ask, and take all of the answer, which must be whole."""
        streamed = await self.stream(path, headers, method)
        await streamed.client.ended
        if not streamed.client.whole:
            raise AssertionError(f"{path} was cut after {streamed.client.received} bytes")
        return Answer(streamed.status, streamed.headers, streamed.client.body)

    async def cut(self, path: str, headers: dict[str, str | list[str]] | None = None) -> int:
        """Ask for what is cut off before its end; how many bytes came, -1 when not even the headers did."""
        try:
            streamed = await self.stream(path, headers)
        except (ResponseNeverReceived, ResponseFailed):
            return -1
        await streamed.client.ended
        if streamed.client.whole:
            raise AssertionError(f"{path} came whole: {streamed.status}, {streamed.client.received} bytes")
        return streamed.client.received

    async def manifest(
        self,
        reference: object,
        token: str | None = None,
        repository: str = REPOSITORY,
        method: str = "GET",
        accept: tuple[str, ...] = ACCEPT,
    ) -> Answer:
        headers: dict[str, str | list[str]] = {"Accept": list(accept), **bearer(token)}
        return await self.ask(f"/v2/{repository}/manifests/{reference}", headers, method)

    async def blob(
        self,
        digest: object,
        token: str | None = None,
        repository: str = REPOSITORY,
        asked: str | None = None,
        method: str = "GET",
    ) -> Answer:
        headers: dict[str, str | list[str]] = {} if asked is None else {"Range": asked}
        return await self.ask(f"/v2/{repository}/blobs/{digest}", {**headers, **bearer(token)}, method)

    async def token(self, repository: str = REPOSITORY, extra: str = "") -> Answer:
        """A token request, as a stranger."""
        return await self.ask(f"/auth/token?scope=repository:{repository}:pull{extra}")


def bearer(token: str | None) -> dict[str, str | list[str]]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def drain(fill_of: Mirror, digest: Any) -> Deferred[None]:
    """Fires once the fill of this digest has ended, now if there is none."""
    end = fill_of.cache.fills.end(digest)
    if end is None:
        end = Deferred()
        end.callback(None)
    return end


class MirrorCase(TestCase):
    """An upstream, a catalog whose time stands still, and a mirror in `none` mode unless a test says otherwise."""

    timeout = 30

    auth = AuthMode.NONE
    fetch_connections = 1
    """Or a large blob that comes slowly, on a busy machine, would take more requests than are counted."""
    tag_ttl = 60.0
    prefetch = False

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.seconds = Seconds()
        self.upstream = fakes.Upstream(reactor)
        await self.upstream.start()
        self.addCleanup(self.upstream.stop)
        self.catalog = self.make_catalog()
        self.store = self.make_store()
        self.mirror = self.start()

    def make_store(self) -> IBlobStore:
        return MemoryStore(BUDGET, reactor)

    def make_catalog(self, path: str = ":memory:") -> Catalog:
        catalog = Catalog(path, self.seconds)
        self.addCleanup(catalog.close)
        return catalog

    def start(self, **changed: Any) -> Mirror:
        """A mirror on what this case shares, or on what is changed."""
        settings: dict[str, Any] = {
            "upstream": self.upstream,
            "store": self.store,
            "catalog": self.catalog,
            "seconds": self.seconds,
            "auth": self.auth,
            "tag_ttl": self.tag_ttl,
            "prefetch": self.prefetch,
            "fetch_connections": self.fetch_connections,
        }
        mirror = Mirror(**{**settings, **changed})
        mirror.start()
        self.addCleanup(mirror.stop)
        return mirror

    def counts(self) -> dict[str, int]:
        """Requests that the upstream saw, by `METHOD kind`."""
        counted: dict[str, int] = {}
        for request in self.upstream.requests:
            key = f"{request.method} {request.kind}"
            counted[key] = counted.get(key, 0) + 1
        return counted

    def saw(self, **expected: int) -> None:
        """That the upstream saw these and no more: `GET_blob=1`; forgets them."""
        self.assertEqual(self.counts(), {name.replace("_", " "): count for name, count in expected.items()})
        self.upstream.requests.clear()
