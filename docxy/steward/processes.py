"""`reload`, `token` and `upgrade`: what an operator asks of the docxy that runs, whether or not it has a cache.

The law: a token goes to the command that asked, over the admin socket, and nowhere else: no log has it.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from docxy.errors import BadRequest
from docxy.questions import IWorkers, Unanswered
from docxy.steward.lines import Arguments, Failed, Lines, done, item

RELOAD, TOKEN = "reload", "token"
"""The questions to a process that serves."""


@frozen
class Processes:
    """The docxy that runs."""

    workers: IWorkers
    reloads: Sequence[Callable[[], Sequence[Any]]]
    """What is loaded again in the supervisor, or beside the only process that serves: see `docxy.daemon.reloads`."""
    upgrade: Callable[[], Awaitable[int]]
    """Has another docxy take over: its process.  Raises Failed."""


async def reload(processes: Processes, arguments: Arguments) -> Lines:
    """Load again what SIGHUP has loaded again: an item for each file in each process.

    `worker`: None for the supervisor.  `ok`: false, if the file was refused and the old stays in force.
    """
    refused = 0
    for again in processes.reloads:
        for each in again():
            refused += not each.ok
            yield item(worker=None, **asdict(each))
    answers: Mapping[int, Any] = await processes.workers.ask_all(RELOAD)
    for worker, answer in sorted(answers.items()):
        told = [{"what": "worker", "ok": False, "says": str(answer)}] if isinstance(answer, Unanswered) else answer
        for each in told:
            refused += not each["ok"]
            yield item(worker=worker, **each)
    yield done(workers=len(answers), refused=refused)


async def upgrade(processes: Processes, arguments: Arguments) -> Lines:
    """Have another docxy, of the code that is installed now, take over from the one that runs."""
    pid = await processes.upgrade()
    yield done(pid=pid, old=os.getpid())


async def token(processes: Processes, arguments: Arguments) -> Lines:
    """A token to pull `repository` (with its registry) as `user`; as nobody without one."""
    repositories = arguments.texts("repository")
    if not repositories:
        raise BadRequest("name the repositories to pull")
    try:
        document = await processes.workers.ask_one(TOKEN, arguments.text("user"), repositories)
    except Unanswered as error:
        raise Failed(f"there is no token: {error}") from None
    yield done(**document)
