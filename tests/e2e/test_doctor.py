"""``doctor`` beside real servers and workers, and beside those that are set up wrongly."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from click.testing import CliRunner
from sqlalchemy import text
from tests.conftest import CeleryWorker, PostgresServer, RedisServer, fresh_database, wait_until
from tests.doubles.ollama import OllamaDouble
from tests.doubles.site import Site

from doc_classify.cli import cli
from doc_classify.doctor import limits, machine, services
from doc_classify.queue_status import Worker
from doc_classify.settings import Settings, environment_variable, load_settings
from doc_classify.storage import open_store
from doc_classify.storage.engine import make_engine, writing


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(environment_variable(field), raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setenv("DOC_CLASSIFY_CLASSIFIER", "embedded")
    monkeypatch.chdir(tmp_path)


def doctor(code: int, *options: str, **environment: str) -> dict[str, dict]:
    """What it finds, by name; checks the exit code, and that no secret is shown."""
    runner = CliRunner(env=environment)
    result = runner.invoke(cli, ["doctor", "--json", *options], standalone_mode=False)
    assert result.exception is None, result.exception
    assert result.return_value == code, result.output
    assert "hunter2" not in result.output
    return {found["name"]: found for found in json.loads(result.stdout)}


# --- many machines --------------------------------------------------------------------------------


def test_everything_is_well_where_a_worker_listens(
    site: Site, worker: Callable[..., CeleryWorker]
) -> None:
    worker()
    found = doctor(0, **site.environment | {"DOC_CLASSIFY_LEASE_SECONDS": "120"})
    assert found["message broker"]["status"] == "ok"
    assert "Redis" in found["message broker"]["found"]
    assert "1 connected with 2 processes, 1 of them take chunks" in found["workers"]["found"]
    # Three for each of two processes, one for the sweeps.
    assert "2 worker processes may need 7" in found["connections"]["found"]
    assert "PostgreSQL" in found["database"]["found"]


def test_a_worker_that_takes_nothing_is_named(
    site: Site, worker: Callable[..., CeleryWorker]
) -> None:
    worker()
    with Celery(broker=site.broker) as app:
        app.control.cancel_consumer("doc-classify")
        settings = site.settings()

        def deaf() -> bool:
            workers, _ = services._workers(settings)
            return bool(workers) and not workers[0].listening

        wait_until(deaf, "the worker listens no more")
    found = doctor(1, **site.environment)["workers"]
    assert found["status"] == "warning"
    assert "worker1@" in found["advice"] and "doc-classify status" in found["advice"]


def test_messages_without_workers_and_foreign_ones(redis_server: RedisServer) -> None:
    redis_server.flush()
    address = {"CELERY_BROKER_URL": redis_server.url}
    assert doctor(0, **address)["workers"]["status"] == "absent"
    with redis_server.client() as client:
        client.lpush("doc-classify", json.dumps({"content-type": "application/x-python-serialize"}))
    found = doctor(1, **address)
    assert "celery -A doc_classify.celery_tasks worker" in found["workers"]["advice"]
    assert "1 messages" in found["workers"]["found"]
    assert "x-python-serialize" in found["messages"]["found"]
    assert "another database number" in found["messages"]["advice"]
    for garbage in (b"\xff\xfe", b"[" * 100_000, b"[1]"):
        redis_server.flush()
        with redis_server.client() as client:
            client.lpush("doc-classify", garbage)
        assert doctor(1, **address)["messages"]["status"] == "warning"
    redis_server.flush()


def test_a_broker_that_drops_messages(redis_server: RedisServer) -> None:
    redis_server.flush()
    with redis_server.client() as client:
        before = client.config_get("maxmemory*")
        try:
            client.config_set("maxmemory", 3_000_000_000)
            client.config_set("maxmemory-policy", "allkeys-lru")
            found = doctor(1, CELERY_BROKER_URL=redis_server.url)["message broker"]
        finally:
            client.config_set("maxmemory", before["maxmemory"])
            client.config_set("maxmemory-policy", before["maxmemory-policy"])
    assert "set noeviction" in found["advice"]
    assert "allkeys-lru" in found["found"]


def test_a_password_of_the_broker_is_not_shown() -> None:
    found = doctor(1, CELERY_BROKER_URL="redis://:hunter2@127.0.0.1:9/0")["message broker"]
    assert "127.0.0.1:9" in found["found"]


def test_without_celery_one_machine_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "celery_installed", lambda: False)
    found = doctor(0)["message broker"]
    assert found["status"] == "absent"
    assert "doc-classify[distributed]" in found["advice"]
    found = doctor(1, CELERY_BROKER_URL="redis://127.0.0.1:9/0")["message broker"]
    assert found["status"] == "warning"
    assert "doc-classify[distributed]" in found["advice"]


# --- the database ---------------------------------------------------------------------------------


def test_tables_of_other_versions(store_url: str) -> None:
    open_store(store_url).close()
    engine = make_engine(store_url)
    for revision, status in (("0002", "warning"), ("9999", "missing")):
        with writing(engine) as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
        code = 1 if status == "warning" else 3
        found = doctor(code, DATABASE_URL=store_url)["tables"]
        assert found["status"] == status
        assert revision in found["found"]
    engine.dispose()


def test_too_few_connections_for_the_workers(own_database: PostgresServer) -> None:
    settings = load_settings(database_url=fresh_database(own_database.url))
    many = (Worker("one@a", "1", 200, True, 0, 0), Worker("two@b", "1", 200, True, 0, 0))
    [found] = services._connections(settings, many)
    assert found.status == "warning"
    assert "may need 1202" in found.found
    assert "PgBouncer" in found.advice and "max_connections" in found.advice


# --- the LLM --------------------------------------------------------------------------------------


@pytest.fixture
def ollama() -> Iterator[Callable[..., OllamaDouble]]:
    with contextlib.ExitStack() as stack:
        yield lambda **how: stack.enter_context(
            OllamaDouble(lambda _system, _user: {"reports": 0.9, "other": 0.1}, **how)
        )


@pytest.mark.parametrize(
    ("share", "code", "said", "advised"),
    [
        (1.0, 0, "on the GPU", ""),
        (0.4, 1, "40% on a GPU", "does not fit"),
        (0.0, 1, "on the CPU alone", "ollama ps"),
    ],
)
def test_where_ollama_runs_the_model(
    ollama: Callable[..., OllamaDouble], share: float, code: int, said: str, advised: str
) -> None:
    double = ollama(gpu_share=share)
    options = ("--classifier", "ollama", "--host", double.url, "--model", double.model)
    found = doctor(code, *options)["LLM server"]
    assert said in found["found"]
    assert advised in found["advice"]
    assert bool(found["advice"]) == bool(advised)


def test_ollama_without_the_model_or_not_there(ollama: Callable[..., OllamaDouble]) -> None:
    options = ("--classifier", "ollama", "--host", ollama().url, "--model", "nonesuch:7b")
    found = doctor(3, *options)["classifier"]
    assert found["status"] == "missing"
    assert "ollama pull nonesuch:7b" in found["found"]
    found = doctor(3, "--classifier", "ollama", "--host", "http://me:hunter2@127.0.0.1:9")
    assert "OLLAMA_HOST" in found["classifier"]["advice"]


# --- this machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "advised"),
    [
        ({}, ""),
        ({"lease_seconds": 5, "stretch_seconds": 0}, "lease_seconds 5"),
        ({"stretch_seconds": 100}, "stretch_seconds 100"),
        ({"distributed_chunk_size": 100}, "in vain"),
        ({"classifier": "ollama", "llm_timeout": 1000}, "llm_timeout"),
        ({"classifier": "embedded", "llm_timeout": 1000}, ""),
    ],
)
def test_time_limits_that_contradict_each_other(changes: dict, advised: str) -> None:
    [found] = limits.findings(load_settings(**changes))
    assert found.status == ("warning" if advised else "ok")
    assert advised in found.advice


def test_too_little_memory_and_too_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda: 400e6)
    found = doctor(1, DOC_CLASSIFY_WORKERS="64")
    assert "set workers to 2" in found["memory"]["advice"]
    assert "gain nothing" in found["machine"]["advice"]


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_CGROUP_LIMITS", (tmp_path / "none", limit))
    limit.write_text("512000000\n")
    assert machine.memory_bytes() == 512e6
    limit.write_text("max\n")
    assert machine.memory_bytes() > 512e6


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_FREE_BYTES", 1e18)
    found = doctor(1)
    assert "make room" in found["temporary files"]["advice"]
    assert "database_url" in found["database disk"]["advice"]


def test_as_text_it_says_what_to_do() -> None:
    result = CliRunner().invoke(cli, ["doctor"], standalone_mode=False)
    assert result.return_value == 0
    assert result.stdout.endswith("Ready.\n")
    result = CliRunner(env={"DOC_CLASSIFY_WORKERS": "64"}).invoke(
        cli, ["check"], standalone_mode=False
    )
    assert result.return_value == 1
    assert "WARNING    machine" in result.stdout
    assert "\n           -> reading keeps a core busy" in result.stdout
    assert result.stdout.endswith("Ready, but see WARNING above.\n")
