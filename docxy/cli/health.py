"""Whether docxy is well, from a snapshot.

Pure.  The law: each problem says what it means for pulls or what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docxy.cli.screen import BAD, GOOD, QUIET, WARN, clean
from docxy.observe.verdict import duration

EXPIRES_SOON = 14 * 24 * 3600.0
"""Seconds before the end of the certificate from which it is a problem."""


def problems(snapshot: Mapping[str, Any]) -> list[str]:
    """A line for each; none: all is well."""
    about = snapshot["docxy"]
    now, found = about["now"], []
    serving = about.get("serving", about["workers"])
    if serving < about["workers"]:
        found.append(f"{serving} of {about['workers']} workers serve: the others start, or docxy's log says why not")
    for upstream in snapshot["upstreams"]:
        if not upstream["named"]:  # whatever a client called a registry is not docxy's problem
            continue
        name, wait = upstream["name"], duration(max(0.0, (upstream["until"] or now) - now))
        if upstream["state"] == "backing-off":
            found.append(f"{name} does not answer: {clean(upstream['error'])}; docxy tries again in {wait}")
        if upstream["state"] == "limited":
            found.append(f"{name} limits pulls for {wait}; see docxy quota")
    if about["cache_failure"]:
        found.append(f"the cache cannot be used, docxy serves past it: {clean(about['cache_failure'])}")
    if about.get("upgrade_failure"):
        found.append(f"the last upgrade failed, and the old docxy goes on: {clean(about['upgrade_failure'])}")
    archive = snapshot.get("archive") or {}
    if archive.get("failure"):
        found.append(f"the archive fails, pulls go on without it: {clean(archive['failure'])}")
    held = snapshot["cache"] or {}
    if held.get("pins", 0) > held.get("pinned", 0):
        found.append("more is pinned than half of the cache, and the last pins are not kept; see docxy orders")
    expires, own = about["certificate_expires"], about["certificate"]
    if own is not None and own["error"]:
        wait = duration(max(0.0, own["next"] - now))
        found.append(f"no new certificate: {clean(own['error'])}; docxy tries again in {wait}, docxy reload at once")
    if expires is not None and expires <= now:
        found.append(f"the certificate ended {duration(now - expires)} ago: clients refuse it; renew it")
    elif expires is not None and expires - now < EXPIRES_SOON and own is None:
        found.append(f"the certificate ends in {duration(expires - now)}: renew it")
    return found


def upstream_words(upstream: Mapping[str, Any], now: float) -> tuple[str, str]:
    """What an upstream is at, and the colour of it."""
    state = upstream["state"]
    if state == "backing-off":
        return f"unreachable: {clean(upstream['error'])}", BAD
    if state == "limited":
        return f"limits pulls for {duration(max(0.0, (upstream['until'] or now) - now))}", WARN
    if upstream["asked"] is None:
        return "not asked yet", QUIET
    latency = "" if upstream["latency"] is None else f"answers in {duration(upstream['latency'])}, "
    return f"{latency}asked {duration(max(0.0, now - upstream['asked']))} ago", GOOD
