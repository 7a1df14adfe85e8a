"""A trained model as a value and as a file.

The file is in the safetensors format: a JSON header and plain arrays, nothing that could run. It
may come from anywhere, so everything in it is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.calibration import Calibration
from doc_classify.classification.embedded import EmbeddedClassifier
from doc_classify.classification.features import BUCKETS, FEATURES_VERSION, row
from doc_classify.classification.head import Head
from doc_classify.errors import ConfigurationError
from doc_classify.taxonomy import Taxonomy

SUFFIX = ".safetensors"
_FORMAT = "doc-classify model"
_FORMAT_VERSION = 1
_MAX_BYTES, _MAX_HEADER = 256_000_000, 16_000_000
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from.

    Attributes:
        created: ISO 8601, as whoever trained it said.
        counts: documents of each category, by their likeliest label, in the taxonomy's order.
        data: digest of the documents and labels that it was trained on.
        prior: fingerprint of the zero-shot classifier on which the model builds; "" if on none.
    """

    created: str
    counts: tuple[int, ...]
    data: str
    prior: str = ""

    @property
    def documents(self) -> int:
        """How many documents it was trained on."""
        return sum(self.counts)


@dataclass(frozen=True)
class TrainedModel:
    """Everything that is needed to classify, for one taxonomy.

    ``calibration`` is None where there were too few documents to say what a margin means.
    """

    taxonomy: Taxonomy
    head: Head
    calibration: Calibration | None
    provenance: Provenance

    @property
    def categories(self) -> tuple[str, ...]:
        """The names, in the order of the scores."""
        return self.taxonomy.names

    def scores(self, document: ClassifierInput) -> NDArray[np.float64]:
        """The score of each category (C,). The difference of the best two is the margin."""
        return self.head.scores(row(document), self.prior(document))

    def prior(self, document: ClassifierInput) -> NDArray[np.float64] | None:
        """The zero-shot shares (C,) on which the head builds; None where it builds on none."""
        if self.zero_shot is None:
            return None
        return zero_shot_shares(self.zero_shot, document, self.categories)

    @cached_property
    def zero_shot(self) -> EmbeddedClassifier | None:
        """The classifier that gives the prior; None where none is used.

        Raises:
            ConfigurationError: it is of another version than the one that the model builds on.
        """
        if not self.head.trust:
            return None
        classifier = EmbeddedClassifier(self.taxonomy)
        if classifier.fingerprint != self.provenance.prior:
            raise ConfigurationError(
                "the model was trained with another version of doc-classify, whose zero-shot "
                "classifier it builds on: train it again with 'doc-classify train'"
            )
        return classifier

    @cached_property
    def digest(self) -> str:
        """Hex digest of the model's bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """The file's content: the same bytes for the same model."""
        from safetensors.numpy import save

        tensors: dict[str, NDArray[Any]] = {
            "buckets": self.head.buckets,
            "idf": self.head.idf,
            "weights": self.head.weights,
            "bias": self.head.bias,
        }
        if self.calibration:
            tensors["calibration"] = np.array(
                [self.calibration.margins, self.calibration.probabilities]
            )
        header = {
            "format": _FORMAT,
            "version": _FORMAT_VERSION,
            "features": FEATURES_VERSION,
            "taxonomy": self.taxonomy.to_dict(),
            "taxonomy_fingerprint": self.taxonomy.fingerprint,
            "trust": self.head.trust,
            "provenance": asdict(self.provenance),
        }
        return save(tensors, metadata={"doc_classify": json.dumps(header, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes, origin: str = "model") -> TrainedModel:
        """Read what :meth:`to_bytes` has written.

        Raises:
            ConfigurationError: it is something else, damaged, or of another version; the message
                names ``origin``.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            header = _header(data)
            tensors = load(data)
            return _model(header, tensors)
        except ConfigurationError as error:
            raise ConfigurationError(f"{origin}: {error}") from None
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
            reason = str(error)[:_SHOWN]
            raise ConfigurationError(
                f"{origin} is not a model of doc-classify, or damaged: {reason}"
            ) from error

    def save(self, path: Path) -> None:
        """Write the file, or leave what was there as it was.

        Raises:
            OSError: it cannot be written.
        """
        replace_file(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> TrainedModel:
        """Read a file.

        Raises:
            ConfigurationError: it cannot be read or used.
        """
        return cls.from_bytes(read_file(path, _MAX_BYTES), f"the model {path}")


def zero_shot_shares(
    classifier: EmbeddedClassifier, document: ClassifierInput, names: tuple[str, ...]
) -> NDArray[np.float64]:
    """The zero-shot classifier's share of each category (C,), in the order of ``names``."""
    scores = dict(classifier.classify(document).scores)
    return np.array([scores[name] for name in names])


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a file that may not be larger than it could honestly be.

    Raises:
        ConfigurationError: it cannot be read, is no regular file, or is too large.
    """
    try:
        if not path.is_file():
            raise ConfigurationError(f"there is no model file {path}")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read the model {path}: {error.strerror}") from error
    if len(data) > most:
        raise ConfigurationError(f"the model {path} is larger than {most // 10**6} MB")
    return data


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside, then put it in its place, so that no reader meets half of it."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def safetensors_header(data: bytes) -> Any:
    """The product's own metadata in a safetensors file, parsed.

    Raises:
        ValueError, LookupError, TypeError: there is none.
    """
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= min(_MAX_HEADER, len(data) - 8):
        raise ValueError("its header has an impossible length")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["doc_classify"])


def _header(data: bytes) -> dict[str, Any]:
    header = safetensors_header(data)
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError("it is a file of another kind")
    versions = header["version"], header["features"]
    if versions != (_FORMAT_VERSION, FEATURES_VERSION):
        raise ConfigurationError(
            f"it is of version {versions[0]}.{versions[1]}, and this doc-classify reads "
            f"{_FORMAT_VERSION}.{FEATURES_VERSION}: train it again with 'doc-classify train'"
        )
    return header


def _model(header: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> TrainedModel:
    taxonomy = Taxonomy.from_dict(header["taxonomy"])
    if taxonomy.fingerprint != header["taxonomy_fingerprint"]:
        raise ValueError("its taxonomy is not the one that it was trained for")
    number = len(taxonomy.categories)
    buckets = tensors.pop("buckets")
    ascending = buckets.ndim == 1 and bool(np.all(np.diff(buckets.astype(np.int64)) > 0))
    if buckets.dtype != np.uint32 or not ascending or (buckets >= BUCKETS).any():
        raise ValueError("its buckets are not ascending numbers")
    idf = _tensor(tensors, "idf", np.float32, (len(buckets),))
    weights = _tensor(tensors, "weights", np.float16, (len(buckets), number))
    bias = _tensor(tensors, "bias", np.float32, (number,))
    if (idf < 0).any():
        raise ValueError("its 'idf' is negative")
    calibration = None
    if "calibration" in tensors:
        points = tensors["calibration"].shape[-1]
        line = _tensor(tensors, "calibration", np.float64, (2, max(1, points)))
        if (np.diff(line, axis=1) < 0).any() or line[1].min() < 0 or line[1].max() > 1:
            raise ValueError("its calibration does not rise from 0 to 1")
        calibration = Calibration(tuple(line[0].tolist()), tuple(line[1].tolist()))
    if tensors:
        raise ValueError(f"it has unknown parts {sorted(tensors)}")
    trust = float(header["trust"])
    if not (math.isfinite(trust) and 0 <= trust <= 1):
        raise ValueError("its 'trust' is not between 0 and 1")
    origin = header["provenance"]
    counts = tuple(int(count) for count in origin["counts"])
    if len(counts) != number or min(counts) < 0:
        raise ValueError("its counts of documents are not one for each category")
    created, digest, prior = origin["created"], origin["data"], origin["prior"]
    if not all(isinstance(text, str) and len(text) <= 100 for text in (created, digest, prior)):
        raise ValueError("its provenance is not text")
    return TrainedModel(
        taxonomy,
        Head(buckets, idf, weights, bias, trust),
        calibration,
        Provenance(created, counts, digest, prior),
    )


def _tensor(
    tensors: dict[str, NDArray[Any]], name: str, dtype: type, shape: tuple[int, ...]
) -> NDArray[Any]:
    tensor = tensors.pop(name)
    if tensor.dtype != dtype or tensor.shape != shape:
        raise ValueError(f"its {name!r} has the wrong type or shape {tensor.shape}")
    if not np.isfinite(tensor).all():
        raise ValueError(f"its {name!r} holds numbers that are not finite")
    return tensor
