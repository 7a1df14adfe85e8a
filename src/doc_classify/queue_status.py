"""How a distributed run stands, who works on it, and what is the matter when nobody does.

What is seen (:func:`look`) is apart from what it means (:func:`troubles`, :func:`bottleneck`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from doc_classify.celery_tasks import ask_workers, queue_length
from doc_classify.errors import BrokerError
from doc_classify.records import RunStats
from doc_classify.settings import Settings
from doc_classify.storage import monitoring
from doc_classify.storage.base import RunInfo
from doc_classify.storage.chunks import FINISHED, INCOMPLETE, RUNNING, SUBMITTING, ChunkCounts
from doc_classify.storage.engine import CONNECTIONS
from doc_classify.storage.monitoring import Connections, Crash
from doc_classify.storage.store import SqlStore
from doc_classify.summary import duration

WORKER_COMMAND = "celery -A doc_classify.celery_tasks worker"

_ANSWER_SECONDS = 1.0
_LOAD_SECONDS = 1.0
_LATE = 60.0
"""Seconds that a submitter may be silent before that counts as trouble."""
_SILENT = 180.0
"""Seconds without any new result in which workers hold chunks, after which that is trouble."""
_BUSY = 0.7
"""Share of the processes that are in one kind of work from which on that is the limit."""
_CRASHES = 3


@dataclass(frozen=True, slots=True)
class Worker:
    """A Celery worker that has answered.

    Attributes:
        processes: of its pool.
        listening: it takes chunks; one that cannot see the documents takes none for a while.
        active, reserved: chunks that it works on, and that it has fetched beyond those.
    """

    name: str
    version: str
    processes: int
    listening: bool
    active: int
    reserved: int


@dataclass(frozen=True, slots=True)
class Standing:
    """All that is seen of a run from outside.

    Attributes:
        silent: seconds since something was written about the run.
        elapsed: seconds from its start to its end, or to now.
        lease: seconds after which workers take what is silent for lost.
        depth: messages in the queue, of all runs; None where the broker does not answer.
        broker_error: why it does not.
        load: database sessions of ours at work, on average; None where that was not looked at.
    """

    run_id: str
    state: str
    message: str | None
    classifier: str
    model: str | None
    stats: RunStats
    silent: float
    elapsed: float
    lease: float
    chunks: ChunkCounts
    oldest_waiting: float | None
    most_attempts: int
    depth: int | None
    broker_error: str | None
    workers: tuple[Worker, ...]
    crashes: tuple[Crash, ...]
    connections: Connections | None
    load: float | None

    @property
    def is_open(self) -> bool:
        """Whether the run is meant to go on."""
        return self.state in (SUBMITTING, RUNNING)

    @property
    def done(self) -> int:
        """Files with whatever outcome."""
        return self.stats.seen - self.stats.pending

    @property
    def rate(self) -> float:
        """Files done per second, on average over the run."""
        return self.done / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds that the rest takes at that rate; None where nothing can be said."""
        if not self.is_open or not self.rate:
            return None
        return max(0, self.stats.submitted - self.done) / self.rate

    @property
    def processes(self) -> int:
        """Processes that take chunks."""
        return sum(worker.processes for worker in self.workers if worker.listening)

    @property
    def connections_needed(self) -> int:
        """Connections that the workers seen may open: those of each process, one to sweep."""
        return sum(worker.processes * CONNECTIONS + 1 for worker in self.workers)


