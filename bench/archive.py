"""What an object store behind docxy costs, beside distribution 3 on the same bucket: OpenStack Swift by its S3 API.

    python bench/archive.py [--mib 256] [--rounds 3]

The store, the registry behind docxy and the client share the machine; CPU is counted of the measured process alone.
Needs Go, for distribution, and pip, for Swift; see CONTRIBUTING.md.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import obstore

from tests.harness.processes import Daemon, accepts, free_port
from tests.live import s3, swift
from tests.live.daemon import Docxy
from tests.live.gobuild import PROGRAMS, build

REPOSITORY = "library/bench"
SMALL, TRIES = 64 * 1024, 20
PIECE = 1 << 20
_TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds that a process has used, its kernel's too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def distribution(directory: Path, storage: str) -> tuple[Daemon, int]:
    """distribution on a port, started."""
    port = free_port()
    config = directory / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage:\n{storage}  redirect: {{disable: true}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
    )
    program = PROGRAMS["distribution"]
    build(program)
    daemon = Daemon("distribution", [str(program.path), "serve", str(config)], directory / "log", accepts(port))
    daemon.start()
    return daemon, port


def push(port: int, data: bytes) -> str:
    """A blob, as docker pushes it."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    connection = HTTPConnection("127.0.0.1", port, timeout=300, blocksize=PIECE)

    def ask(method: str, target: str, body: bytes, status: int) -> str:
        connection.request(method, target, body, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != status:
            raise SystemExit(f"{method} {target}: {answer.status} {said[:300]!r}")
        place = urlsplit(answer.getheader("Location") or "")
        return f"{place.path}?{place.query}"

    place = ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/", b"", 202)
    place = ask("PATCH", place, data, 202)
    ask("PUT", f"{place}&digest={digest}", b"", 201)
    connection.close()
    return digest


def pull(port: int, digest: str) -> tuple[float, float]:
    """Seconds until the first byte of a blob's body, and until the last."""
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    began = time.perf_counter()
    connection.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}")
    answer = connection.getresponse()
    buffer = bytearray(PIECE)
    count, first = answer.readinto(buffer), time.perf_counter() - began
    while more := answer.readinto(buffer):
        count += more
    connection.close()
    if answer.status != 200 or count != int(answer.getheader("Content-Length") or -1):
        raise SystemExit(f"pull: {answer.status}, {count} bytes")
    return first, time.perf_counter() - began


def there(store: object, digest: str) -> bool:
    try:
        obstore.head(store, s3.key(digest))  # type: ignore[call-overload]  # of a kind of store
    except FileNotFoundError:
        return False
    return True


class Bench:
    def __init__(self, directory: Path, mib: int) -> None:
        self.directory = directory
        self.size = mib << 20
        self.store = swift.shared()
        driver = (
            f"  s3: {{region: us-east-1, regionendpoint: 'http://127.0.0.1:{self.store.port}', bucket: {s3.BUCKET}, "
            f"accesskey: '{self.store.access_key}', secretkey: {s3.SECRET}, secure: false, forcepathstyle: true, "
            "rootdirectory: /distribution}\n"
        )
        self.upstream, self.upstream_port = distribution(
            self.new("upstream"), f"  filesystem: {{rootdirectory: {self.new('data')}}}\n"
        )
        self.other, self.other_port = distribution(self.new("distribution"), driver)

    def new(self, name: str) -> Path:
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        return directory

    def docxy(self, name: str, archive: bool) -> Docxy:
        """One with an empty cache, running in one process."""
        tables = self.store.table("bench") if archive else ""
        found = Docxy(
            self.new(name),
            f"http://127.0.0.1:{self.upstream_port}",
            "none",
            options=("--no-prefetch", "--workers=1", "--fetch-connections=1", "--cache-size=20GB", "--access-log=off"),
            environ=swift.ENVIRON,
            upstreams=tables,
        )
        found.start()
        return found

    def close(self) -> None:
        for daemon in (self.upstream, self.other):
            daemon.stop()

    def costs(self, pid: int, work: Callable[[], object]) -> tuple[float, float]:
        """CPU-s/GiB of a process, and MiB/s."""
        before, began = cpu(pid), time.perf_counter()
        work()
        seconds = time.perf_counter() - began
        return (cpu(pid) - before) / (self.size / (1 << 30)), self.size / (1 << 20) / seconds

    def round(self, number: int) -> dict[str, float]:
        """All figures once."""
        drawn = random.Random(number)
        data = b"".join(drawn.randbytes(PIECE) for _ in range(self.size // PIECE))
        small = [random.Random(f"{number} {n}").randbytes(SMALL) for n in range(TRIES)]
        digest, found = push(self.upstream_port, data), {}
        smalls = [push(self.upstream_port, each) for each in small]
        bucket = self.store.bucket("bench")

        plain = self.docxy(f"plain-{number}", archive=False)
        cold, _ = self.costs(plain.daemon.pid, lambda: pull(plain.port, digest))
        found["registry, first byte, ms"] = self._first(plain.port, smalls)
        plain.stop()

        node = self.docxy(f"first-{number}", archive=True)
        before = cpu(node.daemon.pid)
        pull(node.port, digest)
        began = time.perf_counter()
        while not there(bucket, digest):
            time.sleep(0.02)
        found["docxy put, MiB/s"] = self.size / (1 << 20) / (time.perf_counter() - began)
        found["docxy put, CPU-s/GiB"] = (cpu(node.daemon.pid) - before) / (self.size / (1 << 30)) - cold
        for each in smalls:
            pull(node.port, each)
        for each in smalls:
            while not there(bucket, each):
                time.sleep(0.02)
        node.stop()

        fresh = self.docxy(f"second-{number}", archive=True)
        found["docxy read, CPU-s/GiB"], found["docxy read, MiB/s"] = self.costs(
            fresh.daemon.pid, lambda: pull(fresh.port, digest)
        )
        found["archive, first byte, ms"] = self._first(fresh.port, smalls)
        fresh.stop()
        found["docxy from the registry, CPU-s/GiB"] = cold

        theirs = self.other.pid
        found["distribution put, CPU-s/GiB"], found["distribution put, MiB/s"] = self.costs(
            theirs, lambda: push(self.other_port, data)
        )
        for each in small:
            push(self.other_port, each)
        found["distribution read, CPU-s/GiB"], found["distribution read, MiB/s"] = self.costs(
            theirs, lambda: pull(self.other_port, digest)
        )
        found["distribution, first byte, ms"] = self._first(self.other_port, smalls)
        return found

    def _first(self, port: int, digests: list[str]) -> float:
        return 1000 * statistics.median(pull(port, each)[0] for each in digests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    directory = Path(tempfile.mkdtemp(prefix="docxy-bench-"))
    try:
        bench = Bench(directory, asked.mib)
        rounds = [bench.round(number) for number in range(asked.rounds)]
        bench.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for name in sorted(rounds[0]):
        values = sorted(each[name] for each in rounds)
        sys.stdout.write(f"{name:40} {statistics.median(values):8.2f}   ({values[0]:.2f} to {values[-1]:.2f})\n")
    sys.stdout.write(
        f"{asked.rounds} rounds of {asked.mib} MiB; load average {load:.1f}, then {os.getloadavg()[0]:.1f}\n"
    )


if __name__ == "__main__":
    main()
