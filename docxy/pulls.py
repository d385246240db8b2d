"""How each upstream's pull is put together.

The law: what one upstream has for itself (tokens, accounts, endpoints, rights) is made here; what all
upstreams share comes in `Parts`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from random import Random
from typing import Any

from attrs import evolve, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent
from zope.interface import implementer

from docxy.access.token_keys import ITokenKeys
from docxy.archive.links import Links
from docxy.catalog.interfaces import ICatalog, IFacts
from docxy.daemon.reloads import Reload, Reloaded
from docxy.daemon.services import (
    Closing,
    Way,
)
from docxy.daemon.timers import every
from docxy.names import Digest
from docxy.observe.metrics import IMeter
from docxy.observe.state import Notes
from docxy.observe.tracing import ITracer
from docxy.orders.in_force import InForce
from docxy.pull.archived import ArchivedManifests
from docxy.pull.as_of import Dated
from docxy.pull.blobs.archived import ArchivedBlobs
from docxy.pull.blobs.backoff import Backoff
from docxy.pull.blobs.cache import BlobCache
from docxy.pull.blobs.elsewhere import Elsewhere
from docxy.pull.blobs.extra import ExtraConnections
from docxy.pull.blobs.fills import Fills
from docxy.pull.blobs.parallel import MOST_EXTRA, Parallel
from docxy.pull.blobs.resuming import Resuming
from docxy.pull.blobs.touched import Touched, TouchedBlobs
from docxy.pull.cached import CachedPull
from docxy.pull.cooldown import Cooled
from docxy.pull.direct import DirectPull
from docxy.pull.gates.gated import GatedPull
from docxy.pull.gates.gates import Gates
from docxy.pull.interfaces import IPull
from docxy.pull.inventory import UpstreamInventory
from docxy.pull.kept_manifests import KeptManifests
from docxy.pull.listings import ListingCache
from docxy.pull.manifests import ManifestCache
from docxy.pull.prefetch import Prefetch
from docxy.pull.refresh import EVERY, Refresh
from docxy.pull.remembering import Remembering
from docxy.pull.rights.login import ILogin, NoLogin, RelayedLogin, TokenMemory
from docxy.pull.rights.offline_tokens import OfflineTokens
from docxy.pull.rights.verdicts import ClientRights, IRights, OpenRights
from docxy.pull.sightings import Sightings
from docxy.pull.tag_rules import TagRules
from docxy.settings.cooldown import Cooldown
from docxy.settings.model import AuthMode, Config, Credential, CredentialProgram, FillMode, Redirect, Upstream
from docxy.siblings import Siblings
from docxy.storage.interfaces import IBlobStore
from docxy.storage.memory_cache import MemoryCache
from docxy.upstream.agent import LARGE_READS, SMALL_READS, Connections, make_agent
from docxy.upstream.api_url import ApiUrl
from docxy.upstream.authorize import Account, ClientAuthorizer, OwnAuthorizer
from docxy.upstream.credential_program import ProgramSecret
from docxy.upstream.endpoints import Endpoints
from docxy.upstream.failover import Failover
from docxy.upstream.fetch import Fetcher
from docxy.upstream.login import IAccountSecret
from docxy.upstream.pace import AT_ONCE, Pace
from docxy.upstream.password_file import AccountPassword
from docxy.upstream.quota import Quota
from docxy.upstream.realms import Realms
from docxy.upstream.remote import Remote
from docxy.upstream.retry import Retry
from docxy.upstream.token_relay import IChallengeMemory, NoMemory, TokenRelay
from docxy.upstream.tokens import OwnTokens, TokenService


@frozen
class SharedCache:
    """What the pulls of all upstreams share."""

    store: IBlobStore
    recent: MemoryCache
    catalog: ICatalog
    fills: Fills
    touched: Touched
    """What is here of blobs of which only ranges were asked for."""
    archived: ArchivedBlobs | None
    """What is behind the store; None: nothing."""
    links: Links | None
    """Where clients get blobs themselves; None: nowhere."""


@frozen
class Parts:
    """What is made once for all upstreams."""

    config: Config
    public_url: str
    """Without a trailing slash."""
    cache: SharedCache | None
    """None: a pure proxy."""
    token_keys: ITokenKeys
    realms: Realms
    siblings: Siblings
    meter: IMeter
    tracer: ITracer
    services: MultiService
    clock: IReactorTime
    seconds: Callable[[], float]
    """The time since the epoch, by which all that is kept is dated."""
    reactor: Any
    notes: Notes
    """What upstreams answered."""
    happened: Callable[[Mapping[str, Any]], object]
    """Told of tags that moved."""
    ways: dict[str, Way]
    """How each upstream fares, by its name."""
    reloads: list[Reload]
    """What is done at a SIGHUP."""
    gates: Gates
    """What the operator ordered about images."""
    in_force: InForce
    paces: Sequence[Pace]
    """The limits of how fast bytes come that hold for all upstreams together."""
    endings: list[Callable[[], object]]
    """What is done when an upstream is not wanted any more while docxy goes on."""


def make_pull(parts: Parts, upstream: Upstream) -> IPull:
    """One upstream, as clients get it: nothing leaves it but through the gates."""
    return GatedPull(upstream.name, _served(parts, upstream), parts.gates)


def _served(parts: Parts, upstream: Upstream) -> IPull:
    """One upstream, before the gates: the operator's orders about its images are not asked."""
    config, cache, clock = parts.config, parts.cache, parts.clock
    known = None if cache is None else cache.catalog.upstream(upstream.name)
    offline = None

    def rule(repository: str, tag: str | None) -> Cooldown | None:
        usual = parts.in_force.ages(upstream).cooldown
        return parts.gates.policies.current.cooldown(upstream.name, usual, repository, tag)

    if cache is not None and known is not None:
        keys = partial(parts.token_keys.derived, "offline tokens")
        offline = OfflineTokens(keys, upstream.name, known.verdicts, parts.seconds)
    fetcher = _fetcher(parts, upstream)
    retry = Retry(clock.seconds, config.timeouts.headers)
    service = TokenService(upstream, fetcher, parts.realms, retry)
    endpoints = Endpoints((upstream.url, *upstream.endpoints), parts.seconds, Random())
    way = parts.ways[upstream.name] = Way(endpoints, service, {})
    rules = TagRules(
        upstream.tag_ttl if upstream.tag_ttl is not None else config.tag_ttl,
        config.keep_gone,
        lambda: parts.in_force.ages(upstream).immutable,
    )
    rules = evolve(rules, pinned=lambda repository, tag: parts.gates.standing.is_pinned(upstream.name, repository, tag))
    login: ILogin = NoLogin(clock)
    calm: Callable[[], bool] | None = None
    if (upstream.auth or config.auth) is AuthMode.NONE:
        anonymous = _account(parts, service, upstream, None)
        accounts = [_account(parts, service, upstream, each) for each in upstream.credentials] or [anonymous]
        own = OwnAuthorizer(accounts, upstream.name, anonymous)
        way.quotas.update((account.name, account.quota) for account in accounts)
        failover = Failover(upstream, fetcher, own, endpoints, parts.realms, retry)
        remote = Remote(upstream, endpoints, failover)
        rules = evolve(rules, saving=lambda: own.scarce, left=lambda: own.left)
        calm = own.is_calm
    else:
        memory = NoMemory() if cache is None else CatalogMemory(cache.catalog.facts, upstream.name)
        relay = TokenRelay(upstream, fetcher, service, clock, memory, parts.siblings.broadcast, retry)
        authorizer = ClientAuthorizer(_realm(parts, upstream), upstream.name, ApiUrl.of(upstream.url), relay.saw)
        failover = Failover(upstream, fetcher, authorizer, endpoints, parts.realms, retry)
        remote = Remote(upstream, endpoints, failover)
        tokens = None
        if cache is not None and offline is not None:
            tokens = TokenMemory(cache.catalog.tokens, cache.catalog.secret, offline, parts.seconds)
        login = RelayedLogin(remote, relay, authorizer, clock, tokens)
    resuming = Resuming(clock, Backoff(Random()))
    if cache is None or known is None or offline is None:
        return DirectPull(remote, login, rules.refuses, resuming, rule)
    rights: IRights = OpenRights(known.held)
    if not isinstance(login, NoLogin):
        rights = ClientRights(remote, known, cache.catalog.tokens, cache.catalog.secret, offline, parts.seconds)
    parallel = _parallel(parts, cache, upstream, calm)
    touched = None
    if upstream.fill is FillMode.TOUCHED:
        touched = TouchedBlobs(cache.touched, remote, cache.store, known.held, parallel, resuming)
    blobs = BlobCache(
        remote,
        cache.store,
        cache.recent,
        known.held,
        cache.fills,
        parallel,
        resuming,
        cache.archived,
        touched,
        parts.seconds,
    )
    prefetch = None
    if config.prefetch and touched is None and cache.links is None:
        prefetch = Prefetch(blobs, clock, parts.gates.refuses)
        _feeds(parts, cache.fills, prefetch.stop)
    _feeds(parts, cache.fills, blobs.stop)
    sightings = Sightings(upstream.name, known.history, parts.happened, parts.seconds)
    archived = None
    if cache.archived is not None:
        calm_archive = cache.archived.archive
        archived = ArchivedManifests(upstream.name, calm_archive, known.history, config.history, parts.seconds)
        parts.services.addService(Closing(archived.stop))
    manifests = ManifestCache(
        remote,
        KeptManifests(cache.store, cache.recent, known),
        known,
        cache.catalog.claims,
        rights,
        rules,
        sightings,
        archived,
        parts.seconds,
    )

    def released(repository: str, tag: str | None, digest: Digest | None) -> bool:
        standing = parts.gates.standing
        return standing.is_released(upstream.name, repository, tag, digest) or (
            digest is not None and standing.is_frozen_at(upstream.name, repository, digest)
        )

    cooled = Cooled(upstream.name, manifests, known.history, sightings, rule, released, parts.seconds)
    way.cooled = cooled.counts
    if isinstance(login, NoLogin) and parts.siblings.first:
        refresh = Refresh(upstream.name, manifests, known.history, rule, parts.seconds)
        parts.services.addService(every(EVERY, parts.reactor, refresh.work, f"the look at tags of {upstream.name}"))
        parts.services.addService(Closing(refresh.stop))
    away = None
    if cache.links is not None and config.archive is not None:
        always = config.archive.redirect is Redirect.ALWAYS
        away = Elsewhere(cache.links, always, remote, cache.store, known.held, blobs.sizes)
    return CachedPull(
        remote=remote,
        login=login,
        rights=rights,
        manifests=manifests,
        dated=Dated(upstream.name, cooled, rights, known.history, archived, parts.seconds),
        cooled=cooled,
        blobs=blobs,
        away=away,
        listings=ListingCache(known, rights, rules, parts.seconds),
        prefetch=prefetch,
        inventory=UpstreamInventory(cache.store, cache.recent, known),
        history=known.history,
        remembering=Remembering(cache.store, lambda: parts.in_force.config.history, parts.seconds),
    )


