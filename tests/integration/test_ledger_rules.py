"""Any order of what may happen to a ledger leaves it right: hypothesis looks for one that does not.

A plain model in memory says what each run must show; the store is closed and opened again, calls
are repeated, runs are abandoned, taxonomies change.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from conftest import fresh_database
from doc_classify.errors import is_permanent
from doc_classify.records import (
    Classification,
    Extraction,
    Failure,
    FileStatus,
    Outcome,
    Page,
    Rejected,
    Source,
)
from doc_classify.storage import open_store
from doc_classify.storage.base import Hashed, RunSpec, Task

KINDS = ["damaged", "encrypted", "crash", "unsupported", "unreadable", "changed", "storage"]
SPEC = RunSpec("/d", "test", "", "e" * 16, "embedded", ("a", "b"), {"workers": 1})

names = st.integers(0, 7).map("file:///d/{}".format)
contents = st.integers(0, 4)
outcomes = st.one_of(st.sampled_from(["a", "b"]), st.sampled_from(KINDS))


class Ledger(RuleBasedStateMachine):
    """Calls on a store beside a model of what they must have done."""

    database: str

    @initialize()
    def open(self) -> None:
        self.store = open_store(self.database)
        self.runs: list[str] = []
        self.specs: dict[str, RunSpec] = {}
        self.tasks: dict[str, list[Task]] = defaultdict(list)
        self.done: dict[str, list[Outcome]] = defaultdict(list)
        # run -> URI -> (status, sha256 or None, kind of failure or None)
        self.files: dict[str, dict[str, tuple[FileStatus, str | None, str | None]]] = {}
        # (sha256, fingerprint) -> category, or kind of failure
        self.results: dict[tuple[str, str], tuple[str | None, str | None]] = {}
        self.texts: set[str] = set()
        self.extracted: set[str] = set()
        self.failed_extractions: set[str] = set()
        self.crashes: Counter[tuple[str, str]] = Counter()
        self.sha_of: dict[int, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    @rule(fingerprint=st.sampled_from(["1", "2"]), force=st.booleans(), text=st.booleans())
    def start(self, fingerprint: str, force: bool, text: bool) -> None:
        spec = replace(SPEC, fingerprint=fingerprint * 16, force=force, store_text=text)
        run = self.store.start_run(spec)
        assert run not in self.specs
        self.runs.append(run)
        self.specs[run] = spec
        self.files[run] = {}

    @rule()
    def kill(self) -> None:
        """What a killed process leaves is what was committed."""
        self.store.close()
        self.store = open_store(self.database)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), batch=st.lists(st.tuples(names, contents), max_size=8))
    def register(self, data: st.DataObject, batch: list[tuple[str, int]]) -> None:
        run = data.draw(st.sampled_from(self.runs[-3:]))
        spec, files = self.specs[run], self.files[run]
        seen = {uri: Hashed(Source(uri, c, c), f"{c:064x}") for uri, c in batch}
        expected: Counter[FileStatus] = Counter()
        tasks = []
        for uri, item in seen.items():
            if uri in files:
                continue
            stored = None if spec.force else self.results.get((item.sha256, spec.fingerprint))
            kind = stored[1] if stored else None
            if any(sha == item.sha256 for _, sha, _ in files.values()):
                status, kind = FileStatus.DUPLICATE, None
            elif stored is None or (kind and not is_permanent(kind)):
                status, kind = FileStatus.PENDING, None
                tasks.append(uri)
            elif kind == "unsupported":
                status = FileStatus.UNSUPPORTED
            else:
                status = FileStatus.ALREADY_DONE
            files[uri] = (status, item.sha256, kind)
            expected[status] += 1
        registration = self.store.register(run, list(seen.values()))
        assert registration.statuses == expected
        assert [task.source.uri for task in registration.tasks] == tasks
        for task in registration.tasks:
            sha256 = seen[task.source.uri].sha256
            self.sha_of[task.document_id] = sha256
            assert task.crashes == self.crashes[sha256, spec.fingerprint]
            if isinstance(task.extraction, Extraction):
                assert not spec.force
                assert sha256 in self.texts
                assert task.extraction.text == f"text of {sha256}"
            elif task.extraction is not None:
                assert sha256 in self.failed_extractions
            elif not spec.force:
                assert sha256 not in self.texts | self.failed_extractions
        self.tasks[run] += registration.tasks
        known = self.store.known_hashes([item.source for item in seen.values()])
        assert known == [item.sha256 for item in seen.values()]

    @precondition(lambda self: any(self.tasks.values()))
    @rule(data=st.data(), ends=st.lists(outcomes, min_size=1, max_size=6))
    def record(self, data: st.DataObject, ends: list[str]) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if self.tasks[run]]))
        batch = []
        for end in ends[: len(self.tasks[run])]:
            task = self.tasks[run].pop(0)
            sha256 = self.sha_of[task.document_id]
            batch.append(self._outcome(task, sha256, end))
            self._expect(run, task.source.uri, sha256, batch[-1])
        stats = self.store.record(run, batch)
        assert stats.seen == len(self.files[run])
        self.done[run] += batch

    def _outcome(self, task: Task, sha256: str, end: str) -> Outcome:
        if end in KINDS:
            return Outcome(task.document_id, task.file_id, failure=Failure(end, end))
        new = None
        if not isinstance(task.extraction, Extraction):
            new = Extraction("text/plain", (Page(1, f"text of {sha256}"),), "text")
        return Outcome(task.document_id, task.file_id, Classification(end, 0.5), extraction=new)

    def _expect(self, run: str, uri: str, sha256: str, outcome: Outcome) -> None:
        spec = self.specs[run]
        key = (sha256, spec.fingerprint)
        kind = outcome.failure.kind if outcome.failure else None
        if outcome.classification:
            self.results[key] = (outcome.classification.category, None)
            status = FileStatus.CLASSIFIED
        else:
            if key not in self.results or self.results[key][1] is not None:
                self.results[key] = (None, kind)
            status = FileStatus.UNSUPPORTED if kind == "unsupported" else FileStatus.FAILED
        self.files[run][uri] = (status, sha256, kind)
        if outcome.extraction:
            self.extracted.add(sha256)
            self.failed_extractions.discard(sha256)
            if spec.store_text:
                self.texts.add(sha256)
        elif kind and is_permanent(kind) and sha256 not in self.extracted:
            self.failed_extractions.add(sha256)

    @precondition(lambda self: any(self.done.values()))
    @rule(data=st.data())
    def record_again(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if self.done[run]]))
        self.store.record(run, data.draw(st.lists(st.sampled_from(self.done[run]), max_size=4)))

    @precondition(lambda self: any(self.tasks.values()))
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from([run for run in self.runs if self.tasks[run]]))
        task = self.tasks[run][0]
        self.store.crashed(run, task.document_id, "worker", "signal 11")
        self.crashes[self.sha_of[task.document_id], self.specs[run].fingerprint] += 1

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), uri=names, kind=st.sampled_from(["unreadable", "not_a_file"]))
    def reject(self, data: st.DataObject, uri: str, kind: str) -> None:
        run = data.draw(st.sampled_from(self.runs[-3:]))
        new = uri not in self.files[run]
        assert self.store.reject(run, [Rejected(uri, kind, "because")], 1) == new
        if new:
            failed = kind == "unreadable"
            status = FileStatus.FAILED if failed else FileStatus.UNSUPPORTED
            self.files[run][uri] = (status, None, kind)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        self.store.finish_run(data.draw(st.sampled_from(self.runs)), "finished", 1.0)

    @invariant()
    def every_run_shows_what_happened_in_it(self) -> None:
        for run in getattr(self, "runs", []):
            expected = self.files[run]
            rows = {row.uri: row for row in self.store.results(run)}
            assert list(rows) == sorted(expected)
            firsts = {
                sha: (status, kind)
                for status, sha, kind in expected.values()
                if sha and status is not FileStatus.DUPLICATE
            }
            categories: Counter[str] = Counter()
            for uri, (status, sha, kind) in expected.items():
                row = rows[uri]
                assert row.status == status
                assert row.sha256 == sha
                own, kind = firsts[sha] if sha else (status, kind)
                assert (row.failure.kind if row.failure else None) == kind
                assert (row.duplicate_of is not None) == (status is FileStatus.DUPLICATE)
                has_category = own in (FileStatus.CLASSIFIED, FileStatus.ALREADY_DONE) and not kind
                if has_category:
                    assert sha
                    stored = self.results[sha, self.specs[run].fingerprint]
                    assert row.category == stored[0] is not None
                    categories[row.category] += 1
                else:
                    assert row.category is None
            self._check_counters(run, categories)

    def _check_counters(self, run: str, categories: Counter[str]) -> None:
        info = self.store.run(run)
        assert info is not None
        stats, files = info.stats, self.files[run].values()
        count = Counter(status for status, _, _ in files)
        assert stats.seen == len(files)
        assert stats.pending == count[FileStatus.PENDING]
        assert stats.classified == count[FileStatus.CLASSIFIED]
        assert stats.failed == count[FileStatus.FAILED]
        assert stats.duplicates == count[FileStatus.DUPLICATE]
        assert stats.already_done == count[FileStatus.ALREADY_DONE]
        assert stats.unsupported == count[FileStatus.UNSUPPORTED]
        done_and_failed = [k for s, _, k in files if s is FileStatus.ALREADY_DONE and k]
        assert stats.already_failed == len(done_and_failed)
        assert {name: c.files for name, c in stats.categories.items()} == categories
        assert stats.failures == Counter(k for s, _, k in files if s is FileStatus.FAILED)
        unsupported = Counter(k for s, _, k in files if s is FileStatus.UNSUPPORTED)
        assert stats.unsupported_types == unsupported


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def test_any_order_of_events_on_sqlite():
    with contextlib.ExitStack() as stack:

        class Machine(Ledger):
            @initialize()
            def open(self) -> None:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                self.database = f"sqlite:///{Path(folder) / 'x.db'}"
                super().open()

        run_state_machine_as_test(Machine, settings=_settings(40))


def test_any_order_of_events_on_postgresql(postgres_url):
    class Machine(Ledger):
        @initialize()
        def open(self) -> None:
            self.database = fresh_database(postgres_url)
            super().open()

    run_state_machine_as_test(Machine, settings=_settings(10))
