"""Whose limit a 429 tells of, and whether the pull went through after it: page and JSON say so."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from pathlib import Path

from docxy.settings.access import parse
from tests.fakes import Auth, Fault
from tests.unit.access.harness import lines
from tests.unit.pull.harness import NAME, REPOSITORY, drain
from tests.unit.web.explained import ExplainedCase
from tests.unit.web.login import basic


class LimitTests(ExplainedCase):
    async def test_overcome(self) -> None:
        """A pull that waited as it was told to, and went through, is not told to wait."""
        self.upstream.on("manifest", Fault.too_many_requests("30"))
        self.assertEqual((await self.mirror.manifest("latest")).status, 429)
        self.seconds.advance(31)
        self.assertEqual((await self.mirror.manifest("latest")).status, 200)
        self.assertEqual((await self.mirror.blob(self.big)).status, 200)
        await drain(self.mirror, self.big)
        words = f"{NAME} answered 429: its pull limit is used up, waited 31 s"
        chinese = f"{NAME} 返回 429：拉取配额已用完，已等待 31 秒"
        pull = await self.assert_said("limited", words, chinese=chinese)
        self.assertEqual([part["status"] for part in pull["parts"]], [429, 200, 200])

    async def test_layer(self) -> None:
        """No pull limit counts layers: a 429 for one is another limit."""
        self.upstream.on("blob", Fault.too_many_requests("30"), times=None)
        self.assertEqual((await self.mirror.blob(self.big)).status, 429)
        words = f"{NAME} answered 429 for a layer: it limits requests, wait 30 s"
        await self.assert_said("limited", words, chinese=f"{NAME} 对层的请求返回 429：请求过于频繁，需等待 30 秒")

    async def test_token_service(self) -> None:
        """A 429 of the token service is not the registry's, for who asked and for who is given it again."""
        self.upstream.auth = Auth("bearer")
        self.upstream.on("token", Fault.too_many_requests("30"), times=None)
        for _ in range(2):
            self.assertEqual((await self.mirror.manifest("latest")).status, 429)
            pull = await self.told()
            self.assertEqual(pull["parts"][-1].get("limit"), "tokens")
        words = f"the token service of {NAME} answered 429: it limits requests, wait 30 s"
        await self.assert_said("limited", words, chinese=f"{NAME} 的令牌服务返回 429：请求过于频繁，需等待 30 秒")

    async def test_logins(self) -> None:
        """docxy's own 429, to too many wrong passwords, is not laid to the registry, which nobody asked."""
        path = self.mktemp()
        Path(path).write_text(lines({"ann": "pw"}))
        await self.mirror.stop()
        self.more = {"access": parse({"htpasswd": path}, "docxy.toml")}
        self.mirror = self.timed()
        for number in range(50):
            answer = await self.mirror.ask(f"/v2/{REPOSITORY}/manifests/latest", basic("eve", str(number)))
            if answer.status == 429:
                break
        self.assertEqual(answer.status, 429)
        self.mirror.served.recorder.flush()
        pull = (await self.mirror.served.view.snapshot())["pulls"][0]
        self.assertEqual(pull["verdict"]["cause"], "failed")
        self.assertRegex(
            pull["verdict"]["words"], r"^failed with status 429: too many failed logins; try again in \d+ s$"
        )
