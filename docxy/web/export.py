"""`/export?image=…`: images as one tar, for `docker load` and as an OCI layout.

The laws: *only a client that may pull an image may export it*; what is wrong is an error with a status, before
the first byte; the length and every range are known from the manifests, so that a download that broke off goes on
where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import parse_qsl

from twisted.internet.interfaces import IReactorTime

from docxy.access.interfaces import IGate
from docxy.errors import BadRequest, TooManyRequests, Unauthorized
from docxy.observe.trail import Fetched
from docxy.pull.archive.body import ArchiveBody
from docxy.pull.archive.contents import Allowance, contents
from docxy.pull.archive.plan import Plan, plan
from docxy.pull.archive.platforms import checked
from docxy.pull.archive.puller import Puller
from docxy.pull.cache_status import HIT
from docxy.pull.interfaces import IPull, PulledBlob
from docxy.ranges import Span
from docxy.routing import EndpointKind, Named, Router, Target, check_permitted
from docxy.web.answers import LOGIN
from docxy.web.conditions import asked_range, not_modified
from docxy.web.large_answers import LargeAnswers
from docxy.web.request import Request
from docxy.web.send import Sender

MOST_IMAGES = 16
"""Of one tar."""
MOST_PLANNED = 32
"""Requests whose images are being looked at."""
MOST_HELD = 64 * 1024 * 1024
"""Bytes of manifests that all tars together keep in memory while they are sent."""
_LONGEST = 4096
"""Bytes of a query."""


class Export:
    """Answers requests for tars."""

    def __init__(
        self,
        router: Router,
        gate: IGate,
        pulls: Mapping[str, IPull],
        clock: IReactorTime,
        client_timeout: float,
    ) -> None:
        """`pulls`: by the upstream's name; `client_timeout`: seconds a client may take nothing."""
        self._router = router
        self._gate = gate
        self._pulls = pulls
        self._sender = Sender(clock, client_timeout, LargeAnswers())
        self._planning = self._held = 0

    async def answer(self, request: Request) -> None:
        """A tar, a range of it, or what a HEAD says of it."""
        images, platform = self._asked(request)
        if self._planning >= MOST_PLANNED:
            raise _busy()
        self._planning += 1
        try:
            planned = await self._planned(request, images, platform)
        except Unauthorized as error:
            raise Unauthorized(error.message, headers=LOGIN) from None
        finally:
            self._planning -= 1
        request.size = planned.size
        headers = [
            ("Content-Type", "application/x-tar"),
            ("Content-Disposition", f'attachment; filename="{_filename(images)}"'),
            ("ETag", f'"{planned.digest}"'),
            ("Accept-Ranges", "bytes"),
            ("Cache-Control", "private, no-cache"),
            ("Vary", "Authorization"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if not_modified(request, planned.digest):
            request.answer(304, headers, b"")
            return
        asked = asked_range(request, planned.digest)
        if request.method == b"HEAD":
            request.start(200, headers, planned.size)
            request.finish()
            return
        span, status = Span(0, planned.size, planned.size), 200
        if asked is not None:
            span, status = asked.within(planned.size), 206
            headers.append(("Content-Range", str(span)))
        held = sum(len(part) for part in planned.parts if isinstance(part, bytes))
        if self._held and self._held + held > MOST_HELD:
            raise _busy()
        self._held += held
        try:
            body = ArchiveBody(planned, span, _noting(request))
            request.start(status, headers, span.stop - span.first)
            await self._sender.send(request, body)
        finally:
            self._held -= held

    def _asked(self, request: Request) -> tuple[list[Named], str | None]:
        """Raises BadRequest, and what a name that is none raises."""
        query = request.uri.partition(b"?")[2]
        if len(query) > _LONGEST:
            raise BadRequest(f"the query is longer than {_LONGEST} bytes")
        fields = parse_qsl(query.decode("ascii", "replace"))
        unknown = {name for name, _ in fields} - {"image", "platform"}
        names = [value for name, value in fields if name == "image"]
        if not names or unknown:
            what = f"{sorted(unknown)[0][:40]!a} is not known here: " if unknown else ""
            raise BadRequest(f"{what}ask for /export?image=docker.io/library/alpine:3&platform=linux/amd64")
        if len(names) > MOST_IMAGES:
            raise BadRequest(f"{len(names)} images are too many for one archive; {MOST_IMAGES} are the most")
        platform = next((checked(value) for name, value in fields if name == "platform"), None)
        return [self._router.image(name) for name in dict.fromkeys(names)], platform

    async def _planned(self, request: Request, images: Sequence[Named], platform: str | None) -> Plan:
        """Raises RegistryError."""
        first = images[0]
        request.about = (first.upstream.name, "export")
        request.target = Target(first.upstream, EndpointKind.MANIFESTS, first.repository, str(first.reference), True)
        authorization = None if self._gate.asks else request.getHeader("Authorization")
        if authorization is not None and len({image.upstream.name for image in images}) > 1:
            raise BadRequest("a login is for one registry: export the images of each registry by themselves")
        for image in images:
            await self._gate.admit(request, image.upstream.name, image.repository)
            check_permitted(image.upstream, image.repository)
        allowance = Allowance()
        found = []
        for image in images:
            puller = Puller(self._pulls[image.upstream.name], image.repository, authorization, request.floor)
            found.append((await contents(puller, image, platform, allowance), puller))
        root = found[0][0]
        request.digest, request.cache_status = str(root.root.digest), str(root.pulled.status)
        return plan(found)


def _busy() -> TooManyRequests:
    return TooManyRequests("too many archives are under way; try again soon", headers=(("Retry-After", "30"),))


def _noting(request: Request) -> Callable[[PulledBlob], None]:
    """Notes how the layers of an answer come, for the access log and the status page."""

    def noted(pulled: PulledBlob) -> None:
        if pulled.status == HIT:
            return
        if request.fetched is None:
            request.cache_status, request.fetched = str(pulled.status), Fetched()
        request.fetched.received += 0 if pulled.span is None else pulled.span.stop - pulled.span.first

    return noted


def _filename(images: Sequence[Named]) -> str:
    """Of names and tags, which have no character that a header or a file system minds."""
    first = images[0]
    name = first.repository.rpartition("/")[2]
    label = first.label.name if first.label is not None else str(first.digest)[7:19]
    return f"{name}-{label}{f'-and-{len(images) - 1}-more' if len(images) > 1 else ''}.tar"
