"""What workers have left to do, for whatever starts and ends them."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

import click

from doc_classify.cli.options import Finite, as_json, database_url, settings_from, verbose


@click.command()
@click.option(
    "--every", type=Finite(0.1, 86_400), metavar="SECONDS", help="Go on, and say it so often."
)
@database_url
@as_json
@verbose
def backlog(every: float | None, database_url: str | None, as_json: bool, verbose: bool) -> int:
    """Say what all workers together have left to do.

    Counted are the chunks of every run that is meant to go on: those that wait, and those that are
    held. This is what to scale workers by; the queue alone is empty while the last chunks are
    worked on. A database without tables has nothing to do.
    """
    from doc_classify.storage import open_existing
    from doc_classify.storage.monitoring import Backlog
    from doc_classify.storage.monitoring import backlog as count

    url = settings_from(database_url=database_url).database_url
    store: Any = open_existing(url)
    try:
        while True:
            if store is None and every is not None:
                store = open_existing(url)
            found = Backlog() if store is None else count(store)
            if as_json:
                click.echo(json.dumps(asdict(found) | {"unfinished": found.unfinished}))
            else:
                click.echo(
                    f"{found.unfinished:,} chunks unfinished ({found.waiting:,} waiting, "
                    f"{found.held:,} held) with {found.documents:,} documents, "
                    f"of {found.runs:,} runs"
                )
            if every is None:
                return 0
            time.sleep(every)
    finally:
        if store is not None:
            store.close()
