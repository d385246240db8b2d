"""The read model between processes: workers tell the supervisor, and ask it.

The law: a message of AMP holds 64 kB, so what is longer goes in pieces; a worker asks for one piece
after the other, so that nothing piles up at a slow one.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols.amp import AMP
from zope.interface import implementer

from docxy.daemon.workers.messages import Happened, Read, Record, Sampled
from docxy.observe.exchange import Exchange
from docxy.observe.model import ReadModel
from docxy.observe.recorder import Dropped, IModel
from docxy.observe.view import IView, News, Unseen

PIECE = 60_000
"""Bytes of a piece; AMP's own bound is 65,535."""
MOST_ANSWERS = 64
"""Answers that are kept for workers who have not read all of them."""
PATIENCE = 10.0
"""Seconds for the supervisor's answer."""
NEWS = "news"
"""The topic under which the supervisor says that something changed."""


class Desk:
    """The supervisor's end: takes what workers tell, and answers them."""

    def __init__(self, model: ReadModel, view: IView) -> None:
        self._model = model
        self._view = view
        self._answers: OrderedDict[int, bytes] = OrderedDict()
        self._number = 0

    def record(self, exchanges: bytes, dropped: Dropped) -> None:
        """See `Record`."""
        self._model.take([Exchange.from_json(told) for told in json.loads(exchanges)], dropped)

    def sampled(self, worker: int, state: bytes) -> None:
        """See `Sampled`."""
        self._model.sampled(worker, json.loads(state))

    def happened(self, event: bytes) -> None:
        """See `Happened`."""
        self._model.happened(json.loads(event))

    def forget(self, worker: int) -> None:
        """A worker has ended."""
        self._model.forget(worker)

    def read(self, question: str, answer: int, offset: int) -> Deferred[dict[str, object]]:
        """See `Read`.  Fails with KeyError for an answer that is not kept any more."""
        return Deferred.fromCoroutine(self._read(question, answer, offset))

    async def _read(self, question: str, answer: int, offset: int) -> dict[str, object]:
        if answer == 0:
            self._number = answer = self._number + 1
            self._answers[answer] = json.dumps(await self._answer(json.loads(question))).encode("ascii")
            while len(self._answers) > MOST_ANSWERS:
                self._answers.popitem(last=False)
        whole = self._answers[answer]
        data = whole[offset : offset + PIECE]
        if offset + len(data) >= len(whole):
            del self._answers[answer]
        return {"answer": answer, "data": data, "size": len(whole)}

    async def _answer(self, question: Mapping[str, Any]) -> object:
        if question["what"] == "snapshot":
            return await self._view.snapshot()
        repository = question["repository"]
        return await self._view.pulls(question["most"], None if repository is None else tuple(repository))


@implementer(IModel)
class Teller:
    """A worker's end, for telling."""

    def __init__(self, link: AMP) -> None:
        self._link = link

    def take(self, exchanges: Sequence[Exchange], dropped: Dropped) -> None:
        """Send a batch, in as many messages as it needs."""
        pieces: list[str] = []
        length = 0
        for exchange in exchanges:
            text = json.dumps(exchange.to_json(), separators=(",", ":"))
            if pieces and length + len(text) + 1 > PIECE:
                self._send(pieces, dropped)
                pieces, length, dropped = [], 0, Dropped()
            pieces.append(text)
            length += len(text) + 1
        self._send(pieces, dropped)

    def _send(self, pieces: Sequence[str], dropped: Dropped) -> None:
        if self._link.transport is not None:
            exchanges = f"[{','.join(pieces)}]".encode("ascii")
            self._link.callRemote(
                Record, exchanges=exchanges, dropped=dropped.exchanges, hits=dropped.hits, sent=dropped.sent
            )

    def sampled(self, state: Mapping[str, Any]) -> None:
        """Send the state; the last fills are left out of one that is too long."""
        text = json.dumps(state).encode("ascii")
        while len(text) > PIECE and state["fills"]:
            state = {**state, "fills": state["fills"][: len(state["fills"]) // 2]}
            text = json.dumps(state).encode("ascii")
        if len(text) <= PIECE and self._link.transport is not None:
            self._link.callRemote(Sampled, state=text)

    def happened(self, event: Mapping[str, Any]) -> None:
        text = json.dumps(event).encode("ascii")
        if len(text) <= PIECE and self._link.transport is not None:
            self._link.callRemote(Happened, event=text)


@implementer(IView)
class RemoteView:
    """A worker's end, for asking."""

    def __init__(self, link: AMP, news: News, clock: Any) -> None:
        self._link = link
        self._news = news
        self._clock = clock

    async def snapshot(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask({"what": "snapshot"})
        return found

    async def pulls(self, most: int, repository: tuple[str, str] | None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self._ask({"what": "pulls", "most": most, "repository": repository})
        return found

    def subscribe(self, changed: Callable[[], object]) -> Callable[[], None]:
        return self._news.subscribe(changed)

    async def _ask(self, question: Mapping[str, Any]) -> Any:
        text, answer, whole = json.dumps(question), 0, b""
        while True:
            if self._link.transport is None:
                raise Unseen("docxy is stopping")
            asking: Deferred[dict[str, Any]] = self._link.callRemote(
                Read, question=text, answer=answer, offset=len(whole)
            )
            try:
                piece = await asking.addTimeout(PATIENCE, self._clock)
            except Exception as error:
                raise Unseen("the supervisor did not say what docxy does; try again") from error
            answer = piece["answer"]
            whole += piece["data"]
            if len(whole) >= piece["size"]:
                return json.loads(whole)
