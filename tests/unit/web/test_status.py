"""The status page, its JSON and its events: what they show, and to whom."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet import reactor as _reactor
from twisted.trial.unittest import SynchronousTestCase

from docxy.addresses import Networks, Perimeter
from docxy.observe.exchange import WAITS
from docxy.settings.model import AuthMode, Config, JournalMode, StatusMode
from docxy.web import events
from docxy.web.pages.clients import clients
from docxy.web.pages.page import Pages
from docxy.web.pages.words import CHINESE, ENGLISH, chosen
from tests.fakes import Fault
from tests.harness.mirror import NAME, RegistryCase
from tests.unit.web.login import PASSWORD, LoginCase, basic
from tests.unit.web.page import Page
from tests.unit.web.schemas import check

reactor: Any = _reactor
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
DOCUMENTED = Path(__file__).resolve().parents[3] / "docs" / "security.md"


class StatusTests(RegistryCase):
    """A mirror that asks nobody."""

    mode = StatusMode.PUBLIC

    def make_config(self) -> Config:
        return evolve(super().make_config(), status=self.mode)

    async def pulled(self) -> dict[str, Any]:
        """The status after one pull of an image."""
        await self.ask(self.manifest_path)
        await self.ask(self.blob_path)
        self.told()
        answer = await self.ask("/status.json")
        return dict(answer.json)

    def told(self) -> None:
        """The read model has heard of everything."""
        self.served.recorder.flush()

    async def test_pull(self) -> None:
        """A pull is one row, with what it was and how it fared; no address of a client is in it."""
        told = await self.pulled()
        (pull,) = told["pulls"]
        self.assertEqual((pull["repository"], pull["reference"], pull["answers"]), (NAME, "latest", 2))
        self.assertEqual([part["kind"] for part in pull["parts"]], ["manifests", "blobs"])
        self.assertLessEqual(set().union(*(part.get("waits", {}) for part in pull["parts"])), set(WAITS))
        self.assertNotIn("127.0.0.1", json.dumps(pull))
        self.assertEqual(told["traffic"]["hour"]["answers"], 2)

    async def test_head(self) -> None:
        """An answer to HEAD has no body and is whole: a pull that has one did not break off."""
        await self.ask(self.manifest_path, method="HEAD")
        self.told()
        (pull,) = (await self.ask("/status.json")).json["pulls"]
        self.assertTrue(pull["parts"][0]["head"])
        self.assertNotEqual(pull["verdict"]["cause"], "failed")

    async def test_platform(self) -> None:
        """An index says of which platform its manifests are; the pull of one has it."""
        child = self.upstream.add_image(NAME, None, layers=[b"other"])
        self.upstream.add_index(NAME, "multi", {"arm64": child})
        await self.ask(f"/v2/{NAME}/manifests/multi")
        await self.ask(f"/v2/{NAME}/manifests/{child}")
        self.told()
        (pull,) = (await self.ask("/pulls.json")).json["pulls"]
        self.assertEqual((pull["reference"], pull["platform"]), ("multi", "linux/arm64"))
        self.assertIn("linux/arm64", (await self.ask("/")).body.decode())

    async def test_schema(self) -> None:
        """What `/status.json` answers is what its schema says, before and after a pull."""
        check("status", (await self.ask("/status.json")).json)
        check("status", await self.pulled())
        check("status", json.loads(json.dumps(await self.served.view.snapshot())))

    async def test_page(self) -> None:
        """The page holds the pull and the configuration of clients; nothing in it comes from elsewhere."""
        await self.pulled()
        for path in ("/", "/status", "/status/", "/status/live", f"/status/image?name={self.name()}/{NAME}"):
            answer = await self.ask(path)
            self.assertEqual((answer.status, answer.header("Content-Type")), (200, "text/html; charset=utf-8"), path)
            self.assertIn(NAME, answer.body.decode())
            self.assertEqual(answer.header("Content-Security-Policy"), POLICY)
            self.assertEqual(answer.header("X-Content-Type-Options"), "nosniff")
            self.assertEqual(answer.header("Referrer-Policy"), "no-referrer")
            self.assertEqual(answer.header("Cache-Control"), "no-store")
            page = Page(answer.body.decode())
            for tag, attributes in page.tags:
                self.assertNotIn("style", attributes, (path, tag))
                self.assertFalse([name for name in attributes if name.startswith("on")], (path, tag))
                for name in ("src", "href"):
                    self.assertNotRegex(attributes.get(name) or "", r"^(https?:)?//", (path, tag))

    async def test_policy(self) -> None:
        """The documentation quotes the page's Content-Security-Policy."""
        self.assertIn(POLICY, " ".join(DOCUMENTED.read_text("utf-8").split()))

    async def test_archive(self) -> None:
        """The page shows an archive where there is one, and that it fails."""
        told = {**(await self.ask("/status.json")).json, "pulls": []}
        self.assertNotIn("Archive", Pages().status(told, "en", ""))
        archive = {"name": None, "failure": None, "failed": 0, "put": 5_000_000, "read": 7_000_000, "waiting": 3}
        page = Pages().status({**told, "archive": archive}, "en", "")
        self.assertIn("5.0 MB put, 3 blobs wait", page)
        self.assertNotIn("requests failed", page)
        failing = {**archive, "failure": "<503>", "failed": 4}
        for language, words in (("en", "4 requests failed"), ("zh", "4 次请求失败")):
            page = Pages().status({**told, "archive": failing}, language, "")
            self.assertIn(words, page)
            self.assertIn("&lt;503&gt;", page)

    async def test_own_certificate(self) -> None:
        """With a CA of docxy's own each client has its line; a failed renewal is told, and short lives are not."""
        told = {**(await self.ask("/status.json")).json, "pulls": []}
        page = Pages().status(told, "en", "")
        self.assertNotIn("ca.pem", page)
        own = {"source": "internal", "names": ["mirror.lan"], "renews": 1.0, "failures": 0, "error": None}
        about = {
            **told["docxy"],
            "certificate": {**own, "failed": None, "next": None},
            "public_url": "https://mirror.lan",
        }
        about["certificate_expires"] = about["now"] + 86400.0
        page = Pages().status({**told, "docxy": about}, "en", "")
        self.assertIn("curl -fsSk https://mirror.lan/ca.pem -o /etc/docker/certs.d/mirror.lan/ca.crt", page)
        self.assertNotIn("The certificate ends", page)
        self.assertIn("docxy renews its certificate in 0 ms; it ends in 24 h.", page)
        failed = {**own, "source": "https://ca.example", "error": "<no DNS>", "failed": 1.0, "next": about["now"] + 60}
        for language, words in (("en", "No new certificate for mirror.lan: &lt;no DNS&gt;"), ("zh", "mirror.lan")):
            page = Pages().status({**told, "docxy": {**about, "certificate": failed}}, language, "")
            self.assertIn(words, page)
            self.assertIn("&lt;no DNS&gt;", page)
            self.assertNotIn("ca.pem", page)

    def name(self) -> str:
        return self.make_upstream().name

    async def test_files(self) -> None:
        """The page's files are there, with their types; HEAD has no body; nothing is written to."""
        for name, kind in (("style.css", "text/css"), ("live.js", "text/javascript")):
            answer = await self.ask(f"/status/{name}")
            self.assertTrue((answer.header("Content-Type") or "").startswith(kind))
        self.assertEqual((await self.ask("/status", method="HEAD")).body, b"")
        await self.assert_error("/status", 405, "UNSUPPORTED", method="POST", body=b"x")

    async def test_languages(self) -> None:
        """Accept-Language chooses, a query overrides, and links keep the choice."""
        chinese = await self.ask("/", {"Accept-Language": "de, zh-CN;q=0.8, en;q=0.5"})
        self.assertEqual(chinese.header("Content-Language"), "zh")
        self.assertIn("如何使用", chinese.body.decode())
        english = await self.ask("/?lang=en", {"Accept-Language": "zh"})
        self.assertEqual(english.header("Content-Language"), "en")
        self.assertIn('data-from="/status/live?lang=en"', english.body.decode())

    async def test_escaped(self) -> None:
        """What a client calls itself is shown as text."""
        await self.ask(self.manifest_path, {"User-Agent": "<script>alert(1)</script>"})
        self.told()
        self.assertNotIn(b"<script>alert", (await self.ask("/")).body)

    async def test_pulls(self) -> None:
        """`/pulls.json` has the newest pulls, of one repository too; a bad number is the client's mistake."""
        await self.pulled()
        for query in ("", "?n=5", f"?repository={self.name()}/{NAME}"):
            self.assertEqual(len((await self.ask(f"/pulls.json{query}")).json["pulls"]), 1)
        self.assertEqual((await self.ask(f"/pulls.json?repository={self.name()}/other")).json["pulls"], [])
        await self.assert_error("/pulls.json?n=0", 400, "UNSUPPORTED")
        await self.assert_error("/pulls.json?repository=nowhere.test/x", 404, "UNSUPPORTED")

    async def test_unknown_image(self) -> None:
        """Of an image that nobody pulled the page says so."""
        answer = await self.ask(f"/status/image?name={self.name()}/other")
        self.assertEqual(answer.status, 404)
        self.assertIn(ENGLISH["nobody"], answer.body.decode())

    async def test_events(self) -> None:
        """A snapshot comes at once, and another one after a pull."""
        connection = await self.raw()
        connection.send("GET /events HTTP/1.1\nHost: x\n\n")
        await connection.until(b"data: ")
        await self.ask(self.manifest_path)
        self.told()
        received = await connection.until(b"data: ", 2)
        self.assertIn(b"text/event-stream", received)
        self.assertIn(NAME.encode(), received)

    async def test_streams_are_bounded(self) -> None:
        """There are no more streams than the bound; one that ends makes room."""
        self.patch(events, "MOST_STREAMS", 1)
        first = await self.raw()
        first.send("GET /events HTTP/1.1\nHost: x\n\n")
        await first.until(b"data: ")
        await self.assert_error("/events", 503, "UNAVAILABLE")
        await first.close()
        second = await self.raw()
        second.send("GET /events HTTP/1.1\nHost: x\n\n")
        await second.until(b"data: ")

    async def test_streams_share(self) -> None:
        """After a change the snapshot is made once for all who see the same, whatever they send for a password."""
        made = []
        dump = events.dumped
        self.patch(events, "dumped", lambda snapshot: made.append(1) or dump(snapshot))
        streams = [await self.raw() for _ in range(5)]
        for number, stream in enumerate(streams):
            stream.send(f"GET /events HTTP/1.1\nHost: x\nAuthorization: Bearer {number}\n\n")
            await stream.until(b"data: ")
        made.clear()
        await self.ask(self.manifest_path)
        self.told()
        for stream in streams:
            self.assertIn(NAME.encode(), await stream.until(b"data: ", 2))
        self.assertEqual(len(made), 1)

    async def test_stop(self) -> None:
        """A stop does not wait for a stream, which has no end of its own."""
        connection = await self.raw()
        connection.send("GET /events HTTP/1.1\nHost: x\n\n")
        await connection.until(b"data: ")
        # With a minute of grace the test would time out if the stream were waited for.
        await self.watched.drain(60)
        await connection.lost


