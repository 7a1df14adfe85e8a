"""The ways to classify that ``classifier.py`` compares.

Whatever a trial answers, it answers about documents whose labels it has not seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
from classifier_data import Document, random_folds, source_folds
from classifier_metrics import Answer

from doc_classify.classification import Classifier, make_classifier
from doc_classify.classification.learning import Labelled, TrainingSet
from doc_classify.classification.self_training import self_train
from doc_classify.classification.trained import TrainedClassifier
from doc_classify.errors import ConfigurationError
from doc_classify.taxonomy import Taxonomy

_FOLDS = 5


def ask(classifier: Classifier, documents: list[Document], places: Iterable[int]) -> list[Answer]:
    """What a classifier says of the documents at some places."""
    answers = []
    for at in places:
        one = documents[at]
        started = time.process_time()
        found = classifier.classify(one.document)
        seconds = time.process_time() - started
        answers.append(
            Answer(
                place=at,
                label=one.label,
                answer=found.category,
                margin=found.scores[0][1] - found.scores[1][1],
                confidence=found.confidence,
                review=found.needs_review,
                source=one.source,
                folder=one.folder,
                seconds=seconds,
            )
        )
    return answers


def zero_shot(documents: list[Document], taxonomy: Taxonomy) -> list[Answer]:
    """Without anything but the taxonomy."""
    return ask(make_classifier("embedded", taxonomy), documents, range(len(documents)))


def self_trained(
    documents: list[Document], taxonomy: Taxonomy
) -> Iterator[tuple[str, list[Answer], dict[str, float]]]:
    """Learnt from the texts of the documents themselves, and of the other half of them."""
    everything = np.arange(len(documents))
    halves = list(random_folds(len(documents), 2, seed=0))
    for name, splits in (
        ("self-trained on these documents", [(everything, everything)]),
        ("self-trained on the other half", halves),
    ):
        answers: list[Answer] = []
        started = time.process_time()
        size = 0
        for learnt_from, asked in splits:
            texts = (documents[at].document for at in learnt_from)
            try:
                model = self_train(texts, taxonomy).model
            except ConfigurationError as error:
                print(f"{name}: {error}")
                break
            seconds = time.process_time() - started
            size = len(model.to_bytes())
            answers += ask(TrainedClassifier(model), documents, asked)
        else:
            yield name, answers, {"training_cpu_seconds": seconds, "model_bytes": size}


def trained(
    documents: list[Document], taxonomy: Taxonomy, labels: list[int], repeats: int
) -> Iterator[tuple[str, int, list[Answer], dict[str, float]]]:
    """Trained on so many labels in all, drawn at random, with and without the zero-shot scores.

    Cautious, it expects documents of other sources than those of the labels; once more it is told
    these sources, as it is by a folder for each.

    Each trial is a cross-validation over five folds of documents and, where there are sources,
    over five of whole sources.
    """
    sources = [one.source for one in documents]
    for what, zero_shot_too, cautious, named in (
        ("words alone", False, False, False),
        ("words and zero-shot", True, False, False),
        ("cautious", True, True, False),
        ("cautious, sources told", True, True, True),
    ):
        if named and len(set(sources)) < 2:
            continue
        everything = TrainingSet(taxonomy, zero_shot=zero_shot_too, cautious=cautious)
        for at, one in enumerate(documents):
            group = one.source if named else ""
            everything.add(Labelled(one.document, one.label, group=group, key=str(at)))
        for split in ("random split", "sources held out"):
            if split == "sources held out" and len(set(sources)) < 2:
                continue
            for number in labels:
                answers: list[Answer] = []
                started, seconds, size = 0.0, 0.0, 0
                for repeat in range(repeats):
                    folds = (
                        random_folds(len(documents), _FOLDS, repeat)
                        if split == "random split"
                        else source_folds(sources, _FOLDS)
                    )
                    for pool, out in folds:
                        random = np.random.default_rng([repeat, number])
                        drawn = random.permutation(pool)[:number]
                        part = TrainingSet(taxonomy, zero_shot=zero_shot_too, cautious=cautious)
                        part.examples = {
                            str(at): everything.examples[str(at)]
                            for at in drawn
                            if str(at) in everything.examples
                        }
                        started = time.process_time()
                        try:
                            model = part.learn("").model
                        except ConfigurationError:  # a draw of one category alone
                            continue
                        seconds += time.process_time() - started
                        size = len(model.to_bytes())
                        answers += ask(TrainedClassifier(model), documents, out)
                if answers:
                    spent = {"training_cpu_seconds": seconds / repeats / _FOLDS}
                    yield f"{what}, {split}", number, answers, spent | {"model_bytes": size}
