"""Each part of the status page, in both languages: what it says of a docxy in full swing and of one in trouble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.observe import journal
from docxy.observe.exchange import WAITS
from docxy.web.pages.clients import clients, kubernetes
from docxy.web.pages.page import Pages
from docxy.web.pages.waterfall import ROWS
from tests.unit.cli.canned import INDEX, LAYER, NOW, part, pull, snapshot, troubled, upstream
from tests.unit.web.page import Page, Part

ROW = {"upstream": "ghcr.io", "repository": "o/i", "name": "ghcr.io/o/i", "used": NOW - 7200.0}
PAGES = Pages()
FILL = {"digest": LAYER, "size": 80_000_000, "offset": 20_000_000, "rate": 2e6, "readers": 2, "connections": 1}


def shown(told: Mapping[str, Any], language: str = "en") -> Page:
    """The page of a snapshot; its live part, which JavaScript fetches, says the same."""
    pulls = [journal.from_json(each) for each in told["pulls"]]
    page = Page(PAGES.status({**told, "pulls": pulls}, language, ""))
    live = Page(PAGES.live({**told, "pulls": pulls}, language, ""))
    for name, each in live.parts.items():
        assert page.parts[name].text == each.text, name
    return page


def bars(of: Part) -> list[tuple[str, str]]:
    """The class and width of what bars and waterfalls are drawn of, in their order, without their tracks."""
    rects = [attributes for tag, attributes in of.tags if tag == "rect" and attributes.get("class") != "track"]
    return [(str(each.get("class") or ""), str(each["width"])) for each in rects]


class PartsCase(SynchronousTestCase):
    """Both languages, one after the other."""

    def check(self, told: Mapping[str, Any], name: str, english: str, chinese: str) -> None:
        """A part of the page holds these words."""
        for language, words in (("en", english), ("zh", chinese)):
            self.assertIn(words, shown(told, language).parts[name].text, language)


class HealthTests(PartsCase):
    """The first line, and the problems under it."""

    def test_well(self) -> None:
        self.check(snapshot(), "state", "Well: 2 workers serving, up 3 days", "运行正常：2 个工作进程，已运行 3 天")
        one = snapshot(docxy={**snapshot()["docxy"], "workers": 1})
        self.check(one, "state", "Well: 1 worker serving", "运行正常：1 个工作进程")

    def test_problems(self) -> None:
        """Each problem is a line of its own; a triangle, not the colour alone, says that something is wrong."""
        self.check(troubled(), "state", "Degraded: pulls go on", "降级运行：仍可拉取")
        self.check(
            troubled(), "state", "ghcr.io does not answer: connection refused", "ghcr.io 无响应：connection refused"
        )
        self.check(
            troubled(),
            "state",
            "The cache cannot be used, clients are served past it: /var/cache/docxy: No space left",
            "缓存不可用，请求绕过缓存：/var/cache/docxy: No space left",
        )
        self.check(troubled(), "state", "The certificate ends in 60 min.", "证书将在 60 分钟后到期。")
        for told, tone, drawn in ((snapshot(), "good", "circle"), (troubled(), "warn", "path")):
            state = shown(told).parts["state"]
            self.assertEqual(len(state.of_class(tone)), 1)
            self.assertIn(drawn, [tag for tag, _ in state.tags])

    def test_unnamed(self) -> None:
        """A registry that only a client named, and that does not answer, is not docxy's problem."""
        gone = upstream(name="nowhere.test", named=False, state="backing-off", error="no such host", until=NOW + 9.0)
        page = shown(snapshot(upstreams=[upstream(), gone]))
        self.assertIn("Well", page.parts["state"].text)
        self.assertIn("nowhere.test unreachable no such host; next try in 9.0 s", page.parts["upstreams"].text)


