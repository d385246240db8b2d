"""Commands that look into the cache or change it: they ask the docxy that runs or, with `--cache`, open a directory.

The laws: a command reads the same lines in both cases, and prints the same; one that fails says why on one line,
with exit status 1; a bar is shown on a terminal only, on standard error, so that a pipe gets results alone; Ctrl-C
stops the work in the daemon, too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import update_wrapper
from typing import Any, Protocol, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from docxy.cli.admin import SOCKET_HELP, find
from docxy.cli.failure import Failure
from docxy.cli.screen import clean
from docxy.errors import RegistryError
from docxy.observe.verdict import amount
from docxy.settings.load import load
from docxy.settings.model import Config, ConfigError
from docxy.steward.acts import ACTS
from docxy.steward.inline import run
from docxy.steward.lines import Arguments, Line

Command = TypeVar("Command", bound=Callable[..., Any])


class Cache(Protocol):
    """A cache that can be asked."""

    where: str
    """For messages."""

    def act(self, name: str, arguments: Mapping[str, Any]) -> Generator[Line, None, None]:
        """The lines of an act, the last of them its `done`.  Raises Failure."""


class Directory:
    """The cache of a docxy that does not run."""

    def __init__(self, path: str) -> None:
        self.where = path

    def act(self, name: str, arguments: Mapping[str, Any]) -> Generator[Line, None, None]:
        try:
            # As it would arrive at a docxy that runs.
            given = Arguments(json.loads(json.dumps(arguments)))
            yield from run(self.where, ACTS[name], given, _settings(self.where, ACTS[name].changes))
        except RegistryError as error:
            raise Failure(error.message) from None


def _settings(directory: str, changes: bool) -> Config | None:
    """Those of the docxy whose cache a directory is; None where the settings at hand are for another one.

    Raises Failure for a file that is wrong, where an act would change what it may say is to be kept.
    """
    if not os.environ.get("DOCXY_CONFIG"):
        return None
    try:
        config = load({}, os.environ, root=os.geteuid() == 0)
    except ConfigError as error:
        if changes:
            raise Failure(str(error)) from None
        return None
    is_its = config.cache is not None and os.path.realpath(config.cache) == os.path.realpath(directory)
    return config if is_its else None


def completed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of cached images, for a shell to complete a word; none where docxy cannot be asked."""
    socket, directory = ctx.params.get("socket"), ctx.params.get("directory")
    with suppress(Failure):
        cache: Cache = Directory(directory) if directory else find(socket, os.environ, os.geteuid() == 0)
        return completions(cache, incomplete)
    return []


def completions(cache: Cache, begins: str) -> list[str]:
    """Names of cached images that begin so.  Raises Failure."""
    return [name for line in cache.act("names", {"begins": begins}) for name in line.get("item", {}).values()]


def on_cache(command: Command) -> Command:
    """Gives a command `--socket`, `--cache` and `--json`; it is called with `cache` and `as_json`."""

    @click.option("--socket", metavar="FILE", envvar="ADMIN_SOCKET", help=SOCKET_HELP)
    @click.option(
        "--cache",
        "directory",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False),
        help="The cache of a docxy that does not run. Reading is possible beside one that does.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
    def using(socket: str | None, directory: str | None, **given: Any) -> Any:
        here = None if directory is None else Directory(directory)
        cache: Cache = here or find(socket, os.environ, os.geteuid() == 0)
        return command(cache=cache, **given)

    return update_wrapper(using, command)  # type: ignore[return-value]  # click only looks at its parameters


def changing(question: str) -> Callable[[Command], Command]:
    """Gives a command that destroys something `--dry-run` and `--yes`; it is called with `dry_run` and `sure`.

    `sure` asks the user and returns if it may go on; `question`: for `--help`.
    """

    def decorated(command: Command) -> Command:
        def asking(yes: bool, **given: Any) -> Any:
            def sure(text: str) -> None:
                if yes:
                    return
                if not sys.stdin.isatty():
                    raise Failure(f"{text} Nothing was done: --yes does it without asking, --dry-run shows it")
                click.confirm(text, abort=True, err=True)

            return command(sure=sure, **given)

        # The options come after those of the command, which the wrapper takes over.
        wrapped = update_wrapper(asking, command)
        wrapped = click.option("-y", "--yes", is_flag=True, help=f"Do not ask {question}.")(wrapped)
        return click.option("--dry-run", is_flag=True, help="Only say what would be done.")(wrapped)  # type: ignore[return-value]  # as above

    return decorated


class _Done(ProgressColumn):
    """How much of how much."""

    def render(self, task: Task) -> Text:
        show = amount if task.fields["unit"] == "B" else lambda count: f"{count:,}".replace(",", " ")
        text = show(int(task.completed))
        if task.total is not None:
            text += f" of {show(int(task.total))}"
        return Text(f"{text} {'' if task.fields['unit'] == 'B' else task.fields['unit']}".rstrip())


@contextmanager
def followed(lines: Iterator[Line], quiet: bool = False) -> Iterator[Iterator[Line]]:
    """The items and the `done` of an act, as they come; what it says of its progress is shown as bars meanwhile.

    `quiet`: show none.  Raises Failure when the act says that it failed.
    """
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (TextColumn("{task.description}"), BarColumn(20), _Done(), TimeRemainingColumn(compact=True))
    bars = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
    tasks: dict[str, TaskID] = {}

    def rest() -> Iterator[Line]:
        for line in lines:
            told = line.get("progress")
            if told is None:
                # Bars and results share a terminal: none of the former while the latter are printed.
                bars.stop()
                yield line
                continue
            bars.start()
            name = clean(told["what"])[:40]
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=told["total"], unit=told["unit"])
            bars.update(tasks[name], completed=told["done"], total=told["total"])

    try:
        yield rest()
    finally:
        bars.stop()


def outcome(lines: Iterator[Line], quiet: bool = False) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """All items of an act that says few, and its `done`."""
    items: list[Mapping[str, Any]] = []
    end: Mapping[str, Any] = {}
    with followed(lines, quiet) as rest:
        for line in rest:
            if "item" in line:
                items.append(line["item"])
            end = line.get("done", end)
    return items, end
