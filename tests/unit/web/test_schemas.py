"""What the page's addresses for machines answer is what their schemas say, and the schemas agree."""

from __future__ import annotations

import json

import jsonschema
from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from docxy.observe.exchange import WAITS, Exchange
from docxy.observe.verdict import Cause
from tests.fakes import Fault
from tests.harness.mirror import NAME, RegistryCase
from tests.unit.web.schemas import check, schema


class SchemaTests(SynchronousTestCase):
    """The files."""

    def test_valid(self) -> None:
        for name in ("status", "pulls", "quota"):
            jsonschema.Draft202012Validator.check_schema(schema(name))

    def test_same(self) -> None:
        """What several of them describe they describe alike."""
        whole = schema("status")["$defs"]
        for name in ("pulls", "quota"):
            for part, described in schema(name)["$defs"].items():
                self.assertEqual(described, whole[part], (name, part))

    def test_complete(self) -> None:
        """Every field that an answer of a pull can have is described, and every cause."""
        told = schema("status")["$defs"]
        # What an index says of its manifests is the read model's alone.
        self.assertEqual(set(told["part"]["properties"]), {each.name for each in fields(Exchange)} - {"platforms"})
        causes = told["pull"]["properties"]["verdict"]["properties"]["cause"]["enum"]
        self.assertEqual(set(causes), {cause.value for cause in Cause})
        self.assertEqual(set(told["part"]["properties"]["waits"]["propertyNames"]["enum"]), set(WAITS))
        self.assertLessEqual(set(WAITS), {cause.value for cause in Cause})


class AnswerTests(RegistryCase):
    """Answers of a mirror after pulls of all kinds."""

    async def setUp(self) -> None:
        await super().setUp()
        await self.ask(self.manifest_path)
        await self.ask(self.blob_path)
        await self.ask(self.manifest_path, method="HEAD")
        await self.ask(f"/v2/{NAME}/manifests/none")
        self.upstream.on("manifest", Fault(status=500), times=None, path="broken")
        await self.ask(f"/v2/{NAME}/manifests/broken")
        # The last one: docxy asks for no more until that is over.
        self.upstream.on("manifest", Fault(status=429, headers={"Retry-After": "7"}), times=None, path="limited")
        await self.ask(f"/v2/{NAME}/manifests/limited")
        self.served.recorder.flush()

    async def test_pulls(self) -> None:
        """`/pulls.json`, of all and of one repository, and of none."""
        for query, some in (("", True), (f"?repository=fake.test/{NAME}", True), ("?repository=fake.test/no", False)):
            answer = (await self.ask(f"/pulls.json{query}")).json
            check("pulls", answer)
            self.assertEqual(bool(answer["pulls"]), some)
        statuses = {part["status"] for pull in (await self.ask("/pulls.json")).json["pulls"] for part in pull["parts"]}
        self.assertLessEqual({200, 404, 429, 502}, statuses)

    async def test_events(self) -> None:
        """The data of each event of `/events`, the first one and those that come later, is what `/status.json` is."""
        connection = await self.raw()
        connection.send("GET /events HTTP/1.1\nHost: x\n\n")
        await connection.until(b"}\n")
        await self.ask(self.manifest_path)
        self.served.recorder.flush()
        received = (await connection.until(b"}\n", 2)).decode()
        events = [line.removeprefix("data: ") for line in received.split("\n") if line.startswith("data: ")]
        self.assertEqual(len(events), 2)
        for event in events:
            check("status", json.loads(event))
