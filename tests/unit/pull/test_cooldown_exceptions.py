"""What passes the cooldown: by a glob, a release or a freeze, in every process."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from docxy.names import Digest
from docxy.orders.model import Kind, Order
from docxy.orders.policies import Policies
from docxy.settings.cooldown import Cooldown, OnNew
from docxy.settings.image_names import ImageName
from docxy.settings.policy import CooldownRule, Freeze, Policy
from tests.unit.pull.cooldown import DAY, CooldownCase
from tests.unit.pull.harness import NAME, REPOSITORY, Mirror


class Exceptions(CooldownCase):
    """What the operator lets through, and what he holds back besides."""

    def start(self, **changed: Any) -> Mirror:
        policies = Policies(Policy(cooldowns=self.rules()))
        return super().start(**{"policies": policies, **changed})

    def rules(self) -> tuple[CooldownRule, ...]:
        return (
            CooldownRule((ImageName(NAME, REPOSITORY, "nightly*"),), None),
            CooldownRule((ImageName(NAME, "open/**"),), None),
            CooldownRule((ImageName(NAME, "slow/*", "v?"),), Cooldown(10 * DAY, OnNew.DENY)),
        )

    async def whole(self, mirror: Mirror, reference: object, status: int) -> None:
        """A pull as docker does it: the tag by HEAD, then its index and a child of it by digest."""
        head = await mirror.manifest(reference, method="HEAD")
        self.assertEqual(head.status, status)
        if status == 200:
            index = await mirror.manifest(head.header("Docker-Content-Digest"))
            self.assertEqual(index.status, 200)
            for entry in index.json["manifests"]:
                self.assertEqual((await mirror.manifest(entry["digest"])).status, 200)

    def index(self, tag: str) -> Digest:
        child = self.upstream.add_image(REPOSITORY, None, [tag.encode()])
        return self.upstream.add_index(REPOSITORY, tag, {"amd64": child})

    async def test_by_glob(self) -> None:
        """A tag that is excepted is pulled whole, by its digests; another one of the repository is held back."""
        self.index("nightly-1")
        young = self.index("stable")
        await self.whole(self.mirror, "nightly-1", 200)
        await self.whole(self.mirror, "stable", 403)
        self.is_denied(await self.mirror.manifest(young))
        self.upstream.add_image("open/team/app", "x")
        self.assertEqual((await self.mirror.manifest("x", repository="open/team/app")).status, 200)

    async def test_more(self) -> None:
        """A rule for some tags goes before that of the registry, and for digests of the repository too."""
        image = self.upstream.add_image("slow/app", "v1")
        self.upstream.add_image("slow/app", "w1", layers=[b"other"])
        for tag in ("v1", "w1"):
            await self.mirror.manifest(tag, repository="slow/app", method="HEAD")
        self.seconds.advance(4 * DAY)
        self.is_denied(await self.mirror.manifest("v1", repository="slow/app"))
        self.is_denied(await self.mirror.manifest(image, repository="slow/app"))
        await_other = await self.mirror.manifest("w1", repository="slow/app")
        self.assertEqual(await_other.status, 200)
        self.seconds.advance(6 * DAY)
        self.assertEqual((await self.mirror.manifest("v1", repository="slow/app")).status, 200)

    async def test_reloaded(self) -> None:
        """Another policy holds from its swap."""
        self.index("stable")
        await self.whole(self.mirror, "stable", 403)
        rule = CooldownRule((ImageName(NAME, REPOSITORY, "stable"),), None)
        self.mirror.policies.swap(Policy(cooldowns=(rule,)))
        await self.whole(self.mirror, "stable", 200)

    async def test_released(self) -> None:
        """What is released by its name or by its digest is pulled whole, with what it names; nothing else is."""
        index, other = self.index("stable"), self.index("other")
        for about in ({"image": f"{NAME}/{REPOSITORY}:stable"}, {"digest": str(other)}):
            fields = {"image": "", "digest": "", **about}
            self.mirror.orders.put(Order(Kind.RELEASE, reason="", at=0.0, who="", **fields))
        self.seconds.advance(2)
        await self.whole(self.mirror, "stable", 200)
        await self.whole(self.mirror, "other", 200)
        self.is_denied(await self.mirror.manifest(self.index("third")))
        self.mirror.orders.lift(Kind.RELEASE, f"{NAME}/{REPOSITORY}:stable")
        self.seconds.advance(2)
        self.assertEqual((await self.mirror.manifest("stable")).status, 403)
        self.assertEqual((await self.mirror.manifest(index)).status, 200)

    async def test_frozen(self) -> None:
        """A tag that is frozen at something new is served there: the operator said so."""
        index = self.index("stable")
        freeze = Freeze(ImageName(NAME, REPOSITORY, "stable"), index)
        mirror = self.start(policies=Policies(Policy(freezes=(freeze,), cooldowns=self.rules())))
        await self.whole(mirror, "stable", 200)


class OtherProcess(Exceptions):
    """The same with a catalog in a file, each step at another process."""

    def make_catalog(self) -> Any:
        self.directory = self.mktemp()
        return self.open_catalog(self.directory)

    async def whole(self, mirror: Mirror, reference: object, status: int) -> None:
        others = [
            self.start(catalog=self.open_catalog(self.directory), policies=mirror.policies, orders=mirror.orders)
            for _ in range(2)
        ]
        head = await mirror.manifest(reference, method="HEAD")
        self.assertEqual(head.status, status)
        if status == 200:
            index = await others[0].manifest(head.header("Docker-Content-Digest"))
            self.assertEqual(index.status, 200)
            for entry in index.json["manifests"]:
                self.assertEqual((await others[1].manifest(entry["digest"])).status, 200)
