"""The policy in force in this process.

The law: there is one, it is swapped as a whole, here and nowhere else; who goes by it asks `current` each time,
or has itself called at each swap.
"""

from __future__ import annotations

from collections.abc import Callable

from docxy.settings.policy import Policy


class Policies:
    """Has the policy, and tells of another one."""

    def __init__(self, policy: Policy) -> None:
        """`policy`: what the configuration file said when docxy started."""
        self.current = policy
        self._watchers: list[Callable[[], object]] = []

    def watch(self, changed: Callable[[], object]) -> None:
        """Have `changed` called after each swap."""
        self._watchers.append(changed)

    def swap(self, policy: Policy) -> None:
        """Put another policy in force, and tell those who watch."""
        if policy == self.current:
            return
        self.current = policy
        for changed in self._watchers:
            changed()
