"""How well the pipeline keeps an LLM server busy, and what a document costs, in one run.

Usage::

    python -m benchmarks.llm [--latencies 0.05,0.5] [--slots 8] [--seconds 20] [--json FILE]

A double of an OpenAI-compatible server, in a process of its own, works on ``--slots`` requests at
a time and takes the same time for each, so that ``slots / latency`` answers a second are possible.
Generated documents are put past it in three ways:

- the *pipeline*: a folder of files, walked, read by worker processes, asked about, and recorded in
  a fresh SQLite database;
- *one blocking request per worker*: as many threads as cores, each with one request of urllib at a
  time. Requests are ready in memory; nothing is read or recorded;
- a *bare asyncio client*: exactly ``--slots`` requests in flight, ready in memory as well.

Then the same pipeline and the same bare client meet a real engine: llama.cpp on the small model
that the tests train (``--no-engine`` leaves it out). Pipeline and bare client take turns,
``--rounds`` times; the median round is told. Needs the ``test`` extra. Compare ratios; absolute
figures depend on the machine and on what else it does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from tests.doubles.openai_process import double_process
from tests.engine.documents import documents
from tests.engine.product import product_model
from tests.engine.server import engine

from doc_classify.classification import ClassifierInput
from doc_classify.classification.chat import ChatReply, ChatRequest
from doc_classify.classification.llm import LlmClassifier
from doc_classify.classification.openai import OpenAIBackend
from doc_classify.classification.prompt import Prompt
from doc_classify.discovery import walk
from doc_classify.pipeline.plan import Plan
from doc_classify.pipeline.run import Run
from doc_classify.settings import Settings, available_cores, load_settings
from doc_classify.storage import open_store

_ANSWER = "invoices"

Round = tuple[dict[str, float], "Piped"]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--latencies", default="0.05,0.5", help="seconds an answer takes")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20, help="of a run at full throughput")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", default="150-1200", help="of a document")
    parser.add_argument("--warm-up", type=int, default=150, help="completions left out")
    parser.add_argument("--workers", type=int, help="worker processes; default: the cores")
    parser.add_argument("--engine-documents", type=int, default=150)
    parser.add_argument("--engine-slots", type=int, default=4)
    parser.add_argument("--no-engine", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    report: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "words": given.words,
        "servers": [at_latency(given, float(text)) for text in given.latencies.split(",")],
    }
    if not given.no_engine:
        report["engine"] = at_engine(given)
    report["load_after"] = [round(load, 2) for load in os.getloadavg()]
    show(report)
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")


def at_latency(given: argparse.Namespace, latency: float) -> dict[str, Any]:
    """All three ways past a double of that latency."""
    possible = given.slots / latency
    count = max(int(given.seconds * possible), 2 * given.warm_up)
    texts = made(given.words, count)
    workers = given.workers or available_cores()
    with (
        laid_out(texts) as folder,
        double_process(slots=given.slots, latency=latency, says=_ANSWER) as url,
    ):
        bare_bodies = asyncio.run(bodies(settings_for(url, given), texts))
        few = max(4 * workers, int(given.seconds / 2 * workers / latency))
        blocking = in_threads(url, bare_bodies[:few], workers)
        rounds, loads = [], []
        for _ in range(given.rounds):
            beside = asyncio.run(in_flight(url, bare_bodies, given.slots))
            ours = pipeline(
                folder, settings_for(url, given), warm_up=given.warm_up, drain=2 * given.slots
            )
            rounds.append((beside, asyncio.run(ours)))
            loads.append(round(os.getloadavg()[0], 2))
    bare, piped = median(rounds, key=lambda pair: pair[1].steady / pair[0]["rate"])
    return {
        "latency": latency,
        "slots": given.slots,
        "possible": possible,
        "documents": count,
        "pipeline": asdict(piped),
        "blocking": blocking,
        "bare": bare,
        "steady_rates": [each.steady for _, each in rounds],
        "bare_rates": [one["rate"] for one, _ in rounds],
        "loads": loads,
    }


def at_engine(given: argparse.Namespace) -> dict[str, Any]:
    """The pipeline and the bare client before a real engine, in turn."""
    texts = made(given.words, given.engine_documents)
    slots = given.engine_slots
    with laid_out(texts) as folder, engine(product_model(), slots, context=8192) as server:
        settings = settings_for(server.base_url, given, key=server.api_key)
        prepared = asyncio.run(bodies(settings, texts))
        process = psutil.Process(server.process.pid)
        rounds = []
        cpu = []
        for _ in range(given.rounds):
            marks = [sum(process.cpu_times()[:2])]
            bare = asyncio.run(in_flight(server.base_url, prepared, slots, key=server.api_key))
            marks.append(sum(process.cpu_times()[:2]))
            piped = asyncio.run(pipeline(folder, settings, warm_up=0, drain=0))
            marks.append(sum(process.cpu_times()[:2]))
            rounds.append((bare, piped))
            cpu.append((marks[1] - marks[0], marks[2] - marks[1]))
    bare, piped = median(rounds, key=lambda pair: pair[1].seconds / pair[0]["seconds"])
    return {
        "documents": len(texts),
        "slots": slots,
        "bare": bare,
        "pipeline": asdict(piped),
        "ratios": [each.seconds / one["seconds"] for one, each in rounds],
        "engine_cpu": {"bare": statistics.median(one for one, _ in cpu)}
        | {"pipeline": statistics.median(each for _, each in cpu)},
    }


def median(rounds: list[Round], key: Callable[[Round], float]) -> Round:
    """The round in the middle."""
    return sorted(rounds, key=key)[len(rounds) // 2]


# --- what is classified ---------------------------------------------------------------------------


def made(words: str, count: int) -> list[str]:
    """Generated texts, no two the same."""
    least, most = map(int, words.split("-"))
    return [text for _, text in documents(5, count, (least, most))]


@contextlib.contextmanager
def laid_out(texts: Sequence[str]) -> Iterator[Path]:
    """A folder with one file for each text."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name) / "documents"
        for number, text in enumerate(texts):
            path = folder / f"{number // 1000:03}" / f"{number:06}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        yield folder


