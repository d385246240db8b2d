"""`docxy completion`: what makes a shell complete docxy's commands and options."""

from __future__ import annotations

from collections.abc import Mapping

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_BASH = """\
%(complete_func)s() {
    local line="${COMP_LINE:0:$COMP_POINT}" words=() cword cur cut="" response completion type value
    IFS=$' \\t\\n' read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    cword=$((${#words[@]} - 1))
    cur=${words[cword]}
    # Bash takes a colon and an @ for the end of a word, and replaces what is behind the last one.
    [[ $cur == *[:@]* ]] && cut=${cur%%"${cur##*[:@]}"}
    COMPREPLY=()
    response=$(env COMP_WORDS="${words[*]}" COMP_CWORD="$cword" %(complete_var)s=bash_complete "$1")
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$cut"}") ;;
        esac
    done <<< "$response"
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """As click has it, but that an image is one word."""

    source_template = _BASH


class _Fish(FishComplete):
    """As click has it, but that a comma does not end what is said of a command."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split --max 1 ","')


_KINDS: Mapping[str, type[ShellComplete]] = {"bash": _Bash, "zsh": ZshComplete, "fish": _Fish}


@click.command(
    short_help="What makes a shell complete docxy's commands and options.",
    epilog="Example: echo 'eval \"$(docxy completion bash)\"' >> ~/.bashrc",
)
@click.argument("shell", type=click.Choice(list(_KINDS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete docxy's commands and options.

    For bash and zsh: eval "$(docxy completion bash)" in the shell's start file. For fish:
    docxy completion fish > ~/.config/fish/completions/docxy.fish.
    """
    root = ctx.find_root().command
    click.echo(_KINDS[shell](root, {}, "docxy", "_DOCXY_COMPLETE").source())
