"""What is recalled and frozen: every pull of this process asks here.

The laws, of a recall:
- A recalled digest is refused, under every name, whether it is an index, a manifest, a config or a layer.
- A manifest that names a recalled digest is refused: nobody gets half of an image.
- What a recalled manifest names (children, config, layers) is refused in each repository where no other manifest
  that docxy serves names it, too.
- What is on its way when the order comes is cut, and its fill ended.

The order in which a refusal's reasons are looked for is of no matter; each fails closed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field, frozen
from cachetools import LRUCache
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from docxy.catalog.interfaces import is_recent
from docxy.content import Manifest, named
from docxy.errors import Recalled, RegistryError, UpstreamUnavailable
from docxy.names import Digest, Reference, Tag
from docxy.orders.hottest import Hottest
from docxy.orders.policies import Policies
from docxy.orders.standing import NOTHING, Standing, standing
from docxy.orders.store import IOrders
from docxy.pull.blobs.fills import Fills
from docxy.pull.cache_status import RECALLED, telling
from docxy.pull.gates.contents import IContents
from docxy.pull.gates.cut import CutBody
from docxy.pull.gates.learning import Learning, is_learned
from docxy.settings.model import Upstream

LAG = 0.1
"""Seconds for which the orders are believed without a look at their file."""
SETTLE = 1.5
"""Seconds after which a manifest that another process served is known here, too."""
MOST_READ = 10_000
"""Manifests of which it is remembered what they name."""
_COMPLAINT = 60.0
"""Seconds between two lines of the log that say the same."""


@frozen
class Delivery:
    """A blob on its way to a client."""

    upstream: str
    repository: str
    digest: Digest


@define(eq=False)
class Gates:
    """One process's."""

    _log = Logger()

    orders: IOrders
    policies: Policies
    hottest: Hottest
    upstreams: Sequence[Upstream]
    contents: IContents
    """What docxy knows of manifests."""
    learning: Learning
    fills: Fills | None
    """Those of this process; None: there is no cache."""
    clock: IReactorTime
    _standing: Standing = field(default=NOTHING, init=False)
    _of: tuple[object, ...] = field(default=(), init=False)
    """The policy, the orders and the most pulled tags that `_standing` was made of."""
    _looked: float = field(default=float("-inf"), init=False)
    _ways: dict[CutBody, Delivery] = field(factory=dict, init=False)
    _changed: list[Callable[[], object]] = field(factory=list, init=False)
    _names: LRUCache[Digest, frozenset[str]] = field(factory=lambda: LRUCache(MOST_READ), init=False)
    _others: LRUCache[Digest, frozenset[str]] = field(factory=lambda: LRUCache(MOST_READ), init=False)
    _learned: Deferred[None] | None = field(default=None, init=False)
    """Fires when it is known what belongs to what is recalled; None: it is."""
    _told: LRUCache[str, float] = field(factory=lambda: LRUCache(1000), init=False)
    _work: set[Deferred[None]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.policies.watch(self.look)

    def watch(self, changed: Callable[[], object]) -> None:
        """Have `changed` called when something else stands."""
        self._changed.append(changed)

    @property
    def standing(self) -> Standing:
        """What stands now.  Raises UpstreamUnavailable while that cannot be known."""
        now = self.clock.seconds()
        if not is_recent(self._looked, now, LAG):
            self._looked = now
            self.look()
        if self.orders.problem is not None:
            raise UpstreamUnavailable(f"docxy serves nothing, as its orders are not known: {self.orders.problem}")
        return self._standing

    def look(self) -> None:
        """Take in what was ordered meanwhile, and cut what must not go on."""
        of = (self.policies.current, self.orders.look(), self.hottest.tags)
        if self._of and all(now is before for now, before in zip(of, self._of, strict=True)):
            return
        self._of = of
        self._standing = standing(of[0], of[1], self.upstreams, of[2])
        for changed in self._changed:
            changed()
        if self._standing.recalls:
            self._cut_all()
            self._begin_learning()

    async def settle(self) -> None:
        """Take in what was ordered, and return when it is known what belongs to what is recalled."""
        self.look()
        while self._learned is not None:
            await self._until_learned()

    async def _until_learned(self) -> None:
        if self._learned is not None:
            waiting: Deferred[None] = Deferred()
            self._learned.addCallback(lambda _: None if waiting.called else waiting.callback(None))
            await waiting

    def _cut_all(self) -> None:
        for body, way in [*self._ways.items()]:
            self._run(self._cut(body, way))
        for fill in [] if self.fills is None else self.fills.running():
            self._run(self._give_up(fill.digest, fill.upstream, fill.repository))

    def _begin_learning(self) -> None:
        self.learning.only(
            {**self._standing.recalled, **{str(image): "" for image, _ in self._standing.recalled_images}}
        )
        if self._learned is None:
            self._learned = Deferred()
            self._run(self._learn())

    async def _learn(self) -> None:
        """Until nothing is left to be found out: each round may change what stands."""
        before: object = None
        try:
            while before is not self._of:
                before = self._of
                await self.learning.learn(lambda: self._standing)
                self.look()
        finally:
            learned, self._learned = self._learned, None
            if learned is not None:
                learned.callback(None)

    def _run(self, work: Any) -> None:
        running: Deferred[None] = Deferred.fromCoroutine(work)
        if not running.called:
            self._work.add(running)
        running.addErrback(self._failed)
        running.addBoth(lambda _: self._work.discard(running))

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):  # by `stop`
            self._log.failure("what is recalled could not be cut", failure)

    async def _cut(self, body: CutBody, way: Delivery) -> None:
        try:
            await self._refuse_digest(way.upstream, way.repository, way.digest, patient=False)
        except RegistryError as error:
            body.cut(error)

    async def _give_up(self, digest: Digest, upstream: str, repository: str) -> None:
        try:
            await self._refuse_digest(upstream, repository, digest, patient=False)
        except RegistryError:
            if self.fills is not None:
                self.fills.give_up(digest)

    async def stop(self) -> None:
        """Nobody asks any more."""
        for running in [*self._work]:
            running.cancel()

    # -- what pulls ask

    def follows(self, body: CutBody, way: Delivery) -> None:
        """Bytes are on their way to a client."""
        self._ways[body] = way

    def ended(self, body: CutBody) -> None:
        """They are no more."""
        self._ways.pop(body, None)

    def frozen(self, upstream: str, repository: str, tag: Tag) -> Digest | None:
        """Where a tag has to stay."""
        return self.standing.frozen_tags.get((upstream, repository, tag.name))

    def refuse_name(self, upstream: str, repository: str, tag: str | None) -> None:
        """Raises Recalled for what is recalled by its name; `tag` None: something of the repository."""
        stands = self.standing
        reason = stands.why(upstream, repository, tag) if stands.recalled_images else None
        if reason is not None:
            raise self._refusal(f"{upstream}/{repository}{'' if tag is None else f':{tag}'}", reason)

    async def refuse(self, upstream: str, repository: str, reference: Reference) -> None:
        """Raises Recalled for a tag, a manifest or a blob that is recalled, as far as its name or digest says."""
        if isinstance(reference, Tag):
            self.refuse_name(upstream, repository, reference.name)
        elif self.standing.recalls:
            await self._refuse_digest(upstream, repository, reference, patient=True)

    async def _refuse_digest(self, upstream: str, repository: str, what: Digest, patient: bool) -> None:
        """`patient`: whether there is time to learn of a manifest that another process served a moment ago."""
        self.refuse_name(upstream, repository, None)
        digest = str(what)
        stands = self.standing
        if digest not in stands.recalled and patient and self._learned is not None:
            await self._until_learned()
            stands = self.standing
        if digest in stands.recalled:
            raise self._refusal(digest, stands.recalled[digest])
        self._refuse_any(what, self._others.get(what) or frozenset())
        root = stands.belonging.get(digest)
        if root is not None and not await self._is_of_another(upstream, repository, digest, patient):
            stands = self.standing
            reason = stands.recalled.get(root)
            if reason is not None:
                raise self._refusal(digest, f"{reason} (it belongs to {root})")

    async def refuse_manifest(self, upstream: str, repository: str, manifest: Manifest) -> bool:
        """Raises Recalled for a manifest that names something recalled, too.

        Of one whose bytes nobody has here (a HEAD of what is not cached), only the digest can tell; False: it cannot,
        as something is recalled by a digest of another algorithm.
        """
        if not self.standing.recalls:
            return True
        digest = str(manifest.digest)
        if manifest.body is not None and digest in self.standing.recalled:
            self._learn_of(digest, digest)
        await self.refuse(upstream, repository, manifest.digest)
        names = await self._named(manifest.digest, manifest.body)
        if names is None:
            return not self.is_doubtful(manifest.digest)
        stands = self.standing
        for name in names & stands.recalled.keys():
            if manifest.body is not None and name in manifest.digest.others(manifest.body):
                self._learn_of(name, digest)
            raise self._refusal(f"{manifest.digest} with {name}", stands.recalled[name])
        return True

    def _learn_of(self, recalled: str, here: str) -> None:
        """The bytes of something recalled are here, by this digest."""
        if not is_learned(self.orders.look().known.get(recalled, ())):
            self.learning.again(recalled, here)
            self._begin_learning()

    def is_doubtful(self, what: Digest) -> bool:
        """Whether only the bytes can tell that something is not recalled by another algorithm's digest."""
        return bool(self.standing.unlearned - {what.algorithm})

    def others(self, what: Digest) -> frozenset[str] | None:
        """What other algorithms call a blob that was looked through."""
        found: frozenset[str] | None = self._others.get(what)
        return found

    def refuse_others(self, what: Digest, others: frozenset[str]) -> None:
        """Raises Recalled for a blob of which another algorithm's digest is recalled."""
        self._others[what] = others
        self._refuse_any(what, others)

    def _refuse_any(self, what: Digest, others: frozenset[str]) -> None:
        stands = self.standing
        for each in others & stands.recalled.keys():
            raise self._refusal(f"{what}, which is {each},", stands.recalled[each])

    def refuses(self, manifest: Manifest) -> bool:
        """Whether a manifest, whose bytes are here, is recalled by its digest or by one that it names."""
        stands = self.standing
        if not stands.recalled or manifest.body is None:
            return False
        names = named(manifest.body) | manifest.digest.others(manifest.body)
        return str(manifest.digest) in stands.recalled or not stands.recalled.keys().isdisjoint(names)

    # -- what a recalled manifest names

    async def _is_of_another(self, upstream: str, repository: str, digest: str, patient: bool) -> bool:
        """Whether a manifest of this repository names it that docxy serves."""
        if await self._served_with(upstream, repository, digest):
            return True
        if not patient:
            return False
        # Another process may have served such a manifest a moment ago, to this very client.
        await deferLater(self.clock, SETTLE, lambda: None)
        return await self._served_with(upstream, repository, digest)

    async def _served_with(self, upstream: str, repository: str, digest: str) -> bool:
        stands = self.standing
        naming: dict[str, frozenset[str]] = {}
        for held in await self.contents.manifests(upstream, repository):
            naming[str(held)] = await self._named(held, None) or frozenset()

        def is_served(manifest: str, above: frozenset[str]) -> bool:
            if manifest in stands.recalled or not stands.recalled.keys().isdisjoint(naming[manifest]):
                return False
            # A child of a recalled index is served as one of another index alone.
            return manifest not in stands.belonging or _is_named(manifest, above)

        def _is_named(what: str, above: frozenset[str]) -> bool:
            return any(
                what in names and manifest not in above and is_served(manifest, above | {manifest})
                for manifest, names in naming.items()
            )

        return _is_named(digest, frozenset({digest}))

    async def _named(self, digest: Digest, body: bytes | None) -> frozenset[str] | None:
        """What a manifest names, and itself by other algorithms; None where its bytes are not here."""
        known: frozenset[str] | None = self._names.get(digest)
        if known is None:
            body = await self.contents.body(str(digest)) if body is None else body
            if body is None:
                return None
            try:
                known = named(body) | digest.others(body)
            except ValueError as error:
                raise UpstreamUnavailable(f"{digest} cannot be looked through for what is recalled: {error}") from None
            self._names[digest] = known
        return known

    def _refusal(self, what: str, reason: str) -> Recalled:
        now = self.clock.seconds()
        if not is_recent(self._told.get(what, float("-inf")), now, _COMPLAINT):
            self._told[what] = now
            self._log.warn("{what} was asked for, and refused: it is recalled: {why}", what=what, why=reason)
        return Recalled.of(what, reason, *telling(RECALLED))
