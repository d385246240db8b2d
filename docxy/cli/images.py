"""What a name that a user gives means to the docxy that runs, by what that says of its registries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from attrs import frozen

from docxy.cli.screen import clean
from docxy.errors import RegistryError
from docxy.settings.image_names import HUB, ImageName, IRegistry, NotMirrored, parse_exact
from docxy.settings.model import ANY


@frozen
class Told:
    """A registry, as docxy's snapshot tells of it."""

    name: str
    aliases: Sequence[str]
    library: bool


def registries(snapshot: Mapping[str, Any]) -> list[Told]:
    """Those of the docxy that told this, the default first."""
    # A docxy of before may still run, which does not say all of it.
    known = [
        Told(each["name"], each.get("aliases", ()), each.get("library", each["name"] == HUB))
        for each in snapshot["upstreams"]
    ]
    return [*known, Told(ANY, (), False)] if snapshot["docxy"].get("any_registry") else known


def named(text: str, upstreams: Sequence[IRegistry]) -> ImageName:
    """One image, or a repository; `upstreams`: the default first.  Raises click.UsageError."""
    try:
        return parse_exact(text, upstreams)
    except NotMirrored:
        known = ", ".join(each.name for each in upstreams)
        raise click.UsageError(f"docxy mirrors no {clean(text.partition('/')[0])[:100]}; it mirrors {known}") from None
    except RegistryError as error:
        raise click.UsageError(f"{text[:300]!a} is not an image: {error}") from None


def told(text: str, snapshot: Mapping[str, Any]) -> ImageName:
    """As `named`, for the docxy that told this of itself."""
    return named(text, registries(snapshot))


def is_pull_of(image: ImageName, pull: Mapping[str, Any]) -> bool:
    """Whether a pull was of this image; a digest counts wherever the pull shows it."""
    if (pull["upstream"], pull["repository"]) != (image.upstream, image.repository):
        return False
    if image.digest is not None:
        digest = str(image.digest)
        return digest in (pull["digest"], pull["reference"]) or any(
            digest in (part.get("digest"), part["reference"]) for part in pull["parts"]
        )
    return image.tag is None or pull["reference"] == image.tag
