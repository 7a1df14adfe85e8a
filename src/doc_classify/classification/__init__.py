"""Putting text into categories."""

from doc_classify.classification.base import Classifier, ClassifierInput
from doc_classify.classification.registry import classifier_names, make_classifier

__all__ = ["Classifier", "ClassifierInput", "classifier_names", "make_classifier"]
