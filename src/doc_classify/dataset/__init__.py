"""Realistic test documents with labels, reproducible from a seed.

The way of one document: ``planning`` decides on its format and category, ``compose`` fills the
layouts of ``content/*.toml`` with ``facts``, a writer in ``writers`` turns it into the bytes of a
file, and ``generator`` stores it with its label.
"""

from doc_classify.dataset.compose import CATEGORIES
from doc_classify.dataset.generator import (
    LABELS_NAME,
    Label,
    generate,
    read_labels,
    summarise,
)
from doc_classify.dataset.planning import DatasetOptions
from doc_classify.dataset.writers import ALL_FORMATS, FORMATS

__all__ = [
    "ALL_FORMATS",
    "CATEGORIES",
    "FORMATS",
    "LABELS_NAME",
    "DatasetOptions",
    "Label",
    "generate",
    "read_labels",
    "summarise",
]
