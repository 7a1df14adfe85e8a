"""The ledger of lots: drawn uniformly, whole or not at all, the same after a kill."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from doc_classify.errors import LotTakenError
from doc_classify.records import (
    STUDENT,
    Classification,
    Extraction,
    Failure,
    FileStatus,
    Outcome,
    Page,
    Source,
    Usage,
)
from doc_classify.storage.base import Hashed, RunSpec, Store
from doc_classify.storage.lot_rows import AUDIT, CALIBRATE, POOL, TRAIN, place
from doc_classify.storage.lots import FINISHED, SUPERSEDED, Lot, LotLedger

SPEC = RunSpec(
    source="/documents",
    door="parallel",
    fingerprint="cascade",
    extraction_key="key",
    classifier="cascade",
    categories=("invoices", "letters"),
    settings={},
    store_text=False,
    teacher="ollama",
    teacher_fingerprint="llm",
)
ALONE = replace(SPEC, fingerprint="llm", classifier="ollama", teacher="", teacher_fingerprint="")


def hashed(number: int, text: str = "") -> Hashed:
    content = text or f"document {number}"
    source = Source(f"file:///documents/{number:04}.txt", 10, 1)
    return Hashed(source, hashlib.sha256(content.encode()).hexdigest())


def begun(store: Store, numbers: range, spec: RunSpec = SPEC) -> str:
    run_id = store.start_run(spec)
    store.register(run_id, [hashed(number) for number in numbers], only_listed=True)
    return run_id


def made(store: Store, numbers: range = range(40), spec: RunSpec = SPEC) -> tuple[str, Lot]:
    run_id = begun(store, numbers, spec)
    lot = LotLedger(store).make(run_id, spec)
    assert lot is not None
    return run_id, lot


def answered(task, category="invoices", text="some text", **changes) -> Outcome:
    outcome = Outcome(
        task.document_id,
        task.file_id,
        Classification(category, 0.9, scores=((category, 0.9),)),
        extraction=Extraction("text/plain", (Page(1, text),), "text"),
        usage=Usage(1, 100, 0, 2),
    )
    return replace(outcome, **changes)


def flat(batches) -> list:
    return [task for batch in batches for task in batch]


def ids(tasks) -> set[int]:
    return {task.document_id for task in tasks}


def test_a_lot_is_all_that_is_pending_and_drawn_by_rank(store):
    ledger = LotLedger(store)
    run_id, lot = made(store)
    assert (lot.population, lot.known, lot.calls, lot.journal) == (40, 0, 0, {})
    samples = ledger.samples
    assert samples.draw(lot.id, 1, TRAIN, 7) == 7
    assert samples.draw(lot.id, 2, CALIBRATE, 9) == 9
    first, second = (ids(flat(samples.unanswered(run_id, lot.id, SPEC, n))) for n in (1, 2))
    assert (len(first), len(second), first & second) == (7, 9, set())
    assert samples.draw(lot.id, 1, TRAIN, 7) == 7  # a repeat draws nothing more
    assert samples.drawn(lot.id) == 16
    assert samples.draw(lot.id, 3, CALIBRATE, 100) == 24
    assert samples.draw(lot.id, 4, CALIBRATE, 5) == 0


def test_the_order_of_a_draw_depends_on_seed_draw_and_content_alone():
    digests = [hashlib.sha256(bytes([n])).digest() for n in range(200)]
    one, two, other = (
        sorted(digests, key=lambda digest, at=at: place(*at, digest))
        for at in ((b"a" * 32, 1), (b"a" * 32, 2), (b"b" * 32, 1))
    )
    assert one != two and one != other and two != other and one != digests
    assert set(one) == set(digests)


def test_of_a_pool_the_least_sure_are_kept_and_the_others_can_be_drawn_again(store):
    ledger = LotLedger(store)
    run_id, lot = made(store)
    samples = ledger.samples
    assert samples.draw(lot.id, 1, POOL, 20) == 20
    pool = flat(samples.in_pool(run_id, lot.id, SPEC, 1))
    assert len(pool) == 20 and samples.drawn(lot.id) == 0
    scored = []
    for number, task in enumerate(pool[:19]):
        found = Classification("letters", score=number / 100)
        scored.append(answered(task, classification=found, usage=None, decided_by=STUDENT))
    failed = Outcome(pool[19].document_id, pool[19].file_id, failure=Failure("damaged", "x"))
    ledger.record_scores(run_id, lot.id, SPEC, [*scored, failed], 1.0)
    assert flat(samples.in_pool(run_id, lot.id, SPEC, 1)) == []
    samples.choose(lot.id, 1, 6)
    samples.choose(lot.id, 1, 6)
    assert samples.draw(lot.id, 1, POOL, 20) == 6
    chosen = flat(samples.unanswered(run_id, lot.id, SPEC, 1))
    assert ids(chosen) == ids(pool[:6])
    assert samples.draw(lot.id, 2, CALIBRATE, 100) == 34
    assert all(one.score is None for one in samples.stage(lot.id, 2))


def test_every_document_is_as_likely_to_be_drawn(tmp_path):
    """Also the last of a folder: 60 lots of 20, of which 5 are drawn."""
    from doc_classify.storage import open_store

    counts = dict.fromkeys(range(20), 0)
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    ledger = LotLedger(store)
    spec = replace(SPEC, force=True)
    for _ in range(60):
        run_id, lot = made(store, range(20), spec)
        ledger.samples.draw(lot.id, 1, TRAIN, 5)
        for task in flat(ledger.samples.unanswered(run_id, lot.id, spec, 1)):
            counts[int(task.source.uri[-8:-4])] += 1
    store.close()
    assert sum(counts.values()) == 300
    assert all(3 <= count <= 30 for count in counts.values())  # 15 expected, sd 3.4


def test_an_answer_is_stored_for_the_cascade_and_for_the_llm_alone(store):
    ledger = LotLedger(store)
    run_id, lot = made(store)
    ledger.samples.draw(lot.id, 1, TRAIN, 3)
    tasks = flat(ledger.samples.unanswered(run_id, lot.id, SPEC, 1))
    stats = ledger.record(run_id, lot.id, SPEC, [answered(task) for task in tasks], 1.0)
    assert (stats.classified, stats.llm_calls) == (3, 3)
    assert flat(ledger.samples.unanswered(run_id, lot.id, SPEC, 1)) == []
    assert ledger.lot(lot.id).calls == 3
    rows = [row for row in store.results(run_id) if row.category]
    assert {row.classifier for row in rows} == {"ollama"}
    # What the LLM alone would have to do is less by these.
    alone = store.start_run(ALONE)
    done = store.register(alone, [hashed(number) for number in range(40)]).statuses
    assert done == {FileStatus.ALREADY_DONE: 3, FileStatus.PENDING: 37}


def test_what_the_student_decides_is_its_own(store):
    ledger = LotLedger(store)
    run_id, lot = made(store)
    tasks = flat(ledger.pending(run_id, lot.id, SPEC))
    assert len(tasks) == 40
    own = [answered(task, usage=None, decided_by=STUDENT) for task in tasks[:30]]
    stats = ledger.record(run_id, lot.id, SPEC, own, 1.0)
    assert (stats.classified, stats.llm_calls) == (30, 0)
    assert len(flat(ledger.pending(run_id, lot.id, SPEC))) == 10
    assert ledger.outcome(lot.id, SPEC) == {"student": 30, "llm": 0, "failed": 0, "gone": 10}
    assert store.done_hashes("llm", [hashed(number).sha256 for number in range(40)]) == set()


def test_what_the_llm_said_before_is_known(store):
    alone = store.start_run(ALONE)
    tasks = store.register(alone, [hashed(number) for number in range(10)]).tasks
    store.record(alone, [answered(task, "letters") for task in tasks])
    run_id, lot = made(store)
    assert (lot.population, lot.known) == (40, 10)
    found = flat(LotLedger(store).pending(run_id, lot.id, SPEC))
    assert sum(isinstance(task.answer, Classification) for task in found) == 10
    assert LotLedger(store).samples.drawn(lot.id) == 10
    # Forced, nothing counts that was said before.
    forced = replace(SPEC, force=True)
    run_id, lot = made(store, spec=forced)
    assert lot.known == 0
    assert not any(task.answer for task in flat(LotLedger(store).pending(run_id, lot.id, forced)))


def test_an_unfinished_lot_is_gone_on_with_by_the_next_run_over_the_same_source(store):
    ledger = LotLedger(store)
    first, lot = made(store)
    ledger.samples.draw(lot.id, 1, TRAIN, 5)
    some = flat(ledger.samples.unanswered(first, lot.id, SPEC, 1))[:2]
    ledger.record(first, lot.id, SPEC, [answered(task) for task in some], 1.0)
    # Killed. The folder has grown meanwhile.
    second = begun(store, range(45))
    found = ledger.unfinished(second, SPEC)
    assert [one.id for one in found] == [lot.id]
    assert ids(flat(ledger.samples.unanswered(second, lot.id, SPEC, 1))).isdisjoint(ids(some))
    assert len(flat(ledger.samples.unanswered(second, lot.id, SPEC, 1))) == 3
    new = ledger.make(second, SPEC, found)
    assert new is not None and new.population == 5
    assert len(flat(ledger.pending(second, lot.id, SPEC))) == 38
    assert [one.id for one in ledger.lots_of(second, SPEC)] == [lot.id, new.id]
    ledger.write_journal(lot.id, 0, {"steps": []}, FINISHED)
    assert [one.id for one in ledger.unfinished(second, SPEC)] == [new.id]


def test_a_lot_of_another_folder_is_left_alone(store):
    ledger = LotLedger(store)
    _, lot = made(store)
    other = replace(SPEC, source="/elsewhere")
    assert ledger.unfinished(begun(store, range(40), other), other) == []
    # The same name for another list of files: hardly any of them is there.
    assert ledger.unfinished(begun(store, range(30, 60)), SPEC) == []
    forced = replace(SPEC, force=True)
    assert ledger.unfinished(begun(store, range(40), forced), forced) == []
    assert [one.id for one in ledger.unfinished(begun(store, range(40)), SPEC)] == [lot.id]


def test_who_has_not_seen_the_last_journal_may_not_write_the_next(store):
    ledger = LotLedger(store)
    _, lot = made(store)
    ledger.write_journal(lot.id, lot.revision, {"steps": [1]})
    assert ledger.lot(lot.id).revision == lot.revision + 1
    with pytest.raises(LotTakenError, match="another process"):
        ledger.write_journal(lot.id, lot.revision, {"steps": [2]})
    with pytest.raises(LotTakenError):
        ledger.samples.scored(lot.id, {}, lot.revision, {"steps": [2]})
    assert ledger.lot(lot.id).journal == {"steps": [1]}


def test_no_lot_is_made_of_nothing(store):
    ledger = LotLedger(store)
    run_id, lot = made(store)
    assert ledger.make(run_id, SPEC, [lot]) is None
    assert ledger.lots_of(run_id, SPEC) == [lot]


def test_a_drawn_document_is_read_where_the_run_has_it(store):
    """It moved after it was listed; the run that goes on has met it at its new place."""
    ledger = LotLedger(store)
    _, lot = made(store, range(4))
    ledger.samples.draw(lot.id, 1, TRAIN, 4)
    second = store.start_run(SPEC)
    moved = [
        Hashed(replace(hashed(n).source, uri=f"file:///documents/new/{n}"), hashed(n).sha256)
        for n in range(4)
    ]
    store.register(second, moved, only_listed=True)
    tasks = flat(ledger.samples.unanswered(second, lot.id, SPEC, 1))
    assert {task.source.uri for task in tasks} == {one.source.uri for one in moved}


def test_a_drawn_document_whose_file_became_another_is_gone_and_does_not_speak_for_it(store):
    ledger = LotLedger(store)
    _, lot = made(store, range(4))
    ledger.samples.draw(lot.id, 1, TRAIN, 4)
    second = store.start_run(SPEC)
    store.register(second, [hashed(0, "other"), *map(hashed, range(1, 4))], only_listed=True)
    tasks = flat(ledger.samples.unanswered(second, lot.id, SPEC, 1))
    gone = [task for task in tasks if isinstance(task.extraction, Failure)]
    assert len(gone) == 1 and gone[0].file_id < 0
    failed = Outcome(gone[0].document_id, gone[0].file_id, failure=gone[0].extraction)
    stats = ledger.record(second, lot.id, SPEC, [failed], 1.0)
    assert stats.failed == 0
    drawn = ledger.samples.stage(lot.id, 1)
    assert [one.failure for one in drawn if one.failure] == ["changed"]
    assert [one.unreadable for one in drawn if one.failure] == [True]


def test_texts_of_a_sample_are_kept_and_come_back_with_their_labels(store):
    ledger = LotLedger(store)
    run_id, lot = made(store)
    ledger.samples.draw(lot.id, 1, TRAIN, 3)
    tasks = flat(ledger.samples.unanswered(run_id, lot.id, SPEC, 1))
    outcomes = [answered(task, text=f"text of {task.document_id}") for task in tasks]
    ledger.record(run_id, lot.id, SPEC, outcomes, 1.0, keep_text=True)
    examples = list(ledger.samples.examples(lot.id, SPEC, 10))
    assert {(one.document_id, one.extraction.text) for one in examples} == {
        (task.document_id, f"text of {task.document_id}") for task in tasks
    }
    assert all(one.label == "invoices" and one.scores == (("invoices", 0.9),) for one in examples)
    assert len(list(ledger.samples.examples(lot.id, SPEC, 2))) == 2
    assert len(list(ledger.samples.texts(lot.id, SPEC, 1))) == 3
    # A later lot of the same LLM learns from them, too; not another LLM's.
    assert ledger.samples.count_examples(lot.id + 1, SPEC) == 3
    assert ledger.samples.count_examples(lot.id, replace(SPEC, teacher_fingerprint="x")) == 0


def test_a_text_that_was_asked_about_is_known_by_its_digest(store):
    ledger = LotLedger(store)
    run_id, lot = made(store)
    task = next(iter(ledger.pending(run_id, lot.id, SPEC)))[0]
    assert ledger.answer_to(run_id, SPEC, b"d" * 16) is None
    ledger.record(run_id, lot.id, SPEC, [answered(task, text_digest=b"d" * 16)], 1.0)
    found = ledger.answer_to(run_id, SPEC, b"d" * 16)
    assert found is not None and (found.category, found.score) == ("invoices", 0.9)
    forced = replace(SPEC, force=True)
    assert ledger.answer_to("another run", forced, b"d" * 16) is None


def test_scores_are_stored_without_deciding(store):
    ledger = LotLedger(store)
    run_id, lot = made(store, range(5))
    tasks = flat(ledger.pending(run_id, lot.id, SPEC))
    scored = [answered(task, usage=None, decided_by=STUDENT) for task in tasks[:3]]
    failed = Outcome(tasks[3].document_id, tasks[3].file_id, failure=Failure("damaged", "x"))
    stats = ledger.record_scores(run_id, lot.id, SPEC, [*scored, failed], 1.0)
    assert (stats.classified, stats.failed) == (0, 1)
    left = ledger.samples.scores_left(lot.id)
    assert sorted(map(str, left)) == ["0.9", "0.9", "0.9", "nan", "nan"]
    assert len(flat(ledger.pending(run_id, lot.id, SPEC, unscored=True))) == 1
    again = flat(ledger.pending(run_id, lot.id, SPEC))
    assert sum(isinstance(task.extraction, Extraction) for task in again) == 3
    ledger.samples.forget_scores(lot.id)
    assert len(flat(ledger.pending(run_id, lot.id, SPEC, unscored=True))) == 4


def test_second_answers_are_stored_one_by_one(store):
    ledger = LotLedger(store)
    run_id, lot = made(store)
    ledger.samples.draw(lot.id, 1, TRAIN, 5)
    tasks = flat(ledger.samples.unanswered(run_id, lot.id, SPEC, 1))
    ledger.record(run_id, lot.id, SPEC, [answered(t) for t in tasks], 1.0, keep_text=True)
    again = ledger.samples.to_repeat(run_id, lot.id, SPEC, 1, 4)
    assert len(again) == 4 and all(isinstance(one.extraction, Extraction) for one in again)
    ledger.samples.asked_again(lot.id, again[0].document_id, "invoices", 1)
    ledger.samples.asked_again(lot.id, again[1].document_id, "letters", 1)
    assert len(ledger.samples.to_repeat(run_id, lot.id, SPEC, 1, 4)) == 2
    assert ledger.samples.consistency("llm") == (2, 1)
    assert ledger.lot(lot.id).calls == 7


def test_a_student_is_what_its_version_says(store):
    from sqlalchemy import update

    from doc_classify.errors import StorageError
    from doc_classify.storage.schema import students

    kept = LotLedger(store).students
    version = kept.put(b"weights")
    assert kept.put(b"weights") == version == hashlib.sha256(b"weights").hexdigest()
    assert kept.get(version) == b"weights"
    with store.engine.begin() as connection:
        connection.execute(update(students).values(data=b"other"))
    with pytest.raises(StorageError, match="damaged"):
        kept.get(version)


def test_an_audit_draws_from_what_the_student_decided(store):
    ledger = LotLedger(store)
    run_id, lot = made(store)
    ledger.samples.draw(lot.id, 1, TRAIN, 5)
    drawn = flat(ledger.samples.unanswered(run_id, lot.id, SPEC, 1))
    ledger.record(run_id, lot.id, SPEC, [answered(task) for task in drawn], 1.0)
    rest = flat(ledger.pending(run_id, lot.id, SPEC))
    own = [answered(task, usage=None, decided_by=STUDENT) for task in rest[:20]]
    ledger.record(run_id, lot.id, SPEC, [*own, *map(answered, rest[20:])], 1.0)
    assert ledger.samples.draw(lot.id, 9, AUDIT, 8, decided=SPEC) == 8
    assert ledger.samples.draw(lot.id, 10, AUDIT, 100, decided=SPEC) == 12
    fresh = ids(flat(ledger.samples.unanswered(run_id, lot.id, SPEC, 9)))
    assert fresh <= ids(rest[:20])


def test_what_was_drawn_or_has_another_file_is_left_to_the_llm(store):
    """It counts as the LLM's, or would be judged by another name than when it was scored."""
    ledger = LotLedger(store)
    _, lot = made(store, range(8))
    ledger.samples.draw(lot.id, 1, CALIBRATE, 2)
    again = store.start_run(SPEC)
    moved = replace(hashed(7), source=Source("file:///documents/renamed.txt", 10, 1))
    store.register(again, [*map(hashed, range(7)), moved], only_listed=True)
    tasks = flat(ledger.pending(again, lot.id, SPEC))
    assert len(tasks) == 8
    sample = {one.document_id for one in ledger.samples.stage(lot.id, 1)}
    for task in tasks:
        renamed = task.source.uri.endswith("renamed.txt")
        assert task.llm_only == (task.document_id in sample or renamed)


