"""Where the collaborators meet: a Config and a reactor become the site that is served.

The law: nothing below this module knows where its collaborators come from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache as once
from functools import partial
from random import Random
from urllib.parse import urlsplit

from attrs import evolve, frozen
from publicsuffixlist import PublicSuffixList
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent
from twisted.web.server import Site
from zope.interface import implementer

from docxy.accesslog import DaemonLog, Lines
from docxy.config import AuthMode, Config, Credential, Upstream
from docxy.gate.interfaces import IGate
from docxy.gate.open import OpenGate
from docxy.gate.scopes import readings
from docxy.pull.access import ClientAccess, IAccess, OpenAccess
from docxy.pull.blobs import BlobCache
from docxy.pull.cached import CachedPull
from docxy.pull.direct import DirectPull
from docxy.pull.fill import Backoff, Fills
from docxy.pull.interfaces import IPull
from docxy.pull.listings import ListingCache
from docxy.pull.login import ILogin, NoLogin, RelayedLogin, Strangers
from docxy.pull.manifests import ManifestCache, TagRules
from docxy.pull.passes import Passes
from docxy.pull.prefetch import Prefetch
from docxy.pull.wide import MOST_LANES, Lanes, Widener
from docxy.routing import Router
from docxy.shared import Shared
from docxy.storage.catalog import Catalog
from docxy.storage.interfaces import IBlobStore
from docxy.storage.recent import Recent
from docxy.storage.records import UpstreamCatalog
from docxy.storage.threads import InThread
from docxy.upstream.authorize import Account, ClientAuthorizer, OwnAuthorizer
from docxy.upstream.breaker import Endpoints
from docxy.upstream.fetch import Fetcher
from docxy.upstream.quota import Quota
from docxy.upstream.relay import IChallengeMemory, NoMemory, TokenRelay
from docxy.upstream.remote import Remote
from docxy.upstream.tokens import Realms, Tokens, TokenService, basic
from docxy.web.site import make_site
from docxy.web.token import Token
from docxy.web.v2 import V2


@frozen
class Cache:
    """What all upstreams share."""

    store: IBlobStore
    recent: Recent
    catalog: Catalog
    fills: Fills

    @classmethod
    def of(cls, store: IBlobStore, catalog: Catalog, clock: IReactorTime) -> Cache:
        return cls(store, Recent(store), catalog, Fills(clock, Backoff(Random())))


@implementer(IChallengeMemory)
@frozen
class CatalogMemory:
    """An upstream's challenge, kept in the catalog."""

    catalog: Catalog
    upstream: str

    def recall(self) -> Sequence[str]:
        kept = self.catalog.fact(f"challenge of {self.upstream}")
        return [str(value) for value in json.loads(kept)] if kept else []

    def remember(self, values: Sequence[str]) -> None:
        self.catalog.keep_fact(f"challenge of {self.upstream}", json.dumps(list(values)))


