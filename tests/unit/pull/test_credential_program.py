"""Pulls with an account that a program prints."""

# trial leaves its assertions without annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import sys
from pathlib import Path

from docxy.settings.model import CredentialProgram, Upstream
from tests.fakes import Auth
from tests.unit.pull.harness import REPOSITORY
from tests.unit.pull.several import Docxy, SeveralCase


class ProgramCase(SeveralCase):
    def docxy(self, username: str, secret: str) -> Docxy:
        self.answer = Path(self.mktemp()).resolve()
        self.prints(username, secret)
        script = Path(self.mktemp()).resolve()
        script.write_text(f"#!{sys.executable}\nprint(open({str(self.answer)!r}).read())\n")
        script.chmod(0o700)
        program = CredentialProgram("script", (str(script),), "hub.test")
        return self.serve(Upstream("hub.test", self.upstream.url, private=True, credentials=(program,)))

    def prints(self, username: str, secret: str) -> None:
        self.answer.write_text(json.dumps({"Username": username, "Secret": secret}))

    async def test_basic(self) -> None:
        """As at ECR: Basic with what was printed."""
        self.upstream.add_image(REPOSITORY)
        self.upstream.auth = Auth("basic", accounts={"AWS": "hunter2"})
        docxy = self.docxy("AWS", "hunter2")
        self.assertEqual((await docxy.manifest("latest")).status, 200)

    async def test_token(self) -> None:
        """A token service gets what was printed as an account."""
        self.upstream.add_image(REPOSITORY)
        self.upstream.auth = Auth("bearer", accounts={"AWS": "hunter2"}, private={REPOSITORY})
        docxy = self.docxy("AWS", "hunter2")
        self.assertEqual((await docxy.manifest("latest")).status, 200)

    async def test_identity(self) -> None:
        """An identity token goes to the token service as such, by POST."""
        self.upstream.add_image(REPOSITORY)
        self.upstream.auth = Auth("bearer", accounts={"AWS": "hunter2"}, private={REPOSITORY})
        self.upstream.auth.refresh_tokens["identity"] = "AWS"
        docxy = self.docxy("<token>", "identity")
        self.assertEqual((await docxy.manifest("latest")).status, 200)
        self.assertEqual([each.method for each in self.upstream.requests if each.kind == "token"], ["POST"])

    async def test_failing(self) -> None:
        """While the program fails, docxy does not ask without an account, and says what is wrong."""
        self.upstream.add_image(REPOSITORY)
        self.upstream.auth = Auth("bearer", accounts={"AWS": "hunter2"})
        docxy = self.docxy("AWS", "hunter2")
        self.answer.write_text("hunter2")
        answer = await docxy.manifest("latest")
        self.assertEqual(answer.status, 403)
        self.assertIn("script printed something that is not JSON", answer.body.decode())
        self.assertEqual([each for each in self.upstream.requests if each.kind == "token"], [])
