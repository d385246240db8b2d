"""What an upgrade needs to know of how this process was started."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import frozen

from docxy.daemon.changing import Started
from docxy.daemon.upgrade.pidfile import PidFile
from docxy.daemon.upgrade.successor import Command
from docxy.daemon.upgrade.takeover import Takeover


@frozen
class Handover:
    """Of one process."""

    command: Command
    pidfile: PidFile
    takeover: Takeover | None
    """None: this docxy takes over from no other."""
    refusal: str | None
    """Why no other can take over from this one."""
    settings: Started
    retire: Callable[[], Awaitable[None]]
    """See `Upgrades.start`."""


def refusal(twistd: Mapping[str, Any] | None, pidfile: str, environ: Mapping[str, str], pid: int) -> str | None:
    """Why no other docxy can take over from this process; None: one can.  `twistd`: its options."""
    if pid == 1:
        return "docxy is the first process of its container, which ends with it: start a container of the new image"
    if twistd is not None and twistd.get("chroot"):
        return "docxy runs under twistd --chroot, where it cannot be started again"
    if not pidfile and not environ.get("NOTIFY_SOCKET"):
        return (
            "it was started without a pidfile, so what started it would not find the one that takes over; start docxy "
            "as twistd --pidfile=FILE docxy, or by systemd with Type=notify"
        )
    return None
