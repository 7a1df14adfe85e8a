"""``doctor``, which is also called ``check``: what works here, what does not, and what to do."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from doc_classify.cli import EXIT_COULD_NOT_RUN, EXIT_SOME_FAILED
from doc_classify.cli.options import as_json, settings_from, verbose, which_classifier

_MARKS = {"ok": "ok", "warning": "WARNING", "missing": "MISSING", "absent": "not there"}


@click.command()
@which_classifier
@as_json
@verbose
def doctor(as_json: bool, verbose: bool, **which: Any) -> int:
    """Look at everything that a run needs, and say what to do where it does not work.

    The machine, the formats, OCR, the database, the message broker, the workers, the time limits,
    the classifier. An LLM is asked about one document, and from the time it takes follows the time
    for 500,000. Nothing is changed by looking.

    Ends with exit code 0 when all is well, 1 when something works and yet should be mended, 3 when
    something that the configuration needs is missing. What is not there and not needed counts as
    well. The command's other name is check.
    """
    from doc_classify.doctor import examine

    settings = settings_from(**which)
    found = []
    for finding in examine(settings):
        found.append(finding)
        if not as_json:
            click.echo(f"{_MARKS[finding.status]:<10} {finding.name:<15} {finding.found}")
            if finding.advice:
                click.echo(f"{'':<10} -> {finding.advice}")
    worst = {finding.status for finding in found}
    if as_json:
        click.echo(json.dumps([asdict(one) | {"ok": one.usable} for one in found]))
    elif "missing" in worst:
        click.echo("Not ready: see MISSING above.")
    else:
        click.echo("Ready, but see WARNING above." if "warning" in worst else "Ready.")
    if "missing" in worst:
        return EXIT_COULD_NOT_RUN
    return EXIT_SOME_FAILED if "warning" in worst else 0


check = click.Command(
    "check",
    callback=doctor.callback,
    params=doctor.params,
    help="The same as doctor, under its older name.",
)
