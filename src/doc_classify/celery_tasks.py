"""The Celery application: ``celery -A doc_classify.celery_tasks worker``.

Messages hold the id of a run and the number of a chunk, nothing else: no path, no text, no secret,
no result. Everything that counts is in the database (:mod:`doc_classify.storage.chunks`), so a
message that is lost, late or doubled does no harm.

Configured by the environment: ``CELERY_BROKER_URL``, ``DATABASE_URL``, and the settings of this
machine (:mod:`doc_classify.settings`). ``CELERY_RESULT_BACKEND`` is passed on to Celery for what
else uses it; results of ours are never put there.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from celery import Celery, signals
from celery.worker import state as worker_state
from celery.worker.control import control_command, inspect_command
from kombu.exceptions import KombuError
from kombu.utils.url import maybe_sanitize_url
from redis.exceptions import RedisError

from doc_classify.errors import BrokerError, DocClassifyError
from doc_classify.pipeline.chunk_worker import CannotWorkError, ChunkWorker
from doc_classify.settings import Settings, load_settings
from doc_classify.storage.chunks import ChunkLedger
from doc_classify.storage.store import SqlStore

QUEUE = "doc-classify"
TASK = "doc_classify.process_chunk"

_PATIENCE = 900.0
"""Seconds that a worker waits for a database that is away."""
_SWEEPS = 8
"""Sweeps in the time of a lease."""
_UNSENT_LEASES = 30.0
"""A chunk that was sent so many leases ago and not taken is sent again, however full the queue."""
_UNSENT_EMPTY_LEASES = 0.25
"""The same while the queue is empty: then its message was lost."""
_SWEPT_AT_ONCE = 1000
_REST_LEASES = 1.0
"""How long a worker takes nothing that has met a run that it cannot work on."""

_logger = logging.getLogger("doc_classify.worker")


def verified(url: str) -> str:
    """The broker's address with the check of its certificate asked for, unless it says how.

    Kombu takes a bare ``rediss://`` for TLS with anybody: whoever is in between could read and
    send messages. ``?ssl_cert_reqs=none`` in the address still means that.
    """
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"


def _configure(settings: Settings) -> Celery:
    made = Celery("doc_classify", broker=verified(settings.celery_broker_url))
    made.conf.update(
        result_backend=os.environ.get("CELERY_RESULT_BACKEND") or None,
        task_default_queue=QUEUE,
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        # A chunk whose worker died is found by its lease; a message that comes back at once would
        # bring a document that kills its worker to the next one, and the next.
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_max_tasks_per_child=200,
        worker_send_task_events=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 3600,
            # Messages of a worker that vanished are looked for now and then, by few.
            "unacked_restore_limit": 1000,
        },
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=True,
    )
    return made


app = _configure(load_settings())


@app.task(name=TASK, bind=True, ignore_result=True, acks_late=True, max_retries=0)
def process_chunk(self: Any, run_id: str, number: int) -> None:
    """Do one chunk of a run, if nobody else has it."""
    try:
        _worker().work(run_id, number)
    except CannotWorkError as error:
        _logger.error("%s; this worker takes no more for a while", error)
        self.app.control.broadcast(_REST, destination=[self.request.hostname])
    except DocClassifyError as error:
        # The chunk was handed back, or its lease will end; the next sweep finds it.
        _logger.error("chunk %s of run %s: %s", number, run_id, error)


# --- once per process ---------------------------------------------------------------------------

_of_this_process: ChunkWorker | None = None


def _worker() -> ChunkWorker:
    global _of_this_process
    if _of_this_process is None:
        settings = load_settings()
        store = SqlStore(
            settings.database_url, patience=_PATIENCE, idle_limit=settings.lease_seconds / 2
        )
        _of_this_process = ChunkWorker(settings, store, share=_share())
    return _of_this_process


def _share() -> int:
    """Processes of this worker, among which the LLM requests of the machine are shared."""
    return int(os.environ.get(_SHARE_VARIABLE, "1"))


_SHARE_VARIABLE = "DOC_CLASSIFY_WORKER_PROCESSES"


@signals.worker_init.connect
def _remember_concurrency(sender: Any = None, **_: Any) -> None:
    # The pool's processes inherit it.
    os.environ[_SHARE_VARIABLE] = str(getattr(sender, "concurrency", None) or 1)


@signals.worker_process_shutdown.connect
def _close(**_: Any) -> None:
    if _of_this_process is not None:
        _of_this_process.close()


# --- asked from afar ----------------------------------------------------------------------------

_ABOUT, _REST = "doc_classify_about", "doc_classify_rest"


@control_command(name=_REST)
def rest(state: Any) -> None:
    """Take nothing for a while, so that others do what cannot be done here.

    Not for good: a share may be mounted late, and a folder that nobody can see, submitted once,
    must not end every worker's work.
    """
    consumer = state.consumer
    if consumer.task_consumer and consumer.task_consumer.consuming_from(QUEUE):
        consumer.cancel_task_queue(QUEUE)
        seconds = _REST_LEASES * load_settings().lease_seconds
        consumer.timer.call_after(seconds, consumer.add_task_queue, (QUEUE,))


@inspect_command(name=_ABOUT)
def about(state: Any) -> dict[str, Any]:
    """What a worker is: all that ``doc-classify status`` asks, in one answer."""
    consumer = state.consumer.task_consumer
    reserved, active = len(worker_state.reserved_requests), len(worker_state.active_requests)
    return {
        "version": version("doc-classify"),
        "processes": state.consumer.controller.concurrency,
        "listening": bool(consumer) and QUEUE in {queue.name for queue in consumer.queues},
        "active": active,
        "reserved": max(0, reserved - active),
    }


# --- sweeping -----------------------------------------------------------------------------------


@signals.worker_ready.connect
def _sweep_now_and_then(sender: Any = None, **_: Any) -> None:
    sender.timer.call_repeatedly(sweep_seconds(load_settings()), _sweep_quietly)


def sweep_seconds(settings: Settings) -> float:
    """Time between two sweeps."""
    return settings.lease_seconds / _SWEEPS


def _sweep_quietly() -> None:
    with contextlib.suppress(DocClassifyError):  # the next one may have more luck
        settings = load_settings()
        # A store of its own each time: the pool's processes are forked from this one, and must
        # not inherit a connection.
        store = SqlStore(settings.database_url)
        try:
            sent = sweep(ChunkLedger(store), settings)
        finally:
            store.close()
        if sent:
            _logger.warning("sent %s chunks again whose worker or message was lost", sent)


def sweep(ledger: ChunkLedger, settings: Settings, run_id: str | None = None) -> int:
    """Tell the broker again of chunks that it or a worker has lost; returns how many.

    Args:
        ledger: the chunks.
        settings: how long a lease is.
        run_id: only of this run.

    Raises:
        StorageError, BrokerError: the database or the broker is away.
    """
    leases = _UNSENT_EMPTY_LEASES if queue_length(settings) == 0 else _UNSENT_LEASES
    unsent = leases * settings.lease_seconds
    overdue = ledger.overdue(unsent_for=unsent, limit=_SWEPT_AT_ONCE, run_id=run_id)
    send(overdue, settings)
    return len(overdue)


def send(chunks: list[tuple[str, int]], settings: Settings | None = None) -> None:
    """Tell the broker of chunks, over one connection.

    Args:
        chunks: ids of runs, and numbers.
        settings: where the broker is; default: as this module was configured.

    Raises:
        BrokerError: the broker is away.
    """
    if not chunks:
        return
    with _broker(settings) as connection, app.amqp.Producer(connection) as producer:
        for chunk in chunks:
            process_chunk.apply_async(args=chunk, producer=producer)


def queue_length(settings: Settings | None = None) -> int:
    """Messages that wait in the queue.

    Raises:
        BrokerError: the broker is away.
    """
    with _broker(settings) as connection:
        channel = connection.default_channel
        return int(channel.queue_declare(QUEUE, passive=False).message_count)


def ask_workers(
    settings: Settings | None = None, *, timeout: float, limit: int | None = None
) -> dict[str, dict[str, Any]]:
    """What the workers that answer in time say of themselves (:func:`about`), by name.

    Raises:
        BrokerError: the broker is away.
    """
    with _broker(settings) as connection:
        inspect = app.control.inspect(timeout=timeout, connection=connection, limit=limit)
        # Celery has no public way to put a question of our own.
        answers: dict[str, dict[str, Any]] = inspect._request(_ABOUT) or {}
    return {name: said for name, said in answers.items() if "version" in said}


@contextlib.contextmanager
def _broker(settings: Settings | None) -> Iterator[Any]:
    url = verified(settings.celery_broker_url) if settings else app.conf.broker_url
    try:
        # Of its own and closed at once: processes that are forked meanwhile must not inherit it.
        with app.connection_for_write(url) as connection:
            yield connection
    except (KombuError, RedisError, OSError) as error:
        raise BrokerError(f"the message broker {_masked(url)} cannot be used: {error}") from error


def _masked(url: str) -> str:
    """The broker's address without user and password."""
    return str(maybe_sanitize_url(url))
