"""tags/list and referrers of the whole daemon, without a cache."""

from __future__ import annotations

from docxy.names import OCI_INDEX
from tests.fakes import Fault
from tests.harness.mirror import NAME, SHA, RegistryCase


class ListingTests(RegistryCase):
    async def setUp(self) -> None:
        await super().setUp()
        for tag in ("a", "b", "c", "d"):
            self.upstream.add_image(NAME, tag)

    async def pages(self, path: str) -> list[list[str]]:
        """Follow Link from page to page, as clients do; every one must stay with us."""
        pages: list[list[str]] = []
        for _ in range(10):
            answer = await self.ask(path)
            self.assertEqual((answer.status, answer.header("Content-Type")), (200, "application/json"))
            pages.append(answer.json["tags"])
            link = answer.header("Link")
            if link is None:
                return pages
            path, _, rest = link[1:].partition(">")
            self.assertEqual(rest, '; rel="next"')
            self.assertTrue(path.startswith("/"), path)
        raise AssertionError("the pages have no end")

    async def test_pages(self) -> None:
        """Tags come in pages whose Link leads to us, by every shape of path and with `ns` kept."""
        for base, query in (
            (f"/v2/{NAME}", ""),
            (f"/v2/{NAME}", "&ns=fake.test"),
            (f"/v2/fake.test/{NAME}", ""),
            (f"/alias.test/v2/{NAME}", "&ns=alias.test"),
        ):
            self.upstream.requests.clear()
            pages = await self.pages(f"{base}/tags/list?n=2{query}")
            self.assertEqual(pages, [["a", "b"], ["c", "d"], ["latest"]])
            self.assertTrue(all("ns" not in request.query for request in self.upstream.requests))

    async def test_link_keeps_ns(self) -> None:
        """The Link of a page asked for with `ns` has it too, and is relative to our origin."""
        answer = await self.ask(f"/v2/{NAME}/tags/list?n=2&ns=alias.test")
        self.assertEqual(answer.header("Link"), f'</v2/{NAME}/tags/list?last=b&n=2&ns=alias.test>; rel="next"')

    async def test_foreign_link(self) -> None:
        """An upstream's absolute Link, to whatever origin, becomes one of ours; what is not a next page is dropped."""
        for theirs, ours in (
            (
                f'<https://evil.test/v2/{NAME}/tags/list?n=2&ns=x&last=b>; rel="next"',
                f"</v2/{NAME}/tags/list?n=2&last=b>",
            ),
            (
                f"<{self.upstream.url}/v2/x/tags/list?last=%22%3E%0d%0a>;rel=next",
                f"</v2/{NAME}/tags/list?last=%22%3E%0d%0a>",
            ),
            ("<https://evil.test/>; rel=prev", None),
            ("nonsense", None),
        ):
            self.upstream.on("tags", Fault(headers={"Link": theirs}))
            answer = await self.ask(f"/v2/{NAME}/tags/list")
            expected = None if ours is None else f'{ours}; rel="next"'
            self.assertEqual(answer.header("Link"), expected)

    async def test_any_parameter(self) -> None:
        """A registry pages by whatever parameter it likes; it gets it back as it wrote it, and `ns` stays here."""
        base = f"/v2/{NAME}/tags/list"
        for query in ("next_page=gAAA%2b%2F%3d&n=2", "page=2&page_size=100", "n=2&last=a%20b+c", "cursor", "a=1&a=2"):
            self.upstream.on("tags", Fault(headers={"Link": f'<{base}?{query}>; rel="next"'}))
            link = (await self.ask(f"{base}?ns=fake.test&n=2")).header("Link") or ""
            self.assertEqual(link, f'<{base}?{query}&ns=fake.test>; rel="next"')
            await self.ask(link[1:].partition(">")[0])
            self.assertEqual(self.upstream.select("tags")[-1].raw_query, query)

    async def test_many_links(self) -> None:
        """The next page is found behind others, on a second line too."""
        base = f"/v2/{NAME}/tags/list"
        for lines in (
            f'<{base}?page=1>; rel="prev", <{base}?page=3>; rel="next"',
            f'<{base}?page=1>; rel="prev"\r\nLink: <{base}?page=3>; rel="next"',
        ):
            self.upstream.on("tags", Fault(headers={"Link": lines}))
            answer = await self.ask(f"{base}?page=2")
            self.assertEqual(answer.header("Link"), f'<{base}?page=3>; rel="next"')

    async def test_no_circle(self) -> None:
        """A page whose Link leads to itself is the last one."""
        base = f"/v2/{NAME}/tags/list"
        self.upstream.on("tags", Fault(headers={"Link": f'<{base}?page=2>; rel="next"'}), times=None)
        self.assertIsNotNone((await self.ask(base)).header("Link"))
        self.assertIsNone((await self.ask(f"{base}?ns=fake.test&page=2")).header("Link"))

    async def test_last(self) -> None:
        """`last` alone goes upstream."""
        self.assertEqual(await self.pages(f"/v2/{NAME}/tags/list?last=c"), [["d", "latest"]])

    async def test_none(self) -> None:
        """`n=0` is an empty page without a Link."""
        answer = await self.ask(f"/v2/{NAME}/tags/list?n=0")
        self.assertEqual((answer.status, answer.json["tags"], answer.header("Link")), (200, [], None))

    async def test_malformed_number(self) -> None:
        """An `n` that is no number is refused here."""
        for n in ("-1", "x", "1.5", "", "%D9%A1", "1%202"):
            await self.assert_error(f"/v2/{NAME}/tags/list?n={n}", 400, "PAGINATION_NUMBER_INVALID")
        self.assertEqual(self.upstream.count("tags"), 0)

    async def test_number_beyond_measure(self) -> None:
        """An enormous `n` is answered."""
        self.assertEqual((await self.ask(f"/v2/{NAME}/tags/list?n={'9' * 3000}")).status, 200)

    async def test_missing(self) -> None:
        """The tags of a repository that is not there are NAME_UNKNOWN."""
        await self.assert_error("/v2/no/such/tags/list", 404, "NAME_UNKNOWN")

    async def test_something_else(self) -> None:
        """A page that is no JSON object is an error."""
        for fault in (Fault.html_page(), Fault(body=b"[]", headers={"Content-Type": "application/json"})):
            self.upstream.on("tags", fault)
            await self.assert_error(f"/v2/{NAME}/tags/list", 502, "UNAVAILABLE")

    async def test_referrers(self) -> None:
        """Referrers come with exactly the index's type, all or those of one artifact type."""
        one = self.upstream.add_referrer(NAME, self.image, "application/one")
        two = self.upstream.add_referrer(NAME, self.image, "application/two")
        for query, expected, filters in (
            ("", {one, two}, None),
            ("?artifactType=application%2Fone&ns=fake.test", {one}, "artifactType"),
        ):
            answer = await self.ask(f"/v2/{NAME}/referrers/{self.image}{query}")
            self.assertEqual((answer.status, answer.header("Content-Type")), (200, OCI_INDEX))
            self.assertEqual({each["digest"] for each in answer.json["manifests"]}, {str(each) for each in expected})
            self.assertEqual(answer.header("OCI-Filters-Applied"), filters)

    async def test_no_referrers(self) -> None:
        """None is an empty index, where there is no such API too."""
        answer = await self.ask(f"/v2/{NAME}/referrers/{SHA}")
        self.assertEqual((answer.status, answer.json["manifests"]), (200, []))
        self.upstream.referrers = False
        answer = await self.ask(f"/v2/{NAME}/referrers/{SHA}")
        self.assertEqual((answer.status, answer.json["manifests"]), (200, []))

    async def test_head(self) -> None:
        """HEAD of a listing has its length and no body."""
        whole = await self.ask(f"/v2/{NAME}/tags/list")
        head = await self.ask(f"/v2/{NAME}/tags/list", method="HEAD")
        self.assertEqual((head.status, head.body, head.header("Content-Length")), (200, b"", str(len(whole.body))))
