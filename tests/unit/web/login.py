"""A registry that asks for tokens, with one account and one private repository, behind docxy."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from tests.fakes import Auth
from tests.harness.mirror import Answer, RegistryCase

PASSWORD = "pa55:word/é"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def bearer(answer: Answer) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json['token']}"}


class LoginCase(RegistryCase):
    """Tokens are needed; `ann` alone may read `ann/app`."""

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.auth = Auth("bearer", accounts={"ann": PASSWORD}, private={"ann/app"})
        self.upstream.add_image("ann/app")

    async def token(self, query: str = "", headers: Mapping[str, Any] | None = None) -> Answer:
        return await self.ask(f"/auth/token?{query}", headers)

    async def post(self, form: Mapping[str, str] | list[tuple[str, str]]) -> Answer:
        return await self.ask("/auth/token", FORM, "POST", urlencode(form).encode())