class UseTests(PartsCase):
    """How to use this mirror."""

    def test_first(self) -> None:
        """First, and in the open, the one file that covers every registry; what follows is folded."""
        for language in ("en", "zh"):
            page = shown(snapshot(), language)
            self.assertEqual(page.files[0], '[host."https://mirror.example"]\ncapabilities = ["pull", "resolve"]')
            tags = [tag for tag, _ in page.parts["use"].tags if tag in ("h2", "figure", "details")]
            self.assertEqual(tags[:2], ["h2", "figure"])
            self.assertEqual(tags[2:], ["details", "figure"] * (len(page.files) - 1))
            self.assertLess(page.parts["use"].text.index("/etc/containerd/certs.d/_default/hosts.toml"), 300)

    def test_kubernetes(self) -> None:
        """What writes that file on every node of a cluster is there to be copied, as `docxy config` prints it."""
        for url in ("https://mirror.example", "http://10.0.0.1:5000"):
            page = shown(snapshot(docxy={**snapshot()["docxy"], "public_url": url}))
            self.assertEqual(page.files[-1], kubernetes(url).text)
            self.assertIn(f'[host."{url}"]', page.files[-1])
            use = page.parts["use"].text
            self.assertIn("Kubernetes with containerd kubectl apply -f docxy-mirror.yaml", use)
        self.check(snapshot(), "use", "kind: DaemonSet", "kind: DaemonSet")

    def test_files(self) -> None:
        """Each client's file is on the page to the letter."""
        names = [each["name"] for each in snapshot()["upstreams"]]
        for file in clients("https://mirror.example", names):
            self.assertIn(file.text, shown(snapshot()).files, file.name)


class UpstreamTests(PartsCase):
    """Registries, with what is left of their pull limits."""

    def test_ok(self) -> None:
        """One that answers says how fast, and how long its limit lasts."""
        self.check(
            snapshot(),
            "upstreams",
            "docker.io reachable answers in 0.1 s, asked 3.0 s ago "
            "20 of 100 pulls left; at this pace they end in 30 min",
            "docker.io 可达 响应时间 0.1 秒，3.0 秒前请求过 拉取配额剩余 20 / 100，按目前速度将在 30 分钟后用完",
        )
        upstreams = shown(snapshot()).parts["upstreams"]
        self.assertEqual(bars(upstreams), [("", "20.0")], "ghcr.io tells of no limit and has no bar")
        (bar,) = upstreams.of_class("bar")
        self.assertEqual((bar["class"], bar["role"]), ("bar warn", "img"), "less than a quarter is left")
        self.assertIn("20 of 100 pulls left", str(bar["aria-label"]))

    def test_unasked(self) -> None:
        """One that nobody asked for is not called well."""
        quiet = upstream(state="unasked", asked=None, latency=None, limit=None, remaining=None, ends_at=None)
        told = snapshot(upstreams=[quiet])
        self.check(told, "upstreams", "docker.io not asked yet nobody asked", "docker.io 尚未请求 启动以来尚无请求")

    def test_limited(self) -> None:
        """One that answered 429 says when it is asked again, and that nothing is left, not when that ends."""
        self.check(
            troubled(),
            "upstreams",
            "docker.io limits pulls docker.io answered 429; next try in 10 min 0 of 100 pulls left ghcr.io",
            "docker.io 限流中 docker.io answered 429；10 分钟后重试 拉取配额剩余 0 / 100 ghcr.io",
        )
        upstreams = shown(troubled()).parts["upstreams"]
        self.assertEqual(bars(upstreams)[0], ("", "0.0"))
        self.assertEqual(upstreams.of_class("bar")[0]["class"], "bar bad")

    def test_backing_off(self) -> None:
        """One that docxy leaves alone says why, and until when."""
        self.check(
            troubled(),
            "upstreams",
            "ghcr.io unreachable connection refused; next try in 30 s",
            "ghcr.io 不可达 connection refused；30 秒后重试",
        )
        tones = shown(troubled()).parts["upstreams"]
        self.assertEqual([len(tones.of_class(tone)) for tone in ("good", "small warn", "small bad")], [0, 0, 0])
        colours = [attributes["class"] for tag, attributes in tones.tags if tag == "span"]
        self.assertEqual(colours, ["small warn", "small bad"])

    def test_last_day(self) -> None:
        """The end of a limit that is more than a day away is not told: the pace of half an hour does not last."""
        far = snapshot(upstreams=[upstream(ends_at=NOW + 2 * 86400.0)])
        self.assertTrue(shown(far).parts["upstreams"].text.endswith("20 of 100 pulls left"))


