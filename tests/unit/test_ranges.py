"""Range and Content-Range: what is asked, what that means for a size, and what a part claims to be."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from docxy.errors import RangeInvalid
from docxy.ranges import Range, Span, parse_content_range, parse_range


class RangeTests(SynchronousTestCase):
    def test_parse(self) -> None:
        """A single range of bytes, open, closed or from the end, in whatever case."""
        for text, asked in (
            ("bytes=0-", Range(0, None)),
            ("bytes=5-9", Range(5, 9)),
            ("bytes=5-5", Range(5, 5)),
            ("bytes=-3", Range(None, 3)),
            ("BYTES = 5-9 ", Range(5, 9)),
        ):
            self.assertEqual(parse_range(text), asked)

    def test_ignored(self) -> None:
        """None, malformed, of another unit, several, or beyond measure: the whole is served."""
        for text in (
            None,
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=1-2,5-6",
            "bytes=1-2,",
            "bytes=+1-2",
            "bytes=1--2",
            "items=1-2",
            "bytes=0x1-2",
            "bytes=1-" + "9" * 30,
        ):
            self.assertIsNone(parse_range(text), text)

    def test_other_digits(self) -> None:
        """Digits of other scripts are none of HTTP's."""
        for text in ("bytes=٣-", "bytes=-²", "bytes=１-２"):
            self.assertIsNone(parse_range(text), text)
        self.assertIsNone(parse_content_range("bytes ٠-٣/٥"))

    def test_backwards(self) -> None:
        """A range that ends before it begins is within nothing."""
        for text in ("bytes=9-5", "bytes=5-4", "bytes=500-0"):
            asked = parse_range(text)
            assert asked is not None
            error = self.assertRaises(RangeInvalid, asked.within, 1000)
            self.assertIn(("Content-Range", "bytes */1000"), error.headers)

    def test_within(self) -> None:
        """Ends are clamped to the size; a suffix longer than it is all of it."""
        for asked, first, stop in (
            (Range(0, None), 0, 10),
            (Range(3, 5), 3, 6),
            (Range(3, 10), 3, 10),
            (Range(9, 99), 9, 10),
            (Range(None, 4), 6, 10),
            (Range(None, 99), 0, 10),
        ):
            span = asked.within(10)
            self.assertEqual(span, Span(first, stop, 10))
            self.assertEqual(str(span), f"bytes {first}-{stop - 1}/10")

    def test_not_within(self) -> None:
        """Only what starts at or past the end, or asks for nothing, is not satisfiable; the size is told."""
        for asked, size in ((Range(10, None), 10), (Range(11, 12), 10), (Range(None, 0), 10), (Range(0, None), 0)):
            error = self.assertRaises(RangeInvalid, asked.within, size)
            self.assertEqual(error.headers, (("Content-Range", f"bytes */{size}"),))

    def test_text(self) -> None:
        """A range is written as it is sent upstream."""
        for text in ("bytes=0-", "bytes=5-9", "bytes=-3"):
            self.assertEqual(str(parse_range(text)), text)


class ContentRangeTests(SynchronousTestCase):
    def test_parse(self) -> None:
        """A span, or the size alone."""
        self.assertEqual(parse_content_range("bytes 0-4/10"), Span(0, 5, 10))
        self.assertEqual(parse_content_range(" Bytes  9-9/10 "), Span(9, 10, 10))
        self.assertEqual(parse_content_range("bytes */10"), 10)

    def test_unreadable(self) -> None:
        """What is none, or impossible, is nothing."""
        for text in (
            None,
            "",
            "bytes",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes 0-4/*",
            "bytes 0-4",
            "0-4/10",
            "b 0-1/2",
        ):
            self.assertIsNone(parse_content_range(text), text)
