"""The database, the message broker and the workers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doc_classify.doctor.findings import Finding, judged, look
from doc_classify.doctor.machine import database_disk
from doc_classify.errors import BrokerError, DocClassifyError
from doc_classify.settings import Settings, load_settings_with_origins
from doc_classify.terminal import one_line

if TYPE_CHECKING:
    from doc_classify.queue_status import Worker

_TIMEOUT = 2.0
_NOT_NEEDED = "not needed on one machine"


def findings(settings: Settings) -> Iterator[Finding]:
    """What is reachable, and how it is set up."""
    database = look(
        "database",
        settings,
        _database,
        advice="start it, or correct DATABASE_URL; a file is enough for one machine",
    )
    yield database
    workers: tuple[Worker, ...] = ()
    broker, answers = _broker(settings)
    yield broker
    if answers:
        workers, said = _workers(settings)
        yield from said
    if database.status == "ok":
        yield from _tables(settings)
        yield from _connections(settings, workers)


def celery_installed() -> bool:
    """Whether the extra ``distributed`` is there."""
    return all(importlib.util.find_spec(name) for name in ("celery", "redis"))


# --- the database -------------------------------------------------------------------------------


def _database(settings: Settings) -> str:
    from doc_classify.storage.probe import probe

    return probe(settings.database_url)


def _tables(settings: Settings) -> Iterator[Finding]:
    from doc_classify.storage.engine import parse_url
    from doc_classify.storage.probe import revision
    from doc_classify.storage.upgrade import HEAD

    try:
        found = revision(settings.database_url)
    except DocClassifyError as error:
        yield Finding("tables", "missing", one_line(str(error)))
        return
    if found is None:
        yield Finding("tables", "ok", "none yet: the first run makes them")
    elif found == HEAD:
        yield Finding("tables", "ok", f"revision {found}, as this version of the program has them")
    elif found > HEAD:
        yield Finding(
            "tables",
            "missing",
            f"revision {found}, made by a newer version of the program, which has {HEAD} here",
            "update doc-classify",
        )
    else:
        yield judged(
            "tables",
            f"revision {found}, this version of the program has {HEAD}",
            "the next command that writes migrates them: update all workers first",
        )
    url = parse_url(settings.database_url)
    if url.get_backend_name() == "sqlite":
        yield database_disk(Path(str(url.database)))


def _connections(settings: Settings, workers: tuple[Worker, ...]) -> Iterator[Finding]:
    from doc_classify.storage.engine import CONNECTIONS, make_engine
    from doc_classify.storage.monitoring import connections_to

    engine = make_engine(settings.database_url)
    try:
        there = connections_to(engine)
    except DocClassifyError as error:
        yield Finding("connections", "missing", one_line(str(error)))
        return
    finally:
        engine.dispose()
    if there is None:
        return
    processes = sum(worker.processes for worker in workers)
    needed = processes * CONNECTIONS + len(workers) or CONNECTIONS
    others = there.used - there.ours
    yield judged(
        "connections",
        f"{there.allowed} allowed, {there.used} in use, {others} of them by others; "
        f"{f'{processes} worker processes' if processes else 'a run here'} may need {needed}",
        "" if needed + others <= there.allowed
        else f"too few: raise max_connections to {needed + others + 10} at least, put PgBouncer in "
        "transaction mode between (then this count does not matter), or run fewer processes",
    )  # fmt: skip


# --- the broker ---------------------------------------------------------------------------------


def _broker(settings: Settings) -> tuple[Finding, bool]:
    """What is to be said of the broker, and whether it answers."""
    name = "message broker"
    chosen = load_settings_with_origins()[1].get("celery_broker_url") != "default"
    if not celery_installed():
        advice = "pip install 'doc-classify[distributed]'"
        if chosen:
            said = "celery is not installed, and CELERY_BROKER_URL is set"
            return judged(name, said, f"{advice}; {_NOT_NEEDED}: unset it there"), False
        return Finding(name, "absent", f"celery is not installed; {_NOT_NEEDED}", advice), False
    try:
        found = _ask_redis(settings)
    except DocClassifyError as error:
        if not chosen:
            return Finding(name, "absent", one_line(f"{error}; {_NOT_NEEDED}")), False
        advice = f"start Redis, or correct CELERY_BROKER_URL; {_NOT_NEEDED}: unset it there"
        return judged(name, str(error), advice), False
    memory, most = int(found.get("used_memory", 0)), int(found.get("maxmemory", 0))
    policy = str(found.get("maxmemory_policy", "unknown"))
    persists = found.get("aof_enabled") in (1, "1")
    where = "kept on disk" if persists else "kept in memory alone, which is enough"
    full = most and memory > 0.8 * most
    finding = judged(
        name,
        f"Redis {found.get('redis_version', 'of unknown version')} answers, "
        f"{memory / 1e6:,.1f} MB{f' of {most / 1e6:,.0f}' if most else ''} used, {policy}; "
        f"messages are {where}",
        f"maxmemory-policy {policy} drops messages when Redis is full, which are sent again late: "
        "set noeviction"
        if most and policy != "noeviction"
        else "",
        "it is nearly full: raise maxmemory" if full else "",
    )
    return finding, True


def _ask_redis(settings: Settings) -> dict[str, Any]:
    """What Redis says of itself.

    Raises:
        BrokerError: it is not reached, or is no Redis.
    """
    import redis

    from doc_classify.celery_tasks import queue_length, verified

    url = verified(settings.celery_broker_url)
    if not url.startswith(("redis://", "rediss://")):
        # Another kind of broker, of which only Celery knows, if anybody does.
        try:
            queue_length(settings)
        except (KeyError, ValueError, ImportError) as error:
            raise BrokerError(
                f"no message broker has such an address: {_masked(settings)}"
            ) from error
        return {"redis_version": "(another broker)", "aof_enabled": 1, "maxmemory_policy": ""}
    try:
        with redis.Redis.from_url(
            url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT, retry=None
        ) as client:
            client.ping()
            return dict(client.info())
    except (redis.RedisError, OSError, ValueError) as error:
        raise BrokerError(f"no message broker answers at {_masked(settings)} ({error})") from error


def _masked(settings: Settings) -> str:
    from kombu.utils.url import maybe_sanitize_url

    try:
        return one_line(str(maybe_sanitize_url(settings.celery_broker_url)))
    except ValueError:
        return "(not a valid address)"


# --- the workers --------------------------------------------------------------------------------


def _workers(settings: Settings) -> tuple[tuple[Worker, ...], list[Finding]]:
    from doc_classify.celery_tasks import QUEUE, queue_length
    from doc_classify.queue_status import WORKER_COMMAND, live_workers

    try:
        depth = queue_length(settings)
        workers = live_workers(settings)
    except BrokerError as error:
        return (), [Finding("workers", "absent", one_line(str(error)))]
    queue = f"{depth:,} messages in the queue {QUEUE}"
    said = [_messages(settings, depth)] if depth else []
    if not workers:
        found = f"none is connected; {queue}"
        advice = f"start one on each machine, with this CELERY_BROKER_URL: {WORKER_COMMAND}"
        if depth:
            return (), [judged("workers", found, advice), *said]
        return (), [Finding("workers", "absent", found, advice), *said]
    return workers, [_judge_workers(workers, queue), *said]


def _judge_workers(workers: tuple[Worker, ...], queue: str) -> Finding:
    from importlib.metadata import version

    deaf = [worker.name for worker in workers if not worker.listening]
    ours = version("doc-classify")
    others = [f"{w.name} ({w.version})" for w in workers if w.version != ours]
    processes = sum(worker.processes for worker in workers)
    return judged(
        "workers",
        f"{len(workers)} connected with {processes} processes, {len(workers) - len(deaf)} of them "
        f"take chunks; {queue}",
        f"{', '.join(deaf)} takes none: 'doc-classify status' says why (documents not visible, "
        "another version or model), or it was told to (add_consumer undoes that)"
        if deaf
        else "",
        f"install version {ours} everywhere: {', '.join(others)}" if others else "",
    )


def _messages(settings: Settings, depth: int) -> Finding:
    """Whether what waits in the queue is what workers take: JSON, and nothing else."""
    import redis

    from doc_classify.celery_tasks import QUEUE, app, verified

    accepted = sorted(app.conf.accept_content)
    try:
        with redis.Redis.from_url(
            verified(settings.celery_broker_url), socket_timeout=_TIMEOUT
        ) as client:
            oldest = client.lindex(QUEUE, -1)
        message = json.loads(oldest or b"{}")
        kind = str(message.get("content-type", "none")) if isinstance(message, dict) else "none"
    except (redis.RedisError, OSError, ValueError, RecursionError):
        kind = "unreadable"
    fits = kind == "application/json" or not depth
    return judged(
        "messages",
        f"workers accept {', '.join(accepted)}; the oldest message is {kind}",
        "" if fits else f"something else writes to the queue {QUEUE}: give it another database "
        "number in CELERY_BROKER_URL (redis://HOST:6379/1)",
    )  # fmt: skip
