"""The status page: a snapshot of the read model -> HTML.

Pure.  The law: the page shows what the snapshot holds and nothing else: who may see what was
decided when the snapshot was made.  Everything that came from outside is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from attrs import frozen
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from docxy.observe.exchange import WAITS
from docxy.observe.journal import Pull
from docxy.observe.traffic import Share
from docxy.observe.verdict import amount, verdict
from docxy.pull.interfaces import CachedTag, TagChange
from docxy.web.pages import image
from docxy.web.pages.clients import clients, containerd, kubernetes
from docxy.web.pages.trust import trust
from docxy.web.pages.waterfall import waterfall
from docxy.web.pages.words import LANGUAGES, Words, ago, lasting, said, words_of

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_EXPIRES_SOON = 14 * 24 * 3600.0


@frozen
class Viewed:
    """One pull, as the page shows it."""

    image: str
    name: str
    who: str
    ago: str
    sent: int
    took: str
    waterfall: Markup
    words: str


class Pages:
    """Renders; one for a process."""

    def __init__(self) -> None:
        self._templates = Environment(
            loader=PackageLoader("docxy.web.pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(amount=amount, percent=percent, digest=short_digest, breakable=breakable)

    def status(self, snapshot: Mapping[str, Any], language: str, query: str) -> str:
        """The whole page; `query`: what keeps the language in links, as `?lang=zh`, or ''."""
        return self._templates.get_template("status.html").render(self._facts(snapshot, language, query), here="?")

    def live(self, snapshot: Mapping[str, Any], language: str, query: str) -> str:
        """The part that changes."""
        facts = self._facts(snapshot, language, query)
        return "".join(self._templates.get_template(name).render(facts) for name in ("state.html", "live.html"))

    def image(
        self,
        snapshot: Mapping[str, Any],
        name: str,
        pulls: Sequence[Pull],
        cached: Sequence[CachedTag],
        changes: Sequence[TagChange],
        language: str,
        query: str,
    ) -> str:
        """The page of one repository, with its pulls, what of it is cached, and how its tags moved."""
        facts = self._facts(snapshot, language, query)
        now = snapshot["docxy"]["now"]
        return self._templates.get_template("image.html").render(
            **facts,
            name=name,
            here=f"?name={quote(name)}&",
            pulls=[viewed(pull, now, facts["t"]) for pull in pulls],
            tags=image.tags(changes, pulls, now, facts["t"]),
            cached=[image.cached(tag, now, facts["t"]) for tag in cached],
            held=image.held(cached),
            askers=image.askers(pulls, now, facts["t"]),
        )

    def _facts(self, s: Mapping[str, Any], language: str, query: str) -> dict[str, Any]:
        t = words_of(language)
        now, url = s["docxy"]["now"], s["docxy"]["public_url"]
        return {
            "t": t,
            "s": {
                **s,
                "fills": None if s["fills"] is None else [_fill(fill) for fill in s["fills"]],
                "cache": _cache(s["cache"], now, t),
                "upstreams": [_upstream(upstream, now, t) for upstream in s["upstreams"]],
                "pulls": None if s["pulls"] is None else [viewed(pull, now, t) for pull in s["pulls"]],
                "errors": [{**error, "ago": ago(error["at"], now, t)} for error in s["errors"]],
            },
            "traffic": [(getattr(t, name), Share(**s["traffic"][name])) for name in ("hour", "day", "week")],
            "health": _health(s, t),
            "own_certificate": _own_certificate(s, t),
            "host": urlsplit(url).netloc,
            "url": url,
            "query": query,
            "languages": [(code, name) for code, (name, _) in LANGUAGES.items()],
            "containerd": containerd(url),
            "clients": [
                *(trust(url) if _is_internal(s) else ()),
                *clients(url, [each["name"] for each in s["upstreams"] if each["named"]]),
                kubernetes(url),
            ],
            "key": [(name, getattr(t, f"key_{name}")) for name in ("hit", *WAITS, "body")],
        }


def _own_certificate(s: Mapping[str, Any], t: Words) -> str:
    """When docxy renews the certificate that it got by itself, and when it ends; empty where there is none."""
    own, expires, now = s["docxy"]["certificate"], s["docxy"]["certificate_expires"], s["docxy"]["now"]
    if own is None or expires is None or own["renews"] is None or own["error"]:
        return ""
    wait, days = (lasting(max(0.0, at - now), t) for at in (own["renews"], expires))
    return str(t.certificate_own.format(wait=wait, days=days))


def _is_internal(s: Mapping[str, Any]) -> bool:
    """Whether clients have to be told to trust this mirror."""
    own = s["docxy"]["certificate"]
    return own is not None and own["source"] == "internal"


def viewed(pull: Pull, now: float, t: Words) -> Viewed:
    """One pull for the page."""
    who = " · ".join(text for text in (pull.account, pull.client, agent_name(pull.agent), pull.platform) if text)
    return Viewed(
        image=pull.image,
        name=f"{pull.upstream}/{pull.repository}",
        who=who,
        ago=ago(pull.last, now, t),
        sent=pull.sent,
        took=lasting(pull.seconds, t),
        waterfall=Markup(waterfall(pull.parts, pull.started, pull.seconds, t)),
        words=said(verdict(pull), t),
    )


def agent_name(agent: str) -> str:
    """The program in front of a User-Agent: `docker/29.0.1`."""
    return re.split(r"[ (]", agent, maxsplit=1)[0][:40]


def breakable(name: str) -> Markup:
    """An image's name, whose lines may end where its parts do."""
    return Markup(re.sub(r"(/)|(?=[:@])", r"\1<wbr>", str(escape(name))))