def look(store: SqlStore, info: RunInfo, settings: Settings) -> Standing:
    """See how a run stands; takes a few seconds, since workers are asked and the load is sampled.

    A broker that is away is part of what is seen.

    Raises:
        StorageError: the database does not answer.
    """
    depth: int | None = None
    workers: tuple[Worker, ...] = ()
    error: str | None = None
    try:
        depth = queue_length(settings)
        workers = live_workers(settings)
    except BrokerError as found:
        error = str(found)
    waiting = monitoring.waiting(store, info.run_id)
    at = datetime.now(UTC)
    ended = at if info.finished is None else datetime.fromisoformat(info.finished)
    at_work = waiting.counts.claimed > waiting.counts.expired
    model = info.spec.settings.get("model")
    return Standing(
        run_id=info.run_id,
        state=info.state,
        message=info.message,
        classifier=info.spec.classifier,
        model=None if model is None else str(model),
        stats=info.stats,
        silent=_seconds(info.heartbeat, at),
        elapsed=_seconds(info.started, ended),
        lease=settings.lease_seconds,
        chunks=waiting.counts,
        oldest_waiting=waiting.oldest,
        most_attempts=waiting.attempts,
        depth=depth,
        broker_error=error,
        workers=workers,
        crashes=tuple(monitoring.crashes(store, info.run_id, _CRASHES)),
        connections=monitoring.connections(store),
        load=monitoring.load(store, _LOAD_SECONDS) if at_work else None,
    )


def live_workers(settings: Settings, *, first_only: bool = False) -> tuple[Worker, ...]:
    """The workers that answer in time, or the first of them.

    Raises:
        BrokerError: the broker is away.
    """
    answers = ask_workers(settings, timeout=_ANSWER_SECONDS, limit=1 if first_only else None)
    return tuple(
        Worker(
            name,
            str(said["version"]),
            int(said["processes"]),
            bool(said["listening"]),
            int(said["active"]),
            int(said["reserved"]),
        )
        for name, said in sorted(answers.items())
    )


def troubles(seen: Standing) -> list[str]:
    """What is the matter and what to do, one sentence each; the gravest first."""
    found = [*_of_state(seen), *_of_broker(seen), *_of_workers(seen), *_of_chunks(seen)]
    return [*found, *_of_versions(seen), *_of_connections(seen)]


def _of_state(seen: Standing) -> Iterator[str]:
    if seen.message and seen.message.startswith(INCOMPLETE):
        yield (
            f"{seen.message[:1].upper()}{seen.message[1:]}. Submitting the same again takes the "
            "rest; nothing is done twice."
        )
    if seen.state == FINISHED:
        return
    if not seen.is_open:
        why = f" ({seen.message})" if seen.message else ""
        yield (
            f"The run was ended{why} before all was done: "
            f"'doc-classify resume {seen.run_id}' lets it go on."
        )
    elif seen.state == SUBMITTING and seen.silent > _LATE:
        yield (
            f"The run counts as being submitted, but nothing was written for "
            f"{duration(seen.silent)}: whoever submitted it seems to be gone. "
            f"'doc-classify resume {seen.run_id}' closes it with what it has; submitting the "
            "folder again takes the rest."
        )


def _of_broker(seen: Standing) -> Iterator[str]:
    if seen.broker_error and seen.is_open:
        yield (
            f"{seen.broker_error[:1].upper()}{seen.broker_error[1:]}. Workers finish what they "
            "hold and then wait for it. Start it, or correct CELERY_BROKER_URL; messages that are "
            "lost are sent again."
        )


def _of_workers(seen: Standing) -> Iterator[str]:
    if not seen.is_open or seen.broker_error or not _unfinished(seen):
        return
    if not seen.workers:
        yield (
            f"No worker is connected to the broker. Start one where the documents can be seen, "
            f"with the same CELERY_BROKER_URL and DATABASE_URL: {WORKER_COMMAND}"
        )
        return
    deaf = [worker.name for worker in seen.workers if not worker.listening]
    said = f" The last one said: {_said(seen)}." if _said(seen) else " Their logs say why."
    if len(deaf) == len(seen.workers):
        yield (
            f"{_workers(len(deaf))} connected, but none takes chunks at present: it was told not "
            "to, or could not do those that it got (documents not visible, or another version or "
            f"model).{said} Mend that; they try again after a while."
        )
    elif deaf:
        yield f"{', '.join(deaf)} takes no chunks at present.{said}"


