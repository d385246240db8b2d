"""`docxy man`: the manual page, made of what the commands say of themselves.

The law: nothing is written here that a command's `--help` does not say, so the page is always that of this version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

import docxy

_EXIT = (
    (0, "all is well"),
    (1, "something is wrong: a file, a registry, an image that is not cached"),
    (2, "the command line is wrong"),
    (3, "docxy does not answer"),
)
_FILES = (
    ("/var/cache/docxy/admin.sock", "the admin socket of the docxy that root started"),
    ("~/.cache/docxy/admin.sock", "that of a user"),
)


@click.command(short_help="The manual page.", epilog="Example: docxy man | man -l -")
@click.pass_context
def man(ctx: click.Context) -> None:
    """Print the manual page of docxy and all of its commands, for man(1).

    To install it: docxy man > /usr/local/share/man/man1/docxy.1
    """
    click.echo(page(ctx.find_root().command), nl=False)


def page(root: click.Command) -> str:
    """The page, in roff's man macros."""
    return "\n".join(_page(root)) + "\n"


def _page(root: click.Command) -> Iterator[str]:
    context = click.Context(root, info_name="docxy")
    yield f'.TH DOCXY 1 "" "docxy {docxy.__version__}" "docxy"'
    yield from (".SH NAME", "docxy \\- a pull-through mirror of container registries")
    yield from (".SH SYNOPSIS", ".B docxy", "[\\-\\-version] [\\-\\-help] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(root.help or "")
    yield ".SH COMMANDS"
    for command, inner in _commands(root, context):
        yield from _command(command, inner)
    yield ".SH EXIT STATUS"
    for status, words in _EXIT:
        yield from (".TP", f".B {status}", _text(words))
    yield ".SH FILES"
    for path, words in _FILES:
        yield from (".TP", f".I {_text(path)}", _text(words))


def _commands(group: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """All that do something, by name, those of groups too."""
    assert isinstance(group, click.Group)
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _commands(command, inner)
        elif not command.hidden:
            yield command, inner


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".SS {_text(context.command_path)} {_text(usage)}"
    yield from _paragraphs(command.help or "")
    if command.epilog:
        example = command.epilog.removeprefix("Example: ")
        yield from (".PP", "Example:", ".PP", ".RS 4", ".nf", _text(example), ".fi", ".RE")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and parameter.name != "help":
            yield from (".TP", f".B {_text(record[0])}", _text(record[1]))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield from (".PP", _text(" ".join(paragraph.split())))


def _text(text: str) -> str:
    """A line of text that roff takes as text."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
