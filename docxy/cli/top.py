"""`docxy top`: what docxy does right now, live.

The law: however it ends, the terminal is as it was before.
"""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from docxy.cli import status
from docxy.cli.admin import Daemon, Snapshot, asks
from docxy.cli.failure import Failure
from docxy.cli.health import problems
from docxy.cli.screen import QUIET, console, heading, pull_rows

TICK = 0.2
"""Seconds within which a key or news is seen."""
REDRAWN = 1.0
"""Seconds after which times are shown anew, and the size of the terminal is looked at."""
AWAY = 15.0
"""Seconds for which a docxy that went away is looked for: another one may have taken over from it."""
PAUSE = 0.5
"""Seconds between two looks."""


@click.command(short_help="What docxy does right now, live.", epilog="Example: docxy top --json | jq -c .fills")
@asks
def top(daemon: Daemon, as_json: bool) -> None:
    """What docxy does right now, live: layers on the way, registries, pulls. The key q ends it.

    With --json: one snapshot a line, at once and whenever something changed.
    """
    if as_json:
        for snapshot in daemon.events():
            click.echo(json.dumps(snapshot))
    if not sys.stdout.isatty():
        raise click.UsageError("top draws on a terminal; for a script use --json")
    news: SimpleQueue[Snapshot | Failure] = SimpleQueue()
    Thread(target=listen, args=(daemon, news), daemon=True).start()
    out = console()
    try:
        first = _checked(news.get())
        with _keys() as pressed, Live(screen(first, out.height), console=out, screen=True, auto_refresh=False) as live:
            live.refresh()
            snapshot, came = first, time.monotonic()
            drawn = came
            while pressed(TICK) not in (b"q", b"Q"):
                with suppress(Empty):
                    snapshot, came = _checked(news.get_nowait()), time.monotonic()
                    drawn = came - REDRAWN
                now = time.monotonic()
                if now - drawn >= REDRAWN:
                    drawn = now
                    live.update(screen(later(snapshot, now - came), out.height), refresh=True)
    except KeyboardInterrupt:
        return


def listen(
    daemon: Daemon, news: SimpleQueue[Snapshot | Failure], pause: Callable[[float], object] = time.sleep
) -> None:
    """Every snapshot, and at last why there are no more; first `pause` and ask again, AWAY seconds in all."""
    left = 0.0
    while True:
        try:
            for snapshot in daemon.events():
                left = AWAY
                news.put(snapshot)
        except Failure as failure:
            if left <= 0:
                news.put(failure)
                return
        left -= PAUSE
        pause(PAUSE)


def later(snapshot: Snapshot, seconds: float) -> Snapshot:
    """The same, when nothing happened for so long."""
    about = snapshot["docxy"]
    return {**snapshot, "docxy": {**about, "now": about["now"] + seconds}}


def _checked(told: Snapshot | Failure) -> Snapshot:
    if isinstance(told, Failure):
        raise told
    return told


@contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """What waits this many seconds for a key, and says which one it was; without a terminal: none."""
    if not sys.stdin.isatty():

        def waited(seconds: float) -> bytes:
            time.sleep(seconds)
            return b""

        yield waited
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def pressed(seconds: float) -> bytes:
        ready, _, _ = select.select([terminal], [], [], seconds)
        return os.read(terminal, 1) if ready else b""

    try:
        tty.setcbreak(terminal)
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def screen(snapshot: Snapshot, height: int) -> RenderableType:
    """As much as fits in the lines of the screen: layers on the way go before pulls."""
    wrong = problems(snapshot)
    parts = [status.head(snapshot, wrong), status.cache(snapshot), heading("Registries"), status.upstreams(snapshot)]
    left = height - 6 - len(wrong) - len(snapshot["upstreams"]) - 2
    shown = snapshot["fills"][: max(1, left // 2)]
    parts += [heading("On the way"), status.fills(shown) if shown else Text("nothing", style=QUIET)]
    left -= 2 + max(1, len(shown))
    if left > 3:
        parts.append(heading("Pulls"))
        parts.append(pull_rows(snapshot["pulls"][: (left - 2) // 2], snapshot["docxy"]["now"]))
    return Group(*parts)