def _of_chunks(seen: Standing) -> Iterator[str]:
    if not seen.is_open:
        return
    counts = seen.chunks
    held = sum(worker.reserved for worker in seen.workers)
    late = seen.oldest_waiting is None or seen.oldest_waiting > seen.lease / 4
    if seen.depth == 0 and counts.pending > held and late:
        yield (
            f"The queue is empty although {counts.pending:,} chunks wait: their messages were "
            f"lost. 'doc-classify resume {seen.run_id}' sends them again at once; workers do so "
            "by themselves after a while."
        )
    if counts.expired:
        yield (
            f"{counts.expired:,} chunks are held by workers that are not heard of any more. Live "
            "workers send them again at their next sweep."
        )
    if counts.claimed > counts.expired and seen.silent > _SILENT:
        said = f" The last one said: {_said(seen)}." if _said(seen) else ""
        llm = "" if seen.classifier == "embedded" else "the LLM server is away or very slow, or "
        yield (
            f"Workers hold {counts.claimed - counts.expired:,} chunks, but no result came for "
            f"{duration(seen.silent)}: {llm}a document takes long. The workers' logs say what "
            f"they wait for.{said}"
        )
    elif _said(seen) and all(worker.listening for worker in seen.workers):
        yield f"A worker waits, or has handed back what it had: {_said(seen)}."


def _of_versions(seen: Standing) -> Iterator[str]:
    ours = version("doc-classify")
    for worker in seen.workers:
        if worker.version != ours:
            yield (
                f"{worker.name} has doc-classify {worker.version}, here it is {ours}: install "
                "the same everywhere."
            )


def _of_connections(seen: Standing) -> Iterator[str]:
    there = seen.connections
    if there is None:
        return
    others = there.used - there.ours
    if seen.connections_needed + others > there.allowed:
        yield (
            f"The workers may need {seen.connections_needed} database connections, and others "
            f"have {others}, but the server allows {there.allowed}: unless a pooler is between "
            "already, raise max_connections, put PgBouncer in transaction mode between, or run "
            "fewer processes."
        )


def bottleneck(seen: Standing) -> str | None:
    """What limits the rate, and by what measure; None where nothing can be said."""
    processes, stats = seen.processes, seen.stats
    if not seen.is_open or not processes or not stats.processed or seen.elapsed <= 0:
        return None
    # Documents in a stage, on average, are the seconds they spent there per second of the run.
    extracting = stats.extract_seconds / seen.elapsed
    classifying = stats.classify_seconds / seen.elapsed
    asks = seen.classifier != "embedded"
    reading = min(1.0, (extracting if asks else extracting + classifying) / processes)
    measure = f"{reading:.0%} of the time of {processes} processes goes into reading"
    if seen.load is not None and seen.load > _BUSY * processes:
        return (
            f"The database is the limit: on average {seen.load:.1f} of {processes} processes wait "
            f"for a statement; {measure}."
        )
    if reading > _BUSY:
        return f"Reading documents is the limit: {measure}. More cores or machines help."
    if asks and classifying > 1 - reading:
        each = stats.classify_seconds / max(1, stats.classified)
        return (
            f"The LLM is the limit: on average {classifying:.1f} documents wait for its answer, "
            f"{each:.1f} s each; {measure}. More or faster LLM servers help, more workers do not."
        )
    return f"Nothing is used up: {measure}."


def _said(seen: Standing) -> str | None:
    """What a worker had to say last of the run."""
    return None if not seen.message or seen.message.startswith(INCOMPLETE) else seen.message


def _unfinished(seen: Standing) -> bool:
    return bool(seen.chunks.pending or seen.chunks.claimed) or seen.state == SUBMITTING


def _workers(number: int) -> str:
    return "1 worker is" if number == 1 else f"{number} workers are"


def _seconds(since: str, until: datetime) -> float:
    return max(0.0, (until - datetime.fromisoformat(since)).total_seconds())
