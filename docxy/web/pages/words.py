"""The words of the pages, in English and Chinese.

Pure.  The law: both languages have the same words, with the same figures in them; a test compares
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from docxy.observe.verdict import Cause, Verdict, amount, duration

ENGLISH: dict[str, str] = {
    "lang": "en",
    "language": "Language",
    "skip": "Skip to the content",
    "copy": "Copy",
    "copied": "Copied",
    "title": "Pull through {host}",
    "intro": "This server is a mirror of {upstreams}. It fetches each layer once and shares it with everyone.",
    "use": "Use it",
    "use_all": "One file on each machine with containerd, nodes of Kubernetes among them, or with Docker's containerd "
    "image store (the default since 29), covers every registry of this mirror:",
    "well": "Well: {workers} serving, up {uptime}",
    "workers": "{n} workers",
    "worker": "1 worker",
    "degraded": "Degraded: pulls go on",
    "failing": "Failing",
    "cache_off": "The cache cannot be used, clients are served past it: {why}",
    "archive_off": "The archive fails, pulls go on without it: {why}",
    "down": "{name} does not answer: {error}",
    "certificate": "The certificate ends in {days}.",
    "certificate_own": "docxy renews its certificate in {wait}; it ends in {days}.",
    "certificate_fails": "No new certificate for {names}: {error}. docxy tries again in {wait}.",
    "fills": "On the way",
    "no_fills": "Nothing is being fetched right now.",
    "layer": "Layer",
    "progress": "Progress",
    "rate": "Rate",
    "joined": "Clients",
    "figures": "Figures",
    "hour": "From the cache, last hour",
    "day": "Last 24 hours",
    "week": "Last 7 days",
    "saved": "{saved} of {sent} saved",
    "shared": "{share} joined a fetch",
    "cache": "Cache",
    "archive": "Archive",
    "archive_read": "came from it",
    "archive_put": "{put} put, {waiting} blobs wait",
    "archive_failed": "{n} requests failed",
    "of": "of {budget}",
    "off": "off",
    "largest": "Largest in the cache",
    "blobs": "Blobs",
    "next": "Next to be evicted",
    "next_why": "What was used least recently goes first when the cache needs room.",
    "last_used": "Last used",
    "upstreams": "Registries",
    "ok": "reachable",
    "unasked": "not asked yet",
    "backing-off": "unreachable",
    "limited": "limits pulls",
    "answers": "answers in {latency}, asked {ago} ago",
    "quiet": "nobody asked for it since the start",
    "failed": "{error}; next try in {wait}",
    "quota": "{remaining} of {limit} pulls left",
    "quota_ends": "{remaining} of {limit} pulls left; at this pace they end in {wait}",
    "pulls": "Recent pulls",
    "no_pulls": "Nobody has pulled yet.",
    "image": "Image",
    "when": "When",
    "ago": "{time} ago",
    "now": "now",
    "size": "Size",
    "time": "Time",
    "layers": "Layers",
    "why": "Why it took that long",
    "most": "Most pulled",
    "repository": "Repository",
    "pulled": "Pulls",
    "sent": "Sent",
    "errors": "Recent failures",
    "error": "What went wrong",
    "tag": "Tag",
    "platforms": "Platforms",
    "last_pulled": "Last pulled",
    "first_pulled": "First seen",
    "tag_history": "History of the tags",
    "gone": "deleted by the registry",
    "mark_recalled": "recalled",
    "mark_frozen": "frozen",
    "mark_pinned": "pinned",
    "mark_kept": "kept",
    "in_cache": "In the cache",
    "download": "Download",
    "archive_is": "A tar for docker load and an OCI layout: of linux/amd64, or of the only platform it has. "
    "&platform=linux/arm64 or &platform=all at the end of its address takes another one, or all.",
    "held": "{amount} in the cache",
    "confirmed": "Confirmed",
    "partly": "{cached} of {size}",
    "blob_count": "layers and config: {n}",
    "there": "cached",
    "absent": "not cached",
    "no_platform": "No platform of it is cached.",
    "unknown_platform": "platform not known",
    "askers": "Who pulled it",
    "client": "Client",
    "count": "Pulls",
    "nobody": "Nothing of this image is known here.",
    "unit_ms": "ms",
    "unit_s": "s",
    "unit_min": "min",
    "unit_h": "h",
    "unit_days": "days",
    "key_hit": "from the cache",
    "key_login": "waited for the check of the password",
    "key_headers": "waited for the registry's answer",
    "key_upstream": "waited for its bytes",
    "key_rate": "waited for docxy's own limit",
    "key_connection": "waited for a connection",
    "key_disk": "waited for the disk",
    "key_client": "waited for the client",
    "key_body": "the rest",
    "v_limited": "{name} answered 429: its pull limit is used up{wait}",
    "v_recalled": "recalled: {reason}",
    "v_reserved": "what is left of the pull limit of {name} is kept for others",
    "v_limited_layers": "{name} answered 429 for a layer: it limits requests{wait}",
    "v_limited_tokens": "the token service of {name} answered 429: it limits requests{wait}",
    "v_wait": ", wait {time}",
    "v_waited": ", waited {time}",
    "v_failed": "failed with status {status}",
    "v_broke": "broke off",
    "v_left": "the client broke off",
    "v_client": "the client took {rate}/s",
    "v_upstream": "{name} sent {rate}/s",
    "v_upstream_many": "{name} sent {rate}/s over {n} connections",
    "v_upstream_archived": "the archive sent {rate}/s",
    "v_headers_archived": "{name} or the archive took {time} to answer",
    "v_rate_archived": "docxy's own limit (max_rate) let the archive send {rate}/s",
    "v_redirected": "layers that the client got from the archive itself, which docxy does not measure: {n}",
    "v_headers": "{name} took {time} to answer",
    "v_rate": "docxy's own limit (max_rate) let {name} send {rate}/s",
    "v_connection": "waited {time} for a free connection to {name}",
    "v_login": "the check of the password took {time}",
    "v_disk": "the cache's disk took {time}",
    "v_cache": "from the cache",
    "v_nothing": "no wait stands out",
    "v_resumed": "; resumed {n}×",
    "v_failovers": "; failed over {n}×",
    "v_joined": "; joined fetches of other clients: {n}",
}

CHINESE: dict[str, str] = {
    "lang": "zh",
    "language": "语言",
    "skip": "跳到正文",
    "copy": "复制",
    "copied": "已复制",
    "title": "通过 {host} 拉取镜像",
    "intro": "本服务是 {upstreams} 的代理缓存：每个层只从上游下载一次，供所有人共享。",
    "use": "如何使用",
    "use_all": "containerd（包括 Kubernetes 节点），以及使用 containerd 镜像存储的 Docker（29 起为默认）："
    "每台机器只需一个文件，即可覆盖本站代理的所有镜像仓库：",
    "well": "运行正常：{workers}，已运行 {uptime}",
    "workers": "{n} 个工作进程",
    "worker": "1 个工作进程",
    "degraded": "降级运行：仍可拉取",
    "failing": "故障",
    "cache_off": "缓存不可用，请求绕过缓存：{why}",
    "archive_off": "归档存储异常，拉取不受影响：{why}",
    "down": "{name} 无响应：{error}",
    "certificate": "证书将在 {days}后到期。",
    "certificate_own": "docxy 将在 {wait}后续期证书，证书还有 {days}到期。",
    "certificate_fails": "无法为 {names} 取得新证书：{error}。docxy 将在 {wait}后重试。",
    "fills": "正在下载",
    "no_fills": "当前没有下载任务。",
    "layer": "层",
    "progress": "进度",
    "rate": "速率",
    "joined": "客户端",
    "figures": "数据",
    "hour": "近 1 小时命中率",
    "day": "近 24 小时",
    "week": "近 7 天",
    "saved": "已发送 {sent}，节省 {saved}",
    "shared": "{share} 加入正在进行的下载",
    "cache": "缓存",
    "archive": "归档存储",
    "archive_read": "读取",
    "archive_put": "已写入 {put}，待写入数据块 {waiting} 个",
    "archive_failed": "{n} 次请求失败",
    "of": "上限 {budget}",
    "off": "未启用",
    "largest": "占用缓存最多的镜像",
    "blobs": "数据块",
    "next": "即将淘汰",
    "next_why": "缓存空间不足时，最久未使用的内容最先淘汰。",
    "last_used": "上次使用",
    "upstreams": "镜像仓库",
    "ok": "可达",
    "unasked": "尚未请求",
    "backing-off": "不可达",
    "limited": "限流中",
    "answers": "响应时间 {latency}，{ago}前请求过",
    "quiet": "启动以来尚无请求",
    "failed": "{error}；{wait}后重试",
    "quota": "拉取配额剩余 {remaining} / {limit}",
    "quota_ends": "拉取配额剩余 {remaining} / {limit}，按目前速度将在 {wait}后用完",
    "pulls": "最近拉取",
    "no_pulls": "暂无拉取记录。",
    "image": "镜像",
    "when": "时间",
    "ago": "{time}前",
    "now": "进行中",
    "size": "大小",
    "time": "耗时",
    "layers": "层",
    "why": "耗时原因",
    "most": "拉取最多的镜像",
    "repository": "镜像",
    "pulled": "拉取次数",
    "sent": "发送",
    "errors": "最近失败",
    "error": "原因",
    "tag": "标签",
    "platforms": "平台",
    "last_pulled": "最近拉取",
    "first_pulled": "首次出现",
    "tag_history": "标签历史",
    "gone": "已被上游删除",
    "mark_recalled": "已召回",
    "mark_frozen": "已冻结",
    "mark_pinned": "已固定",
    "mark_kept": "常驻缓存",
    "in_cache": "缓存内容",
    "download": "下载",
    "archive_is": "一个 tar，可用于 docker load，也是 OCI layout：linux/amd64 平台，或唯一的平台。"
    "在地址末尾加上 &platform=linux/arm64 或 &platform=all，即可取其他平台或全部平台。",
    "held": "缓存中有 {amount}",
    "confirmed": "最近确认",
    "partly": "{cached} / {size}",
    "blob_count": "层与配置：{n} 个",
    "there": "已缓存",
    "absent": "未缓存",
    "no_platform": "尚未缓存任何平台。",
    "unknown_platform": "平台未知",
    "askers": "拉取者",
    "client": "客户端",
    "count": "拉取次数",
    "nobody": "没有该镜像的记录。",
    "unit_ms": "毫秒",
    "unit_s": "秒",
    "unit_min": "分钟",
    "unit_h": "小时",
    "unit_days": "天",
    "key_hit": "来自缓存",
    "key_login": "等待密码校验",
    "key_headers": "等待上游响应",
    "key_upstream": "等待上游数据",
    "key_rate": "受 docxy 自身限速",
    "key_connection": "等待连接",
    "key_disk": "等待磁盘",
    "key_client": "等待客户端",
    "key_body": "其余",
    "v_limited": "{name} 返回 429：拉取配额已用完{wait}",
    "v_recalled": "已召回：{reason}",
    "v_reserved": "{name} 剩余的拉取额度保留给其他用户组",
    "v_limited_layers": "{name} 对层的请求返回 429：请求过于频繁{wait}",
    "v_limited_tokens": "{name} 的令牌服务返回 429：请求过于频繁{wait}",
    "v_wait": "，需等待 {time}",
    "v_waited": "，已等待 {time}",
    "v_failed": "失败，状态码 {status}",
    "v_broke": "中途断开",
    "v_left": "客户端中途断开",
    "v_client": "客户端接收速度 {rate}/s",
    "v_upstream": "{name} 发送速度 {rate}/s",
    "v_upstream_many": "{name} 经 {n} 条连接发送，速度 {rate}/s",
    "v_upstream_archived": "归档存储发送速度 {rate}/s",
    "v_headers_archived": "{name} 或归档存储用了 {time}才响应",
    "v_rate_archived": "受 docxy 自身限速（max_rate），归档存储发送速度 {rate}/s",
    "v_redirected": "客户端直接从归档存储下载了 {n} 个层，docxy 无法计时",
    "v_headers": "{name} 用了 {time}才响应",
    "v_rate": "受 docxy 自身限速（max_rate），{name} 发送速度 {rate}/s",
    "v_connection": "等待到 {name} 的空闲连接 {time}",
    "v_login": "密码校验耗时 {time}",
    "v_disk": "缓存磁盘耗时 {time}",
    "v_cache": "来自缓存",
    "v_nothing": "没有明显的等待",
    "v_resumed": "；续传 {n} 次",
    "v_failovers": "；切换端点 {n} 次",
    "v_joined": "；加入其他客户端正在进行的下载 {n} 个",
}

LANGUAGES = {"en": ("English", ENGLISH), "zh": ("中文", CHINESE)}


class Words(SimpleNamespace):
    """The words of one language, as attributes."""

    lang: str


def words_of(language: str) -> Words:
    """`en` or `zh`."""
    return Words(**LANGUAGES[language][1])


def chosen(asked: str | None, accept_language: str) -> str:
    """The language of a page: the one that was asked for, else the first of Accept-Language that we have.

    Quality values are obeyed (RFC 9110 section 12.5.4).
    """
    if asked in LANGUAGES:
        return str(asked)
    for tag in _preferred(accept_language):
        language = tag.partition("-")[0].lower()
        if language in LANGUAGES:
            return language
    return "en"


def _preferred(header: str) -> Sequence[str]:
    found: list[tuple[float, int, str]] = []
    for n, entry in enumerate(header[:1000].split(",")):
        tag, _, parameters = entry.strip().partition(";")
        quality = 1.0
        name, _, value = parameters.strip().partition("=")
        if name == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
        if tag and quality > 0:
            found.append((-quality, n, tag))
    return [tag for _, _, tag in sorted(found)]


def lasting(seconds: float, t: Words) -> str:
    """Seconds for people, in a page's language."""
    number, unit = duration(seconds).split(" ")
    return f"{number} {getattr(t, f'unit_{unit}')}"


