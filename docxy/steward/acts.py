"""The acts by their names, as the admin socket and the command line call them.

An act is an async generator function over the Steward and its Arguments; `docxy.steward.lines` has what it says.
"""

from __future__ import annotations

from collections.abc import Mapping

from docxy.steward.lines import Act
from docxy.steward.orders import freeze, orders, pin, recall, release, unpin
from docxy.steward.processes import reload, token, upgrade
from docxy.steward.removal import gc, rm
from docxy.steward.report import report
from docxy.steward.usage import du, ls, names, show
from docxy.steward.verification import verify
from docxy.steward.warm import warm

ACTS: Mapping[str, Act] = {
    "du": Act(du, changes=False),
    "reload": Act(reload, changes=True, cache=False),
    "token": Act(token, changes=True, cache=False),
    "upgrade": Act(upgrade, changes=True, cache=False),
    "freeze": Act(freeze, changes=True),
    "gc": Act(gc, changes=True),
    "ls": Act(ls, changes=False),
    "names": Act(names, changes=False),
    "orders": Act(orders, changes=False),
    "pin": Act(pin, changes=True),
    "recall": Act(recall, changes=True),
    "release": Act(release, changes=True),
    "report": Act(report, changes=False),
    "rm": Act(rm, changes=True),
    "show": Act(show, changes=False),
    "unpin": Act(unpin, changes=True),
    "verify": Act(verify, changes=True),
    "warm": Act(warm, changes=True),
}
