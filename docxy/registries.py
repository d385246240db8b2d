"""The pulls of all registries: those that the operator named, and those that only clients name.

The law: of the latter there are `MOST_UNNAMED` at most, and what one has for itself goes with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from attrs import evolve
from twisted.application.service import MultiService
from twisted.python.components import proxyForInterface

from docxy.daemon.services import Way
from docxy.observe.metrics import IMeter
from docxy.pull.gates.gated import GatedPull
from docxy.pull.interfaces import IPull
from docxy.pull.search import Member, SearchPull
from docxy.pulls import Parts, make_pull
from docxy.routing import Router
from docxy.settings.model import Upstream

MOST_UNNAMED = 100
"""Registries that only clients name, which are kept ready; the one that was asked last is the last to go."""


class Pulls(Mapping[str, IPull]):
    """The pull of each upstream by its name; those of registries that only clients name are made when they are asked.

    What a registry has in the cache stays when its pull goes, and is found again by the next one.
    """

    def __init__(self, parts: Parts, router: Router, unnamed_ways: dict[str, Way]) -> None:
        """`unnamed_ways`: gets how the registries fare that only clients name."""
        self._parts = parts
        self._router = router
        self._ways = unnamed_ways
        self._named = {each.name: make_pull(parts, each) for each in router.upstreams if not each.search}
        for upstream in router.upstreams:
            if upstream.search:
                self._named[upstream.name] = self._searching(upstream)
        self._unnamed: OrderedDict[str, tuple[IPull, Parts]] = OrderedDict()

    def _searching(self, upstream: Upstream) -> IPull:
        """The pull of registries that are searched as one; orders hold under its name and under theirs."""
        known = {each.name: each for each in self._router.upstreams}
        members = [Member(known[name], self._named[name]) for name in upstream.search]
        return GatedPull(
            upstream.name,
            SearchPull(upstream.name, members, self._router.permits, self._parts.clock),
            self._parts.gates,
        )

    def __getitem__(self, name: str) -> IPull:
        pull = self._named.get(name)
        if pull is not None:
            return pull
        if name in self._unnamed:
            self._unnamed.move_to_end(name)
            return self._unnamed[name][0]
        upstream = self._router.registry(name)
        if upstream is None or upstream.is_named:
            raise KeyError(name)
        return self._made(upstream)

    def __contains__(self, name: object) -> bool:
        """Whether it is ready; to ask this makes none."""
        return name in self._named or name in self._unnamed

    def __iter__(self) -> Iterator[str]:
        return iter([*self._named, *self._unnamed])

    def __len__(self) -> int:
        return len(self._named) + len(self._unnamed)

    def _made(self, upstream: Upstream) -> IPull:
        while len(self._unnamed) >= MOST_UNNAMED:
            _, (_, parts) = self._unnamed.popitem(last=False)
            _end(parts)
        services = MultiService()
        services.setServiceParent(self._parts.services)
        parts = evolve(
            self._parts,
            services=services,
            ways=self._ways,
            reloads=[],
            endings=[lambda: services.disownServiceParent()],
            meter=Together(self._parts.meter, upstream.label),
        )
        pull = make_pull(parts, upstream)
        parts.endings.append(lambda: self._ways.pop(upstream.name, None))
        self._unnamed[upstream.name] = pull, parts
        return pull


def _end(parts: Parts) -> None:
    """Let go of what one upstream has for itself; what is on its way ends as it would."""
    for end in parts.endings:
        end()


class Together(proxyForInterface(IMeter)):  # type: ignore[misc]  # a class made on the fly
    """A meter that counts what is of one upstream under a label that it shares with others."""

    def __init__(self, original: IMeter, label: str) -> None:
        super().__init__(original)
        self._label = label

    def fetched(self, upstream: str, status: int | None, seconds: float) -> None:
        self.original.fetched(self._label, status, seconds)

    def received(self, upstream: str, count: int) -> None:
        self.original.received(self._label, count)

    def allowed(self, upstream: str, account: str, limit: int, remaining: int) -> None:
        """What one registry allows says nothing of the others."""