class JournalTests(StatusTests):
    """`--journal anonymous`: all of the above holds, and nobody is named, to the operator neither."""

    def make_config(self) -> Config:
        return evolve(super().make_config(), journal=JournalMode.ANONYMOUS)

    async def test_nobody(self) -> None:
        await self.ask(self.manifest_path, {"User-Agent": "docker/29.0.1"})
        self.told()
        (pull,) = await self.served.view.pulls(10, None)
        self.assertEqual((pull["client"], pull["account"], pull["agent"]), (None, None, ""))
        self.assertNotRegex(json.dumps(pull), '127[.]0[.]0[.]1"|docker/29')


class NoJournalTests(RegistryCase):
    """`--journal off`."""

    def make_config(self) -> Config:
        return evolve(super().make_config(), journal=JournalMode.OFF)

    async def test_nothing(self) -> None:
        """The page is there, and knows of no pull."""
        await self.ask(self.manifest_path)
        self.served.recorder.flush()
        told = (await self.ask("/status.json")).json
        self.assertEqual((told["pulls"], told["repositories"], told["traffic"]["hour"]["answers"]), ([], [], 0))


class OffTests(RegistryCase):
    """`--status off`."""

    mode = StatusMode.OFF

    def make_config(self) -> Config:
        return evolve(super().make_config(), status=self.mode)

    async def test_off(self) -> None:
        """There is no page, and nothing of it."""
        for path in ("/", "/status", "/status.json", "/pulls.json", "/events", "/status/style.css"):
            await self.assert_error(path, 404, "UNSUPPORTED")


