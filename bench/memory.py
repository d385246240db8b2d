"""Memory: at rest, with clients that take nothing, and over an hour of load."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from bench import load
from bench.content import ACCEPT
from bench.lab import RSS, SCHEMES, Lab, Measure, Measured, called
from bench.processes import Server
from bench.servers import Target
from bench.small import by_tag

MOST = "most RSS, MB"


def idle(lab: Lab, name: str, _: int) -> Measured:
    """Before anything was asked."""
    return {RSS: lab.stage.targets["http"][name].server.rss() / 1e6}


def idle_workers(lab: Lab, name: str, _: int) -> Measured:
    """The largest process of a docxy with two workers."""
    target = lab.started(
        "idle workers", lambda: lab.setup.docxy("docxy-workers-idle", lab.upstream, "https", "--workers", "2")
    )
    target.server.settle()
    return {RSS: max(target.server.each_rss()) / 1e6}


def stalled(scheme: str) -> Measure:
    """The most that was seen in 3 s."""

    def measure(lab: Lab, name: str, _: int) -> Measured:
        target = lab.stage.targets[scheme][name]
        blob = lab.warm(target, 0)
        most = 0.0
        with load.stalled(target.url + blob.path, lab.sizes.stalled, lab.ca):
            for _ in range(6):
                time.sleep(0.5)
                most = max(most, target.server.rss())
        target.server.settle()
        return {RSS: most / 1e6}

    return measure


def soak(lab: Lab, _name: str, _round: int) -> Measured:
    """Under every kind of load at once, beginning with fresh servers, one for each scheme, with caches always full."""
    # Before there are two that want it made.
    lab.blob("cached 0", lab.sizes.blob)
    by_tag(lab)
    measured: Measured = {}
    with ThreadPoolExecutor(len(SCHEMES)) as pool:
        for scheme, samples in zip(SCHEMES, pool.map(lambda scheme: _soaked(lab, scheme), SCHEMES), strict=True):
            tenth = max(1, len(samples) // 10)
            early, late = statistics.median(samples[tenth : 2 * tenth]), statistics.median(samples[-tenth:])
            measured |= {f"{MOST}, {called(scheme)}": max(samples) / 1e6, grown(scheme): late / early}
    return measured


def grown(scheme: str) -> str:
    """The name of the measure."""
    return f"RSS at the end ÷ early, {called(scheme)}"


def _soaked(lab: Lab, scheme: str) -> list[float]:
    name = f"docxy-soak-{scheme}"
    server = lab.setup.docxy(name, lab.upstream, scheme, "--cache-size", str(4 * lab.sizes.blob))
    target = lab.started(name, lambda: server)
    samples = _loaded(lab, target, lab.sizes.soak_minutes * 60)
    target.server.stop()
    return samples


def _loaded(lab: Lab, target: Target, seconds: float) -> list[float]:
    """RSS in bytes: a thousand times, but no more than ten times a second."""
    ended = threading.Event()
    failed: list[Exception] = []

    def again_and_again(work: Callable[[], object]) -> None:
        try:
            while not ended.is_set():
                work()
        except Exception as error:
            failed.append(error)
            ended.set()

    with ExitStack() as stack:
        for work in _works(lab, target, ended):
            thread = threading.Thread(target=again_and_again, args=(work,))
            thread.start()
            stack.callback(thread.join)
        stack.callback(ended.set)
        samples = _watch(target.server, seconds, ended)
    if failed:
        raise failed[0]
    return samples


def _watch(server: Server, seconds: float, ended: threading.Event) -> list[float]:
    started, samples = time.monotonic(), []
    while time.monotonic() - started < seconds and not ended.is_set():
        samples.append(server.rss())
        ended.wait(max(0.1, seconds / 1000))
    return samples


def _works(lab: Lab, target: Target, ended: threading.Event) -> list[Callable[[], object]]:
    curl, wrk = lab.programs["curl"], lab.programs["wrk"]
    cached, tag = lab.blob("cached 0", lab.sizes.blob), by_tag(lab)

    def cold() -> None:
        blob = lab.content.blob(lab.sizes.small_blob)
        load.pull(curl, target.url + blob.path, blob.size, 1, 1, lab.ca)
        # Or hours of them would fill the disk.
        ended.wait(5)

    def broken_off() -> None:
        """Some clients vanish in the middle."""
        url = target.url + cached.path
        command = [curl, "-q", "-sS", "--insecure", "--noproxy", "*", "--max-time", "0.2", "-o", "/dev/null", url]
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)

    return [
        cold,
        broken_off,
        lambda: load.pull(curl, target.url + cached.path, cached.size, 2, 1, lab.ca),
        lambda: load.small(wrk, target.url + tag, 5, ACCEPT),
    ]
