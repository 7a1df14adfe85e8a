from dataclasses import replace

from tests.unit.test_storage import SPEC, classified, extraction, failed, seen

from doc_classify.records import Extraction, Page
from doc_classify.storage.corrections import CorrectionLedger, Known
from doc_classify.storage.texts import classified_documents
from doc_classify.taxonomy import Taxonomy

AB = Taxonomy.from_names(["a", "b"])


def run_with(store, names=("x", "y"), spec=SPEC):
    run = store.start_run(spec)
    tasks = store.register(run, [seen(name, number) for number, name in enumerate(names)]).tasks
    store.record(run, [classified(task) for task in tasks])
    return store.run(run)


def uris(*names):
    return [f"file:///d/{name}" for name in names]


def correct(store, info, name, category, **more):
    ledger = CorrectionLedger(store)
    known = ledger.find_uris(info, uris(name))
    ledger.put(info, [(known[f"file:///d/{name}"], category)], **more)


def held(store, names=("a", "b")):
    return {c.uri[len("file:///d/") :]: c.category for c in CorrectionLedger(store).listed(names)}


def test_a_correction_is_kept_replaced_and_taken_back(store):
    info = run_with(store)
    ledger = CorrectionLedger(store)
    known = ledger.find_uris(info, uris("x", "unknown"))
    assert known == {"file:///d/x": Known(known["file:///d/x"].document_id, "a")}
    assert ledger.find_hashes(info, [f"{0:064x}", f"{9:064x}"]) == {
        f"{0:064x}": known["file:///d/x"]
    }
    correct(store, info, "x", "b", author="somebody", note="a nul \0")
    (one,) = ledger.listed()
    assert (one.category, one.previous, one.author, one.note) == ("b", "a", "somebody", "a nul �")
    assert one.sha256 == f"{0:064x}"
    correct(store, info, "x", "a")
    assert held(store) == {"x": "a"}
    assert ledger.count(AB) == 1
    assert ledger.remove(info, list(known.values())) == 1
    assert ledger.remove(info, list(known.values())) == 0
    assert ledger.count(AB) == 0


def test_it_outlives_other_runs_and_holds_for_related_sets_of_names_alone(store):
    info = run_with(store, ("x", "y"), replace(SPEC, categories=("a", "b", "other")))
    correct(store, info, "x", "b")
    correct(store, info, "y", "other")
    assert held(store, ("other", "b", "a")) == {"x": "b", "y": "other"}  # in any order
    assert held(store, ("a", "b", "c", "other")) == {"x": "b"}  # y may be a c
    assert held(store, ("b", "other")) == {"x": "b", "y": "other"}
    assert held(store, ("a", "other")) == {"y": "other"}  # there is no b
    assert held(store, ("b", "c", "other")) == {}  # these may mean something else


def test_the_narrowest_statement_comes_first_and_nothing_stands_behind_one_taken_back(store):
    wide = run_with(store, ("x",), replace(SPEC, categories=("a", "b", "c"), fingerprint="1" * 16))
    narrow = run_with(store, ("x",))
    correct(store, narrow, "x", "b")
    correct(store, wide, "x", "a")
    assert held(store) == {"x": "b"}
    assert held(store, ("a", "b", "c")) == {"x": "a"}
    known = CorrectionLedger(store).find_uris(narrow, uris("x"))
    assert CorrectionLedger(store).remove(narrow, list(known.values())) == 1
    assert held(store) == {}


def test_learning_gets_every_text_once_and_is_told_of_those_without(store):
    run = store.start_run(SPEC)
    names = [f"n{number}" for number in range(45)]
    tasks = store.register(run, [seen(n, i) for i, n in enumerate(names)]).tasks
    texts = [
        classified(task, extraction=Extraction("text/plain", (Page(1, task.source.uri),), "text"))
        for task in tasks
    ]
    store.record(run, [failed(tasks[0]), *texts[1:]])
    info = store.run(run)
    ledger = CorrectionLedger(store)
    known = ledger.find_uris(info, uris(*names))
    ledger.put(info, [(one, "b") for one in known.values()])
    found = list(ledger.corrected_documents(AB))
    assert len(found) == len({one.sha256 for one in found}) == 45
    assert found[0].extraction is None
    assert all(one.extraction.text == one.uri for one in found[1:])
    assert {one.category for one in found} == {"b"}
    assert ledger.counts(AB) == {"b": 45}


def test_learning_prefers_the_text_that_is_read_today(store):
    info = run_with(store, ("x",))
    other = store.start_run(replace(SPEC, fingerprint="2" * 16, extraction_key="a" * 16))
    (task,) = store.register(other, [seen("x", 0)]).tasks
    store.record(other, [classified(task, extraction=extraction("other text"))])
    correct(store, info, "x", "b")
    (one,) = CorrectionLedger(store).corrected_documents(AB, SPEC.extraction_key)
    assert one.extraction.text == "some text"
    (one,) = CorrectionLedger(store).corrected_documents(AB, "a" * 16)
    assert one.extraction.text == "other text"
    (one,) = CorrectionLedger(store).corrected_documents(AB, "3" * 16)
    assert one.extraction is not None


def test_what_a_run_classified_comes_once_each_with_its_own_name_and_text(store):
    other = store.start_run(replace(SPEC, fingerprint="2" * 16))
    elsewhere = store.register(other, [seen("elsewhere", 1), seen("strange", 99)]).tasks
    store.record(other, [classified(task, "b") for task in elsewhere])
    run = store.start_run(SPEC)
    names = ["copy", *(f"n{number}" for number in range(45))]
    numbers = [3, *range(45)]
    tasks = store.register(run, [seen(*one) for one in zip(names, numbers, strict=True)]).tasks
    store.record(run, [failed(tasks[0]), *(_with_its_name(task) for task in tasks[1:])])
    info = store.run(run)
    correct(store, info, "n5", "b")
    found = {one.uri: one for one in classified_documents(store, info)}
    by_hash = {one.sha256: one for one in classified_documents(store, info)}
    # "copy" is the file seen first of a document, and that could not be read.
    assert len(found) == len(by_hash) == 44
    assert set(found) == set(uris(*(f"n{number}" for number in range(45) if number != 3)))
    for number in (0, 1, 44):
        (uri,) = uris(f"n{number}")
        assert found[uri].sha256 == f"{number:064x}"
        assert found[uri].category == "a" and not found[uri].corrected
    assert found[uris("n0")[0]].extraction.text == uris("n0")[0]
    said = found[uris("n5")[0]]
    assert (said.category, said.corrected) == ("b", True)
    # Of another run, the name that it saw, and not the one that the database met first.
    (one,) = [x for x in classified_documents(store, store.run(other)) if x.sha256 == f"{1:064x}"]
    assert (one.uri, one.category) == ("file:///d/elsewhere", "b")


def test_a_document_without_a_stored_text_is_told_of(store):
    info = run_with(store, ("x",), replace(SPEC, store_text=False))
    found = list(classified_documents(store, info))
    assert [(one.uri, one.extraction) for one in found] == [(uris("x")[0], None)]


def _with_its_name(task):
    return classified(
        task, extraction=Extraction("text/plain", (Page(1, task.source.uri),), "text")
    )
