"""Standard streams that are closed, as some service managers leave them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMAND = (sys.executable, "-P", "-m", "doc_classify")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_needs_no_standard_streams(tmp_path, closed):
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "letter.txt").write_text("Dear Sir, thank you. Kind regards, A.\n")
    environment = os.environ | {"DATABASE_URL": f"sqlite:///{tmp_path}/results.db"}
    arguments = ("classify-parallel", "documents", "--use-database", "-w", "1")
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [*COMMAND, "results"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "letter.txt  correspondence" in listed.stdout
