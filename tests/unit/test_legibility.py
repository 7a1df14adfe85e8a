import pytest

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.embedded import EmbeddedClassifier
from doc_classify.classification.learning import Labelled, train
from doc_classify.classification.legibility import MOST_NOISE, Languages, noise
from doc_classify.classification.trained import TrainedClassifier
from doc_classify.classification.words import read
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Category, Taxonomy

ENGLISH = (
    "The committee has met in the hall of the town and it was agreed that all of the plants which "
    "are by the river have to be watered by the gardener on every day of the week. "
)
GERMAN = (
    "Der Ausschuss hat sich in der Halle der Stadt getroffen und es wurde beschlossen, dass die "
    "Pflanzen, die an dem Fluss stehen, von dem Gärtner an jedem Tag gegossen werden. "
)
RUSSIAN = "Комитет собрался в зале города и решил, что растения у реки надо поливать каждый день. "
JAPANESE = "委員会は町のホールで会合を開き、川沿いの植物に毎日水をやることを決めた。" * 3
TOPICS = Taxonomy(
    (
        Category("gardening", "Plants and flowers, and what is to be done in the garden for them"),
        Category("sport", "Games and the players who win them, or are beaten by the others"),
        Category("other"),
    )
)


def failing(classifier, text):
    return {one.name for one in classifier.explain(ClassifierInput(text)).checks if not one.passed}


@pytest.mark.parametrize("text", [ENGLISH, GERMAN, RUSSIAN, JAPANESE, "", "x", "1 2 3", "\0\ud800"])
def test_writing_is_no_noise(text):
    assert noise(read(ClassifierInput(text * 3)).body) < MOST_NOISE / 2


@pytest.mark.parametrize(
    "text",
    [
        "l lvv0 tbe qrxt v 1n h9 c0mm1t7ee zzk t n4s m e7 k a11 0f p lnt5 f j w1th " * 3,
        "bcdfg hjklm npqrs tvwxz bcdfg hjklm npqrs tvwxz bcdfg hjklm npqrs the and " * 3,
    ],
)
def test_noise_is_for_review_and_has_no_confidence(text):
    assert noise(read(ClassifierInput(text)).body) > MOST_NOISE
    classifier = EmbeddedClassifier(DEFAULT_TAXONOMY)
    found = classifier.classify(ClassifierInput("Invoice number " + text), include_reasoning=True)
    assert found.needs_review
    assert found.confidence is None
    assert "much of it does not look like words" in found.reasoning


def test_a_document_in_another_language_or_script_than_the_topics_is_for_review():
    classifier = EmbeddedClassifier(TOPICS)
    assert "language" not in failing(classifier, ENGLISH * 3)
    for text, name in ((GERMAN, "German"), (RUSSIAN, "Cyrillic letters"), (JAPANESE, "Cjk")):
        found = classifier.classify(ClassifierInput(text * 3), include_reasoning=True)
        assert found.needs_review
        assert found.category == "other"
        assert f"it is in {name}" in found.reasoning


def test_a_taxonomy_in_that_language_has_nothing_against_it():
    german = Taxonomy(
        (
            Category("garten", "Pflanzen und Blumen, und was für sie in dem Garten zu tun ist"),
            Category("sport", "Spiele und die Spieler, die sie gewinnen oder verlieren"),
        )
    )
    assert "language" not in failing(EmbeddedClassifier(german), GERMAN * 3)
    assert "language" in failing(EmbeddedClassifier(german), ENGLISH * 3)


def test_kinds_of_documents_are_known_in_several_languages():
    assert "language" not in failing(EmbeddedClassifier(DEFAULT_TAXONOMY), GERMAN * 3)
    assert "language" in failing(EmbeddedClassifier(DEFAULT_TAXONOMY), RUSSIAN * 3)


def test_nothing_is_said_of_what_cannot_be_told():
    bare = Languages(["gardening", "sport"])
    for text in (ENGLISH, GERMAN, "", "12 34", "Plantae"):
        assert bare.stranger(text, read(ClassifierInput(text)).body) is None
    assert Languages(["12", ""]).stranger(RUSSIAN, read(ClassifierInput(RUSSIAN)).body) is None


def test_the_checks_say_what_needs_review_says():
    classifier = EmbeddedClassifier(DEFAULT_TAXONOMY)
    for text in (ENGLISH, GERMAN * 9, RUSSIAN, "", "Invoice no. 5\nAmount due: 5 EUR\n" * 9):
        explanation = classifier.explain(ClassifierInput(text))
        plain = classifier.classify(ClassifierInput(text), include_reasoning=True)
        assert explanation.classification == plain
        assert plain.needs_review == (not all(one.passed for one in explanation.checks))
        assert plain.needs_review == ("For review" in plain.reasoning)


def test_a_trained_model_explains_itself_by_words_of_the_document():
    words = {"plants": "root leaf soil seed bloom", "motors": "piston valve torque gear clutch"}
    texts = [
        Labelled(ClassifierInput(f"Number {at} of {' and '.join(own.split())} " * 3), name)
        for at in range(12)
        for name, own in words.items()
    ]
    classifier = TrainedClassifier(train(texts, Taxonomy.from_names(["plants", "motors"])))
    for text in (
        "The soil and the leaf of a root, and the bloom. " * 4,
        "",
        RUSSIAN,
        "zx9 q7w " * 20,
    ):
        explanation = classifier.explain(ClassifierInput(text))
        plain = classifier.classify(ClassifierInput(text), include_reasoning=True)
        assert explanation.classification == plain
        assert plain.needs_review == (not all(one.passed for one in explanation.checks))
    found = classifier.explain(texts[0].document)
    assert {one.category for one in found.evidence} <= {"plants", "motors"}
    assert {"leaf", "soil"} <= {one.what for one in found.evidence if one.category == "plants"}
    assert "few of its words were seen in training" in {
        one.reason for one in classifier.explain(ClassifierInput(RUSSIAN)).checks if not one.passed
    }
