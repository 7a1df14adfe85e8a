"""``doc-classify backlog``: what whoever starts and ends machines is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from tests.doubles.site import Site

from conftest import PostgresServer, fresh_database
from doc_classify.cli import cli

COMMAND = [sys.executable, "-m", "doc_classify", "backlog"]
NOTHING = {"runs": 0, "waiting": 0, "held": 0, "documents": 0, "unfinished": 0}


def run(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--database-url", url, *options], check=False, capture_output=True, text=True
    )


def test_nothing_is_left_where_nothing_was_begun(tmp_path: Path, postgres_url: str):
    for url in (f"sqlite:///{tmp_path / 'none.db'}", fresh_database(postgres_url)):
        done = run(url, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == NOTHING
    assert not (tmp_path / "none.db").exists()


def test_numbers_of_no_meaning_are_usage_errors():
    for command in (("backlog", "--every"), ("wait", "--timeout"), ("wait", "--poll-interval")):
        for value in ("nan", "inf", "1e300", "-1"):
            assert CliRunner().invoke(cli, [*command, value]).exit_code == 2, (command, value)


def test_it_says_it_again_and_again_until_it_is_ended(site: Site):
    """Begun before there are tables, as a service beside the workers is."""
    process = subprocess.Popen(
        [*COMMAND, "--json", "--every", "0.2"],
        env=os.environ | site.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == NOTHING
        run_id = site.submit(site.folder(12))
        found = NOTHING
        while found == NOTHING:
            found = json.loads(process.stdout.readline())
        # A line may fall between two steps of submitting.
        while found["unfinished"] < 3:
            found = json.loads(process.stdout.readline())
        assert found == {"runs": 1, "waiting": 3, "held": 0, "documents": 12, "unfinished": 3}
        with site.processor() as processor:
            processor.cancel(run_id)
        while found != NOTHING:
            found = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
        assert (process.returncode, said.strip()) == (130, "")
    finally:
        process.kill()
        process.wait()


def test_a_database_that_is_away_is_no_backlog_of_nothing(own_database: PostgresServer):
    url = own_database.url.replace(str(own_database.port), "1")
    done = run(url, "--json", "--every", "1")
    assert (done.returncode, done.stdout) == (3, "")
    assert "Error: " in done.stderr
