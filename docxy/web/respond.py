"""From a coroutine to an HTTP response: where work becomes an answer, and failure an error.

The law: every request is answered exactly once or its connection is aborted; every exception of the
work becomes the error JSON of the distribution-spec, and what is a bug of docxy's is
logged and says so.  Work that waits for nothing costs no Deferred.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import NOT_DONE_YET

from docxy.errors import Internal, RegistryError, UpstreamError
from docxy.observe.trail import collecting
from docxy.web.client_stream import abort
from docxy.web.request import LONGEST_ERROR, Request

_log = Logger()


def respond(request: Request, work: Coroutine[Any, Any, None]) -> int:
    """Run the work that answers the request; a client that goes away cancels it."""
    try:
        with collecting(request):
            waits_for = work.send(None)
    except StopIteration:
        return NOT_DONE_YET
    except Exception as error:
        _failed(request, Failure(error))
        return NOT_DONE_YET
    # Twisted's types know coroutines only, where generators will do.
    rest = cast("Generator[Deferred[object], object, None]", _rest(work, waits_for))
    with collecting(request):
        running = Deferred.fromCoroutine(rest)
    gone = False

    def finished(failure: Failure) -> None:
        nonlocal gone
        gone = True
        running.cancel()

    request.notifyFinish().addErrback(finished)

    def failed(failure: Failure) -> None:
        if not gone:
            _failed(request, failure)
        elif not failure.check(CancelledError, RegistryError):
            _log.failure("a request whose client is gone failed", failure)

    # What fails while an error is rendered must not leave a request open.
    running.addErrback(failed).addErrback(lambda failure: _log.failure("could not send the error response", failure))
    return NOT_DONE_YET


def _rest(work: Coroutine[Any, Any, None], waits_for: object) -> Generator[object, object, None]:
    """A coroutine that has begun, from where it first waits."""
    try:
        while True:
            try:
                result = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:
                waits_for = work.throw(error)
            else:
                waits_for = work.send(result)
    except StopIteration:
        return


def _failed(request: Request, failure: Failure) -> None:
    error = failure.value
    if not isinstance(error, RegistryError):
        _log.failure("answering {request} failed", failure, request=request.shown, request_id=request.request_id)
        error = Internal("docxy failed to answer this; its log says more")
    elif isinstance(error, UpstreamError):
        _log.warn("{request}: {error}", request=request.shown, error=error.message, request_id=request.request_id)
    if request.startedWriting:
        request.error = error.message[:LONGEST_ERROR]
        abort(request)
    else:
        request.refuse(error)
