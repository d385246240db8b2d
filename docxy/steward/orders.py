"""`freeze`, `release`, `recall`, `pin` and what undoes them: orders given, shown and taken back.

The laws: an order is on the disk, and every process that serves goes by it, before the command succeeds; where one
does not say so, the command fails and says that the order stands.  With `dry_run` an act says what it would do, and
changes nothing.  Orders are those of the cache's directory; the
configuration file's are changed there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from docxy.errors import BadRequest
from docxy.names import Digest
from docxy.orders.hottest import FACT, parsed
from docxy.orders.model import LONGEST, Kind, Order, TooMany
from docxy.orders.standing import Standing, standing
from docxy.orders.store import FileOrders, OrdersUnusable
from docxy.questions import Unanswered
from docxy.settings.image_names import ImageName, parse_digest, parse_image, parse_one_tag
from docxy.settings.model import DOCKER_HUB, Upstream
from docxy.settings.policy_tables import NO_REASON, parse_reason
from docxy.settings.presets import preset
from docxy.steward.lines import Arguments, Failed, Lines, done, item
from docxy.steward.steward import Steward

ORDERS = "orders"
"""The question under which a process looks at the orders, and answers what is pinned."""


_MOST_TAGS = 10_000
"""Of one repository, looked through."""


async def freeze(steward: Steward, arguments: Arguments) -> Lines:
    """Keep the tag `image` at its digest, or where it leads now; `dry_run`: only say where."""
    text = one(arguments, "image")
    if _about(steward, text) == ("", text):
        raise BadRequest(f"name the tag that is to stay there, as alpine:3.20@{text}")
    image = _parsed(text, lambda: parse_one_tag(text, known_upstreams(steward, text)))
    digest = image.digest
    if digest is None:
        digest = await _leads(steward, image)
        if digest is None:
            raise Failed(f"docxy does not know where {image} leads now: name a digest, as {text}@sha256:...")
    tag = ImageName(image.upstream, image.repository, image.tag)
    stands = {str(each.image): each.digest for each in steward.policy().freezes}
    if stands.get(str(tag), digest) != digest:
        raise Failed(f"the configuration file freezes {tag} at {stands[str(tag)]}: change it there, and reload")
    order = _order(steward, arguments, Kind.FREEZE, str(tag), str(digest))
    yield item(about=order.about, **order.to_json())
    await _put(steward, arguments, order)
    yield done(dry_run=arguments.flag("dry_run"))


async def _leads(steward: Steward, image: ImageName) -> Digest | None:
    """Where a tag leads, as far as docxy knows."""
    tags, name = steward.catalog.upstream(image.upstream).tags, str(image.tag)
    record = await tags.get(image.repository, name, latest=True)
    if record is not None:
        return record.digest
    # Those that take only some kinds of manifests have an answer of their own, as helm and oras do.
    known = await tags.newest(image.repository, _MOST_TAGS)
    return next((record.digest for each, record in known if each.partition(" ")[0] == name), None)


async def release(steward: Steward, arguments: Arguments) -> Lines:
    """Let a frozen tag move again; what is not frozen is excepted from the cooldown.

    `image`: an image, a glob or a digest; `lift`: take the exception back.
    """
    image, digest = _about(steward, one(arguments, "image"))
    about = image or digest
    lifted = False
    for each in (about, "" if ":" in about.rpartition("/")[2] else f"{about}:latest"):
        lifted = lifted or (bool(each) and await _lift(steward, arguments, Kind.FREEZE, each))
    if lifted:
        yield item(kind=Kind.FREEZE.value, about=about, lifted=True)
    elif arguments.flag("lift"):
        if not await _lift(steward, arguments, Kind.RELEASE, about):
            raise Failed(f"{about} is not released; docxy orders shows what is")
        yield item(kind=Kind.RELEASE.value, about=about, lifted=True)
    else:
        order = _order(steward, arguments, Kind.RELEASE, image, digest)
        await _put(steward, arguments, order)
        yield item(lifted=False, about=about, **order.to_json())
    yield done(dry_run=arguments.flag("dry_run"))


async def recall(steward: Steward, arguments: Arguments) -> Lines:
    """Have what `image` names, an image, a glob or a digest, pulled by nobody any more; `lift`: by all again."""
    image, digest = _about(steward, one(arguments, "image"))
    about = image or digest
    if arguments.flag("lift"):
        if not await _lift(steward, arguments, Kind.RECALL, about):
            raise Failed(f"{about} is not recalled by a command; docxy orders shows what is")
        yield item(kind=Kind.RECALL.value, about=about, lifted=True)
    else:
        order = _order(steward, arguments, Kind.RECALL, image, digest)
        yield item(lifted=False, about=about, **order.to_json())
        await _put(steward, arguments, order)
    yield done(dry_run=arguments.flag("dry_run"))


async def pin(steward: Steward, arguments: Arguments) -> Lines:
    """Keep what each `image` names, images, globs or digests; in the end how much that is, in bytes."""
    held: dict[str, Any] = {}
    for text in _some(arguments, "image"):
        order = _order(steward, arguments, Kind.PIN, *_about(steward, text))
        held = await _put(steward, arguments, order)
        yield item(about=order.about, **order.to_json())
    yield done(**held)


async def unpin(steward: Steward, arguments: Arguments) -> Lines:
    """Let what each `image` names be evicted again."""
    for text in _some(arguments, "image"):
        image, digest = _about(steward, text)
        about = image or digest
        if not await _lift(steward, arguments, Kind.PIN, about):
            raise Failed(f"{about} is not pinned; docxy orders shows what is")
        yield item(about=about)
    yield done()


async def orders(steward: Steward, arguments: Arguments) -> Lines:
    """An item for each order that a command gave, the oldest first."""
    stands = orders_of(steward).look()
    for order in stands.orders.values():
        yield item(about=order.about, **order.to_json())
    yield done(orders=len(stands.orders))


def stands(steward: Steward) -> Standing:
    """What commands and the policy in force order.  Raises Failed where the orders cannot be read."""
    orders = orders_of(steward).look()
    known = [each for order in orders.orders.values() for each in known_upstreams(steward, order.image)]
    unique = {each.name: each for each in known or known_upstreams(steward, "")}
    hottest = parsed(steward.catalog.facts.get(FACT)) or ()
    return standing(steward.policy(), orders, [*unique.values()], hottest)


def known_upstreams(steward: Steward, text: str) -> list[Upstream]:
    """The configured ones; where no docxy runs, Docker Hub and the one that an image's name begins with."""
    if steward.config is not None:
        return [*steward.config.registries]
    first, slash, _ = text.partition("/")
    return [DOCKER_HUB, *([preset(first)] if slash and ("." in first or ":" in first) else [])]


