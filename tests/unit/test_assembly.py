"""The wiring: nothing that is handed around has a stand-in for it."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.access.open_gate import OpenGate
from docxy.access.throttle import Throttle
from docxy.assembly import build, open_cache
from docxy.broadcast import Broadcast
from docxy.catalog.sqlite import SqliteCatalog
from docxy.daemon.sampling import Sampling
from docxy.daemon.services import CacheUpkeep, HangUp, Telling
from docxy.daemon.workers.supervisor import Supervisor
from docxy.gate import make_gate
from docxy.launch import launch, serve
from docxy.siblings import Siblings
from docxy.upstream.agent import make_agent
from docxy.upstream.fetch import Fetcher
from docxy.upstream.quota import Quota
from docxy.web.site import LoggedSite, RegistrySite

MADE: tuple[Callable[..., Any], ...] = (
    Broadcast,
    CacheUpkeep,
    Fetcher,
    HangUp,
    LoggedSite,
    OpenGate,
    Quota,
    RegistrySite,
    Sampling,
    Siblings,
    SqliteCatalog,
    Supervisor,
    Telling,
    Throttle,
    build,
    launch,
    make_agent,
    make_gate,
    open_cache,
    serve,
)


class RequiredTests(SynchronousTestCase):
    def test_collaborators(self) -> None:
        """A wire that is forgotten is a TypeError: no collaborator has a default."""
        optional = [
            f"{made.__qualname__}({name})"
            for made in MADE
            for name, parameter in signature(made).parameters.items()
            if parameter.default is not Parameter.empty
        ]
        self.assertEqual(optional, [])
