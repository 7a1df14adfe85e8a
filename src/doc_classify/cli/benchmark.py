"""``benchmark``: how fast the documents of a folder are done on this machine."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from doc_classify.cli import EXIT_SOME_FAILED
from doc_classify.cli.options import as_json, llm_limits, settings_from, verbose, what_and_how
from doc_classify.errors import ConfigurationError
from doc_classify.terminal import one_line, shown_path

_TYPED = "doc_classify.typed"


def _names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _numbers(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(number) for number in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 1,2,4") from None


class _Told(click.Command):
    """Keeps what was typed, for the result to name it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_TYPED] = tuple(args)
        return super().parse_args(ctx, args)


@click.command(cls=_Told)
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--operations",
    callback=_names,
    default="end_to_end",
    show_default=True,
    metavar="A,B",
    help="Of extract, classify, store and end_to_end.",
)
@click.option(
    "--workers",
    callback=_numbers,
    metavar="N,M",
    help="Worker processes, one number after the other [default: the CPU cores].",
)
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Passes that count; one more to warm up does not.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("benchmark_results"),
    show_default=True,
    help="Folder for benchmark_results_TIME.json.",
)
@click.option(
    "--compare",
    "compare_with",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="OLD.json",
    help="Also show how this differs from an earlier result.",
)
@click.option("--other-data", is_flag=True, help="Compare even if the documents are others.")
@click.option(
    "--database-url",
    metavar="URL",
    help="Database to measure with. It keeps the runs, and what it knows is not hashed again "
    "[default: a new SQLite file for each].",
)
@what_and_how
@llm_limits
@as_json
@verbose
def benchmark(
    path: Path,
    operations: tuple[str, ...],
    workers: tuple[int, ...] | None,
    repeat: int,
    output_dir: Path,
    compare_with: Path | None,
    other_data: bool,
    database_url: str | None,
    include_reasoning: bool,
    as_json: bool,
    verbose: bool,
    **what: Any,
) -> int:
    """Measure how fast the documents under PATH are done on this machine.

    All of them go through once to warm up; then each operation is measured several times. The
    figures shown are those of one pass, the middle one, so that they agree with each other.
    """
    from doc_classify.benchmark import compare, report
    from doc_classify.benchmark.measure import Wanted, measure
    from doc_classify.benchmark.result import encode_result, read_result
    from doc_classify.benchmark.setting import look_over
    from doc_classify.blocking import run_blocking

    settings = settings_from(**what)
    wanted = Wanted(
        operations=operations,
        workers=workers or (settings.worker_count,),
        repeats=repeat,
        database_url=database_url,
        command=_command(database_url, what.get("address")),
    )
    old = read_result(compare_with) if compare_with else None
    _prepare(output_dir, path)
    data = look_over(path, recursive=settings.recursive)
    if old:
        compare.check_same_data(old.data, data, anyway=other_data)
    result = run_blocking(
        measure(
            path,
            settings,
            wanted,
            data,
            include_reasoning=include_reasoning,
            on_progress=_say,
            on_notice=lambda notice: _say(notice or "going on"),
        )
    )
    encoded = encode_result(result)
    saved = _save(output_dir, encoded)
    if as_json:
        found = json.loads(encoded)
        if old:
            found["comparison"] = {
                "notes": compare.notes(old, result),
                "differences": [asdict(one) for one in compare.compare(old, result)],
            }
        click.echo(json.dumps(found))
        _say(report.saved_line(saved))
    else:
        shown = [*report.lines(result), "", report.saved_line(saved)]
        if old:
            shown += ["", *compare.lines(old, result)]
        click.echo("\n".join(shown))
    failed = any(each.failed for one in result.operations for each in one.repeats)
    return EXIT_SOME_FAILED if failed else 0


def _say(line: str) -> None:
    click.echo(one_line(line), err=True)


def _command(*urls: str | None) -> str:
    """The command line, without the passwords in these addresses."""
    from doc_classify.storage import mask_url

    typed = click.get_current_context().meta[_TYPED]
    for url in filter(None, urls):
        typed = [argument.replace(url, mask_url(url)) for argument in typed]
    return shlex.join(["doc-classify", "benchmark", *typed])


def _prepare(folder: Path, documents: Path) -> None:
    """Fail before the measurement and not after it."""
    if folder.resolve().is_relative_to(documents.resolve()):
        raise ConfigurationError(
            f"{shown_path(folder)} lies among the documents to be measured, and the next "
            "measurement would take the results for documents: --output-dir names another folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".doc-classify-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to {shown_path(folder)}: {error.strerror or error}"
        ) from error


def _save(folder: Path, encoded: bytes) -> Path:
    stem = f"benchmark_results_{datetime.now(UTC):%Y%m%d-%H%M%S}"
    for number in range(1000):
        path = folder / f"{stem}{f'-{number}' if number else ''}.json"
        try:
            with path.open("xb") as file:
                file.write(encoded + b"\n")
        except FileExistsError:
            continue
        return path
    raise ConfigurationError(f"{shown_path(folder)} is full of results of this second")
