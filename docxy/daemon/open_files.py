"""How many files docxy may have open.

The law: *as many as the machine's owner allows*.  Many systems start programs with a soft limit of 1,024, which is
made for select(2); docxy does not use it, so it takes the hard limit, as programs in Go do, up to `ENOUGH`.
"""

from __future__ import annotations

import resource

ENOUGH = 65_536
"""Beyond that, what goes through all descriptors of a process takes long."""


def raise_limit() -> int:
    """Raise the soft limit of this process, which those that it starts inherit; returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