def _feeds(parts: Parts, fills: Fills, stop: Callable[[], Awaitable[object]]) -> None:
    parts.endings.append(fills.fed_by(stop))


def _fetcher(parts: Parts, upstream: Upstream) -> Fetcher:
    """An upstream's way out, with connections of its own."""
    timeouts = parts.config.timeouts
    reads = SMALL_READS if parts.cache is None else LARGE_READS
    slots = cache(parts.siblings.slots)

    def make(upstream: Upstream) -> tuple[IAgent, HTTPConnectionPool]:
        return make_agent(parts.reactor, timeouts, upstream, slots, reads, parts.clock.seconds)

    agent = Connections(upstream, make)
    if upstream.is_named:
        parts.in_force.watch(lambda: agent.reach(parts.in_force.upstream(upstream.name)))
    parts.services.addService(Closing(agent.close))
    paces = [*parts.paces, *make_paces(parts.siblings, parts.services, parts.clock, upstream.max_rate, upstream.name)]
    return Fetcher(agent, parts.clock, timeouts, upstream.name, parts.meter, parts.notes, parts.tracer, paces)


def make_paces(
    siblings: Siblings, services: MultiService, clock: IReactorTime, rate: int | None, name: str
) -> Sequence[Pace]:
    """The limit of `rate` bytes a second, None: none; `name`: of what it limits."""
    if rate is None:
        return ()
    pace = Pace(rate, f"rate of {name}", siblings.slots(AT_ONCE), clock)
    services.addService(Closing(pace.stop))
    return (pace,)


