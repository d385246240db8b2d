"""Why a pull was slow, in the words of the page: the table in the documentation, and both languages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from docxy.daemon.drain import STOPPED
from docxy.observe.verdict import Cause, Verdict, words
from docxy.web.pages.words import CHINESE, ENGLISH, LANGUAGES, Words, said

PAGE = Path(__file__).resolve().parents[3] / "docs" / "status.md"


class Noting(Words):
    """Words that note which of them are said."""

    def __init__(self, language: str) -> None:
        super().__init__(**{f"_{key}": text for key, text in LANGUAGES[language][1].items()})
        self.noted: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        # For what is not found as it is called, which no word is.
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            text = self.__dict__[f"_{name}"]
        except KeyError:
            raise AttributeError(name) from None
        self.noted.add(name)
        return text


def of(cause: Cause, **more: Any) -> Verdict:
    return Verdict(cause, "docker.io", 70_000_000, 0.4, **more)


TOLD: tuple[tuple[Verdict, str, str], ...] = (
    (of(Cause.CACHE), "from the cache", "来自缓存"),
    (of(Cause.CLIENT, rate=2e6), "the client took 2.0 MB/s", "客户端接收速度 2.0 MB/s"),
    (of(Cause.UPSTREAM, rate=3e6), "docker.io sent 3.0 MB/s", "docker.io 发送速度 3.0 MB/s"),
    (
        of(Cause.UPSTREAM, rate=3e6, connections=2),
        "docker.io sent 3.0 MB/s over 2 connections",
        "docker.io 经 2 条连接发送，速度 3.0 MB/s",
    ),
    (of(Cause.UPSTREAM, rate=3e6, archived=True), "the archive sent 3.0 MB/s", "归档存储发送速度 3.0 MB/s"),
    (of(Cause.HEADERS, waited=12), "docker.io took 12 s to answer", "docker.io 用了 12 秒才响应"),
    (
        of(Cause.HEADERS, waited=12, archived=True),
        "docker.io or the archive took 12 s to answer",
        "docker.io 或归档存储用了 12 秒才响应",
    ),
    (
        of(Cause.RATE, rate=3e6),
        "docxy's own limit (max_rate) let docker.io send 3.0 MB/s",
        "受 docxy 自身限速（max_rate），docker.io 发送速度 3.0 MB/s",
    ),
    (
        of(Cause.RATE, rate=3e6, archived=True),
        "docxy's own limit (max_rate) let the archive send 3.0 MB/s",
        "受 docxy 自身限速（max_rate），归档存储发送速度 3.0 MB/s",
    ),
    (
        of(Cause.REDIRECTED, redirected=2),
        "layers that the client got from the archive itself, which docxy does not measure: 2",
        "客户端直接从归档存储下载了 2 个层，docxy 无法计时",
    ),
    (
        of(Cause.CONNECTION, waited=6),
        "waited 6.0 s for a free connection to docker.io",
        "等待到 docker.io 的空闲连接 6.0 秒",
    ),
    (of(Cause.LOGIN, waited=4), "the check of the password took 4.0 s", "密码校验耗时 4.0 秒"),
    (of(Cause.DISK, waited=4), "the cache's disk took 4.0 s", "缓存磁盘耗时 4.0 秒"),
    (
        of(Cause.LIMITED, waited=30),
        "docker.io answered 429: its pull limit is used up, wait 30 s",
        "docker.io 返回 429：拉取配额已用完，需等待 30 秒",
    ),
    (
        of(Cause.LIMITED, waited=30, overcome=True),
        "docker.io answered 429: its pull limit is used up, waited 30 s",
        "docker.io 返回 429：拉取配额已用完，已等待 30 秒",
    ),
    (
        of(Cause.LIMITED, limit="layers"),
        "docker.io answered 429 for a layer: it limits requests",
        "docker.io 对层的请求返回 429：请求过于频繁",
    ),
    (
        of(Cause.LIMITED, limit="tokens"),
        "the token service of docker.io answered 429: it limits requests",
        "docker.io 的令牌服务返回 429：请求过于频繁",
    ),
    (of(Cause.RECALLED, error="CVE-2026-1234"), "recalled: CVE-2026-1234", "已召回：CVE-2026-1234"),
    (
        of(Cause.RESERVED),
        "what is left of the pull limit of docker.io is kept for others",
        "docker.io 剩余的拉取额度保留给其他用户组",
    ),
    (of(Cause.NOTHING), "no wait stands out", "没有明显的等待"),
    (of(Cause.NOTHING, resumed=2), "no wait stands out; resumed 2×", "没有明显的等待；续传 2 次"),
    (of(Cause.NOTHING, failovers=1), "no wait stands out; failed over 1×", "没有明显的等待；切换端点 1 次"),
    (
        of(Cause.NOTHING, joined=1),
        "no wait stands out; joined fetches of other clients: 1",
        "没有明显的等待；加入其他客户端正在进行的下载 1 个",
    ),
    (
        of(Cause.FAILED, status=502, error="docker.io does not answer"),
        "failed with status 502: docker.io does not answer",
        "失败，状态码 502: docker.io does not answer",
    ),
    (of(Cause.FAILED, status=404), "failed with status 404", "失败，状态码 404"),
    (of(Cause.FAILED, status=200, error=STOPPED), f"broke off: {STOPPED}", f"中途断开: {STOPPED}"),
    (of(Cause.FAILED, status=200), "the client broke off", "客户端中途断开"),
)
"""A verdict, and what the page says of it in each language."""


class WordsTests(SynchronousTestCase):
    """Each verdict in both languages."""

    def test_said(self) -> None:
        """Each word of a verdict is said by one of these, and by none another one."""
        for language, told in (("en", ENGLISH), ("zh", CHINESE)):
            t = Noting(language)
            for verdict, *texts in TOLD:
                self.assertEqual(said(verdict, t), texts[language == "zh"])
            self.assertEqual({key for key in told if key.startswith("v_")} - t.noted, set(), language)
        self.assertEqual({verdict.cause for verdict, *_ in TOLD}, set(Cause))

    def test_all_after(self) -> None:
        """What happened on the way follows the cause, all of it."""
        after = of(Cause.CLIENT, rate=2e6, resumed=2, failovers=1, joined=3)
        for language, text in (
            ("en", "the client took 2.0 MB/s; resumed 2×; failed over 1×; joined fetches of other clients: 3"),
            ("zh", "客户端接收速度 2.0 MB/s；续传 2 次；切换端点 1 次；加入其他客户端正在进行的下载 3 个"),
        ):
            self.assertEqual(said(after, Noting(language)), text)

    def test_documented(self) -> None:
        """The table in the documentation quotes what the page says: each of these, and nothing else."""
        rows = PAGE.read_text("utf-8").partition("| the page says |")[2].partition("\n\n")[0].split("\n")[2:]
        quoted = [quote for row in rows for quote in re.findall("`([^`]+)`", row.split(" | ")[0])]
        self.assertEqual(len(quoted), len(set(quoted)))
        shown = {text.replace("no wait stands out;", "…;") for _, text, _ in TOLD}
        self.assertEqual(set(quoted), shown)
        self.assertTrue(f"`{words(of(Cause.CACHE))}`" in PAGE.read_text("utf-8"), "what docxy why says")
