"""A folder, and a double of a server that knows what is in it, for runs of the cascade."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.doubles.ollama import OllamaDouble

from doc_classify.storage import open_store
from doc_classify.storage.lots import LotLedger
from doc_classify.storage.samples import Drawn

NAMES = ("invoices", "contracts", "reports", "letters")
_WORDS = {name: [f"{name[:4]}{number}" for number in range(40)] for name in NAMES}
_COMMON = [f"word{number}" for number in range(400)]


def make_documents(place: Path, number: int, *, hard: float = 0.0, seed: int = 1) -> None:
    """Documents sorted by category; a share ``hard`` of them has one telling word alone."""
    place.mkdir(exist_ok=True)
    chance = random.Random(seed)
    for at in range(number):
        name = NAMES[at * len(NAMES) // number]
        telling = 1 if chance.random() < hard else chance.randint(8, 14)
        words = chance.choices(_COMMON, k=50) + chance.choices(_WORDS[name], k=telling)
        chance.shuffle(words)
        (place / f"{seed}-{at:05}.txt").write_text(f"{' '.join(words)}\n")


def category_of(text: str) -> str:
    """The category whose telling words the text has most of."""
    return max(NAMES, key=lambda name: len(re.findall(rf"\b{name[:4]}\d", text)))


def oracle(_system: str, user: str) -> dict[str, float]:
    """What the double's model says."""
    best = category_of(user)
    return {best: 0.9} | {name: 0.04 for name in NAMES if name != best}


def questions(double: OllamaDouble) -> Counter[str]:
    """How often the double was asked about each document."""
    users = [body["messages"][-1]["content"] for body in double.chats]
    return Counter(user for user in users if "<document>" in user)


def command(folder: Path, url: str, double: OllamaDouble, *options: str) -> list[str]:
    """The command line of a run of the cascade."""
    return [
        *(sys.executable, "-m", "doc_classify", "classify-parallel", str(folder)),
        *("--classifier", "cascade", "--teacher", "ollama", "--host", double.url),
        *("-c", ",".join(NAMES), "--agreement", "0.9", "--assurance", "0.9", "-w", "2"),
        *("--use-database", "--database-url", url, "--json", *options),
    ]


def start(*arguments: Any) -> subprocess.Popen[str]:
    """Start such a run."""
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"DOC_CLASSIFY_LLM_GIVE_UP": "20"},
        cwd=arguments[0].parent,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    """Wait for its end; returns what it printed."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, (process.returncode, out, err)
    found: dict[str, Any] = json.loads(out) if out else {}
    return found


def run(*arguments: Any, code: int = 0) -> dict[str, Any]:
    """One whole run."""
    return finish(start(*arguments), code)


def other(*arguments: str, url: str, code: int = 0) -> Any:
    """Another command with ``--json``; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "doc_classify", *arguments, "--json", "--database-url", url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def lots(url: str) -> list[dict[str, Any]]:
    """The lots of the newest run, as far as there are any."""
    store = open_store(url)
    try:
        info = store.run()
        return store.lots(info.run_id) if info else []
    finally:
        store.close()


def drawn(url: str, lot: int, stages: int = 6) -> dict[int, list[Drawn]]:
    """Everything that was drawn of a lot, by stage."""
    store = open_store(url)
    try:
        samples = LotLedger(store).samples
        return {stage: found for stage in range(1, stages) if (found := samples.stage(lot, stage))}
    finally:
        store.close()
