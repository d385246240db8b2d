"""Results as a table, and as docs/performance.md."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from attrs import define, field, frozen

from bench.lab import RATE, SPEED, Measured, Row, Sizes
from bench.stats import Samples, Summary, Verdict, bar, number, table

NAMES = ("docxy", "nginx", "proxy", "proxy3", "registry", "site", "direct", "one", "few")
"""In the order of columns; what they are, `bench.servers` and the rows say."""
NOTES = Path(__file__).with_name("notes.md")
"""What no program can write: why a row is behind, and what is not measured yet."""


@define
class Result:
    row: Row
    samples: dict[str, dict[str, list[float]]] = field(factory=dict, init=False)
    """By measure, by server."""

    def add(self, server: str, measured: Measured) -> None:
        for measure, value in measured.items():
            self.samples.setdefault(measure, {}).setdefault(server, []).append(value)

    def verdicts(self, measure: str) -> list[Verdict]:
        samples = self.samples.get(measure, {})
        verdicts = [goal.verdict(samples) for goal in self.row.goals if goal.measure == measure]
        return [verdict for verdict in verdicts if verdict is not None]


@frozen
class Run:
    command: str
    versions: Mapping[str, str]
    machine: str
    rounds: int
    sizes: Sizes
    loads: tuple[float, float]
    """The machine's load average before and after."""
    missing: Mapping[str, str] = field(factory=dict)
    """Why, by the titles of rows that were not measured."""
    when: datetime = field(factory=lambda: datetime.now(timezone.utc))

    def title(self) -> str:
        return f"{self.when:%Y-%m-%d %H:%M} UTC, docxy {self.versions['docxy']}"


def figures(result: Result) -> str:
    """A table with a line for each measure, and columns for those that were measured."""
    names = [name for name in NAMES if any(name in samples for samples in result.samples.values())]
    head = ["measure", *names, *(f"docxy ÷ {name}" for name in names[1:]), "goals"]
    lines = [
        [
            measure,
            *(_cell(samples, name) for name in names),
            *(_over(samples, name) for name in names[1:]),
            "; ".join(verdict.shown() for verdict in result.verdicts(measure)),
        ]
        for measure, samples in result.samples.items()
    ]
    return table(head, lines)


def text(results: Sequence[Result], run: Run) -> str:
    """For the terminal."""
    parts = [f"{result.row.title}\n{figures(result)}" for result in results]
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    about = f"{run.machine}; load average {run.loads[0]:.2f} before, {run.loads[1]:.2f} after\n{versions}"
    return "\n\n".join([*parts, about]) + "\n" + _missing(run)


def document(results: Sequence[Result], run: Run) -> str:
    """For docs/performance.md."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    sizes = run.sizes
    mib, crowd, small, image = (
        size >> 20 for size in (sizes.blob, sizes.crowd_blob, sizes.small_blob, sum(sizes.layers))
    )
    tables = "\n\n".join(f"### {result.row.title}\n\n{figures(result)}" for result in results)
    return f"""# Performance

docxy beside nginx (`proxy_cache`, `sendfile on`, one worker) and docker-registry, as a
mirror (`proxy`: its proxy mode) and as what it is (`registry`), on one machine in one
run. All figures are of this run:

```sh
{run.command}
```

- Run: {run.title()}; {run.rounds} rounds.
- Machine: {run.machine}. Clients and servers share its cores.
- Load average: {run.loads[0]:.2f} before, {run.loads[1]:.2f} after. A quiet machine has
  less than 0.5 before; else the cores were shared with something besides this run, and
  the figures are a first look, not a verdict.
- Versions: {versions}.

This page is written by `--write`; `bench/notes.md` has the part after the tables.

## Summary

{summary(results)}
{_missing(run)}
{charts(results)}

## Methods

- All servers run at the same time and are asked in turn, A B C, B C A, …, after a
  round to warm up that is not counted. A cell has the median, and the least and the most.
- docxy is one process (`--workers 1`), except in the rows that say so; nginx has one
  worker, docker-registry is one process that may use all cores. Each writes its access
  log to a file. The rest is as their defaults are; `bench/servers.py` has the settings.
- The upstream of all is one docker-registry with random blobs, on the same machine, over
  TLS 1.3; each checks its certificate. `proxy3` is distribution 3 as a mirror.
- Before the first row the page cache is made to take all free memory: a virtual machine
  waits for its host when it touches memory for the first time.
- Transfers are curl's, HTTP/1.1, to /dev/null; the time is that of the slowest client's
  transfers, without the start of the program. Blobs have {mib} MiB, those wanted by many
  at once {crowd} MiB, that of the first byte {small} MiB. One client gets a cached blob
  twice on one connection; four clients get it once each. It is another blob in each
  round, fetched once before: where in memory a blob came to lie tells in its speed.
