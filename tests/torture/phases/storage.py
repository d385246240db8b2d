"""Does a broken disk cost anything but the cache?

The upstream is well all the time, so every pull must come whole and right, whatever the disk does; and
when the disk is well again, the cache must be used again, without a restart.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

from attrs import evolve

from tests.torture import disk
from tests.torture.client import Ask
from tests.torture.daemons import Daemon
from tests.torture.library import MIXED, Shape
from tests.torture.shim import Shim, compiler
from tests.torture.stage import Stage

ERRORS = {
    "write": ("ENOSPC", "EIO", "EROFS", "EDQUOT"),
    "open": ("EMFILE", "ENOSPC", "EIO", "EROFS", "EACCES"),
    "sync": ("EIO", "ENOSPC"),
    "rename": ("EIO", "ENOSPC", "EROFS"),
    "lock": ("ENOLCK", "EIO"),
    "read": ("EIO",),
    "sendfile": ("EIO",),
    "unlink": ("EIO", "EROFS"),
    "mkdir": ("ENOSPC", "EROFS"),
    "stat": ("EIO", "EACCES"),
    "list": ("EIO", "EMFILE"),
    "change": ("EIO", "EROFS", "EPERM"),
}
SHARES = (0.02, 0.2, 1.0)
"""Of the calls that fail."""
PULLS = 30
"""Of each round."""
FULL = 24 << 20
"""Bytes of the small disk."""
AGAIN = 70.0
"""Seconds within which a cache that failed is used again: what could not be stored is not tried for a minute."""


async def run(stage: Stage) -> None:
    """Rounds of failing calls, of damaged files, and a disk that is full."""
    await stage.open(Shape(images=8, layers=4, sizes=MIXED))
    stage.bound = 30.0
    if os.geteuid() == 0:
        await _full_disk(stage)
    daemon = stage.daemon()
    shim = None
    if compiler() is not None:
        shim = Shim(stage.directory, stage.cache, stage.seed)
        daemon.settings = evolve(daemon.settings, environ=shim.environ)
    await daemon.start()
    number = 0
    while stage.left > 8 or number < 2:
        random = stage.random(f"round {number}")
        if shim is not None and number % 2 == 0:
            await _failing(stage, daemon, shim, random)
        else:
            await _damaged(stage, daemon, random)
        number += 1
    # Without what it has in memory, every file is looked at.
    await daemon.stop()
    daemon.died.clear()
    await daemon.start()
    await stage.heal([daemon], 1.0)
    if shim is not None:
        stage.marks.count("calls of the disk that failed", shim.struck())
        shim.close()
    await daemon.stop()


async def _failing(stage: Stage, daemon: Daemon, shim: Shim, random: Random) -> None:
    """Some kinds of calls fail for a while."""
    for call in random.sample(sorted(ERRORS), random.randrange(1, 4)):
        shim.fail(call, random.choice(ERRORS[call]), random.choice(SHARES))
    await _drop_some(stage, random)
    await stage.pulls([daemon], PULLS)
    shim.well()
    await stage.pulls([daemon], PULLS // 3)


async def _drop_some(stage: Stage, random: Random) -> None:
    """Remove cached files, so that there is something to fetch."""
    for path in disk.blobs(stage.cache):
        if random.random() < 0.5:
            path.unlink(missing_ok=True)


async def _damaged(stage: Stage, daemon: Daemon, random: Random) -> None:
    """Somebody lays hands on the files while the daemon runs, or while it does not."""
    stopped = random.random() < 0.3
    if stopped:
        await daemon.stop()
    paths = disk.blobs(stage.cache)
    random.shuffle(paths)
    for path in paths[: len(paths) // 2]:
        _damage(path, stage.sizes.get(path.name, 0), paths, random)
    for name in ("index.sqlite", "catalog.sqlite"):
        if random.random() < 0.5:
            _damage_database(stage.cache / name, random)
    if stopped:
        daemon.died.clear()
        await daemon.start()
    await stage.pulls([daemon], PULLS)


def _damage(path: Path, right: int, paths: list[Path], random: Random) -> None:
    """Every way leaves a file of another size or kind: wrong bytes of the right size are the scrub's to find."""
    way = random.choice(("cut", "empty", "grow", "link", "swap", "gone", "directory"))
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
        return
    if way == "swap":
        other = random.choice(paths)
        if not other.is_file() or other.is_symlink() or other.stat().st_size == right:
            return
        data = other.read_bytes()
        path.unlink()
        path.write_bytes(data)
    elif way in ("link", "gone", "directory") or path.is_symlink():
        path.unlink()
        if way == "link":
            path.symlink_to("/etc/hostname")
        elif way == "directory":
            path.mkdir()
    elif way == "grow":
        os.truncate(path, right + random.randrange(1, 5000))
    else:
        os.truncate(path, 0 if way == "empty" else random.randrange(max(1, right)))


def _damage_database(path: Path, random: Random) -> None:
    way = random.choice(("garbage", "header", "gone", "empty"))
    if way == "gone" or not path.exists():
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    elif way == "empty":
        os.truncate(path, 0)
    else:
        start = 0 if way == "header" else random.randrange(max(1, path.stat().st_size - 4096))
        with path.open("r+b") as opened:
            opened.seek(start)
            opened.write(random.randbytes(4096))


async def _full_disk(stage: Stage) -> None:
    """A disk that is smaller than the budget fills up: pulls go on, and what is new is cached."""
    small = stage.directory / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={FULL}", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        return  # root of a container may not mount
    try:
        daemon = stage.daemon(cache=small / "cache", size="20GB")
        await daemon.start()
        for number, image in enumerate(stage.library.images):
            await stage.pull(daemon, image, stage.random(f"full {number}"))
        asked = await _until_cached(stage, daemon, AGAIN)
        if asked is not None:
            stage.marks.add("unhealed", f"on a full disk nothing new is cached: {asked}")
        await daemon.stop()
    finally:
        subprocess.run(["umount", "-l", small], check=False)


async def _until_cached(stage: Stage, daemon: Daemon, seconds: float) -> str | None:
    """What is still asked of the upstream again and again; None once a small image comes from the cache."""
    image = min(stage.library.images, key=lambda each: max(blob.size for blob in each.blobs[0]))
    asks = [Ask(each, each.digest) for each in image.blobs[0]]

    async def all_hit() -> bool:
        outcomes = [await stage.ask(daemon, each) for each in asks]
        return all("hit" in outcome.headers.get("cache-status", "") for outcome, _ in outcomes)

    return None if await eventually(all_hit, seconds) else image.repository


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Whether this comes true in time; asked about once a second."""
    for _ in range(max(1, int(seconds))):
        if await holds():
            return True
        await asyncio.sleep(1)
    return False
