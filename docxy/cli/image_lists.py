"""The images that a file names: a list, a compose file, Kubernetes manifests.

The laws: only data is read from YAML, never code; a file has a bound, and so have its parts, their depth and what they
merge, so that no file takes more than seconds; one whose parts refer to each other is walked once.  What cannot be told
(a variable that is not set) is a note, not an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import yaml
from attrs import define, field

from docxy.cli.failure import Failure

LARGEST = 4 * 1024 * 1024
"""Bytes of a file."""
MOST = 2000
"""Images of a file."""
MOST_PARTS = 500_000
"""Keys, values, beginnings and ends of a YAML file, those that it merges too."""
DEEPEST = 100
"""Lists and mappings within each other."""
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_VARIABLE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)(?:(:?[-?+])([^{}]*))?\})")


# libyaml is twenty times as fast; PyYAML has it wherever it is installed as a wheel.
_FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"


class _TooMuch(Exception):
    """The file has too many parts, or too deep ones; the message says so."""


class _Loader(_FAST):  # type: ignore[misc]  # whichever there is
    """Has texts, lists and mappings: numbers and dates are texts, which may take long to be understood.

    It merges (`<<`) no more than a bound: each may name several others that do.
    """

    merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self.merged += len(node.value)
        if self.merged > MOST_PARTS:
            raise _TooMuch(f"merges more than {MOST_PARTS} keys")

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag in (f"{_TAG}null", f"{_TAG}merge")]
        for first, known in _FAST.yaml_implicit_resolvers.items()
    }


for _kind in ("int", "float", "bool", "timestamp", "binary"):
    _Loader.add_constructor(f"{_TAG}{_kind}", _FAST.construct_yaml_str)


def _documents(text: str) -> list[Any]:
    """All documents of a YAML file.  Raises _TooMuch, and what YAML raises."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, _FAST)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise _TooMuch(f"is nested more than {DEEPEST} deep")
        if number >= MOST_PARTS:
            raise _TooMuch(f"has more than {MOST_PARTS} parts")
    return list(yaml.load_all(text, _Loader))


@define
class Listed:
    """What a file names."""

    images: dict[str, None] = field(factory=dict)
    """In the order of the file."""
    notes: list[str] = field(factory=list)
    """What was left out, and why."""


def read(path: str, environ: Mapping[str, str]) -> Listed:
    """The images that a file names; `environ`: for the variables of a compose file.  Raises Failure."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise Failure(f"{path} is larger than {LARGEST >> 20} MiB")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(f"{path} is not UTF-8 text") from None
    listed = Listed()
    for image in _images(path, text, environ, listed.notes):
        listed.images[image] = None
        if len(listed.images) > MOST:
            raise Failure(f"{path} names more than {MOST} images")
    if not listed.images and not listed.notes:
        raise Failure(f"{path} names no image: it is no list, compose file or Kubernetes manifest")
    return listed


def _images(path: str, text: str, environ: Mapping[str, str], notes: list[str]) -> Iterator[str]:
    try:
        documents = _documents(text)
    except _TooMuch as error:
        raise Failure(f"{path} {error}: give the images in a list, one a line") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if re.search(r"^\s*(services|apiVersion|kind)\s*:", text, re.MULTILINE):
            raise Failure(f"{path} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from None
        documents = []
    if not any(isinstance(document, (dict, list)) for document in documents):
        yield from _lines(text)
        return
    for document in documents:
        if isinstance(document, dict) and isinstance(document.get("services"), dict) and "kind" not in document:
            yield from _compose(document["services"], environ, notes)
        elif isinstance(document, list) and all(isinstance(each, str) for each in document):
            yield from document
        else:
            yield from _pods(document)


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        image = line.partition("#")[0].strip()
        if image:
            yield image


def _compose(services: Mapping[str, Any], environ: Mapping[str, str], notes: list[str]) -> Iterator[str]:
    for name, service in services.items():
        image = service.get("image") if isinstance(service, dict) else None
        if not isinstance(image, str):
            notes.append(f"the service {name} has no image: it is built")
            continue
        unset: list[str] = []
        found = _VARIABLE.sub(partial(_value, environ, unset), image)
        if unset:
            notes.append(f"the service {name} wants {', '.join(unset)}, which is not set: {image}")
        else:
            yield found


def _value(environ: Mapping[str, str], unset: list[str], match: re.Match[str]) -> str:
    """What stands for a variable in a compose file."""
    if match[0] == "$$":
        return "$"
    name, how, other = match[1] or match[2], match[3] or "", match[4] or ""
    value = environ.get(name)
    is_there = value is not None and (value != "" or not how.startswith(":"))
    if how.endswith("+"):
        return other if is_there else ""
    if is_there:
        return str(value)
    if how.endswith("-"):
        return other
    unset.append(name)
    return ""


def _pods(document: object) -> Iterator[str]:
    """The images of every pod spec, wherever it is: containers, and volumes that are images."""
    todo, seen = [document], set()
    while todo:
        value = todo.pop()
        if not isinstance(value, (dict, list)) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, list):
            todo += reversed(value)
            continue
        for key in _CONTAINERS:
            for container in value.get(key) or [] if isinstance(value.get(key), list) else []:
                if isinstance(container, dict) and isinstance(container.get("image"), str):
                    yield container["image"]
        volumes = value.get("volumes")
        for volume in volumes if isinstance(volumes, list) else []:
            image = volume.get("image") if isinstance(volume, dict) else None
            if isinstance(image, dict) and isinstance(image.get("reference"), str):
                yield image["reference"]
        todo += reversed([*value.values()])
