"""A trained model as a value and as a file.

The file is in the safetensors format: a JSON header and plain arrays, nothing that could run. It
may come from anywhere, so everything in it is checked before it is used.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.calibration import Calibration
from doc_classify.classification.embedded import EmbeddedClassifier
from doc_classify.classification.features import BUCKETS, FEATURES_VERSION, Row, row
from doc_classify.classification.head import Head
from doc_classify.classification.profiles import is_other
from doc_classify.classification.registry import model_digest
from doc_classify.errors import ConfigurationError
from doc_classify.taxonomy import Taxonomy

SUFFIX = ".safetensors"
FORMAT = "doc-classify model"
_FORMAT_VERSION = 2
"""To be raised with every change of what is in the file."""
_FIELDS = {
    "format",
    "version",
    "features",
    "taxonomy",
    "taxonomy_fingerprint",
    "trust",
    "floor",
    "provenance",
}
_MAX_BYTES, _MAX_HEADER = 256_000_000, 16_000_000
_SHOWN = 200
_SIDES: Final = ("left", "right")
_HASH = re.compile("[0-9a-f]{64}")


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
    ``floor`` is the least score of the category ``other`` where there were no documents of it to
    learn from: it is then what is left when no other category is likely enough. None elsewhere.
    ``learnt_from`` are the labelled documents it was trained on (see :func:`short_hashes`),
    ascending, so that an evaluation can tell them from others; empty where their hashes were not
    known.
    """

    taxonomy: Taxonomy
    head: Head
    calibration: Calibration | None
    provenance: Provenance
    floor: float | None = None
    learnt_from: NDArray[np.uint64] = field(default_factory=lambda: short_hashes(()))

    def knows(self, sha256: str) -> bool:
        """Whether a document with these bytes was among those that it was trained on."""
        wanted = short_hashes((sha256,))
        first, after = (np.searchsorted(self.learnt_from, wanted, side) for side in _SIDES)
        return bool((after > first).any())

    @property
    def categories(self) -> tuple[str, ...]:
        """The names, in the order of the scores."""
        return self.taxonomy.names

    def scores(self, document: ClassifierInput) -> NDArray[np.float64]:
        """The score of each category (C,). The difference of the best two is the margin."""
        return self.scores_of(row(document), self.prior(document))

    def scores_of(self, row: Row, prior: NDArray[np.floating] | None) -> NDArray[np.float64]:
        """The same from a document's row and prior."""
        scores = self.head.scores(row, prior)
        at = other_place(self.categories)
        if at is not None and self.floor is not None:
            scores[at] = max(scores[at], self.floor)
        return scores

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
        return model_digest(self.to_bytes())

    @cached_property
    def fingerprint(self) -> str:
        """The same without what makes no difference to answers: the date, hashes of documents."""
        undated = replace(
            self,
            provenance=replace(self.provenance, created=""),
            learnt_from=short_hashes(()),
        )
        return model_digest(undated.to_bytes())

    def to_bytes(self) -> bytes:
        """The file's content: the same bytes for the same model."""
        from safetensors.numpy import save

        tensors: dict[str, NDArray[Any]] = {
            "buckets": self.head.buckets,
            "idf": self.head.idf,
            "weights": self.head.weights,
            "bias": self.head.bias,
            "learnt_from": self.learnt_from,
        }
        if self.calibration:
            tensors["calibration"] = np.array(
                [self.calibration.margins, self.calibration.probabilities]
            )
        header = {
            "format": FORMAT,
            "version": _FORMAT_VERSION,
            "features": FEATURES_VERSION,
            "taxonomy": self.taxonomy.to_dict(),
            "taxonomy_fingerprint": self.taxonomy.fingerprint,
            "trust": self.head.trust,
            "floor": self.floor,
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


def short_hashes(keys: Iterable[str]) -> NDArray[np.uint64]:
    """The first 64 bits of each key that is a SHA-256 in lower-case hex, ascending; no others."""
    return np.array(
        sorted({int(key[:16], 16) for key in keys if _HASH.fullmatch(key)}), dtype=np.uint64
    )


def other_place(names: tuple[str, ...]) -> int | None:
    """Where the category ``other`` stands among the names; None where it is not there."""
    return next((at for at, name in enumerate(names) if is_other(name)), None)


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
    # Two that write the same at once do not write into one file.
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
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


def file_kind(path: Path) -> str | None:
    """What a file of doc-classify says it is, whatever its version; None for other files.

    Raises:
        ConfigurationError: it cannot be read, or is no regular file.
    """
    try:
        if not path.is_file():
            raise ConfigurationError(f"{path} is no regular file")
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= _MAX_HEADER:
                return None
            header = json.loads(file.read(size))
        return str(json.loads(header["__metadata__"]["doc_classify"])["format"])
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (LookupError, RecursionError, TypeError, ValueError):
        return None


def _header(data: bytes) -> dict[str, Any]:
    header = safetensors_header(data)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("it is a file of another kind")
    versions = header.get("version"), header.get("features")
    if versions != (_FORMAT_VERSION, FEATURES_VERSION) or set(header) != _FIELDS:
        raise ConfigurationError(
            "it was made by another version of doc-classify (format "
            f"{str(versions[0])[:20]}.{str(versions[1])[:20]}, and this one reads "
            f"{_FORMAT_VERSION}.{FEATURES_VERSION}): train it again with 'doc-classify train'"
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
    learnt_from = tensors.pop("learnt_from")
    if learnt_from.dtype != np.uint64 or learnt_from.ndim != 1:
        raise ValueError("its 'learnt_from' has the wrong type or shape")
    if (learnt_from[1:] <= learnt_from[:-1]).any():
        raise ValueError("its 'learnt_from' does not ascend")
    if tensors:
        raise ValueError(f"it has unknown parts {sorted(tensors)}")
    trust = float(header["trust"])
    if not (math.isfinite(trust) and 0 <= trust <= 1):
        raise ValueError("its 'trust' is not between 0 and 1")
    floor = header["floor"]
    if floor is not None:
        floor = float(floor)
        if not math.isfinite(floor) or other_place(taxonomy.names) is None:
            raise ValueError("its 'floor' is none")
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
        floor,
        learnt_from,
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
