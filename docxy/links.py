"""Pages of listings: the `Link` header (RFC 8288 section 3 and Appendix B.2), and the query that names a page.

Pure.  The law: what cannot be understood is left out, never guessed at.  One header may hold many
links, one link many relation types, and quoted text may hold every delimiter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote_plus, urlsplit

from attrs import frozen

_TARGET = re.compile(r"[\s,]*<([^>]*)>")
_PARAMETER = re.compile(r'\s*;\s*(?:([^\s=;,"<>]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?)?')
_ESCAPED = re.compile(r"\\(.)")
_WRITTEN = "%/:?@!$&'()*+,;=-._~"
"""What may stand in a query besides letters and digits (RFC 3986 section 3.4)."""


@frozen
class HeaderLink:
    """One link: `<target>; rel="next"`."""

    target: str
    """As it was written: absolute, or relative to what it came with."""
    relations: frozenset[str]
    """Relation types, in lower case."""
    anchor: str | None = None
    """What the link starts from, where that is not the page it came with."""


def parse(values: Iterable[str]) -> list[HeaderLink]:
    """Every link in these header values, in their order."""
    return [link for value in values for link in _parse_value(value)]


def next_page(values: Iterable[str]) -> str | None:
    """The target of the first link to the next page; None when there is none."""
    return next((link.target for link in parse(values) if "next" in link.relations and link.anchor is None), None)


def _parse_value(value: str) -> Iterator[HeaderLink]:
    position = 0
    while (target := _TARGET.match(value, position)) is not None:
        position = target.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(value, position)) is not None:
            name, quoted, plain = parameter.groups()
            if name is not None:
                # The first of a name counts (section 3.3).
                parameters.setdefault(name.lower(), _ESCAPED.sub(r"\1", quoted) if quoted is not None else plain or "")
            position = parameter.end()
        yield HeaderLink(
            target.group(1).strip(), frozenset(parameters.get("rel", "").lower().split()), parameters.get("anchor")
        )
        if value[position:].lstrip()[:1] not in ("", ","):
            # Noise behind a link: where the next one starts cannot be known.
            return


def page(raw_query: str) -> str:
    """The query that names a page to the upstream: the client's, as it was written, without docxy's own `ns`.

    What each registry calls the place where a page begins (`last`, `next_page`, `page`) is its own affair.
    """
    parts = [part for part in raw_query.split("&") if part and unquote_plus(part.partition("=")[0]) != "ns"]
    return quote("&".join(parts), safe=_WRITTEN)


def leading_here(link: str | None, path: str, raw_query: str) -> str | None:
    """The upstream's `Link` to the next page as one of docxy's: the client's own path and `ns`, the upstream's query.

    Relative, so that neither scheme nor host can be wrong.  None when there is no next page, and for a
    link from a page to itself, which clients would follow for ever.
    """
    target = None if link is None else next_page([link])
    if target is None:
        return None
    try:
        following = page(urlsplit(target).query)
    except ValueError:
        return None
    if following == page(raw_query):
        return None
    ns = [part for part in raw_query.split("&") if unquote_plus(part.partition("=")[0]) == "ns"]
    query = "&".join([*([following] if following else []), *(quote(part, safe=_WRITTEN) for part in ns[:1])])
    return f'<{path}?{query}>; rel="next"'
