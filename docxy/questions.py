"""What a process that serves may be asked by the steward, wherever the steward is.

The law: *a question is answered once or fails*; who asks every process knows, when all have answered, that all
have done it.  Only the supervisor of the same docxy can ask: there is no port, and no way in from a client.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from zope.interface import Interface, implementer

from docxy.errors import RegistryError

LARGEST = 60_000
"""Bytes of a question, and of an answer, as JSON; a value of AMP ends at 64 KiB."""


class Unanswered(Exception):
    """A process could not answer; the message says why."""


class Questions:
    """Those that one process answers."""

    def __init__(self) -> None:
        self._answers: dict[str, Callable[..., Awaitable[Any]]] = {}

    def answer(self, name: str, answer: Callable[..., Awaitable[Any]]) -> None:
        """Have a question answered by a coroutine function; it gets the facts, and returns what JSON can hold."""
        self._answers[name] = answer

    async def asked(self, name: str, facts: str) -> str:
        """`facts`: a JSON array; returns JSON.  Raises Unanswered, and what the answer raises."""
        answer = self._answers.get(name)
        if answer is None:
            raise Unanswered(f"this process of docxy cannot answer {name!r}")
        try:
            told = json.dumps(await answer(*json.loads(facts)))
        except RegistryError as error:
            raise Unanswered(error.message) from None
        if len(told) > LARGEST:
            raise Unanswered(f"the answer to {name!r} is too long")
        return told


class IWorkers(Interface):
    """The processes that serve."""

    async def ask_all(name: str, *facts: Any) -> dict[int, Any]:
        """The answer of each, by its number; an Unanswered in the place of one that could not.

        A process that ends meanwhile knows nothing any more, and is left out.
        """

    async def ask_one(name: str, *facts: Any) -> Any:
        """The answer of the first that is ready.  Raises Unanswered when it cannot, or when nobody is ready."""


@implementer(IWorkers)
class Alone:
    """The only process, which serves itself."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    async def ask_all(self, name: str, *facts: Any) -> dict[int, Any]:
        try:
            return {1: await self.ask_one(name, *facts)}
        except Unanswered as error:
            return {1: error}

    async def ask_one(self, name: str, *facts: Any) -> Any:
        try:
            return json.loads(await self._questions.asked(name, json.dumps(facts)))
        except Unanswered:
            raise
        except Exception as error:
            raise Unanswered(f"{name} failed: {error}") from error


@implementer(IWorkers)
class Nobody:
    """No docxy runs: there is no memory that could hold what is removed."""

    async def ask_all(self, name: str, *facts: Any) -> dict[int, Any]:
        return {}

    async def ask_one(self, name: str, *facts: Any) -> Any:
        raise Unanswered("no docxy runs: start it, and run the command without --cache")
