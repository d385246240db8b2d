"""No credential and no signed query is in anything that docxy tells: logs, journal, page, JSON, metrics.

`test_token.py` has the ways of a login; here is every other way in.
"""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from typing import Any

from docxy.observe.access_line import Combined, json_line
from docxy.settings.model import AuthMode
from docxy.web.site import LoggedSite
from tests.fakes import Cdn, Fault
from tests.harness.mirror import NAME
from tests.unit.web.login import PASSWORD, LoginCase, basic, bearer

SECRET = "s3cr3t"
"""In everything that a client or an upstream sends here and that may be a credential."""


class SecretTests(LoginCase):
    auth = AuthMode.TRANSPARENT

    async def setUp(self) -> None:
        await super().setUp()
        self.lines: list[str] = []
        write, forms = LoggedSite._write, (Combined(), json_line)

        def written(site: LoggedSite, request: Any) -> None:
            write(site, request)
            self.lines += [form(request, "192.0.2.1", 1_800_000_000.0, 0.1) for form in forms]

        self.patch(LoggedSite, "_write", written)

    async def told(self) -> str:
        """All that anybody is told."""
        self.served.recorder.flush()
        view = self.served.view
        shown = [json.dumps(await view.snapshot()), json.dumps(await view.pulls(100, None))]
        for path in ("/", "/status.json", "/pulls.json", f"/status/image?name={self.make_upstream().name}/{NAME}"):
            shown.append((await self.ask(path)).body.decode())
        return "\n".join([self.logged.text, *self.lines, *shown])

    async def test_clients(self) -> None:
        """Headers, queries and the userinfo of a URL, in requests that succeed and that do not."""
        token = (await self.token(f"scope=repository:{NAME}:pull")).json["token"]
        for path in (self.manifest_path, self.blob_path, "/v2/ann/app/manifests/latest", "/v2/", f"/auth/token/{NAME}"):
            for value in (f"Basic {SECRET}", f"Bearer {SECRET}", f"Bearer {token}", f"Digest {SECRET}", SECRET):
                headers = {"Authorization": value, "Cookie": SECRET, "Proxy-Authorization": f"Basic {SECRET}"}
                headers |= {"Referer": f"https://u:{SECRET}@x/?t={SECRET}", "X-Registry-Auth": SECRET}
                await self.ask(f"{path}?access_token={SECRET}&sig={SECRET}", headers)
        for method in ("GET", "POST"):
            head = f"{method} http://ann:{SECRET}@mirror.test{self.manifest_path}?q={SECRET} HTTP/1.1\n"
            await self.exchange(f"{head}Host: ann:{SECRET}@mirror.test\nConnection: close\n\n")
        told = await self.told()
        self.assertIn(NAME, told)
        for secret in (SECRET, token):
            self.assertNotIn(secret, told)

    async def test_upstreams(self) -> None:
        """Signed redirects that work, break off, lead nowhere and cannot be read; a realm with a password in it."""
        granted = await self.token(f"scope=repository:{NAME}:pull", basic("ann", PASSWORD))
        self.upstream.cdn = Cdn()
        await self.ask(self.blob_path, bearer(granted))
        self.upstream.on("cdn", Fault(cut_after=10))
        await self.cut(self.blob_path, bearer(granted))
        self.upstream.cdn = Cdn(closed=True)
        await self.ask(self.blob_path, bearer(granted))
        self.upstream.cdn = None
        closed = self.upstream.origin("closed")
        for location in (
            f"{closed.replace('//', f'//u:{SECRET}@')}/x?X-Signature={SECRET}",
            f"http://u:{SECRET}@[::1/x?X-Signature={SECRET}",
            f"ftp://u:{SECRET}@x/?X-Signature={SECRET}",
            f"/x\t?X-Signature={SECRET}",
        ):
            self.upstream.on("blob", Fault(status=307, headers={"Location": location}))
            await self.ask(self.blob_path, bearer(granted))
        realm = f'Bearer realm="http://u:{SECRET}@127.0.0.1:1/t?k={SECRET}",service="{SECRET}"'
        for kind in ("manifest", "ping"):
            self.upstream.on(kind, Fault(status=401, headers={"WWW-Authenticate": realm}))
        await self.ask(self.manifest_path, bearer(granted))
        await self.token(f"scope=repository:{NAME}:pull&password={SECRET}")
        self.upstream.on("manifest", Fault(status=500, body=f"token {SECRET}".encode()), times=9)
        await self.ask(self.manifest_path, bearer(granted))
        told = await self.told()
        self.assertIn(" answered 500", told)
        for secret in (SECRET, "X-Signature", granted.json["token"], PASSWORD):
            self.assertNotIn(secret, told)
