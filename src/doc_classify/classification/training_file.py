"""What a model was trained on, as a file: rows of hashed words and labels, no texts.

With it a model can learn from a few more documents without reading the others again. Whoever has
it can tell whether a word of his own choice stands in a document, so it is as confidential as an
index of the documents.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification.features import BUCKETS, FEATURES_VERSION, Row
from doc_classify.classification.learning import Example, TrainingSet
from doc_classify.classification.model_file import (
    SUFFIX,
    TrainedModel,
    read_file,
    replace_file,
    safetensors_header,
)
from doc_classify.errors import ConfigurationError

FORMAT = "doc-classify training rows"
_FORMAT_VERSION = 1
_MAX_BYTES = 4_000_000_000
_MAX_NAME = 1_000


def rows_path(model: Path) -> Path:
    """Where the rows of a model are kept: beside it."""
    return model.with_name(f"{model.name.removesuffix(SUFFIX)}.rows{SUFFIX}")


def save_rows(training: TrainingSet, model: TrainedModel, path: Path) -> None:
    """Write what a model was trained on, or leave what was there as it was.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.numpy import save

    keys = sorted(training.examples)
    examples = [training.examples[key] for key in keys]
    groups = sorted({one.group for one in examples})
    places = {name: at for at, name in enumerate(groups)}
    tensors = {
        "indices": np.concatenate([one.row.indices for one in examples]),
        "values": np.concatenate([one.row.values for one in examples]),
        "sizes": np.array([len(one.row.indices) for one in examples], np.uint32),
        "targets": np.array([one.target for one in examples], np.float32),
        "priors": np.array([one.prior for one in examples], np.float32),
        "weights": np.array([one.weight for one in examples], np.float64),
        "group": np.array([places[one.group] for one in examples], np.uint32),
    }
    header = {
        "format": FORMAT,
        "version": _FORMAT_VERSION,
        "features": FEATURES_VERSION,
        "data": model.provenance.data,
        "prior": training.zero_shot.fingerprint if training.zero_shot else "",
        "cautious": training.cautious,
        "keys": keys,
        "groups": groups,
    }
    replace_file(path, save(tensors, metadata={"doc_classify": json.dumps(header)}))


def load_rows(model: TrainedModel, path: Path) -> TrainingSet:
    """Read what a model was trained on.

    Raises:
        ConfigurationError: there is no such file, or it is damaged or belongs to another model.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not path.exists():
        raise ConfigurationError(
            f"there is no {path}, which holds what the model was trained on: train it anew"
        )
    data = read_file(path, _MAX_BYTES)
    try:
        header = safetensors_header(data)
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError("it is a file of another kind")
        tensors = load(data)
        if header["data"] != model.provenance.data:
            raise ConfigurationError(f"{path} belongs to another model: train it anew")
        if (header["version"], header["features"]) != (_FORMAT_VERSION, FEATURES_VERSION):
            raise ConfigurationError(f"{path} is of another version: train the model anew")
        training = TrainingSet(
            model.taxonomy, zero_shot=bool(header["prior"]), cautious=bool(header["cautious"])
        )
        if training.zero_shot and training.zero_shot.fingerprint != header["prior"]:
            raise ConfigurationError(
                f"{path} was made by another version of doc-classify: train the model anew"
            )
        _fill(training, header, tensors)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        raise ConfigurationError(
            f"{path} holds no training rows, or is damaged: {str(error)[:200]}"
        ) from error
    return training


def _fill(training: TrainingSet, header: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> None:
    keys, groups = header["keys"], header["groups"]
    texts = [*keys, *groups]
    if not all(isinstance(text, str) and len(text) <= _MAX_NAME for text in texts):
        raise ValueError("its keys are not text")
    number, categories = len(keys), len(training.taxonomy.categories)
    sizes = _tensor(tensors, "sizes", np.uint32, (number,))
    ends = np.cumsum(sizes, dtype=np.int64)
    whole = int(ends[-1]) if number else 0
    indices = _tensor(tensors, "indices", np.uint32, (whole,))
    values = _tensor(tensors, "values", np.float32, (whole,))
    targets = _tensor(tensors, "targets", np.float32, (number, categories))
    priors = _tensor(tensors, "priors", np.float32, (number, categories))
    weights = _tensor(tensors, "weights", np.float64, (number,))
    group = _tensor(tensors, "group", np.uint32, (number,))
    if (indices >= BUCKETS).any() or (values <= 0).any() or (weights <= 0).any():
        raise ValueError("its rows are not what documents give")
    if (targets < 0).any() or not np.allclose(targets.sum(axis=1), 1, atol=1e-3):
        raise ValueError("its labels are no probabilities")
    start = 0
    for at, (key, end) in enumerate(zip(keys, ends.tolist(), strict=True)):
        row = Row(indices[start:end], values[start:end])
        if (np.diff(row.indices.astype(np.int64)) <= 0).any():
            raise ValueError("its buckets do not ascend")
        start = end
        training.put(
            key, Example(row, targets[at], priors[at], float(weights[at]), groups[group[at]])
        )


def _tensor(
    tensors: dict[str, NDArray[Any]], name: str, dtype: type, shape: tuple[int, ...]
) -> NDArray[Any]:
    tensor = tensors[name]
    if tensor.dtype != dtype or tensor.shape != shape or not np.isfinite(tensor).all():
        raise ValueError(f"its {name!r} has the wrong type, shape or content")
    return tensor