class PrivateWithoutAccountsTests(OffTests):
    """`--status private` where nobody could log in: nobody sees it."""

    mode = StatusMode.PRIVATE


class DeniedTests(RegistryCase):
    """An address that may not use the registry does not see the page either."""

    def make_config(self) -> Config:
        perimeter = Perimeter(Networks.of([]), Networks.of(["127.0.0.1"]), Networks.of([]))
        return evolve(super().make_config(), access=evolve(super().make_config().access, perimeter=perimeter))

    async def test_denied(self) -> None:
        """Every address of it is 403."""
        for path in ("/", "/status", "/status/", "/status/live", "/status.json", "/pulls.json", "/events"):
            await self.assert_error(path, 403, "DENIED")


class TransparentTests(LoginCase):
    """A mirror to whose upstream clients log in."""

    auth = AuthMode.TRANSPARENT

    async def test_private_names(self) -> None:
        """A repository that only an account may read is nowhere on the page, whoever pulled it and whoever looks."""
        token = await self.token("service=x&scope=repository:ann/app:pull", basic("ann", PASSWORD))
        mine = {"Authorization": f"Bearer {token.json['token']}"}
        headers = {**mine, "X-Request-Id": "by-ann", "User-Agent": "client-of-ann"}
        pulled = await self.ask("/v2/ann/app/manifests/latest", headers)
        self.assertEqual(pulled.status, 200)
        layers = [str(layer["digest"]) for layer in json.loads(pulled.body)["layers"]]
        for digest in layers:
            await self.ask(f"/v2/ann/app/blobs/{digest}", headers)
        await self.ask("/v2/ann/app/manifests/none", headers)
        self.upstream.on("manifest", Fault(status=500), times=4, path="ann/app")
        await self.ask("/v2/ann/app/manifests/broken", headers)
        self.served.recorder.flush()
        name = self.make_upstream().name
        image = f"/status/image?name={name}/ann/app"
        paths = [
            "/",
            "/status",
            "/status/live",
            "/status.json",
            "/pulls.json",
            image,
            f"{image}&lang=zh",
            "/v2/_catalog",
        ]
        paths += [
            f"/pulls.json?repository={name}/ann/app",
            f"/status/image?name={name}/ann/app/",
            "/metrics",
            "/quota.json",
        ]
        paths += ["/status/export", "/pulls", "/status/../pulls.json", f"/status/image?name={name}/ann%2Fapp"]
        secrets = [str(pulled.header("Docker-Content-Digest")), *layers, "by-ann", "client-of-ann"]
        for viewer in ({}, mine, {"Authorization": "Bearer x"}, basic("ann", PASSWORD), basic("eve", "x")):
            for path in paths:
                answer = await self.ask(path, viewer)
                body = answer.body.decode()
                # The page of an image repeats the name that was asked for, for one that there never was, too.
                told = body if "ann" in path else body + str(sorted(answer.headers.getAllRawHeaders()))
                for secret in secrets if "ann" in path else [*secrets, "ann/app"]:
                    self.assertNotIn(secret, told, path)
            connection = await self.raw()
            shown = "".join(f"{key}: {value}\n" for key, value in viewer.items())
            connection.send(f"GET /events HTTP/1.1\nHost: x\n{shown}\n")
            event = (await connection.until(b"\n\n", 1)).decode()
            await connection.until(b"data: ")
            self.assertNotIn("ann/app", event + connection.received.decode())
            await connection.close()

    async def test_alike(self) -> None:
        """The page of a private image is that of an image that nobody knows: who asks learns nothing."""
        token = await self.token("service=x&scope=repository:ann/app:pull", basic("ann", PASSWORD))
        mine = {"Authorization": f"Bearer {token.json['token']}"}
        await self.ask("/v2/ann/app/manifests/latest", mine)
        self.served.recorder.flush()
        name = self.make_upstream().name
        answers = [await self.ask(f"/status/image?name={name}/ann/{each}") for each in ("app", "cat")]
        self.assertEqual([answer.status for answer in answers], [404, 404])
        texts = [answer.body.decode().replace("/cat", "/app").replace("<wbr>", "") for answer in answers]
        self.assertEqual(re.sub("[0-9.]+ m?s", "", texts[0]), re.sub("[0-9.]+ m?s", "", texts[1]))
        listed = [await self.ask(f"/pulls.json?repository={name}/ann/{each}") for each in ("app", "cat")]
        self.assertEqual(listed[0].body, listed[1].body)


