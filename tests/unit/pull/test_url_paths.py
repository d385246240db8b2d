"""An upstream at a path: another mirror's project, through which docxy pulls."""

from __future__ import annotations

from typing import Any

from docxy.names import Digest
from docxy.settings.model import AuthMode, Upstream
from tests.fakes import Auth
from tests.unit.pull.harness import REPOSITORY
from tests.unit.pull.several import SeveralCase


class Paths(SeveralCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.image: Digest = self.upstream.add_image(f"hub/{REPOSITORY}")

    def project(self, **settings: Any) -> Upstream:
        return Upstream("hub.test", f"{self.upstream.url}/hub", private=True, **settings)

    async def test_pulled(self) -> None:
        """Manifests, layers, tags and referrers come from the project, under the names that clients know."""
        docxy = self.serve(self.project())
        answer = await docxy.manifest("latest")
        self.assertEqual((answer.status, answer.header("Docker-Content-Digest")), (200, str(self.image)))
        layer = self.upstream.layers(f"hub/{REPOSITORY}", self.image)[0]
        for rest in (f"blobs/{layer}", "tags/list", f"referrers/{self.image}"):
            self.assertEqual((await docxy.ask(f"/v2/{REPOSITORY}/{rest}")).status, 200, rest)
        self.assertEqual({each.repository for each in self.upstream.requests}, {f"hub/{REPOSITORY}"})

    async def test_own_account(self) -> None:
        """docxy's own tokens are asked for the project's repository."""
        self.upstream.auth = Auth("bearer", realm="port", scope=False)
        self.assertEqual((await self.serve(self.project()).manifest("latest")).status, 200)
        (asked,) = self.upstream.select("token")
        self.assertEqual(asked.query["scope"], [f"repository:hub/{REPOSITORY}:pull"])

    async def test_login(self) -> None:
        """A client's login works, whether it asks for the challenge's scope or writes its own."""
        self.upstream.auth = Auth("bearer", realm="port")
        docxy = self.serve(self.project(), auth=AuthMode.TRANSPARENT)
        refused = await docxy.manifest("latest")
        self.assertIn(f'scope="repository:{REPOSITORY}:pull"', refused.header("WWW-Authenticate") or "")
        token = (await docxy.token()).json["token"]
        self.assertEqual((await docxy.manifest("latest", token)).status, 200)
        (asked,) = self.upstream.select("token")
        self.assertEqual(asked.query["scope"], [f"repository:hub/{REPOSITORY}:pull"])
