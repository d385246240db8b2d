"""The settings in force in this process, where they change while it runs.

The law: there is one configuration at a time, which is swapped as a whole, here and nowhere else, in one turn of the
reactor.  Who goes by what may change asks for it each time, or has itself called at each swap.
"""

from __future__ import annotations

from collections.abc import Callable

from docxy.addresses import Perimeter
from docxy.orders.policies import Policies
from docxy.settings.model import Config, Upstream
from docxy.settings.policy import Policy
from docxy.settings.rules import Rules


class InForce:
    """Has them, and tells of others."""

    def __init__(self, config: Config, policies: Policies) -> None:
        """`config`: what docxy started with; `policies`: swapped with it."""
        self.config = config
        self.policies = policies
        self._named = {each.name: each for each in config.upstreams}
        self._watchers: list[Callable[[], object]] = []

    def policy(self) -> Policy:
        return self.policies.current

    def perimeter(self) -> Perimeter:
        return self.config.access.perimeter

    def rules(self) -> Rules:
        return self.config.access.rules

    def upstream(self, name: str) -> Upstream:
        """One that the operator named."""
        return self._named[name]

    def ages(self, upstream: Upstream) -> Upstream:
        """Where an upstream's `cooldown` and `immutable` are: all that clients name share one."""
        if upstream.is_named or self.config.any_registry is None:
            return self._named.get(upstream.name, upstream)
        return self.config.any_registry

    def watch(self, changed: Callable[[], object]) -> None:
        """Have `changed` called after each swap."""
        self._watchers.append(changed)

    def put(self, config: Config) -> None:
        """Put other settings in force; see `docxy.settings.changeable` for which they may be."""
        self.config = config
        self._named = {each.name: each for each in config.upstreams}
        self.policies.swap(config.policy)
        for changed in self._watchers:
            changed()
