"""docxy as a daemon of this checkout: the one way in which tests start it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.harness.checkout import TOP, bare_environment
from tests.harness.processes import Daemon

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
"""`twistd`, whatever PATH says."""
FOREGROUND = [*TWISTD, "--nodaemon", "--pidfile=", "docxy"]
"""docxy's options follow."""


def environment(**more: str) -> dict[str, str]:
    """This process's without docxy's settings, with docxy importable from any directory, and more."""
    return bare_environment(**{"PYTHONPATH": str(TOP), "PYTHONUNBUFFERED": "1", **more})


def spawn(
    test: SynchronousTestCase,
    argv: Sequence[str],
    environ: Mapping[str, str] | None = None,
    fds: Sequence[int] = (),
    cwd: Path | None = None,
) -> Daemon:
    """A process that ends with the test, started but not waited for.

    `environ`: all of it; None for `environment()`.  `fds`: descriptors it inherits.
    """
    log = Path(test.mktemp()).resolve()
    log.parent.mkdir(parents=True, exist_ok=True)
    environ = environment() if environ is None else environ
    daemon = Daemon(Path(argv[0]).name, argv, log, lambda: True, environ, pass_fds=fds, cwd=cwd)
    test.addCleanup(daemon.stop)
    daemon.spawn()
    return daemon


def start_docxy(test: SynchronousTestCase, environ: Mapping[str, str], args: Sequence[str] = ()) -> Daemon:
    """docxy, without a cache unless the environment says where; not waited for."""
    return spawn(test, [*FOREGROUND, *args], environment(**{"CACHE_DIR": "off", **environ}))