@pytest.mark.parametrize("source", ["/documents", "/documents/sub"])
def test_a_lot_whose_documents_went_into_another_promises_nothing(store, source):
    """Else it would count what another student decided by another threshold."""
    ledger = LotLedger(store)
    run_id, lot = made(store)
    [task, *_] = flat(ledger.pending(run_id, lot.id, SPEC))
    spec = replace(SPEC, source=source)
    second = begun(store, range(35, 60), spec)
    assert ledger.unfinished(second, spec) == []
    later = ledger.make(second, spec)
    assert later is not None and later.state == "open"
    assert ledger.lot(lot.id).state == SUPERSEDED
    # Who still works on it decides nothing more by its student, and cannot close it.
    student = answered(task, decided_by=STUDENT, usage=None)
    with pytest.raises(LotTakenError):
        ledger.record(run_id, lot.id, SPEC, [student], 1.0)
    with pytest.raises(LotTakenError):
        ledger.write_journal(lot.id, lot.revision, {"steps": []}, FINISHED)
    assert ledger.unfinished(begun(store, range(40)), SPEC) == []
    # What the LLM said is kept all the same.
    ledger.record(run_id, lot.id, SPEC, [answered(task)], 1.0)
    assert store.run(run_id).stats.classified == 1


def test_lots_that_share_nothing_leave_each_other_alone(store):
    ledger = LotLedger(store)
    _, lot = made(store)
    _, other = made(store, range(40, 60), replace(SPEC, source="/elsewhere"))
    assert {ledger.lot(one.id).state for one in (lot, other)} == {"open"}
