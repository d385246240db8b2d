"""The settings in force, and who goes by them."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from docxy.orders.in_force import InForce
from docxy.orders.policies import Policies
from docxy.settings.cooldown import Cooldown
from docxy.settings.model import ANY, DOCKER_HUB, AuthMode, Config, Upstream
from docxy.settings.policy import Policy

OLD, NEW = Cooldown(1.0), Cooldown(2.0)


class AgesTests(SynchronousTestCase):
    def test_ages(self) -> None:
        """An upstream's cooldown is that in force now, though what asks has been made before."""
        everyone = Upstream(ANY, "", cooldown=OLD)
        before = evolve(DOCKER_HUB, cooldown=OLD)
        config = Config(None, None, "", None, "", None, AuthMode.NONE, (before,), any_registry=everyone)
        in_force = InForce(config, Policies(Policy()))
        unnamed = Upstream("quay.io", "https://quay.io", cooldown=OLD, is_named=False)
        self.assertEqual([in_force.ages(each).cooldown for each in (before, unnamed)], [OLD, OLD])
        in_force.put(evolve(config, upstreams=(evolve(before, cooldown=NEW),)))
        self.assertEqual([in_force.ages(each).cooldown for each in (before, unnamed)], [NEW, OLD])
        in_force.put(evolve(config, any_registry=evolve(everyone, cooldown=None)))
        self.assertEqual([in_force.ages(each).cooldown for each in (before, unnamed)], [OLD, None])
