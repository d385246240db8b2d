"""Bodies of a size, and bodies that hash to a digest."""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from docxy.bodies import EndUntold, IBody, SizedBody, VerifiedBody
from docxy.errors import UpstreamError
from docxy.names import Digest

Outcome = tuple[bytes, Exception | None]


@implementer(IBody)
@define
class Pieces:
    """A body of given pieces, then an end or an error."""

    pieces: list[bytes]
    error: Exception | None = None
    closed: bool = False

    async def read(self) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.error is not None:
            raise self.error
        return b""

    def close(self) -> None:
        self.closed = True


async def collect(body: IBody) -> Outcome:
    """All that can be had, and what ended it early."""
    whole = b""
    try:
        while piece := await body.read():
            whole += piece
    except UpstreamError as error:
        return whole, error
    return whole, None


class Case(SynchronousTestCase):
    def collect(self, body: IBody) -> Outcome:
        return self.successResultOf(Deferred.fromCoroutine(collect(body)))


class SizedTests(Case):
    def test_to_the_end(self) -> None:
        """Without a size, all up to the end."""
        self.assertEqual(self.collect(SizedBody(Pieces([b"0123", b"456789"]), None, 3)), (b"3456789", None))

    def test_exact(self) -> None:
        """So many bytes, after those that are skipped, however they are cut into pieces; then it is closed."""
        for pieces in ([b"0123456789"], [b"01", b"2345", b"6789"], [bytes([c]) for c in b"0123456789"]):
            source = Pieces(list(pieces))
            self.assertEqual(self.collect(SizedBody(source, 4, 3)), (b"3456", None))
            self.assertTrue(source.closed)

    def test_whole(self) -> None:
        """All of it, when that is what is asked."""
        self.assertEqual(self.collect(SizedBody(Pieces([b"012", b"34"]), 5)), (b"01234", None))

    def test_more_than_told(self) -> None:
        """What comes beyond is never given out."""
        self.assertEqual(self.collect(SizedBody(Pieces([b"012", b"34"]), 4)), (b"0123", None))

    def test_too_short(self) -> None:
        """An end before so many bytes is an error that names who ended."""
        for pieces, skip in (([b"012"], 0), ([b"01234"], 2), ([], 0), ([b"0"], 5)):
            _, error = self.collect(SizedBody(Pieces(pieces), 4, skip, "them"))
            self.assertIn("them ended a body", str(error))

    def test_nothing(self) -> None:
        """A body of no bytes asks for none."""
        source = Pieces([], LookupError())
        self.assertEqual(self.collect(SizedBody(source, 0)), (b"", None))
        self.assertTrue(source.closed)


class VerifiedTests(Case):
    def verified(
        self, pieces: list[bytes], of: bytes, error: Exception | None = None
    ) -> tuple[bytes, Exception | None]:
        return self.collect(VerifiedBody(Pieces(pieces, error), Digest.of(of), "them"))

    def test_right(self) -> None:
        """What hashes to its digest comes whole, in any pieces; no bytes too, and by SHA-512."""
        for pieces in ([b"0123"], [b"0", b"1", b"2", b"3"], [b"01", b"23"]):
            self.assertEqual(self.verified(pieces, b"0123"), (b"0123", None))
        self.assertEqual(self.verified([], b""), (b"", None))
        body = VerifiedBody(Pieces([b"01", b"23"]), Digest.of(b"0123", "sha512"), "them")
        self.assertEqual(self.collect(body), (b"0123", None))

    def test_wrong(self) -> None:
        """Of what does not, the last byte is never given out."""
        for pieces in ([b"0124"], [b"0", b"1", b"2", b"4"], [b"x"], [b"0123", b"4"], [b"012"], []):
            of = b"0123"
            whole = b"".join(pieces)
            got, error = self.verified(list(pieces), of)
            self.assertEqual(got, whole[:-1])
            self.assertIn("them sent bytes that are not sha256:", str(error))

    def test_broken(self) -> None:
        """An error on the way is passed on, before the last byte that came."""
        broken = UpstreamError("broke off")
        self.assertEqual(self.verified([b"01", b"23"], b"0123", broken), (b"012", broken))

    def test_end_untold(self) -> None:
        """Where HTTP leaves open whether the end is one, the digest says."""
        self.assertEqual(self.verified([b"01", b"23"], b"0123", EndUntold("?")), (b"0123", None))
        got, error = self.verified([b"01", b"2"], b"0123", EndUntold("?"))
        self.assertEqual(got, b"01")
        self.assertIsNotNone(error)

    def test_after_the_end(self) -> None:
        """Read on after the end, there is nothing more; closing goes through."""
        source = Pieces([b"01"])
        body = VerifiedBody(source, Digest.of(b"01"), "them")
        self.assertEqual(self.collect(body), (b"01", None))
        self.assertEqual(self.collect(body), (b"", None))
        body.close()
        self.assertTrue(source.closed)
