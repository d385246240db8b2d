"""`Link` headers as registries write them, and as RFC 8288 lets them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.links import HeaderLink, next_page, parse


class Links(SynchronousTestCase):
    def test_next(self) -> None:
        """The next page is found wherever and however the header names it, and nothing else is taken for it."""
        for values, target in (
            (['</v2/x/tags/list?last=a&n=1>; rel="next"'], "/v2/x/tags/list?last=a&n=1"),
            (["<https://r.test/y?page=2>;rel=next"], "https://r.test/y?page=2"),
            (['<a>; rel="prev", <b>; rel="next"'], "b"),
            (['<a>; rel="prev"', '<b>; rel="next"'], "b"),
            (['<a,b;c>; title="x, <y>; rel=next"; rel="Start NEXT"'], "a,b;c"),
            (['<a>; rel=next; rel="prev"'], "a"),
            (['<a>; rel="prev"; rel=next'], None),
            ([r'<a>; title="\"; rel=prev"; rel=next'], "a"),
            (["<a>; foo; rel = next ;"], "a"),
            (['<a>; rel="next"; anchor="/other"'], None),
            (["<a>; rel=nextish"], None),
            (["<a>"], None),
            (["<a; rel=next"], None),
            (["nonsense; rel=next"], None),
            (["<a> rel=next"], None),
            ([""], None),
            ([], None),
            ([", ,<a>; rel=next"], "a"),
        ):
            self.assertEqual(next_page(values), target, values)

    def test_many(self) -> None:
        """Every link of a header comes out, in its order."""
        self.assertEqual(
            parse(['<a>; rel="x y", <b>; anchor="#z"']),
            [HeaderLink("a", frozenset({"x", "y"})), HeaderLink("b", frozenset(), "#z")],
        )

    def test_long(self) -> None:
        """A header made to be slow is not."""
        parse(["<a>" + "; x" * 20_000 + '="' + "\\" * 20_000, "<" * 60_000, ";" * 60_000, "<a>" + " " * 60_000])
