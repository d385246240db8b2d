"""The bed is what it says it is: without this, a pull through docxy would prove little."""

from __future__ import annotations

import base64
import json
from http.client import HTTPConnection
from urllib.parse import urlencode, urlsplit

from attrs import frozen

from tests.live.bed import PASSWORD, USER
from tests.live.case import LiveTestCase
from tests.live.images import LARGE


@frozen
class Answer:
    """A response, read."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


def ask(url: str, headers: dict[str, str] | None = None, method: str = "GET", body: str | None = None) -> Answer:
    """One request, no redirect followed."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body, headers or {})
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, told, response.read())
    finally:
        connection.close()


def basic(user: str, password: str) -> dict[str, str]:
    """An Authorization header."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


class BedTests(LiveTestCase):
    """Registry, token service and blob server, asked directly."""

    def token(self, repository: str, headers: dict[str, str] | None = None) -> dict[str, str]:
        """An Authorization header with a token for pulling from a repository."""
        query = urlencode({"service": "s", "scope": f"repository:{repository}:pull"})
        answer = ask(f"{self.bed.realm}?{query}", headers)
        self.assertEqual(answer.status, 200)
        return {"Authorization": f"Bearer {json.loads(answer.body)['token']}"}

    def test_challenge(self) -> None:
        """A stranger gets a 401 with the token service as realm and the scope that is needed."""
        answer = ask(f"{self.bed.url}/v2/library/small/manifests/latest")
        self.assertEqual(answer.status, 401)
        challenge = answer.headers["www-authenticate"]
        self.assertIn(f'realm="{self.bed.realm}"', challenge)
        self.assertIn('scope="repository:library/small:pull"', challenge)

    def test_anonymous_pull(self) -> None:
        """An anonymous token opens a public repository, and the manifest is what was pushed, byte for byte."""
        for repository in ("library/small", "library/list", "library/multi", "library/large", "team/app"):
            token = self.token(repository)
            accept = {"Accept": self.bed.images[repository].top.media_type}
            answer = ask(f"{self.bed.url}/v2/{repository}/manifests/latest", {**token, **accept})
            self.assertEqual((answer.status, answer.body), (200, self.bed.images[repository].top.body))

    def test_private(self) -> None:
        """Only the account's own token opens its repository."""
        url = f"{self.bed.url}/v2/alice/private/manifests/latest"
        self.assertEqual(ask(url, self.token("alice/private")).status, 401)
        self.assertEqual(ask(url, self.token("library/small")).status, 401)
        self.assertEqual(ask(url, self.token("alice/private", basic(USER, PASSWORD))).status, 200)

    def test_wrong_password(self) -> None:
        """A wrong password gets no token, by GET and by POST."""
        self.assertEqual(ask(self.bed.realm, basic(USER, "wrong")).status, 401)
        form = urlencode({"grant_type": "password", "username": USER, "password": "wrong"})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self.assertEqual(ask(self.bed.realm, headers, "POST", form).status, 401)

    def test_refresh_token(self) -> None:
        """A refresh token, given for offline_token, gets tokens by POST; a made-up one gets 401."""
        given = json.loads(ask(f"{self.bed.realm}?offline_token=true", basic(USER, PASSWORD)).body)
        self.assertEqual(given["expires_in"], 60)
        for token, status in ((given["refresh_token"], 200), ("made-up", 401)):
            form = urlencode({"grant_type": "refresh_token", "refresh_token": token})
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            self.assertEqual(ask(self.bed.realm, headers, "POST", form).status, status)

    def test_blobs_elsewhere(self) -> None:
        """Blobs are redirected with 307 to another host, which refuses an Authorization header and knows Range."""
        digest, size = self.bed.images["library/large"].layers[1]
        self.assertGreater(size, LARGE)
        token = self.token("library/large")
        answer = ask(f"{self.bed.url}/v2/library/large/blobs/{digest}", token)
        location = answer.headers["location"]
        self.assertEqual(answer.status, 307)
        self.assertNotEqual(urlsplit(location).hostname, urlsplit(self.bed.url).hostname)
        self.assertEqual(ask(location, token).status, 403)
        part = ask(location, {"Range": "bytes=1000-1999"})
        self.assertEqual(part.status, 206)
        self.assertEqual(part.headers["content-range"], f"bytes 1000-1999/{size}")
        with self.bed.images["library/large"].blobs[digest].open("rb") as file:
            self.assertEqual(part.body, file.read(2000)[1000:])

    def test_watches(self) -> None:
        """Each part tells what it was asked, how it answered and how much it sent."""
        image = self.bed.images["library/small"]
        digest, size = image.layers[0]
        with self.bed.watch_registry() as registry, self.bed.watch_blobs() as blobs:
            with self.bed.watch_tokens() as tokens:
                token = self.token("library/small")
                self.assertEqual(
                    [request.scopes for request in tokens.requests()], [("repository:library/small:pull",)]
                )
            answer = ask(f"{self.bed.url}/v2/library/small/blobs/{digest}", token)
            ask(answer.headers["location"])
            ask(answer.headers["location"], {"Range": "bytes=0-0"})
            self.assertEqual([(r.method, r.status) for r in registry.requests(path=digest)], [("GET", 307)])
            self.assertEqual([(r.status, r.sent) for r in blobs.requests("GET")], [(200, size), (206, 1)])
            self.assertEqual(blobs.sent(), size + 1)

    def test_switches(self) -> None:
        """The token service can be made to refuse, and any part to go away and come back."""
        self.addCleanup(self.bed.refuse_tokens, None)
        self.bed.refuse_tokens(503)
        self.assertEqual(ask(self.bed.realm).status, 503)
        self.bed.refuse_tokens(None)
        self.assertEqual(ask(self.bed.realm).status, 200)
        self.bed.registry.stop()
        try:
            self.assertRaises(ConnectionRefusedError, ask, f"{self.bed.url}/v2/")
        finally:
            self.bed.registry.start()
        self.assertEqual(ask(f"{self.bed.url}/v2/").status, 401)

    def test_images_do_not_change(self) -> None:
        """The noise of the large layer is the same in every run (its gzip may differ with zlib)."""
        image = self.bed.images["library/large"]
        config = json.loads(image.blobs[image.config].read_bytes())
        expected = "sha256:235dcc5fe972389cffb2194dfe7e28f0f20e43ed056d74f28358915cd306992e"
        self.assertEqual(config["rootfs"]["diff_ids"][1], expected)
