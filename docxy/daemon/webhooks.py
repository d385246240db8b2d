"""Telling receivers what happened: CloudEvents 1.0 in JSON, signed as the Standard Webhooks are.

    POST <url>
    Content-Type: application/cloudevents+json
    webhook-id: <the event's id>
    webhook-timestamp: <seconds since the epoch, of this attempt>
    webhook-signature: v1,<base64 of HMAC-SHA256(secret, "<id>.<timestamp>.<body>")>

The laws: events of one receiver go out one at a time, in their order; one that is not taken is sent again, later
each time and `ATTEMPTS` times in all; what waits has a bound; and the log says what is dropped.  A receiver's URL
may be a secret, so the log has its host alone.  Only the one process that watches over the others sends.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen
from treq import collect
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.client import Agent, HTTPConnectionPool, _HTTP11ClientFactory

from docxy.observe.alerts import Event
from docxy.settings.model import Webhook
from docxy.upstream.trust import Trust, make_trust

ATTEMPTS = 8
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 600.0
"""Seconds between the first attempt and the second, and between any two at most; each pause is four times the last."""
MOST = 1_000
"""Events that wait for one receiver."""
PATIENCE = 15.0
"""Seconds for one answer."""
GONE = 410
"""The status of a receiver that wants no more of an event (Standard Webhooks)."""
_LARGEST_ANSWER = 1 << 20

Pairs = dict[bytes | str, bytes | str]


def trust_of(webhook: Webhook) -> Trust:
    """Whom docxy believes to be that receiver.  Raises ValueError for CAs that cannot be read."""
    return make_trust(webhook.authorities)


def uncounted(outcome: str) -> None:
    """Where there are no metrics."""


class NotTaken(Exception):
    """A receiver did not take an event; the message says why."""


class _Quiet(_HTTP11ClientFactory):
    """Writes no line in the log for each connection."""

    noisy = False


@frozen
class _Message:
    id: str
    body: bytes


class Outbox:
    """The events of one receiver."""

    _log = Logger()

    def __init__(
        self,
        webhook: Webhook,
        source: str,
        counted: Callable[[str], object],
        seconds: Callable[[], float],
        clock: IReactorTime,
        reactor: Any,
    ) -> None:
        """`source`: the URL of this docxy.

        `counted`: called with `delivered`, `failed` (an attempt) or `dropped`; `seconds`: since the epoch; `clock`: for
        the pauses; `reactor`: for the network.  Raises ValueError for CAs that cannot be read.
        """
        self._webhook = webhook
        self._source = source
        self._counted = counted
        self._seconds = seconds
        self._clock = clock
        self._waiting: deque[_Message] = deque()
        self._running: Deferred[None] | None = None
        self._is_stopped = False
        self.url = webhook.url
        self._host = urlsplit(webhook.url).netloc
        self._reactor = reactor
        self._client = self._made(webhook)

    def _made(self, webhook: Webhook) -> HTTPClient:
        pool = HTTPConnectionPool(self._reactor, persistent=False)
        pool._factory = _Quiet
        return HTTPClient(Agent(self._reactor, trust_of(webhook), connectTimeout=PATIENCE, pool=pool))

    def put(self, event: Event) -> None:
        """Send an event, if this receiver wants its kind."""
        if self._is_stopped or event.type.value not in self._webhook.events:
            return
        if len(self._waiting) >= MOST:
            self._waiting.popleft()
            self._dropped("more wait for it than can be kept, the oldest is dropped")
        self._waiting.append(_message(event, self._source))
        if self._running is None:
            self._running = running = Deferred.fromCoroutine(self._send())
            running.addErrback(self._ended).addCallback(self._idle)

    def _ended(self, why: Any) -> None:
        if not why.check(CancelledError):
            self._log.failure("telling {host} failed", why, host=self._host)

    def _idle(self, _: None) -> None:
        self._running = None

    def take_up(self, webhook: Webhook) -> None:
        """Go by other settings for the same URL, for what waits, too.  Raises ValueError as the first ones."""
        if webhook.authorities != self._webhook.authorities:
            self._client = self._made(webhook)
        self._webhook = webhook

    def stop(self, why: str) -> None:
        """End what is under way; what waits is dropped, and the log says `why`."""
        self._is_stopped = True
        if self._waiting:
            self._log.warn(
                "{count} events were not told to {host}: {why}", count=len(self._waiting), host=self._host, why=why
            )
            for _ in self._waiting:
                self._counted("dropped")
            self._waiting.clear()
        if self._running is not None:
            self._running.cancel()

    async def _send(self) -> None:
        while self._waiting:
            message = self._waiting[0]
            await self._deliver(message)
            # It may have been dropped meanwhile.
            if self._waiting and self._waiting[0] is message:
                self._waiting.popleft()

    async def _deliver(self, message: _Message) -> None:
        pause = FIRST_PAUSE
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._post(message)
            except NotTaken as error:
                if self._is_stopped:
                    return
                self._counted("failed")
                if attempt == ATTEMPTS:
                    self._dropped(f"after {ATTEMPTS} attempts: {error}")
                    return
                if attempt == 1:
                    self._log.warn(
                        "{host} did not take an event, docxy tries again: {error}", host=self._host, error=error
                    )
                await deferLater(self._clock, pause, lambda: None)
                pause = min(LONGEST_PAUSE, 4 * pause)
            else:
                self._counted("delivered")
                return

    def _dropped(self, why: str) -> None:
        self._counted("dropped")
        self._log.error("an event was not told to {host}: {why}", host=self._host, why=why)

    async def _post(self, message: _Message) -> None:
        """Raises NotTaken."""
        timestamp = str(int(self._seconds()))
        headers: Pairs = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": message.id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(self._webhook.secret, message.id, timestamp, message.body),
        }
        try:
            status = await self._answer(message.body, headers).addTimeout(PATIENCE, self._reactor)
        except CancelledError:
            raise
        except Exception as error:  # the network has many
            reasons = [getattr(each, "value", each) for each in getattr(error, "reasons", None) or [error]]
            raise NotTaken("; ".join(f"{type(each).__name__}: {each}"[:200] for each in reasons)) from error
        if status == GONE:
            self._dropped("it answered 410: it wants no more of it")
        elif not 200 <= status < 300:
            raise NotTaken(f"it answered {status}")

    def _answer(self, body: bytes, headers: Pairs) -> Deferred[int]:
        return Deferred.fromCoroutine(self._status(body, headers))

    async def _status(self, body: bytes, headers: Pairs) -> int:
        response = await self._client.post(
            self._webhook.url, data=body, headers=headers, allow_redirects=False, unbuffered=True
        )
        length = 0

        def piece(data: bytes) -> None:
            nonlocal length
            length += len(data)
            if length > _LARGEST_ANSWER:
                raise NotTaken("its answer is too long")

        await collect(response, piece)
        return int(response.code)


class Webhooks:
    """All receivers."""

    def __init__(self, make: Callable[[Webhook], Outbox], webhooks: Iterable[Webhook]) -> None:
        """`make`: makes the outbox of one."""
        self._make = make
        self._outboxes = [make(each) for each in webhooks]

    def take_up(self, webhooks: Iterable[Webhook]) -> None:
        """Tell these from now on, and no others; for a URL that stays, what waits stays, too."""
        before, self._outboxes = self._outboxes, []
        for each in webhooks:
            kept = next((outbox for outbox in before if outbox.url == each.url), None)
            if kept is None:
                self._outboxes.append(self._make(each))
            else:
                before.remove(kept)
                kept.take_up(each)
                self._outboxes.append(kept)
        for outbox in before:
            outbox.stop("it is no receiver any more")

    def put(self, event: Event) -> None:
        """Tell those who want it."""
        for outbox in self._outboxes:
            outbox.put(event)

    def stop(self) -> None:
        for outbox in self._outboxes:
            outbox.stop("docxy stops")


def _message(event: Event, source: str) -> _Message:
    """An event as CloudEvents 1.0 has it (JSON event format, structured mode)."""
    made = f"evt_{secrets.token_hex(16)}"
    at = datetime.fromtimestamp(event.at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    content = {
        "specversion": "1.0",
        "id": made,
        "source": source,
        "type": f"docxy.{event.type.value}",
        "subject": event.subject,
        "time": at,
        "datacontenttype": "application/json",
        "data": dict(event.data),
    }
    return _Message(made, json.dumps(content, separators=(",", ":")).encode("utf-8"))


def signature(secret: bytes, message: str, timestamp: str, body: bytes) -> str:
    """As the Standard Webhooks have it."""
    signed = f"{message}.{timestamp}.".encode("ascii") + body
    return f"v1,{base64.b64encode(hmac.digest(secret, signed, 'sha256')).decode('ascii')}"