def settings_for(url: str, given: argparse.Namespace, key: str | None = None) -> Settings:
    """The product's defaults, with this server."""
    return load_settings(
        classifier="openai",
        openai_base_url=url,
        openai_api_key=key,
        workers=given.workers,
        llm_context=8192 if key else None,  # the tests' model cuts text into more tokens than most
    )


async def bodies(settings: Settings, texts: Sequence[str]) -> list[bytes]:
    """The requests that the product sends for these texts, ready to be sent."""
    taxonomy = settings.make_taxonomy()
    prompt = Prompt(
        taxonomy, context=settings.llm_context, document_tokens=settings.llm_document_tokens
    )
    backend = OpenAIBackend.from_settings(settings)
    facts = await backend.open()
    await backend.close()
    return [
        json.dumps(
            backend._dialect.body(
                facts.model,
                ChatRequest(
                    system=prompt.system,
                    user=prompt.user(ClassifierInput(text, f"{number:06}.txt"), prompt.by_name),
                    max_tokens=prompt.by_name.max_tokens,
                    logprobs=facts.logprobs,
                ),
            ),
            ensure_ascii=False,
        ).encode()
        for number, text in enumerate(texts)
    ]


# --- the three ways -------------------------------------------------------------------------------


@dataclass
class Piped:
    """What one run of the pipeline came to; ``steady`` is without its beginning and its end."""

    seconds: float
    rate: float
    steady: float
    steady_in_flight: float
    limit: int
    limits: dict[int, int]
    parent_cpu: float
    workers_cpu: float
    classified: int
    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Watched(OpenAIBackend):
    """Notes when answers come, and how many requests are in flight then."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.at: list[float] = []
        self.flying: list[int] = []
        self.now = 0

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Ask, and note it."""
        self.now += 1
        try:
            return await super().chat(request)
        finally:
            self.at.append(time.monotonic())
            self.flying.append(self.now)
            self.now -= 1


async def pipeline(folder: Path, settings: Settings, *, warm_up: int, drain: int) -> Piped:
    """One run of everything into a fresh database."""
    taxonomy = settings.make_taxonomy()
    backend = Watched.from_settings(settings)
    async with LlmClassifier(
        backend,
        taxonomy,
        context=settings.llm_context,
        document_tokens=settings.llm_document_tokens,
    ) as classifier:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
            store = open_store(f"sqlite:///{name}/results.db")
            with contextlib.closing(store):
                run = Run(store, Plan.make(settings, classifier), classifier=classifier)
                limits: dict[int, int] = {}
                pace = run._asking._pace  # type: ignore[union-attr]
                completed = backend.at
                before, started = os.times(), time.monotonic()
                watch = asyncio.create_task(_watch(pace, limits, completed))
                stats = await run.execute(walk(folder), str(folder), "benchmark")
                seconds = time.monotonic() - started
                after = os.times()
                watch.cancel()
    steady = completed[warm_up : len(completed) - drain]
    flying = backend.flying[warm_up : len(completed) - drain]
    return Piped(
        seconds=seconds,
        rate=stats.processed / seconds,
        # The slope and not a quotient: answers come in bursts, and which one begins and which one
        # ends the time would matter.
        steady=statistics.linear_regression(steady, range(len(steady))).slope,
        steady_in_flight=sum(flying) / len(flying),
        limit=pace.limit,
        limits=limits,
        parent_cpu=_own(after) - _own(before),
        workers_cpu=_children(after) - _children(before),
        classified=stats.classified,
        calls=stats.llm_calls,
        prompt_tokens=stats.prompt_tokens,
        cached_tokens=stats.cached_tokens,
        completion_tokens=stats.completion_tokens,
    )