- CPU-s/GiB is user and system time of all processes of the server, from
  `/proc/<pid>/stat`; of a cold blob until the server rests, as docker-registry goes on
  storing when the client has all. The client's own is beside it: on few cores a client
  that needs a core bounds what a server can show.
- So the cached blob is measured a second time, with clients whose kernel discards what
  comes (`MSG_TRUNC`): it is not copied, and over TLS not decrypted. They take next to no
  time of their own, and what is seen is the server.
- HTTPS is TLS 1.3, ECDSA P-256, `TLS_AES_256_GCM_SHA384` for transfers. wrk leaves
  the choice to the server.
- Small requests are wrk's: 64 connections that are kept, one thread, {sizes.wrk_seconds} s, with the
  headers of containerd and credentials; no two are the same. HEAD is sent in the same way
  by `bench/heads.py`, for wrk waits for a body. In `transparent` mode docxy knows what the
  upstream said of these credentials. CPU µs a request is user and
  system time of all processes of the server. `site` is a bare Site of twisted.web with one
  resource and no access log: what Twisted alone takes.
- A cold blob is a new one in each round. Before the next measurement all is written to
  disk (`sync`).
- Upstream bytes are what the upstream's access log says it sent of that blob. Warm time
  is what the same clients need right after, from the cache.
- First byte: from a request on an open connection to the first byte of the body, beside
  the same from the upstream itself in the same round.
- Whole images have {len(sizes.layers)} layers, {image} MiB together, new ones in each round, pulled by
  `docker pull` into an empty store and by `skopeo copy` into a directory, the upstream
  behind a relay that makes a round trip and a connection slow. `direct` is the same
  client without a mirror, through the same relay.
- Many blobs: `docxy` has a cache of {sizes.many:,} blobs of 1 KiB, `few` is docxy with {sizes.few:,}.
  Both are full, so that each new blob makes an old one go, and both are started anew in
  each round. Hits are of 1,000 blobs that were not asked for before.
- Two workers (`docxy`) beside one (`one`): all of them share the cores with the clients.
- Memory is resident memory of all processes of a server; that of workers, of the largest
  of them. The {sizes.stalled} stalled clients ask for the cached blob of {mib} MiB and read nothing; the
  most within 3 s counts, after the rows before it in the tables.
- Memory under load: for {sizes.soak_minutes:g} minutes two fresh docxys, one with each scheme, have at
  the same time cold blobs, cached blobs, clients that break off, and small requests that
  are all different, with a cache that is always full. The end is the last tenth of the
  time, early is its second tenth.

## Figures

{tables}

{NOTES.read_text("utf-8").strip()}
"""


def summary(results: Sequence[Result]) -> str:
    """Goals reached and not, counted and listed."""
    verdicts = [
        (result, verdict) for result in results for measure in result.samples for verdict in result.verdicts(measure)
    ]
    behind = [(result, verdict) for result, verdict in verdicts if not verdict.reached]
    cells = [
        [result.row.title, verdict.goal.measure, verdict.goal.shown(), number(verdict.value)]
        for result, verdict in behind
    ]
    head = f"{len(verdicts) - len(behind)} of {len(verdicts)} goals are reached."
    if not behind:
        return head
    shown = table(("row", "measure", "goal", "measured"), cells)
    return f"{head} docxy is behind in:\n\n{shown}"


def _missing(run: Run) -> str:
    if not run.missing:
        return ""
    lines = "".join(f"- {title}: {' '.join(why.split())[:200]}\n" for title, why in run.missing.items())
    return f"\nNot measured in this run:\n\n{lines}"


def charts(results: Sequence[Result]) -> str:
    """GiB/s and requests/s as bars."""
    blocks = []
    for measure in (SPEED, RATE):
        block = []
        for result in results:
            samples = result.samples.get(measure)
            if not samples:
                continue
            medians = {name: statistics.median(samples[name]) for name in NAMES if name in samples}
            most = max(medians.values())
            block.append(result.row.title.replace("`", ""))
            block += [f"  {name:8}{number(value):>6} {bar(value, most)}" for name, value in medians.items()]
        if block:
            blocks.append(f"Median {measure}; each group has its own scale:\n\n```text\n" + "\n".join(block) + "\n```")
    return "\n\n".join(blocks)


def _cell(samples: Samples, name: str) -> str:
    return Summary.of(samples[name]).shown() if samples.get(name) else ""


def _over(samples: Samples, other: str) -> str:
    if not samples.get("docxy") or not samples.get(other):
        return ""
    value, by = statistics.median(samples["docxy"]), statistics.median(samples[other])
    return number(value / by) if value > 0 and by > 0 else ""
