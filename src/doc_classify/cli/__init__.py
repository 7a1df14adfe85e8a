"""The command line: one module per group of commands, imported when one of them is called."""

from __future__ import annotations

import importlib
import io
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

_COMMANDS = {
    "classify-parallel": "classify:classify_parallel",
    "classify-async": "classify:classify_async",
    "classify": "classify:classify",
    "submit": "distributed:submit",
    "wait": "distributed:wait",
    "cancel": "distributed:cancel",
    "resume": "distributed:resume",
    "runs": "runs:runs",
    "status": "runs:status",
    "backlog": "backlog:backlog",
    "results": "runs:results",
    "export": "runs:export",
    "certificate": "cascade:certificate",
    "audit": "cascade:audit",
    "retry": "runs:retry",
    "correct": "correct:correct",
    "explain": "explain:explain",
    "train": "train:train",
    "init": "setup:init",
    "config": "setup:config",
    "doctor": "doctor:doctor",
    "check": "doctor:check",
    "dataset": "dataset:dataset",
    "benchmark": "benchmark:benchmark",
    "evaluate": "evaluate:evaluate",
    "plan": "plan:plan",
}
"""Command -> module:function; the order is that of the help."""

_HELP = {
    "classify-parallel": "Classify every document of a folder with all CPU cores.",
    "classify-async": "Classify every document of a folder with many LLM requests in flight.",
    "classify": "Classify a few files, or a small folder, and show what was found.",
    "submit": "Hand every document of a folder to Celery workers; prints the id of the run.",
    "wait": "Look on until workers have done a run (the newest of theirs, if none is named).",
    "cancel": "Have workers begin nothing more of a run; what they are at is finished.",
    "resume": "Let a run go on that was cancelled, has failed, or whose messages were lost.",
    "runs": "List the runs in the database.",
    "status": "Show how a run stands.",
    "backlog": "Say what all workers together have left to do.",
    "results": "List the files of a run with their categories.",
    "export": "Write the results of a run to a .json, .jsonl, .csv or .parquet file.",
    "certificate": "Show what the cascade of a run promises.",
    "audit": "Hold the certificate of a run against documents drawn afresh.",
    "retry": "Do files of a run again.",
    "correct": "Say which category a document belongs to.",
    "explain": "Show what is read in a document, and what speaks for which category.",
    "train": "Make a model for the embedded classifier out of labelled documents.",
    "init": "Write doc-classify.toml and taxonomy.toml to start from, into this folder.",
    "config": "Show every setting, its value and where that comes from.",
    "doctor": "Look at everything that a run needs, and say what to do where it does not work.",
    "check": "The same as doctor, under its older name.",
    "dataset": "Create a folder of realistic, labelled documents, to try out and to measure.",
    "benchmark": "Measure how fast the documents under PATH are done on this machine.",
    "evaluate": "Say how often a classifier is right on the labelled documents of LABELLED_DIR.",
    "plan": "Say what classifying a pile of documents takes, and where each figure comes from.",
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

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that has seen enough (``head``, ``less``) is no error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            if not _reader_is_gone():
                raise
            return 0


def _reader_is_gone() -> bool:
    """Whether nobody reads standard output any more; then nothing more is written to it."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if not poll.poll(0):  # a closed pipe is reported unasked
        return False
    # Python flushes once more when it ends, and must not fail then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="doc-classify", message="%(prog)s %(version)s")
def cli() -> None:
    """Put mixed documents into your own categories, on your own hardware.

    Exit codes: 0 all fine, 1 some documents failed, 2 usage, 3 could not run, 130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``doc-classify``; without ``arguments`` it takes those of the process."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that is not UTF-8 shows an escape instead of ending the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _end_as_ctrl_c_does_on_sigterm()
    sys.exit(_run(arguments))


def _open_closed_streams() -> None:
    """Put the null device where a standard stream is closed (``>&-``).

    Otherwise the next file or socket to be opened would get its number, and its output.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _run(arguments: Sequence[str] | None) -> int:
    """Run the command; returns the exit code."""
    try:
        code: Any = cli.main(arguments, standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Exception as error:
        return _report(error)
    return code if isinstance(code, int) else 0


def _end_as_ctrl_c_does_on_sigterm() -> None:
    """Have SIGTERM store what was classified and print the summary, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job: Ctrl-C is meant for others. Held back instead of ignored, it
        # still ends the event loop in order when SIGTERM lets it through.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(_number: int, _frame: object) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _report(error: Exception) -> int:
    """Say in one line what went wrong; returns the exit code."""
    from doc_classify.errors import ConfigurationError, DocClassifyError
    from doc_classify.terminal import one_line, shown_path

    if "-v" in sys.argv or "--verbose" in sys.argv:
        traceback.print_exception(error)
    if isinstance(error, DocClassifyError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        named = isinstance(error.filename, str)
        text = error.strerror + (f": {shown_path(error.filename)}" if named else "")
    else:
        text = f"unexpected {type(error).__name__}: {error} (-v shows more)"
    click.echo(f"Error: {one_line(text)}", err=True)
    return EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_COULD_NOT_RUN
