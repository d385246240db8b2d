"""From a coroutine to an HTTP response: errors, HEAD and headers are dealt with here, once.

The law: every request is answered exactly once or its connection is aborted; whatever the
work raises becomes the error JSON of the distribution-spec, and what is a bug of ours is
logged and says so.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.server import NOT_DONE_YET

from docxy.errors import RegistryError, UpstreamError
from docxy.web.stream import abort

_log = Logger()

Headers = Iterable[tuple[str, str]]


class Internal(RegistryError):
    """A bug of ours."""


def respond(request: Request, work: Coroutine[Any, Any, None]) -> int:
    """Run the work that answers the request; a client that goes away cancels it."""
    running = Deferred.fromCoroutine(work)
    gone = False

    def finished(failure: Failure) -> None:
        nonlocal gone
        gone = True
        running.cancel()

    request.notifyFinish().addErrback(finished)

    def failed(failure: Failure) -> None:
        if gone:
            if not failure.check(CancelledError, RegistryError):
                _log.failure("a request whose client is gone failed", failure)
            return
        error = failure.value
        if not isinstance(error, RegistryError):
            _log.failure("answering {method} {path} failed", failure, method=request.method, path=request.path)
            error = Internal("docxy failed to answer this; its log says more")
        elif isinstance(error, UpstreamError):
            _log.warn("{method} {path}: {error}", method=request.method, path=request.path, error=error.message)
        if request.startedWriting:
            abort(request)
        else:
            _forget_headers(request)
            reply_error(request, error)

    # What fails while an error is rendered must not leave a request open.
    running.addErrback(failed).addErrback(lambda failure: _log.failure("an error could not be told", failure))
    return NOT_DONE_YET


def _forget_headers(request: Request) -> None:
    """Take back what `start` said of a body that failed before its first byte."""
    for name, _ in list(request.responseHeaders.getAllRawHeaders()):
        if name.lower() not in (b"server", b"date"):
            request.responseHeaders.removeHeader(name)


def start(request: Request, status: int, headers: Headers, length: int | None) -> None:
    """Set status and headers; `length` of the body in bytes, None when unknown."""
    request.setResponseCode(status)
    request.responseHeaders.setRawHeaders("Docker-Distribution-Api-Version", ["registry/2.0"])
    for name, value in headers:
        request.responseHeaders.addRawHeader(name, value)
    if length is not None:
        request.responseHeaders.setRawHeaders("Content-Length", [str(length)])


def reply(request: Request, status: int, headers: Headers, body: bytes) -> None:
    """A whole small response; for HEAD its headers only."""
    # The length in a 304 would be that of the content which the client has (RFC 9110 section 8.6).
    start(request, status, headers, None if status == 304 else len(body))
    if request.method != b"HEAD":
        request.write(body)
    request.finish()


def reply_error(request: Request, error: RegistryError) -> None:
    """An error as the distribution-spec has it."""
    reply(request, error.status, (("Content-Type", "application/json"), *error.headers), error.body())
