"""Commands on the certificates of cascades."""

from __future__ import annotations

import json
from typing import Any

import click

from doc_classify.cli import EXIT_SOME_FAILED
from doc_classify.cli.options import (
    as_json,
    database_url,
    llm_limits,
    run_argument,
    server_address,
    settings_from,
    verbose,
)
from doc_classify.cli.runs import opened, run_of
from doc_classify.terminal import one_line


@click.command()
@run_argument
@database_url
@as_json
@verbose
def certificate(run: str | None, database_url: str | None, as_json: bool, verbose: bool) -> int:
    """Show what the cascade of a run promises (the newest run, if none is named).

    Each certificate is computed again from the sample that is stored with it. Exit code 1 where it
    does not follow from that.
    """
    from doc_classify.runners.auditing import check_certificates
    from doc_classify.summary import lot_lines

    with opened(database_url) as (store, _):
        info = run_of(store, run)
        faults = check_certificates(store, info)
        lots = store.lots(info.run_id)
    if as_json:
        found = [lot | {"faults": faults.get(lot["lot"])} for lot in lots]
        click.echo(json.dumps({"run_id": info.run_id, "lots": found}))
    else:
        click.echo(f"Run {info.run_id}: {one_line(info.spec.source)}")
        if not lots:
            click.echo("No lot has been made of it.")
        for lot in lots:
            click.echo("\n".join(lot_lines([lot]) + _details(lot)))
            if lot["lot"] in faults:
                click.echo("\n".join(_checked(faults[lot["lot"]])))
    return EXIT_SOME_FAILED if any(faults.values()) else 0


@click.command()
@run_argument
@click.option(
    "--more",
    type=click.IntRange(1),
    metavar="N",
    help="Documents to draw [default: as many as should suffice].",
)
@server_address
@llm_limits
@database_url
@as_json
@verbose
def audit(
    run: str | None,
    more: int | None,
    address: str | None,
    database_url: str | None,
    as_json: bool,
    verbose: bool,
    **limits: Any,
) -> int:
    """Hold the certificate of a run against documents drawn afresh (the newest run).

    It is computed again from its own sample first. Then documents are drawn from those that the
    student has decided, and the LLM is asked about them. Exit code 1 where the certificate does
    not follow from its sample, or is refuted.
    """
    from doc_classify.blocking import run_blocking
    from doc_classify.runners.auditing import audit as audit_run
    from doc_classify.runners.auditing import check_certificates
    from doc_classify.summary import audit_line

    with opened(database_url) as (store, _):
        info = run_of(store, run)
        faults = check_certificates(store, info)
        settings = settings_from(
            database_url=database_url,
            classifier=info.spec.classifier,
            teacher=info.spec.teacher,
            address=address,
            **limits,
        )
        found = run_blocking(audit_run(store, info, settings, more))
    if as_json:
        lots = [
            {"lot": lot, "faults": faults.get(lot, []), "audit": one} for lot, one in found.items()
        ]
        click.echo(json.dumps({"run_id": info.run_id, "lots": lots}))
    else:
        for lot, one in found.items():
            click.echo(f"Lot {lot} of run {info.run_id}:")
            click.echo("\n".join(_checked(faults.get(lot, []))))
            click.echo(f"  {audit_line(one)}")
            if one["gone"]:
                click.echo(f"  {one['gone']:,} more were drawn that cannot be read any more")
    refuted = any(one["verdict"] == "refutes" for one in found.values())
    return EXIT_SOME_FAILED if refuted or any(faults.values()) else 0


def _checked(faults: list[str]) -> list[str]:
    if not faults:
        return ["  computed again from the stored sample: it is as it says"]
    return [f"  NOT what the stored sample says: {one_line(fault)}" for fault in faults]


def _details(lot: dict[str, Any]) -> list[str]:
    said = lot["summary"]
    if said is None or lot["state"] == "superseded":
        return []
    wanted = said["wanted_agreement"]
    asked = (
        f"the best for {said['max_llm_documents']:,} documents to the LLM"
        if wanted is None
        else f"{wanted:.1%} ({said['guarantee']})"
    )
    own = said["student_agreement"]
    lines = [
        f"  wanted: {asked}; error probability allowed {said['error_allowed']:.3g}, spent "
        f"{said['error_spent']:.3g}",
        f"  student {said['student'][:12]}, threshold "
        f"{'none' if said['threshold'] is None else format(said['threshold'], '.4f')}, answers "
        f"{said['student_share']:.1%}"
        + ("" if own is None else f", of which at least {own:.1%} agree"),
    ]
    for number, sample in enumerate(lot["samples"], 1):
        version = f", student {sample['student'][:12]}" if sample["student"] else ""
        pool = f" chosen from {sample['drawn']:,}" if sample["drawn"] > sample["asked"] else ""
        lines.append(
            f"  sample {number} to {sample['purpose']}: {sample['asked']:,} documents"
            f"{pool}{version}"
        )
    if said["asked_twice"]:
        ceiling = (
            f": no student can agree with it more than about {said['teacher_ceiling']:.1%}"
            if said["differed"]
            else ""
        )
        lines.append(
            f"  the LLM, asked twice about {said['asked_twice']:,}, differed over "
            f"{said['differed']:,}{ceiling}"
        )
    for one in said["categories"]:
        certified = one["certified_agreement"]
        answered = "" if one["answered"] is None else f"{one['answered']:,} by the student, "
        lines.append(
            f"  {one_line(one['category'])}: {answered}"
            + (
                "too rare for a statement"
                if certified is None
                else f"at least {certified:.1%} agree"
            )
        )
    return lines