async def _watch(pace: Any, limits: dict[int, int], completed: list[float]) -> None:
    """Count the completions under each limit, roughly."""
    seen = 0
    while True:
        await asyncio.sleep(0.05)
        limits[pace.limit] = limits.get(pace.limit, 0) + len(completed) - seen
        seen = len(completed)


def in_threads(url: str, requests: Sequence[bytes], workers: int) -> dict[str, float]:
    """One blocking request at a time in each of so many threads."""

    def ask(body: bytes) -> None:
        request = urllib.request.Request(  # noqa: S310 (our own server)
            f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as reply:  # noqa: S310
            json.load(reply)

    before, started = os.times(), time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(ask, requests))
    return _plain(len(requests), time.monotonic() - started, _own(os.times()) - _own(before))


async def in_flight(
    url: str, requests: Sequence[bytes], slots: int, key: str | None = None
) -> dict[str, float]:
    """Exactly so many requests in flight, and nothing else."""
    waiting = iter(requests)
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"

    async def work(session: aiohttp.ClientSession) -> None:
        for body in waiting:
            async with session.post(f"{url}/v1/chat/completions", data=body) as reply:
                reply.raise_for_status()
                json.loads(await reply.read())

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        before, started = os.times(), time.monotonic()
        await asyncio.gather(*(work(session) for _ in range(slots)))
        seconds = time.monotonic() - started
        after = os.times()
    return _plain(len(requests), seconds, _own(after) - _own(before))


def _plain(count: int, seconds: float, cpu: float) -> dict[str, float]:
    return {"requests": count, "seconds": seconds, "rate": count / seconds, "cpu": cpu}


def _own(times: os.times_result) -> float:
    return times.user + times.system


def _children(times: os.times_result) -> float:
    return times.children_user + times.children_system


# --- the report -----------------------------------------------------------------------------------


def show(report: dict[str, Any]) -> None:
    """Print the report for a person."""
    print(f"{report['machine']}, Python {report['python']}, load {report['load_before'][0]} before")
    print(f"documents of {report['words']} words")
    for server in report["servers"]:
        possible = server["possible"]
        piped, bare, blocking = server["pipeline"], server["bare"], server["blocking"]
        count = server["documents"]
        print(
            f"\n{server['slots']} slots of {1e3 * server['latency']:.0f} ms: {possible:.0f} "
            f"answers/s are possible; {count} documents"
        )
        line = "{:34} {:7.1f}/s {:6.1%} of possible {:7.2f} ms CPU a document"
        for name, way in (
            (f"blocking, {available_cores()} workers of one request", blocking),
            (f"bare asyncio client, {server['slots']} in flight", bare),
        ):
            cpu = 1e3 * way["cpu"] / way["requests"]
            print(line.format(name, way["rate"], way["rate"] / possible, cpu))
        parent, workers = (1e3 * piped[f"{who}_cpu"] / count for who in ("parent", "workers"))
        for name, rate in (
            ("pipeline, whole run", piped["rate"]),
            ("after warm-up", piped["steady"]),
        ):
            print(line.format(name, rate, rate / possible, parent + workers))
        print(
            f"  parent {parent:.2f} ms, workers {workers:.2f} ms; the limit ended at "
            f"{piped['limit']}, {piped['steady_in_flight']:.1f} in flight on average; "
            f"{piped['classified']} classified with {piped['calls']} requests\n"
            f"  over the rounds (load {', '.join(map(str, server['loads']))}), after warm-up "
            "beside the bare client: "
            + ", ".join(
                f"{steady / bare_rate:.2f}"
                for steady, bare_rate in zip(
                    server["steady_rates"], server["bare_rates"], strict=True
                )
            )
        )
    if "engine" in report:
        _show_engine(report["engine"])


def _show_engine(report: dict[str, Any]) -> None:
    piped, bare, count = report["pipeline"], report["bare"], report["documents"]
    cpu = {who: 1e3 * seconds / count for who, seconds in report["engine_cpu"].items()}
    parent, workers = (1e3 * piped[f"{who}_cpu"] / count for who in ("parent", "workers"))
    print(
        f"\nllama.cpp with the tests' model, {report['slots']} slots, one thread, "
        f"{count} documents:\n"
        f"  {piped['prompt_tokens'] / count:.0f} prompt tokens a document, "
        f"{piped['cached_tokens'] / max(1, piped['prompt_tokens']):.0%} of them cached, "
        f"{piped['completion_tokens'] / count:.1f} answer tokens, "
        f"{piped['calls'] / count:.2f} requests\n"
        f"  CPU of the engine: {cpu['bare']:.1f} ms a document for the bare client, "
        f"{cpu['pipeline']:.1f} ms for the pipeline; of the pipeline itself: parent "
        f"{parent:.1f} ms, workers {workers:.1f} ms\n"
        f"  bare client {bare['seconds']:.1f} s, pipeline {piped['seconds']:.1f} s; over the "
        "rounds " + ", ".join(f"{ratio:.2f}" for ratio in report["ratios"]) + " times as long; "
        f"the limit ended at {piped['limit']}"
    )


if __name__ == "__main__":
    main()