def _parallel(parts: Parts, cache: SharedCache, upstream: Upstream, calm: Callable[[], bool] | None) -> Parallel:
    """What adds connections to those of one upstream's blobs; `calm`: see `ExtraConnections`."""
    each = parts.config.fetch_connections
    most = MOST_EXTRA * each
    if upstream.max_connections:
        most = min(most, upstream.max_connections // 2)
    if most == 0:
        each = 1  # which leaves the bytes that clients wait for, one after the other
    lanes = ExtraConnections(each, parts.siblings.slots(max(most, 1)), upstream.name, calm)
    return Parallel(lanes, cache.store.scratch, parts.clock)


def _realm(parts: Parts, upstream: Upstream) -> str:
    """Our token endpoint for an upstream; scopes alone do not tell two upstreams apart."""
    base = f"{parts.public_url}/auth/token"
    return base if upstream == parts.config.upstreams[0] else f"{base}/{upstream.name}"


def _account(
    parts: Parts, service: TokenService, upstream: Upstream, credential: Credential | CredentialProgram | None
) -> Account:
    """One of docxy's own at an upstream; anonymous without a credential."""
    secret: IAccountSecret | None = None
    if isinstance(credential, CredentialProgram):
        program = ProgramSecret(credential, upstream.name, parts.clock, parts.seconds, Random(), parts.reactor)
        stop, secret = program.stop, program
        parts.services.addService(Closing(lambda: Deferred.fromCoroutine(stop())))
    elif credential is not None:
        secret = AccountPassword(credential)
    who = "" if secret is None else secret.username

    def observed(limit: int, remaining: int) -> None:
        parts.meter.allowed(upstream.name, who, limit, remaining)
        parts.notes.allowed(upstream.name, limit, remaining)

    topic = f"quota of {upstream.name} {who}"
    quota = Quota(parts.seconds, parts.siblings.broadcast, topic, observed)
    parts.endings.append(lambda: parts.siblings.broadcast.leave(topic))
    tokens = OwnTokens(service, parts.clock, secret)
    parts.reloads.append(lambda: _reloaded(tokens.reload(), secret))
    return Account(tokens, quota, secret)


def _reloaded(failure: str | None, secret: IAccountSecret | None) -> Sequence[Reloaded]:
    """What to tell of an account's password; nothing of one that comes from nowhere again."""
    if secret is None or secret.source is None:
        return []
    if secret.source == secret.username:
        says = f"the next request runs {secret.source}"
        return [Reloaded(f"credential of {secret.username}", True, says)]
    says = f"read {secret.source}" if failure is None else f"{secret.source} {failure}"
    return [Reloaded(f"password of {secret.username}", failure is None, says)]


@implementer(IChallengeMemory)
@frozen
class CatalogMemory:
    """An upstream's challenge, kept in the catalog."""

    facts: IFacts
    upstream: str

    def recall(self) -> Sequence[str]:
        kept = self.facts.get(f"challenge of {self.upstream}")
        return [str(value) for value in json.loads(kept)] if kept else []

    def remember(self, values: Sequence[str]) -> None:
        self.facts.keep(f"challenge of {self.upstream}", json.dumps(list(values)))
