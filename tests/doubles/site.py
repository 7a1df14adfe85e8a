"""A site for distributed runs: one database, one broker, folders of documents, and who counts."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from doc_classify.records import FileStatus
from doc_classify.runners.distributed import CeleryDistributedProcessor
from doc_classify.settings import Settings, load_settings
from doc_classify.storage.base import ResultRow, RunInfo
from doc_classify.storage.chunks import ChunkLedger
from doc_classify.storage.schema import files as files_table
from doc_classify.storage.schema import results, run_files
from doc_classify.storage.store import SqlStore

READERS = Path(__file__).parent / "readers"
LEASE = 3.0
NAMES = ["invoices", "contracts", "reports", "correspondence", "research", "compliance"]


def oracle(_system: str, user: str) -> dict[str, float]:
    """What the LLM of a site knows: it looks for the subject."""
    found = re.search(r"Subject: (\w+)", user)
    kind = found[1] if found else "other"
    return {kind: 0.9} | dict.fromkeys([name for name in NAMES if name != kind][:2], 0.05)


@dataclass
class Site:
    """Addresses, and what the tests do with them."""

    database: str
    broker: str
    root: Path
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """For processes that take part in it."""
        return {
            "DATABASE_URL": self.database,
            "CELERY_BROKER_URL": self.broker,
            "DOC_CLASSIFY_LEASE_SECONDS": str(LEASE),
            "DOC_CLASSIFY_TIME_LIMIT": "4",
            "DOC_CLASSIFY_STRETCH_SECONDS": "0",  # chunk by chunk, so that there is something left
            "DOC_CLASSIFY_DISTRIBUTED_CHUNK_SIZE": "5",
            "PYTHONPATH": str(READERS),
        }

    def settings(self, **changes: Any) -> Settings:
        given = {
            "database_url": self.database,
            "celery_broker_url": self.broker,
            "lease_seconds": LEASE,
            "distributed_chunk_size": 5,
        }
        return load_settings(**(given | dict(self.changes) | changes))

    @contextlib.contextmanager
    def processor(self, **changes: Any) -> Iterator[CeleryDistributedProcessor]:
        with CeleryDistributedProcessor(
            batch_size=20, settings=self.settings(**changes)
        ) as processor:
            yield processor

    def folder(self, number: int = 40, slow: float = 0.0, first: Sequence[str] = ()) -> Path:
        """A folder of documents that no other folder has; those in ``first`` begin as they say."""
        mark = uuid.uuid4().hex
        place = self.root / f"documents-{mark[:8]}"
        place.mkdir()
        words = [*first, *itertools.repeat(f"SLOW {slow}" if slow else "", number - len(first))]
        for index, kind, word in zip(range(number), itertools.cycle(NAMES), words, strict=False):
            (place / f"{index:03}.txt").write_text(
                f"{word} Subject: {kind}\nNumber {index} of {mark}.\n"
            )
        return place

    def submit(self, folder: Path, **changes: Any) -> str:
        with self.processor(**changes) as processor:
            return processor.submit_directory(folder)

    def in_the_middle(self, run_id: str, least: int = 5) -> None:
        """Wait until some of a run is done."""
        deadline = time.monotonic() + 60
        while self.completed(run_id) < least:
            assert time.monotonic() < deadline, "nothing is done"
            time.sleep(0.02)
        assert not self.is_over(run_id)

    def completed(self, run_id: str) -> int:
        with self.processor() as processor:
            return int(processor.check_progress(run_id)["completed"])

    def is_over(self, run_id: str) -> bool:
        with self.processor() as processor:
            return processor.check_progress(run_id)["state"] == "finished"

    def wait(self, run_id: str) -> dict[str, Any]:
        with self.processor() as processor:
            return processor.wait_for_completion(run_id, poll_interval=0.1)

    def rows(self, run_id: str) -> list[ResultRow]:
        with contextlib.closing(SqlStore(self.database)) as store:
            return list(store.results(run_id))

    def settled(self, run_id: str, number: int, **expected: int) -> RunInfo:
        """Count again: each file of a finished run has one result or one failure, as counted."""
        with contextlib.closing(SqlStore(self.database)) as store:
            info = store.run(run_id)
            rows = list(store.results(run_id))
            chunks = ChunkLedger(store).counts(run_id)
            with store.engine.connect() as connection:
                mine = select(run_files.c.document_id).where(run_files.c.run_id == run_id)
                stored = connection.execute(
                    select(results.c.document_id, func.count())
                    .where(
                        results.c.document_id.in_(mine),
                        results.c.fingerprint == info.spec.fingerprint,
                    )
                    .group_by(results.c.document_id)
                ).all()
                listed = connection.execute(
                    select(func.count(), func.count(func.distinct(files_table.c.uri)))
                    .select_from(
                        run_files.join(files_table, files_table.c.id == run_files.c.file_id)
                    )
                    .where(run_files.c.run_id == run_id)
                ).one()
        assert info.state == "finished", info
        assert (chunks.pending, chunks.claimed) == (0, 0)
        assert len(rows) == number == len({row.uri for row in rows})
        assert tuple(listed) == (number, number)
        assert all(count == 1 for _, count in stored)
        for row in rows:
            assert row.status is not FileStatus.PENDING
            assert bool(row.category) != bool(row.failure), row
        found = Counter(row.status.value for row in rows)
        stats = info.stats
        assert (stats.seen, stats.submitted, stats.pending) == (number, number, 0)
        counted = {
            "classified": stats.classified,
            "failed": stats.failed,
            "duplicate": stats.duplicates,
            "already_done": stats.already_done,
            "unsupported": stats.unsupported,
        }
        assert {name: count for name, count in counted.items() if count} == found
        assert found == (expected or {"classified": number}), stats.failures
        return info