class WordsTests(SynchronousTestCase):
    """The page's two languages."""

    def test_same_words(self) -> None:
        """Both have the same words with the same figures in them, and none is empty."""
        self.assertEqual(ENGLISH.keys(), CHINESE.keys())
        for key in ENGLISH:
            self.assertTrue(ENGLISH[key] and CHINESE[key], key)
            english, chinese = (sorted(re.findall(r"{(\w+)}", words[key])) for words in (ENGLISH, CHINESE))
            self.assertEqual(english, chinese, key)

    def test_chosen(self) -> None:
        """Quality decides, then the order; what we do not have is passed over."""
        for header, language in (("", "en"), ("zh-TW", "zh"), ("en;q=0.1, zh;q=0.9", "zh"), ("fr, en, zh", "en")):
            self.assertEqual(chosen(None, header), language, header)
        self.assertEqual(chosen("zh", "en"), "zh")
        self.assertEqual(chosen("xx", "zh;q=x, en"), "en")

    def test_client_files(self) -> None:
        """The files of clients name this mirror, and each registry once."""
        for url in ("https://mirror.example", "http://10.0.0.1:8080"):
            found = {client.name: client.text for client in clients(url, ["docker.io", "ghcr.io"])}
            host = url.partition("://")[2]
            self.assertIn(f'location = "{host}/ghcr.io"', found["Podman, CRI-O, Skopeo"])
            self.assertEqual("insecure" in found["Podman, CRI-O, Skopeo"], url.startswith("http:"))
            self.assertEqual("http = true" in found["BuildKit"], url.startswith("http:"))
            self.assertIn(f'"*":\n    endpoint: ["{url}"]', found["k3s, RKE2"])