@frozen
class Assembly:
    """Makes one pull an upstream, with what they share."""

    config: Config
    public_url: str
    fetchers: Mapping[str, Fetcher]
    realms: Realms
    cache: Cache | None
    """None: a pure proxy."""
    clock: IReactorTime
    shared: Shared

    def pull(self, upstream: Upstream) -> IPull:
        """One upstream, as clients are given it."""
        passes = None if self.cache is None else Passes(self.cache.catalog, upstream.name)
        known = None if self.cache is None else UpstreamCatalog(self.cache.catalog, upstream.name)
        fetcher = self.fetchers[upstream.name]
        service = TokenService(upstream, fetcher, self.realms)
        endpoints = Endpoints((upstream.url, *upstream.endpoints), self._seconds, Random())
        rules = TagRules(
            upstream.tag_ttl if upstream.tag_ttl is not None else self.config.tag_ttl, self.config.keep_gone
        )
        login: ILogin = NoLogin(self.clock)
        calm: Callable[[], bool] | None = None
        if (upstream.auth or self.config.auth) is AuthMode.NONE:
            stranger = self._account(service, upstream, None)
            accounts = [self._account(service, upstream, each) for each in upstream.credentials] or [stranger]
            own = OwnAuthorizer(accounts, upstream.name, stranger)
            remote = Remote(upstream, fetcher, own, endpoints, self.realms)
            rules = evolve(rules, saving=lambda: own.scarce)
            calm = own.is_calm
        else:
            memory = NoMemory() if self.cache is None else CatalogMemory(self.cache.catalog, upstream.name)
            relay = TokenRelay(upstream, fetcher, service, self.clock, memory)
            authorizer = ClientAuthorizer(self._realm(upstream), upstream.name, relay.saw)
            remote = Remote(upstream, fetcher, authorizer, endpoints, self.realms)
            strangers = None if known is None or passes is None else Strangers(known, passes)
            login = RelayedLogin(remote, relay, authorizer, self.clock, strangers)
        if self.cache is None or known is None or passes is None:
            return DirectPull(remote, login)
        access: IAccess = OpenAccess(known) if isinstance(login, NoLogin) else ClientAccess(remote, known, passes)
        blobs = BlobCache(
            remote, self.cache.store, self.cache.recent, known, self.cache.fills, self._widener(upstream, calm)
        )
        return CachedPull(
            remote=remote,
            login=login,
            access=access,
            manifests=ManifestCache(remote, self.cache.store, self.cache.recent, known, access, rules, self.clock),
            blobs=blobs,
            listings=ListingCache(known, access, rules),
            prefetch=Prefetch(blobs, self.clock) if self.config.prefetch else None,
        )

    def _widener(self, upstream: Upstream, calm: Callable[[], bool] | None) -> Widener | None:
        """What adds connections to those of one upstream's large blobs; `calm`: see `Lanes`."""
        each = self.config.fetch_connections
        most = MOST_LANES * each
        if upstream.max_connections:
            most = min(most, upstream.max_connections // 2)
        if self.cache is None or each < 2 or most == 0:
            return None
        lanes = Lanes(each, self.shared.slots(most), upstream.name, calm)
        return Widener(lanes, self.cache.store.scratch, self.clock)

    def _realm(self, upstream: Upstream) -> str:
        """Our token endpoint for an upstream; scopes alone would not tell two of them apart."""
        base = f"{self.public_url}/auth/token"
        return base if upstream == self.config.upstreams[0] else f"{base}/{upstream.name}"

    @property
    def _seconds(self) -> Callable[[], float]:
        """The time since the epoch, the same for all that is kept."""
        return self.clock.seconds if self.cache is None else self.cache.catalog.seconds

    def _account(self, service: TokenService, upstream: Upstream, credential: Credential | None) -> Account:
        """One of docxy's own at an upstream; without a credential, a stranger's."""
        who = "" if credential is None else credential.username
        quota = Quota(
            self._seconds,
            self.shared.gossip,
            f"quota of {upstream.name} {who}",
            partial(self.shared.meter.allowed, upstream.name),
        )
        authorization = None if credential is None else basic(credential)
        return Account(Tokens(service, self.clock, credential), quota, authorization)


def build_site(
    config: Config,
    public_url: str,
    agents: Callable[[Upstream], IAgent],
    clock: IReactorTime,
    cache: Cache | None,
    in_thread: InThread | None = None,
    lines: Lines | None = None,
    shared: Shared | None = None,
) -> Site:
    """The registry's site.

    `agents`: each upstream's way out; `in_thread`: where passwords are checked, needed with accounts only;
    `lines`: where the access log goes, if not to the daemon's log; `shared`: with other processes, if there are any.

    `public_url`: without a trailing slash; the realm is built from it.
    """
    ours = urlsplit(public_url)
    router = Router(config.upstreams, ourselves=[name for name in (ours.netloc, ours.hostname) if name])
    shared = shared or Shared()
    fetchers = {
        upstream.name: Fetcher(agents(upstream), clock, config.timeouts, upstream.name, shared.meter)
        for upstream in config.upstreams
    }
    assembly = Assembly(config, public_url, fetchers, Realms(once(PublicSuffixList)), cache, clock, shared)
    pulls = {upstream.name: assembly.pull(upstream) for upstream in config.upstreams}
    gate: IGate = OpenGate(config.access.perimeter)
    if config.access.htpasswd is not None:
        # Only here: what it takes to check passwords is large.
        from docxy.gate.make import make_gate

        assert in_thread is not None
        # Processes that share a cache read each other's tokens.
        key = shared.secret if cache is None else cache.catalog.settle_fact("gate key", shared.secret)
        gate = make_gate(
            config.access,
            config.access.htpasswd,
            public_url,
            bytes.fromhex(key),
            in_thread,
            clock,
            readings(router, config.upstreams),
            shared.gossip,
        )
    v2 = V2(router, gate, pulls, clock, config.timeouts.client, config.catalog)
    return make_site(router, gate, v2, Token(router, gate, pulls), lines or DaemonLog(), clock.seconds, shared.meter)