def ago(at: float, now: float, t: Words) -> str:
    """How long ago something was."""
    return str(t.now) if now - at < 1 else str(t.ago.format(time=lasting(now - at, t)))


def said(told: Verdict, t: Words) -> str:
    """A verdict in a page's language."""
    after = ""
    if told.resumed:
        after += t.v_resumed.format(n=told.resumed)
    if told.failovers:
        after += t.v_failovers.format(n=told.failovers)
    if told.joined:
        after += t.v_joined.format(n=told.joined)
    rate, time = amount(told.rate or 0), lasting(told.waited, t)
    if told.cause is Cause.LIMITED:
        wait = (t.v_waited if told.overcome else t.v_wait).format(time=time) if told.waited else ""
        form = getattr(t, f"v_limited_{told.limit}") if told.limit else t.v_limited
        return str(form.format(name=told.upstream, wait=wait))
    if told.cause is Cause.FAILED:
        if not told.error and (told.status or 0) < 400:
            return str(t.v_left)
        failed = t.v_failed.format(status=told.status) if (told.status or 0) >= 400 else t.v_broke
        return f"{failed}: {told.error}" if told.error else str(failed)
    if told.cause is Cause.UPSTREAM and not told.archived:
        form = t.v_upstream_many if told.connections > 1 else t.v_upstream
        return str(form.format(name=told.upstream, rate=rate, n=told.connections)) + after
    form = getattr(t, f"v_{told.cause.value}")
    if told.archived:
        form = getattr(t, f"v_{told.cause.value}_archived", form)
    return str(form.format(name=told.upstream, rate=rate, time=time, reason=told.error, n=told.redirected)) + after