class FillTests(PartsCase):
    """Layers on the way."""

    def test_row(self) -> None:
        """A layer has its image, how much is here of how much, its rate and its clients."""
        row = "| ghcr.io/o/i sha256:abababababab | 20.0 MB / 80.0 MB | 2.0 MB/s | 2"
        self.check(snapshot(), "fills", f"Clients {row}", f"客户端 {row}")
        fills = shown(snapshot()).parts["fills"]
        self.assertEqual(bars(fills), [("", "25.0")])
        self.assertEqual(fills.of_class("bar")[0]["aria-label"], "25 %")
        self.assertIn(("a", {"href": "/status/image?name=ghcr.io/o/i"}), fills.tags)

    def test_unknown_size(self) -> None:
        """Without a length there is no share, and more bytes than were told are no more than all."""
        rows = [{**ROW, **FILL, "size": None}, {**ROW, **FILL, "size": 10_000_000}]
        fills = shown(snapshot(fills=rows)).parts["fills"]
        self.assertEqual(bars(fills), [("", "0"), ("", "100.0")])
        self.assertEqual([bar["aria-label"] for bar in fills.of_class("bar")], ["–", "100 %"])

    def test_none(self) -> None:
        self.check(snapshot(fills=[]), "fills", "Nothing is being fetched right now.", "当前没有下载任务。")


class PullTests(PartsCase):
    """Recent pulls: who, how much, how long, why, and the waterfall."""

    def test_row(self) -> None:
        who = "| docker.io/library/alpine:3.20 alice · 10.0.0.5 · docker/29.0.1 · linux/amd64 |"
        self.check(snapshot(), "pulls", f"{who} 3 min ago | 30.0 MB | 12 s |", f"{who} 3 分钟前 | 30.0 MB | 12 秒 |")
        why = "docker.io sent 3.0 MB/s over 2 connections", "docker.io 经 2 条连接发送，速度 3.0 MB/s"
        self.check(snapshot(), "pulls", *why)
        self.check(snapshot(pulls=[]), "pulls", "Nobody has pulled yet.", "暂无拉取记录。")

    def test_waterfall(self) -> None:
        """A bar for each answer: where it lies, how long it is, and of what its time consisted."""
        pulls = shown(snapshot()).parts["pulls"]
        # The manifest took 2 s of 12, of which 1.9 s for the registry to answer; the layer 10 s, 9 s for its bytes.
        drawn = [("body", "40.0"), ("headers", "38.0"), ("body", "200.0"), ("upstream", "180.0")]
        self.assertEqual(bars(pulls), drawn)
        starts = [
            attributes["x"] for tag, attributes in pulls.tags if tag == "rect" and attributes.get("class") == "body"
        ]
        self.assertEqual(starts, ["0.0", "40.0"])
        (drawing,) = pulls.of_class("waterfall")
        self.assertEqual((drawing["role"], drawing["aria-label"]), ("img", "2 · 12 s"))
        for language, first in (
            ("en", "3.20 · 1.2 kB · 2.0 s · miss · waited for the registry's answer: 1.9 s"),
            ("zh", "3.20 · 1.2 kB · 2.0 秒 · miss · 等待上游响应: 1.9 秒"),
        ):
            self.assertEqual(shown(snapshot(), language).parts["pulls"].titles[0], first)

    def test_colours(self) -> None:
        """What came from the cache, what failed and what broke off look different; the key names each colour."""
        parts = [
            part(cache="hit", waits={}, seconds=1.0),
            part(cache="stale", waits={}, seconds=1.0),
            part(cache="miss", status=502, waits={"headers": 0.9}, seconds=1.0),
            part(whole=False, seconds=1.0),
        ]
        pulls = shown(snapshot(pulls=[pull(parts=parts)])).parts["pulls"]
        self.assertEqual([kind for kind, _ in bars(pulls)], ["hit", "hit", "failed", "failed"])
        key = [str(attributes["class"]) for tag, attributes in pulls.tags if tag == "i"]
        self.assertEqual(key, ["hit", *WAITS, "body"])

    def test_many(self) -> None:
        """Of many answers the longest are drawn, none too narrow to be seen, and none outside."""
        parts = [part(reference=f"r{n}", at=NOW - 170 + n / 9, seconds=n / 1000, waits={}) for n in range(40)]
        pulls = shown(snapshot(pulls=[pull(parts=parts)])).parts["pulls"]
        self.assertEqual(len(bars(pulls)), ROWS)
        self.assertEqual([title.split(" ")[0] for title in pulls.titles], [f"r{n}" for n in range(28, 40)])
        for tag, attributes in pulls.tags:
            if tag == "rect":
                self.assertGreaterEqual(float(str(attributes["width"])), 1.5)
                self.assertLessEqual(float(str(attributes["x"])) + float(str(attributes["width"])), 240.0)


