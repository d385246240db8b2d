"""A page's HTML taken apart: its tags, its text, and both of each part."""

from __future__ import annotations

from html.parser import HTMLParser

from attrs import define, field

_VOID = ("meta", "link", "br", "wbr")


@define
class Part:
    """A section, or the whole page."""

    tags: list[tuple[str, dict[str, str | None]]] = field(factory=list)
    text: str = ""
    """What people read, with single spaces; cells of a table have a bar between them."""
    titles: list[str] = field(factory=list)
    """Of drawings: for people who hover, and for screen readers."""

    def of_class(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of tags that have a class."""
        return [attributes for _, attributes in self.tags if name in (attributes.get("class") or "").split()]


class Page(HTMLParser):
    """What a page consists of; fails on a tag that is not closed as it was opened."""

    def __init__(self, html: str) -> None:
        HTMLParser.__init__(self)
        self.whole = Part()
        self.parts: dict[str, Part] = {}
        """By `data-part`; a section with an id is there by that."""
        self.files: list[str] = []
        """The texts to be copied, to the letter."""
        self._open: list[str] = []
        self._into = [self.whole]
        self.feed(html)
        assert not self._open, self._open
        for part in (self.whole, *self.parts.values()):
            part.text = " ".join(part.text.split())

    @property
    def tags(self) -> list[tuple[str, dict[str, str | None]]]:
        return self.whole.tags

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "section":
            part = self.parts[str(attributes.get("data-part") or attributes.get("aria-labelledby"))] = Part()
            self._into.append(part)
        self._seen(tag, attributes)
        if tag in ("td", "th"):
            self.handle_data(" | ")
        elif tag not in ("wbr", "a", "span", "strong"):
            self.handle_data(" ")
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "pre":
            self.files.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, (tag, self.getpos())
        if tag == "section":
            self._into.pop()

    def handle_data(self, data: str) -> None:
        is_title = self._open[-1:] == ["title"]
        if self._open[-1:] == ["pre"]:
            self.files[-1] += data
        for part in self._into:
            if is_title:
                part.titles.append(data) if data.strip() else None
            else:
                part.text += data

    def _seen(self, tag: str, attributes: dict[str, str | None]) -> None:
        for part in self._into:
            part.tags.append((tag, attributes))