def _about(steward: Steward, text: str) -> tuple[str, str]:
    """What a text names: an image, or a digest where that says it all.  Raises BadRequest."""
    if text.startswith(("sha256:", "sha512:")):
        return "", str(_parsed(text, lambda: parse_digest(text)))
    image = _parsed(text, lambda: parse_image(text, known_upstreams(steward, text)))
    return ("", str(image.digest)) if image.digest is not None else (str(image), "")


def _parsed(text: str, parse: Callable[[], Any]) -> Any:
    try:
        if len(text) > LONGEST:
            raise ValueError("is too long")
        if text.startswith(("sha256:", "sha512:")):
            parse_digest(text)
        return parse()
    except ValueError as error:
        raise BadRequest(f"{text[:300]!a} {error}") from None


def one(arguments: Arguments, name: str) -> str:
    """The only text of an argument.  Raises BadRequest."""
    texts = _some(arguments, name)
    if len(texts) > 1:
        raise BadRequest("name one image")
    return texts[0]


def _some(arguments: Arguments, name: str) -> list[str]:
    texts = arguments.texts(name)
    if not texts:
        raise BadRequest("name an image or a digest")
    return texts


def _order(steward: Steward, arguments: Arguments, kind: Kind, image: str, digest: str) -> Order:
    reason = arguments.text("reason") or ""
    try:
        reason = parse_reason(reason) if reason else (NO_REASON if kind is Kind.RECALL else "")
    except ValueError as error:
        raise BadRequest(f"reason: {reason[:300]!a} {error}") from None
    who = (arguments.text("who") or "")[:LONGEST]
    return Order(kind, image, digest, reason, steward.clock.seconds(), who)


def orders_of(steward: Steward) -> FileOrders:
    """The orders of the cache.  Raises Failed where they cannot be read."""
    orders = FileOrders(steward.directory)
    orders.look()
    if orders.problem is not None:
        raise Failed(f"the orders are not known: {orders.problem}")
    return orders


async def _put(steward: Steward, arguments: Arguments, order: Order) -> dict[str, Any]:
    """Give an order, but in a dry run; what is pinned then.  Raises Failed."""
    orders = orders_of(steward)
    if arguments.flag("dry_run"):
        return {}
    try:
        await steward.in_thread(orders.put, order)
    except (TooMany, OrdersUnusable) as error:
        raise Failed(str(error)) from None
    return await _announce(steward)


async def _lift(steward: Steward, arguments: Arguments, kind: Kind, about: str) -> bool:
    """Take an order back, but in a dry run; whether there is one.  Raises Failed."""
    orders = orders_of(steward)
    if arguments.flag("dry_run"):
        return (kind.value, about) in orders.look().orders
    try:
        there: bool = await steward.in_thread(orders.lift, kind, about)
    except OrdersUnusable as error:
        raise Failed(str(error)) from None
    if there:
        await _announce(steward)
    return there


async def _announce(steward: Steward) -> dict[str, Any]:
    """Have every process that serves look; what is pinned, as the one knows that sees to it.  Raises Failed."""
    held: dict[str, Any] = {}
    for number, answer in (await steward.workers.ask_all(ORDERS)).items():
        if isinstance(answer, Unanswered):
            raise Failed(
                f"the order is written down, but worker {number} did not say that it goes by it: {answer}; it looks "
                "once a second by itself"
            )
        held = {**held, **(answer or {})}
    return held