class FigureTests(PartsCase):
    """Hit rates, cache and archive."""

    def test_figures(self) -> None:
        figures = "From the cache, last hour 92 % 8.3 GB of 9.0 GB saved 5 % joined a fetch Last 24 hours 88 %"
        self.check(
            snapshot(),
            "figures",
            figures,
            "近 1 小时命中率 92 % 已发送 9.0 GB，节省 8.3 GB 5 % 加入正在进行的下载 近 24 小时 88 %",
        )
        self.check(snapshot(), "figures", "Cache 12.0 GB of 48.0 GB", "缓存 12.0 GB 上限 48.0 GB")
        self.assertEqual(bars(shown(snapshot()).parts["figures"]), [("", "25.0")])
        self.check(snapshot(cache=None), "figures", "Cache off", "缓存 未启用")

    def test_nothing_yet(self) -> None:
        """Before the first pull there is no rate: a dash, not nought percent."""
        none = {"answers": 0, "hits": 0, "joined": 0, "sent": 0, "saved": 0, "received": 0}
        told = snapshot(traffic={"hour": none, "day": none, "week": none})
        self.check(told, "figures", "From the cache, last hour – 0 B of 0 B saved", "近 1 小时命中率 –")


class CacheTests(PartsCase):
    """What takes most of the cache, and what goes next."""

    def told(self) -> dict[str, Any]:
        large = [{**ROW, "size": 3_000_000_000, "blobs": 12}]
        # One layer of two repositories, and one that no manifest leads to any more.
        other = {**ROW, "repository": "o/other", "name": "ghcr.io/o/other", "digest": LAYER, "size": 5_000_000}
        next = [{**ROW, "digest": LAYER, "size": 5_000_000}, other, {**ROW, "name": "", "digest": INDEX, "size": 900}]
        return snapshot(cache={"used": 1, "budget": 2, "largest": large, "next": next})

    def test_largest(self) -> None:
        row = "| ghcr.io/o/i | 12 | 3.0 GB"
        self.check(
            self.told(),
            "repositories",
            f"Largest in the cache | Repository | Blobs | Size {row}",
            f"占用缓存最多的镜像 | 镜像 | 数据块 | 大小 {row}",
        )

    def test_next(self) -> None:
        """A layer is one row, by the first of its repositories; one that has none has a dash."""
        rows = "| ghcr.io/o/i | sha256:abababababab | 5.0 MB | {} | – | sha256:cdcdcdcdcdcd | 900 B | {}"
        self.check(self.told(), "next", rows.format("2 h ago", "2 h ago"), rows.format("2 小时前", "2 小时前"))
        self.check(self.told(), "next", "Next to be evicted", "即将淘汰")
        self.assertNotIn("o/other", shown(self.told()).parts["next"].text)

    def test_most_pulled(self) -> None:
        told = snapshot(repositories=[{**ROW, "pulls": 7, "sent": 4_000_000}])
        self.check(told, "repositories", "Most pulled | Repository | Pulls | Sent | ghcr.io/o/i | 7 | 4.0 MB", "| 7 |")
        self.check(told, "repositories", "Most pulled", "拉取最多的镜像")

    def test_nothing(self) -> None:
        """With nothing to say the parts stay, empty, for the script to fill."""
        for name in ("repositories", "next", "errors"):
            self.assertEqual(shown(snapshot(errors=[])).parts[name].text, "")


class FailureTests(PartsCase):
    """Recent failures."""

    def test_row(self) -> None:
        row = "| ghcr.io/o/i | ghcr.io does not answer"
        self.check(troubled(), "errors", f"Recent failures | When | Repository | What went wrong | 60 s ago {row}", row)
        self.check(troubled(), "errors", row, f"最近失败 | 时间 | 镜像 | 原因 | 60 秒前 {row}")

    def test_escaped(self) -> None:
        """What a registry or a client wrote is text everywhere: no tag comes of it."""
        evil = "<script>alert(1)</script>"
        told = snapshot(
            errors=[{**troubled()["errors"][0], "words": evil, "name": evil}],
            upstreams=[upstream(state="backing-off", error=evil, until=NOW + 1.0)],
            fills=[{**ROW, **FILL, "repository": evil}],
            pulls=[pull(agent=evil, account=evil, image=evil, parts=[part(reference=evil, cache=evil)])],
        )
        tags = [tag for tag, attributes in shown(told).tags if tag == "script" and "src" not in attributes]
        self.assertEqual(tags, [])
