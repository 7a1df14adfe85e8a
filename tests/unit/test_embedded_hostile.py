"""The embedded classifier on texts made to hurt it: time stays linear and bounded."""

import time

import pytest

from doc_classify.classification import ClassifierInput, make_classifier
from doc_classify.classification.words import MAX_WORD, read, words
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Category, Taxonomy

_SECONDS = 2.0
"""About a hundred times what the slowest of them takes on an idle core."""

_UNITS = (
    *("aaaaa", "( ", '"', "“", "1.", "\n\n\n", "from:", "(Aa ", " §", "[1,", "Dear ", "A ", "a-\n"),
    *("字", "\u0301", "_", "by Aa ", "1 ", "TO ", ":\n", "> ", "\ufdfa", "(A", "\x00", "\r", "ﬁ"),
    *("1/1/", "$", "a\u0301", "\ud800", "🙂", "i ", "section 1 ", "\u202e", "total "),
)


@pytest.fixture(scope="module")
def default():
    return make_classifier("embedded", DEFAULT_TAXONOMY)


@pytest.mark.parametrize("unit", _UNITS)
def test_hostile_texts_take_bounded_time(default, unit):
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    found = default.classify(
        ClassifierInput(text, name=text[:5000], title=text), include_reasoning=True
    )
    assert time.process_time() - started < _SECONDS
    assert found.reasoning.isprintable()


def test_ever_new_words_do_not_fill_the_memory(default):
    index = default._finder._index
    for start in range(0, 150_000, 1_000):
        text = " ".join(f"x{number}" for number in range(start, start + 1_000))
        default.classify(ClassifierInput(text))
    assert len(index._memo) <= 101_000
    assert len(index._corrections) <= 101_000


def test_hostile_descriptions_take_bounded_time():
    wordy = " ".join(f"word{number}" for number in range(20_000))
    started = time.process_time()
    classifier = make_classifier(
        "embedded", Taxonomy((Category("one", wordy), Category("two", "x" * 100_000)))
    )
    classifier.classify(ClassifierInput(wordy))
    assert time.process_time() - started < _SECONDS


def test_only_the_head_and_the_tail_are_read():
    middle = "secret " * 100_000
    seen = read(ClassifierInput(f"first {middle} last"))
    assert seen.body[0] == "first"
    assert seen.body[-1] == "last"
    assert len(seen.sample) < 8_000


def test_words_are_bounded():
    assert words("a" * (MAX_WORD + 1)) == []
    assert words("ab " + "ä" * (MAX_WORD + 1)) == ["ab"]
    assert words("契約書") == ["契約", "約書"]
    assert words("書") == ["書"]
    assert words("Straße ÉCOLE") == ["strasse", "ecole"]
