"""The command reference, made from the commands themselves.

``python -m doc_classify.cli.reference`` prints what ``docs/commands.md`` holds.
"""

from __future__ import annotations

import click

from doc_classify.cli import cli

_WIDTH = 96


def reference() -> str:
    """The whole reference as Markdown."""
    root = click.Context(cli, info_name="doc-classify", **cli.context_settings)
    parts = [
        "# Commands",
        "Written by `make docs` from the command line itself.",
        _section("doc-classify", cli, root),
    ]
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        if command is None:
            raise LookupError(name)
        context = click.Context(command, info_name=name, parent=root)
        parts.append(_section(f"doc-classify {name}", command, context))
    return "\n\n".join(parts) + "\n"


def _section(title: str, command: click.Command, context: click.Context) -> str:
    formatter = click.HelpFormatter(width=_WIDTH)
    command.format_help(context, formatter)
    return f"## {title}\n\n```text\n{formatter.getvalue().rstrip()}\n```"


if __name__ == "__main__":
    print(reference(), end="")
