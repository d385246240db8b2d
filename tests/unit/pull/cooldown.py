"""What tests of the cooldown share."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from docxy.names import Digest
from docxy.settings.cooldown import Cooldown, OnNew
from tests.unit.pull.harness import REPOSITORY, Answer, Mirror, MirrorCase

DAY = 86400.0
THREE_DAYS = 3 * DAY


class CooldownCase(MirrorCase):
    """An upstream whose images must be three days old."""

    on_new = OnNew.DENY

    def start(self, **changed: Any) -> Mirror:
        cooldown = Cooldown(THREE_DAYS, changed.pop("on_new", self.on_new))
        return super().start(changed={"cooldown": cooldown}, **changed)

    def move(self, layer: bytes, tag: str = "latest") -> Digest:
        """The tag points at another image from now on."""
        return self.upstream.add_image(REPOSITORY, tag, layers=[layer])

    async def settled(self) -> Digest:
        """An image that docxy has known for long enough, and served."""
        image = self.move(b"old")
        await self.mirror.manifest("latest", method="HEAD")
        self.seconds.advance(THREE_DAYS)
        self.assertEqual((await self.mirror.manifest("latest")).status, 200)
        return image

    def is_of(self, answer: Answer, digest: Digest, detail: str | None = None) -> None:
        self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(digest)))
        self.assertEqual(detail_of(answer), detail)

    def is_denied(self, answer: Answer) -> None:
        self.assertEqual((answer.status, detail_of(answer)), (403, "cooldown-denied"))


def detail_of(answer: Answer) -> str | None:
    _, found, detail = (answer.cache_status or "").partition("detail=")
    return detail if found else None
