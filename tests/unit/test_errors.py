"""Errors as clients are told them: the distribution-spec's statuses and codes."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from docxy import errors

TABLE = {
    "BLOB_UNKNOWN": 404,
    "DIGEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "UNAUTHORIZED": 401,
    "DENIED": 403,
    "TOOMANYREQUESTS": 429,
    "TAG_INVALID": 400,
    "RANGE_INVALID": 416,
    "PAGINATION_NUMBER_INVALID": 400,
    "UNKNOWN": 500,
}


class ErrorTests(SynchronousTestCase):
    def kinds(self) -> list[type[errors.RegistryError]]:
        found, waiting = [], [errors.RegistryError]
        while waiting:
            kind = waiting.pop()
            if kind.__module__ == errors.__name__:
                found.append(kind)
            waiting.extend(kind.__subclasses__())
        return found

    def test_statuses(self) -> None:
        """Every code that has one status has it here, and the upstream's failures are told apart."""
        kinds = self.kinds()
        self.assertEqual({kind.code for kind in kinds}, {*TABLE, "UNSUPPORTED", "UNAVAILABLE"})
        for kind in kinds:
            if kind.code in TABLE:
                self.assertEqual(kind.status, TABLE[kind.code])
        self.assertEqual(
            [kind.status for kind in (errors.UpstreamError, errors.UpstreamUnavailable, errors.UpstreamTimeout)],
            [502, 503, 504],
        )

    def test_body(self) -> None:
        """The body is the spec's JSON, in ASCII whatever the message."""
        for message in ("gone", 'a "quoted" é\n\u2028 message', "\ud800"):
            body = errors.BlobUnknown(message).body()
            self.assertTrue(body.isascii())
            expected = {"errors": [{"code": "BLOB_UNKNOWN", "message": message, "detail": None}]}
            self.assertEqual(json.loads(body), expected)

    def test_method(self) -> None:
        """A refused method names what is allowed."""
        error = errors.Unsupported.method("PUT")
        self.assertEqual((error.status, error.headers), (405, (("Allow", "GET, HEAD"),)))

    def test_retry_after(self) -> None:
        """How long to wait is known where it was said in seconds."""
        for told, seconds in (("7", 7.0), ("", None), ("-1", None), ("x", None), ("²", None), ("1.5", None)):
            error = errors.TooManyRequests("slow", headers=(("Retry-After", told),))
            self.assertEqual(error.retry_after, seconds, told)
        self.assertIsNone(errors.TooManyRequests("slow").retry_after)

    def test_each_its_own(self) -> None:
        """Two errors that say the same are not the same; a message is what is shown."""
        self.assertNotEqual(errors.Denied("x"), errors.Denied("x"))
        self.assertEqual(str(errors.Denied("x")), "x")
