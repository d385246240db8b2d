"""Who may see what of a snapshot.

Pure.  The laws: *a row that names a repository is seen by who may pull it, and by nobody else*; figures that name none
are seen by all.  *Where an upstream is, only the operator sees*: what went wrong is told with the upstream's name in
the place of URLs, and without the names and addresses of machines behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from docxy.observe.exchange import own

OF_CACHE = ("largest", "next")
"""Rows that name repositories."""
_URL = re.compile(r"https?://(?:\[[0-9a-fA-F:.]*\]|[\w.-]*\w)(?::\d+)?(?:/[^\s,;()]*)?")
_ADDRESS = r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])(?::\d+)?|(?<![\w:])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?!\w)"
_WITHOUT = (
    (re.compile(r"\bthe proxy \S+"), "the proxy"),
    # What is told may have been cut at its end.
    (re.compile(r"\bits certificate is for .*?(?:, not for \S+|$)"), "its certificate is for another name"),
    (re.compile(r" that is not trusted here \(.*?(?:\)(?=;)|$)"), " that is not trusted here"),
    (re.compile(_ADDRESS), "…"),
)
Repository = tuple[str, str]
"""An upstream's name and a repository."""


def repositories(snapshot: Mapping[str, Any]) -> set[Repository]:
    """Every repository that a snapshot names: of these a viewer's rights are asked for."""
    rows = [row for part in ("fills", "pulls", "repositories", "errors") for row in snapshot[part] or ()]
    rows += [row for part in OF_CACHE for row in (snapshot.get("cache") or {}).get(part, ())]
    return {(row["upstream"], row["repository"]) for row in rows}


def visible(snapshot: Mapping[str, Any], allowed: Iterable[Repository], clients: bool) -> dict[str, Any]:
    """The part of a snapshot for a viewer who may pull `allowed`; `clients`: whether it shows who pulled.

    A row that names another repository is left out whole; figures that name none stay.
    """
    may = set(allowed)
    docxy = {**snapshot["docxy"], "cache": None}
    if docxy.get("cache_failure"):
        docxy["cache_failure"] = "docxy's log says why"
    if docxy.get("upgrade_failure"):
        docxy["upgrade_failure"] = "docxy's log says why"
    if docxy.get("certificate") and docxy["certificate"]["error"]:
        docxy["certificate"] = {**docxy["certificate"], "error": "docxy's log says why"}

    def rows(part: str) -> list[dict[str, Any]]:
        return [dict(row) for row in snapshot[part] or () if (row["upstream"], row["repository"]) in may]

    cache = snapshot.get("cache")
    if cache is not None:
        named = {
            part: [dict(row) for row in cache[part] if (row["upstream"], row["repository"]) in may] for part in OF_CACHE
        }
        cache = {**cache, **named}
    archive = snapshot.get("archive")
    if archive is not None:
        failure = None if archive["failure"] is None else "docxy's log says why"
        archive = {**archive, "name": None, "failure": failure}
    pulls = [_placeless_pull(pull) for pull in rows("pulls")]
    known = {upstream for upstream, _ in may}
    # A registry that only clients name is known to those who may pull what was pulled from it.
    upstreams = [dict(each) for each in snapshot["upstreams"] if each["named"] or each["name"] in known]
    for upstream in upstreams:
        upstream["error"] = upstream["error"] and placeless(upstream["error"], upstream["name"])
    if not clients:
        for pull in pulls:
            pull.update(client=None, account=None, parts=[_anonymous(part) for part in pull["parts"]])
        for upstream in upstreams:
            upstream["spenders"] = []
    else:
        for upstream in upstreams:
            upstream["spenders"] = [who for who in upstream["spenders"] if (upstream["name"], who["repository"]) in may]
    return {
        **snapshot,
        "docxy": docxy,
        "cache": cache,
        "archive": archive,
        "upstreams": upstreams,
        "fills": rows("fills"),
        "pulls": pulls,
        "repositories": rows("repositories"),
        "errors": [{**row, "words": placeless(row["words"], row["upstream"])} for row in rows("errors")],
    }


def placeless(words: str, upstream: str) -> str:
    """What went wrong, without where the upstream is."""
    words = _URL.sub(upstream, words)
    for told, shown in _WITHOUT:
        words = told.sub(shown, words)
    return words


def _placeless_pull(pull: Mapping[str, Any]) -> dict[str, Any]:
    """The same for all that a pull says; a reason of the operator's own stays as it is."""
    failed = [part for part in pull["parts"] if part.get("error") and part["cache"] != "recalled"]
    if not failed:
        return dict(pull)
    upstream, verdict = pull["upstream"], pull["verdict"]
    parts = [
        {**part, "error": placeless(part["error"], upstream)} if part in failed else dict(part)
        for part in pull["parts"]
    ]
    words = verdict["words"]
    for part in failed:
        words = words.replace(part["error"], placeless(part["error"], upstream))
    return {**pull, "parts": parts, "verdict": {**verdict, "words": words}}


def _anonymous(part: Mapping[str, Any]) -> dict[str, Any]:
    ids = {key: own(part[key]) for key in ("request_id", "joined") if key in part}
    return {
        **{key: value for key, value in part.items() if key not in ("client", "account", "charged", "group")},
        **ids,
    }
