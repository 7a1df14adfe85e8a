from dataclasses import replace

from tests.unit.test_storage import SPEC, classified, extraction, failed, seen

from doc_classify.records import Extraction, Page
from doc_classify.storage.corrections import CorrectionLedger, Known
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
