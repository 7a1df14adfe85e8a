"""The cascade with a real engine as the teacher: llama.cpp on a small model of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.engine.product import product_model
from tests.engine.server import engine

from doc_classify.dataset import DatasetOptions, generate
from doc_classify.records import uri_to_path
from doc_classify.storage import open_store

COUNT = 400
OPTIONS = DatasetOptions(
    count=COUNT, seed=78, formats=("txt", "html", "eml"), hostile=0, duplicates=0
)


def command(name: str, *arguments: Any, environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "doc_classify", name, *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_real_llm_teaches_and_is_agreed_with(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    labels = {Path(label.path).name: label.category for label in generate(folder, OPTIONS)}
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with engine(product_model(), parallel=4, context=8192) as server:
        environment = {
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": server.api_key,
            "DOC_CLASSIFY_LLM_DOCUMENT_TOKENS": "600",
            "DOC_CLASSIFY_LLM_CONTEXT": "2048",
            "DATABASE_URL": url,
        }
        cascade = ("--classifier", "cascade", "--teacher", "openai", "--agreement", "0.9")
        said = command("classify-async", folder, *cascade, environment=environment)
        assert (said["classified"], said["failed"]) == (COUNT, 0)
        [lot] = said["cascade"]["lots"]
        assert lot["outcome"]["student"] > COUNT / 4
        assert said["llm_calls"] < 0.75 * COUNT
        [checked] = command("certificate", environment=environment)["lots"]
        assert checked["faults"] == []
        assert lot["summary"]["differed"] <= 1  # temperature 0, one server
        # What the LLM would have said about everything: it is asked about the rest, once.
        alone = command("classify-async", folder, "--classifier", "openai", environment=environment)
        assert alone["already_done"] == lot["outcome"]["llm"]
        assert alone["llm_calls"] >= lot["outcome"]["student"]
    store = open_store(url)
    by_llm = {row.uri: row.category for row in store.results(alone["run_id"])}
    by_cascade = {row.uri: row.category for row in store.results(said["run_id"])}
    store.close()
    agreed = sum(by_cascade[uri] == category for uri, category in by_llm.items()) / COUNT
    assert agreed >= 0.9
    right = sum(labels[Path(uri_to_path(uri)).name] == found for uri, found in by_cascade.items())
    assert right / COUNT > 0.7
