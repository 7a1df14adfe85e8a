"""Learning from documents that nobody has labelled, and refusing to where it cannot help."""

import random

import pytest

from doc_classify.classification import ClassifierInput, make_classifier, self_training
from doc_classify.classification.model_file import TrainedModel
from doc_classify.classification.self_training import SelfTraining, self_train
from doc_classify.classification.trained import TrainedClassifier
from doc_classify.errors import ConfigurationError
from doc_classify.taxonomy import Category, Taxonomy

# What the descriptions say, and what such documents say besides.
TOPICS = {
    "sport": ("match team player coach", "pitch whistle striker league fans stadium kick jersey"),
    "cooking": ("recipe kitchen oven", "flour butter simmer spoon garlic onion salt whisk"),
    "space": ("rocket orbit planet", "telescope crater lunar probe thrust gravity comet launch"),
}
FILLER = ["today", "people", "said", "would", "about", "many", "first", "other", "after", "their"]


def taxonomy(*more):
    return Taxonomy((*(Category(name, f"{words}.") for name, (words, _) in TOPICS.items()), *more))


def document(name, dice, told):
    """A text on a topic; one that is not told uses none of the description's words."""
    described, besides = (words.split() for words in TOPICS[name])
    text = dice.choices(besides, k=25) + dice.choices(FILLER, k=30)
    if told:
        text += dice.choices(described, k=4)
    dice.shuffle(text)
    return ClassifierInput(" ".join(text))


def documents(number, told=0.5, seed=1):
    dice = random.Random(seed)
    names = [list(TOPICS)[at % 3] for at in range(number)]
    return names, [document(name, dice, dice.random() < told) for name in names]


def accuracy(classifier, names, texts):
    return sum(
        classifier.classify(text).category == name for name, text in zip(names, texts, strict=True)
    ) / len(names)


def test_what_such_documents_say_besides_is_learnt():
    names, texts = documents(240)
    model, report = self_train(texts, taxonomy())
    unseen = documents(90, told=0.0, seed=2)
    assert accuracy(make_classifier("embedded", taxonomy()), *unseen) < 0.5
    assert accuracy(TrainedClassifier(model), *unseen) > 0.95
    assert accuracy(TrainedClassifier(model), names, texts) > 0.95
    assert (report.seen, report.used) == (240, 240)
    assert sum(report.before) == sum(report.after) == 240
    assert report.borne_out > 0.9
    assert not report.vanishing


def test_the_same_documents_give_the_same_model_and_the_file_keeps_it():
    _, texts = documents(150)
    model = self_train(texts, taxonomy(), created="2026-01-01").model
    assert self_train(iter(texts), taxonomy(), created="2026-01-01").model.digest == model.digest
    again = TrainedModel.from_bytes(model.to_bytes())
    found = TrainedClassifier(again).classify(texts[0])
    assert found == TrainedClassifier(model).classify(texts[0])
    assert found.confidence is None  # there were no labels to calibrate on
    assert sum(again.provenance.counts) == 150


def test_other_stays_what_none_of_the_topics_is():
    dice = random.Random(3)
    strange = ["lawn", "rose", "tulip", "hedge", "soil", "bulb", "spade", "compost", "prune"]
    names, texts = documents(180, told=0.8)
    names = names + ["other"] * 60
    texts = texts + [
        ClassifierInput(" ".join(dice.choices(strange, k=25) + dice.choices(FILLER, k=30)))
        for _ in range(60)
    ]
    with_other = taxonomy(Category("other"))
    before = accuracy(make_classifier("embedded", with_other), names, texts)
    model = self_train(texts, with_other).model
    found = [TrainedClassifier(model).classify(text).category for text in texts]
    assert accuracy(TrainedClassifier(model), names, texts) >= before
    assert found[180:].count("other") == 60


def test_a_sample_is_learnt_from_where_there_are_many(monkeypatch):
    monkeypatch.setattr(self_training, "MOST_DOCUMENTS", 120)
    names, texts = documents(400)
    model, report = self_train((text for text in texts), taxonomy())
    assert (report.seen, report.used) == (400, 120)
    assert accuracy(TrainedClassifier(model), names, texts) > 0.9


def test_a_script_without_spaces():
    dice = random.Random(4)
    own = {
        "体育": ("比赛", "球员得分射门裁判主场观众"),
        "烹饪": ("食谱", "面粉黄油大蒜洋葱炖煮调味"),
    }
    chinese = Taxonomy((Category("体育", "比赛"), Category("烹饪", "食谱")))

    def text(name, told):
        described, besides = own[name]
        parts = [besides[at : at + 2] for at in range(0, len(besides), 2)]
        return ClassifierInput(
            "。".join(dice.choices(parts, k=12) + [described] * (3 if told else 0))
        )

    names = ["体育", "烹饪"] * 60
    model = self_train((text(name, dice.random() < 0.5) for name in names), chinese).model
    unseen = [text(name, False) for name in names]
    assert accuracy(TrainedClassifier(model), names, unseen) > 0.95


def test_documents_without_words_are_left_out_and_too_few_refused():
    _, texts = documents(99)
    nothing = [ClassifierInput(text) for text in ("", " \n\f", "---", "\x00")] * 50
    with pytest.raises(ConfigurationError, match="100 documents with words or more, got 99"):
        self_train(nothing + texts, taxonomy())
    with pytest.raises(ConfigurationError, match="got 0"):
        self_train([], taxonomy())


def test_refused_where_descriptions_fit_nothing():
    dice = random.Random(5)
    texts = [ClassifierInput(" ".join(dice.choices(FILLER, k=40))) for _ in range(150)]
    with pytest.raises(ConfigurationError, match="cannot tell categories apart"):
        self_train(texts, taxonomy())


def test_refused_where_words_do_not_bear_the_labels_out():
    dice = random.Random(6)
    noise = [f"w{number}" for number in range(3000)]
    texts = []
    for _ in range(150):  # a word of a description in passing, in texts that share nothing
        described = TOPICS[dice.choice(list(TOPICS))][0].split()
        texts.append(
            ClassifierInput(" ".join([*dice.choices(noise, k=80), dice.choice(described)]))
        )
    with pytest.raises(ConfigurationError, match="little in common"):
        self_train(texts, taxonomy())


@pytest.mark.parametrize(
    ("after", "agreement", "reason"),
    [
        ((100, 100, 5), 0.7, "5 of 70 documents in 'space'"),
        ((70, 70, 70), 0.4, "60% of the documents"),
    ],
)
def test_refused_where_categories_vanish_or_everything_changes(after, agreement, reason):
    report = SelfTraining(210, 210, (70, 70, 70), after, agreement, borne_out=0.9)
    with pytest.raises(ConfigurationError, match=reason):
        self_training._check(report, taxonomy())


def test_a_small_category_that_vanishes_is_reported_and_no_reason_to_refuse():
    report = SelfTraining(210, 210, (100, 100, 10), (105, 104, 1), 0.9, borne_out=0.9)
    self_training._check(report, taxonomy())
    assert report.vanishing == (2,)