def percent(share: float | None) -> str:
    """`72 %`; a dash where there is nothing to divide."""
    return "–" if share is None else f"{share * 100:.0f} %"


def short_digest(digest: str) -> str:
    """`sha256:0123456789ab`."""
    return digest[:19]


def _fill(fill: Mapping[str, Any]) -> dict[str, Any]:
    size = fill["size"]
    return {
        **fill,
        "name": f"{fill['upstream']}/{fill['repository']}",
        "share": min(1.0, fill["offset"] / size) if size else None,
    }


def _cache(cache: Mapping[str, Any] | None, now: float, t: Words) -> dict[str, Any] | None:
    if cache is None:
        return None
    # A blob of several repositories goes once: it is called by the first that the viewer may know of.
    first: dict[str, dict[str, Any]] = {}
    for row in cache["next"]:
        first.setdefault(row["digest"], {**row, "ago": ago(row["used"], now, t)})
    return {
        **cache,
        "share": min(1.0, cache["used"] / cache["budget"]) if cache["budget"] else 0.0,
        "next": list(first.values()),
        "largest": [{**row, "ago": ago(row["used"], now, t)} for row in cache["largest"]],
    }


def _upstream(told: Mapping[str, Any], now: float, t: Words) -> dict[str, Any]:
    state = told["state"]
    words, tone = str(t.quiet), "quiet"
    if state in ("backing-off", "limited"):
        words = t.failed.format(error=told["error"], wait=lasting(max(0.0, (told["until"] or now) - now), t))
        tone = "bad" if state == "backing-off" else "warn"
    elif told["asked"]:
        words = t.answers.format(latency=lasting(told["latency"], t), ago=lasting(now - told["asked"], t))
        tone = "good"
    quota, quota_tone = "", ""
    if told["limit"]:
        quota = t.quota.format(remaining=told["remaining"], limit=told["limit"])
        if told["remaining"] and told["ends_at"] and told["ends_at"] - now < 24 * 3600:
            wait = lasting(max(0.0, told["ends_at"] - now), t)
            quota = t.quota_ends.format(remaining=told["remaining"], limit=told["limit"], wait=wait)
        share = told["remaining"] / told["limit"]
        quota_tone = "bad" if share < 0.1 else "warn" if share < 0.25 else ""
    return {
        **told,
        "state_words": getattr(t, state),
        "words": words,
        "tone": tone,
        "quota_words": quota,
        "quota_tone": quota_tone,
    }


def _health(s: Mapping[str, Any], t: Words) -> dict[str, Any]:
    """One sentence, and a line for each problem."""
    now, problems = s["docxy"]["now"], []
    for upstream in s["upstreams"]:
        # Whatever a client called a registry is not docxy's problem.
        if upstream["named"] and upstream["state"] == "backing-off":
            problems.append(t.down.format(name=upstream["name"], error=upstream["error"]))
    if s["docxy"]["cache_failure"]:
        problems.append(t.cache_off.format(why=s["docxy"]["cache_failure"]))
    if s["archive"] is not None and s["archive"]["failure"]:
        problems.append(t.archive_off.format(why=s["archive"]["failure"]))
    expires = s["docxy"]["certificate_expires"]
    own = s["docxy"]["certificate"]
    if own is not None and own["error"]:
        wait = lasting(max(0.0, own["next"] - now), t)
        problems.append(t.certificate_fails.format(names=", ".join(own["names"]), error=own["error"], wait=wait))
    # What docxy renews by itself may last days only.
    if expires is not None and expires - now < (_EXPIRES_SOON if own is None else 0.0):
        problems.append(t.certificate.format(days=lasting(max(0.0, expires - now), t)))
    if problems:
        return {"tone": "warn", "words": t.degraded, "problems": problems}
    n = s["docxy"]["workers"]
    workers = t.worker if n == 1 else t.workers.format(n=n)
    return {
        "tone": "good",
        "words": t.well.format(workers=workers, uptime=lasting(now - s["docxy"]["started"], t)),
        "problems": [],
    }
