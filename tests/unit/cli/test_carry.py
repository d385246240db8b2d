"""`docxy export`, `import` and `warm` as commands: what they ask, write and say."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
from click.testing import Result

from docxy.cli import download, import_, warm
from docxy.names import Digest
from docxy.pull.archive.tar import END, entry_of, header, padding
from docxy.steward.lines import Failed
from docxy.storage.large import Large
from docxy.storage.shares import Shares
from tests.unit.cli.canned import snapshot
from tests.unit.cli.case import AdminCase
from tests.unit.cli.test_read import SCHEMA
from tests.unit.steward.archives import image, layout, path, tar

NAME = "docker.io/library/alpine:3"


class Exporting(BaseHTTPRequestHandler):
    """`/export` as docxy answers it, which breaks off when the test says so."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        case: Export = self.server.case
        case.requests.append((self.path, dict(self.headers)))
        if case.refusal is not None:
            status, body = case.refusal
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        asked = self.headers.get("Range")
        first = 0
        if asked is not None and self.headers.get("If-Range") == case.etag:
            first = int(asked[len("bytes=") : -1])
        data = case.tar[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", case.etag)
        self.end_headers()
        cut = case.cuts.pop(0) if case.cuts else len(data)
        self.wfile.write(data[:cut])
        if cut < len(data):
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Not for the console."""


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Export(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.body, files = image(b"base" * 700_000, b"top" * 1000)
        self.tar = tar({**layout({NAME: self.body}), **files})
        self.etag = '"sha256:one"'
        self.cuts: list[int] = []
        self.refusal: tuple[int, bytes] | None = None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.patch(download.time, "sleep", lambda seconds: None)
        self.patch(download.Download.__init__, "__defaults__", (lambda seconds: None,))
        server = Server(("127.0.0.1", 0), Exporting)
        server.daemon_threads = True
        server.case = self  # type: ignore[attr-defined]  # for the handler
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        for end in (thread.join, server.server_close, server.shutdown):
            self.addCleanup(end)
        self.url = f"http://127.0.0.1:{server.server_port}/base"
        self.file = self.directory / "out.tar"

    def export(self, status: int, *more: str) -> Any:
        out = self.said(status, "export", "alpine:3", "-o", str(self.file), "--url", self.url, "--json", *more)
        return json.loads(out) if out else None

    def left_behind(self) -> list[str]:
        return [each.name for each in self.directory.iterdir() if each.name not in ("admin.sock", "before.tar")]

    def test_whole(self) -> None:
        """The file is the tar; the query names image and platform, below the URL's path."""
        told = self.export(0, "--platform", "linux/arm64")
        self.assertEqual((told["bytes"], self.file.read_bytes()), (len(self.tar), self.tar))
        ((asked, headers),) = self.requests
        self.assertEqual(asked, "/base/export?image=alpine%3A3&platform=linux%2Farm64")
        self.assertNotIn("Authorization", headers)

    def test_login(self) -> None:
        """A password comes from the environment or the terminal, never from the command line."""
        result = self.run_docxy(
            "export", "a", "-o", str(self.file), "--url", self.url, "--user", "ann", DOCXY_PASSWORD="pw"
        )
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(self.requests[0][1]["Authorization"], "Basic YW5uOnB3")

    def test_breaks_off(self) -> None:
        """A connection that breaks is made again where it broke, as often as some bytes come."""
        self.cuts = [1000, 1_000_000, 0, 10, 600]
        self.export(0)
        self.assertEqual(self.file.read_bytes(), self.tar)
        self.assertEqual(self.requests[1][1]["Range"], "bytes=1000-")
        self.assertEqual(len(self.requests), 6)

    def test_never_comes(self) -> None:
        """Where no byte comes any more, that is said, and no file is there."""
        self.cuts = [1000] + [0] * 20
        self.export(1)
        self.assertEqual(self.left_behind(), [])

    def test_moved(self) -> None:
        """An archive that has changed is not put together with the one before."""
        self.cuts = [1000]

        def moved(seconds: float) -> None:
            self.etag = '"sha256:two"'

        self.patch(download.Download.__init__, "__defaults__", (moved,))
        self.file.write_bytes(b"older")
        result = self.run_docxy("export", "alpine:3", "-o", str(self.file), "--url", self.url)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("moved", result.stderr)
        self.assertEqual(self.file.read_bytes(), b"older")
        self.assertEqual(self.left_behind(), ["out.tar"])

    def test_refused(self) -> None:
        """docxy's own sentence comes through; a login is suggested where one is missing."""
        self.refusal = 401, b'{"errors": [{"message": "authentication is required"}]}'
        result = self.run_docxy("export", "a", "-o", str(self.file), "--url", self.url)
        self.assertEqual(
            (result.exit_code, result.stderr),
            (1, "docxy: docxy answered 401: authentication is required; log in with --user\n"),
        )
        self.refusal = 404, b"<html>"
        self.export(1)
        result = self.run_docxy("export", "a", "-o", str(self.file), "--url", "http://127.0.0.1:1")
        self.assertEqual(result.exit_code, 3)
        result = self.run_docxy("export", "a", "-o", "/nonexistent/x", "--url", self.url)
        self.assertEqual(result.exit_code, 1)

    def test_since(self) -> None:
        """What the archive before has is left out, and, where it is large, not even asked for."""
        _, files = image(b"base" * 700_000)
        before = self.directory / "before.tar"
        before.write_bytes(tar(files))
        told = self.export(0, "--since", str(before))
        self.assertEqual((told["left_out"], told["left_out_bytes"]), (2, 2_800_002))
        self.assertEqual(len(self.requests), 2)
        with tarfile.open(self.file) as archive:
            names = archive.getnames()
            self.assertNotIn(path(Digest.of(b"base" * 700_000)), names)
            top = archive.extractfile(path(Digest.of(b"top" * 1000)))
            assert top is not None
            self.assertEqual(top.read(), b"top" * 1000)
        self.assertIn(path(Digest.of(self.body)), names)
        before.write_bytes(tar({"a": b"b"}))
        self.export(1, "--since", str(before))

    def test_headers(self) -> None:
        """Headers are read as they are written, long names too."""
        for name, size in (("a", 5), (f"blobs/sha512/{'0' * 128}", 7), (f"blobs/sha256/{'1' * 64}", 9 << 30)):
            source = io.BytesIO(header(name, size) + b"next")
            head = source.read(512)
            entry, more = entry_of(head, source.read)
            assert entry is not None
            self.assertEqual((entry.name, entry.size, head + more), (name, size, header(name, size)))
            self.assertEqual(source.read(), b"next")
        self.assertEqual(entry_of(END[:512], lambda count: b""), (None, b""))
        self.assertEqual(len(padding(513)), 511)


class ImportCommand(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.cache = self.directory / "cache"
        self.cache.mkdir()
        body, files = image(b"one")
        self.file = self.directory / "one.tar"
        self.file.write_bytes(tar({**files, **layout({NAME: body, "quay.io/o/i:1": body})}))
        self.digest = Digest.of(body)

    def test_names(self) -> None:
        """Images go under their names, as far as their registries are mirrored; the rest is said and exit status 1."""
        out = self.run_docxy("import", str(self.file), "--cache", str(self.cache))
        self.assertEqual(out.exit_code, 1, out.output)
        self.assertIn(f"✓ {NAME}", out.stdout)
        self.assertIn("quay.io/o/i:1 is left out: docxy mirrors no quay.io", out.stderr)

    def test_shares(self) -> None:
        """Where an import goes, and what goes for it, is as the docxy that runs says, else as the settings do."""
        opened: list[Shares] = []

        def beside(directory: str, budget: int, shares: Shares) -> Any:
            self.assertEqual(Path(directory).resolve(), self.cache.resolve())
            opened.append(shares)
            raise Failed("enough")

        self.patch(import_, "beside", beside)
        given = ("import", str(self.file), "--cache", str(self.cache))
        self.run_docxy(*given, HISTORY_SHARE="0.25", LARGE_SHARE="0.75", LARGE_BLOB="1GB", ADMIN_SOCKET="/nowhere.sock")
        self.assertEqual(opened.pop(), Shares(0.25, Large(10**9, 0.75)))
        told = {"history": 0.1, "large": 0.2, "large_blob": 5}
        whole = snapshot()
        about = {**whole["docxy"], "cache": str(self.cache.resolve())}
        self.snapshot = snapshot(docxy=about, cache={**whole["cache"], "shares": told})
        jsonschema.validate(self.snapshot, SCHEMA)
        self.run_docxy("import", str(self.file), HISTORY_SHARE="0.25")
        self.assertEqual(opened.pop(), Shares(0.1, Large(5, 0.2)))

    def test_dry_run(self) -> None:
        """What would come is shown, and nothing is written."""
        told = json.loads(self.said(0, "import", str(self.file), "--cache", str(self.cache), "--dry-run", "--json"))
        self.assertEqual(told["images"][0], {"names": [NAME], "digest": str(self.digest)})
        self.assertEqual(list(self.cache.iterdir()), [])

    def test_named(self) -> None:
        """`--as` names the only image of an archive; one without a name is left out."""
        body, files = image(b"two")
        index = json.dumps(
            {
                "manifests": [
                    {"mediaType": json.loads(body)["mediaType"], "digest": str(Digest.of(body)), "size": len(body)}
                ]
            }
        )
        self.file.write_bytes(tar({**files, "index.json": index.encode()}))
        given = ("import", str(self.file), "--cache", str(self.cache))
        result = self.run_docxy(*given)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("give it one with --as", result.stderr)
        self.assertIn("✓ docker.io/library/two:latest", self.said(0, *given, "--as", "two"))
        self.assertEqual(self.run_docxy(*given, "--as", "quay.io/x").exit_code, 2)

    def test_policy_of_the_stopped(self) -> None:
        """The file that `DOCXY_CONFIG` names counts for the directory that it names, and for no other."""
        self.run_docxy("import", str(self.file), "--cache", str(self.cache))
        file = self.directory / "docxy.toml"
        keep = '[[keep]]\nimages = ["hub/alpine:3"]\n[[upstreams]]\nname = "docker.io"\naliases = ["hub"]\n'

        def rm(cache: Path, text: str, *more: str) -> Result:
            file.write_text(f'cert = "off"\ncache = "{cache}"\n{text}')
            return self.run_docxy("rm", "alpine:3", "--cache", str(self.cache), *more, DOCXY_CONFIG=str(file))

        kept = rm(self.cache, keep, "--yes")
        self.assertEqual(kept.exit_code, 1, kept.output)
        self.assertIn("[[keep]] in the configuration file names docker.io/library/alpine:3", kept.stderr)
        self.assertEqual(rm(self.directory / "other", keep, "--dry-run").exit_code, 0)
        wrong = rm(self.cache, "[[keep]]\n", "--yes")
        self.assertEqual(wrong.exit_code, 1)
        self.assertIn("give images, or hot", wrong.stderr)
        shown = self.said(0, "ls", "alpine", "--cache", str(self.cache), DOCXY_CONFIG=str(file))
        self.assertIn("docker.io/library/alpine", shown)
        removed = rm(self.cache, "", "--yes")
        self.assertEqual(removed.exit_code, 0, removed.output)

    def test_no_archive(self) -> None:
        """One line, no traceback."""
        (self.directory / "x").write_text("no tar")
        result = self.run_docxy("import", str(self.directory / "x"), "--cache", str(self.cache))
        self.assertEqual((result.exit_code, len(result.stderr.splitlines())), (1, 1), result.stderr)


class WarmCommand(AdminCase):
    def test_nothing(self) -> None:
        """Without an image or a file the command line is wrong."""
        self.assertEqual(self.run_docxy("warm").exit_code, 2)

    def test_not_running(self) -> None:
        """Without a docxy that runs the exit status is 3."""
        result = self.run_docxy("warm", "alpine", "--socket", "/nonexistent.sock")
        self.assertEqual(result.exit_code, 3)

    def test_wait(self) -> None:
        """With --wait a pull limit that is used up is waited for, as long as docxy says; without it that is the end."""
        row = {"name": NAME, "platform": None, "digest": "", "size": 9, "fetched": 9, "retry_after": None}
        limited = {**row, "error": "reserved for others", "status": 429}
        told = [{**limited, "retry_after": 90.0}, limited, {**row, "error": "", "status": 0}]
        self.answers["warm"] = lambda given: [{"item": told.pop(0)}, {"done": {}}]
        slept: list[float] = []
        self.patch(warm.time, "sleep", slept.append)
        result = self.run_docxy("warm", "alpine:3", "--wait", "--floor", "25")
        self.assertEqual((result.exit_code, slept), (0, [90.0, warm.USUAL_WAIT]))
        self.assertIn("reserved for others; trying again in 90 s", result.stderr)
        self.assertEqual(self.acts, [("warm", {"image": ["alpine:3"], "floor": 0.25})] * 3)
        told.append(limited)
        self.assertIn("reserved for others", self.said(1, "warm", "alpine:3"))
        self.assertEqual(len(slept), 2)

    def test_long_names(self) -> None:
        """However long a name is, it begins beside its mark, and goes on below itself."""
        for error, mark in (("", "✓"), ("it is not there", "✗")):
            told = {"name": f"ghcr.io/{'a' * 90}:1", "platform": None, "digest": "", "size": 9, "fetched": 9}
            row = {**told, "error": error, "status": 404 if error else 0, "retry_after": None}
            self.answers["warm"] = [{"item": row}, {"done": {}}]
            text = [line.rstrip() for line in self.run_docxy("warm", "x").stdout.splitlines()]
            self.assertEqual(text[:2], [f"{mark} ghcr.io/{'a' * 70}", f"  {'a' * 20}:1"])
            self.assertEqual(text[2], f"  {error or '9 B, 9 B fetched'}")
