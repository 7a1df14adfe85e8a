"""The command line: one module per group of commands, imported when one of them is called."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import click

_COMMANDS = {
    "classify-parallel": "classify:classify_parallel",
    "classify": "classify:classify",
    "runs": "runs:runs",
    "status": "runs:status",
    "results": "runs:results",
    "export": "runs:export",
    "retry": "runs:retry",
    "init": "setup:init",
    "config": "setup:config",
    "check": "setup:check",
}
"""Command -> module:function; the order is that of the help."""

_HELP = {
    "classify-parallel": "Classify every document of a folder with all CPU cores.",
    "classify": "Classify a few files and show what was found.",
    "runs": "List the runs in the database.",
    "status": "Show how a run stands.",
    "results": "List the files of a run with their categories.",
    "export": "Write the results of a run to a file.",
    "retry": "Do files of a run again.",
    "init": "Write a configuration and a taxonomy to start from.",
    "config": "Show every setting and where it comes from.",
    "check": "Say what works on this machine and what is missing.",
}
"""One line per command, so that the help need not import the commands; tested to agree."""

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_COULD_NOT_RUN = 3
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the help."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None where there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_HELP.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="doc-classify", message="%(prog)s %(version)s")
def cli() -> None:
    """Put mixed documents into your own categories, on your own hardware.

    Exit codes: 0 all fine, 1 some documents failed, 2 usage, 3 could not run, 130 interrupted.
    """


def main() -> None:
    """Entry point of ``doc-classify``."""
    # SIGTERM ends a run as Ctrl-C does: what was classified is stored, the summary printed.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    verbose = "-v" in sys.argv or "--verbose" in sys.argv
    try:
        code: Any = cli.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if verbose:
            raise
        from doc_classify.errors import ConfigurationError, DocClassifyError

        known = isinstance(error, DocClassifyError)
        text = (
            str(error) if known else f"unexpected {type(error).__name__}: {error} (-v shows more)"
        )
        click.echo(f"Error: {text}", err=True)
        code = EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_COULD_NOT_RUN
    sys.exit(code if isinstance(code, int) else 0)
