"""Questions of the steward's, from the supervisor to its workers.

The law: *what was asked of all is done in all that serve*: one that is started meanwhile has an empty memory, and
one that ends took what it knew along.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ConnectionClosed
from twisted.protocols.amp import AMP, UnknownRemoteError
from zope.interface import implementer

from docxy.daemon.workers.messages import Ask
from docxy.questions import LARGEST, IWorkers, Unanswered

PATIENCE = 30.0
"""Seconds for an answer of every worker; one that stands still for so long is killed (`supervisor.MOST_SILENT`)."""


@implementer(IWorkers)
class Workers:
    """See `IWorkers`."""

    def __init__(self, ready: Callable[[], Mapping[int, AMP]], clock: Any) -> None:
        """`ready`: the links to the workers that serve now, by their numbers; `clock`: IReactorTime."""
        self._ready = ready
        self._clock = clock

    async def ask_all(self, name: str, *facts: Any) -> dict[int, Any]:
        links = dict(self._ready())
        asking = [
            Deferred.fromCoroutine(self._asked(link, name, facts)).addTimeout(PATIENCE, self._clock)
            for link in links.values()
        ]
        found: dict[int, Any] = {}
        outcomes = await DeferredList(asking, consumeErrors=True)
        for number, (answered, outcome) in zip(links, outcomes, strict=True):
            if answered:
                found[number] = outcome
            elif not outcome.check(ConnectionClosed):
                found[number] = Unanswered(outcome.getErrorMessage() or "it does not answer")
        return found

    async def ask_one(self, name: str, *facts: Any) -> Any:
        links = self._ready()
        if not links:
            raise Unanswered("no worker of docxy is ready: try again in a moment")
        try:
            return await self._asked(links[min(links)], name, facts)
        except ConnectionClosed:
            raise Unanswered("the worker of docxy that was asked ended: try again") from None

    async def _asked(self, link: AMP, name: str, facts: tuple[Any, ...]) -> Any:
        text = json.dumps(facts)
        if len(text) > LARGEST:
            raise Unanswered(f"the question {name!r} is too long")
        try:
            answered: Mapping[str, str] = await link.callRemote(Ask, name=name, facts=text)
        except UnknownRemoteError as error:
            raise Unanswered(str(error)) from error
        return json.loads(answered["answer"])
