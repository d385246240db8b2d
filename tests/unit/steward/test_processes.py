"""`reload`, `token` and `upgrade`: what processes are asked, and what is made of their answers."""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.reloads import Reloaded, reload_all
from docxy.errors import BadRequest, Denied
from docxy.questions import Alone, Questions, Unanswered
from docxy.steward.inline import finish
from docxy.steward.lines import Arguments, Failed, Line
from docxy.steward.processes import RELOAD, TOKEN, Processes, reload, token, upgrade
from tests.unit.steward.case import Workers


async def taken_over() -> int:
    return 42


class ProcessesTests(SynchronousTestCase):
    def all(self, act: Any, processes: Processes, **given: Any) -> list[Line]:
        async def lines() -> list[Line]:
            return [line async for line in act(processes, Arguments(given))]

        return finish(lines())

    def test_reload(self) -> None:
        """Every process is asked; one that does not answer counts as one that refused."""
        workers = Workers(answers={1: [{"what": "certificate", "ok": True, "says": "fine"}], 2: Unanswered("gone")})
        own = [Reloaded("policy", False, "line 3")]
        *items, end = self.all(reload, Processes(workers, [lambda: own], taken_over))
        self.assertEqual(
            [(each["item"]["worker"], each["item"]["ok"]) for each in items], [(None, False), (1, True), (2, False)]
        )
        self.assertEqual(end, {"done": {"workers": 2, "refused": 2}})
        self.assertEqual(workers.asked, [(RELOAD,)])

    def test_reload_all(self) -> None:
        """What a process says is fit for JSON."""
        told = reload_all([lambda: [Reloaded("a", True, "b")], list])
        self.assertEqual(json.loads(json.dumps(told)), [{"what": "a", "ok": True, "says": "b"}])

    def test_token(self) -> None:
        """A token is asked of one process, with names; why there is none is told."""
        workers = Workers(answers={1: {"token": "t"}})
        (end,) = self.all(token, Processes(workers, (), taken_over), user="alice", repository=["docker.io/o/i"])
        self.assertEqual(end["done"], {"token": "t"})
        self.assertEqual(workers.asked, [(TOKEN, "alice", ["docker.io/o/i"])])
        self.assertRaises(BadRequest, self.all, token, Processes(workers, (), taken_over), user="alice")

        async def refuse(user: str | None, names: list[str]) -> None:
            raise Denied("there is no user 'bob'")

        questions = Questions()
        questions.answer(TOKEN, refuse)
        error = self.assertRaises(
            Failed, self.all, token, Processes(Alone(questions), (), taken_over), user="bob", repository="o/i"
        )
        self.assertEqual(error.message, "there is no token: there is no user 'bob'")

    def test_upgrade(self) -> None:
        """Whoever asks learns which process serves now, and which one ends."""
        (end,) = self.all(upgrade, Processes(Workers(answers={}), (), taken_over))
        self.assertEqual(end, {"done": {"pid": 42, "old": os.getpid()}})
