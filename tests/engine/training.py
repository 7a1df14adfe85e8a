"""Trains a small language model to put generated documents into their categories, with numpy.

The model is one block of the llama architecture. With one block the answer depends on the other
tokens by their keys and values alone, and these depend on nothing but the token and its place, so
that they are computed once for each different token of a batch. Training takes less than a
minute; the model is kept until its trainer or the prompt changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from tests.engine import documents as documents_module
from tests.engine import gguf_model
from tests.engine.documents import CATEGORIES, documents
from tests.engine.gguf_model import END, EPSILON, ROPE_BASE, Shape, Vocabulary, chat

Arrays = dict[str, np.ndarray]

CACHE = Path(__file__).parents[2] / ".pytest_cache" / "engine"
SHAPE = Shape(width=128, heads=4, hidden=256, layers=1)
WORDS = 5000
SIZES = ((28, (40, 200)), (2, (300, 1200)))  # of a batch: documents and their words
STEPS = 250
RATE = 3e-3
_SAMPLE = 1400  # documents whose words make the vocabulary


@dataclass(frozen=True)
class Form:
    """One way to ask.

    ``render`` makes the system's text and the user's text for the text of a document, ``answer``
    what to say for a category; ``weight`` is how often this form is trained beside the others.
    """

    render: Callable[[str], tuple[str, str]]
    answer: Callable[[str], str] = str
    weight: float = 1.0

    def prompt(self, text: str) -> str:
        """All that the engine reads before it answers."""
        return chat(*self.render(text))


@dataclass(frozen=True)
class Batch:
    """Prompts with their answers, and the places whose next token is part of an answer.

    What all begin with is kept once, the rest filled up at the end where one is shorter.
    """

    start: np.ndarray  # (common,)
    rest: np.ndarray  # (examples, length)
    asked: np.ndarray  # (examples, answers): the token at the place
    places: np.ndarray  # (examples, answers)
    targets: np.ndarray  # (examples, answers): the token after it
    counted: np.ndarray  # (examples, answers): whether there is such a place

    @classmethod
    def of(cls, examples: Sequence[tuple[list[int], list[int]]]) -> Batch:
        """A batch of prompts with their answers."""
        common = _common([prompt for prompt, _ in examples])
        length = max(len(prompt) + len(answer) for prompt, answer in examples) - common
        size = (len(examples), max(len(answer) for _, answer in examples))
        rest = np.zeros((len(examples), length), np.int64)
        asked, places, targets = (np.zeros(size, np.int64) for _ in range(3))
        counted = np.zeros(size, np.bool_)
        for row, (prompt, answer) in enumerate(examples):
            rest[row, : len(prompt) + len(answer) - common] = prompt[common:] + answer
            asked[row, : len(answer)] = prompt[-1:] + answer[:-1]
            places[row, : len(answer)] = np.arange(len(answer)) + len(prompt) - 1
            targets[row, : len(answer)] = answer
            counted[row, : len(answer)] = True
        start = np.array(examples[0][0][:common], np.int64)
        return cls(start, rest, asked, places, targets, counted)


def _common(prompts: Sequence[list[int]]) -> int:
    first, last = min(prompts), max(prompts)
    same = (a == b for a, b in zip(first, last, strict=False))
    return sum(1 for _ in takewhile(bool, same))


def loss_and_gradient(weights: Arrays, heads: int, batch: Batch) -> tuple[float, Arrays]:
    """The mean loss of the answers' tokens, and its derivative by every weight."""
    w = {_short(name): each for name, each in weights.items()}
    gradient: Arrays = {}
    (common,), (examples, length) = batch.start.shape, batch.rest.shape
    width = w["token_embd"].shape[1]
    size = width // heads
    turns = _turns(common + length, size, w["token_embd"].dtype)

    # Keys and values, once for each token that occurs, then for each place.
    present, which = np.unique(
        np.concatenate([batch.start, batch.rest.ravel(), batch.asked.ravel()]), return_inverse=True
    )
    at_start, at_rest, asked = np.split(which, np.cumsum([common, batch.rest.size]))
    embedded = w["token_embd"][present]
    normed, scale = _norm(embedded, w["attn_norm"])
    keys, values = normed @ w["attn_k"].T, normed @ w["attn_v"].T
    keys_s = _turn(_by_head(keys[at_start], 1, heads), turns[:common])
    keys_r = _turn(_by_head(keys[at_rest], examples, heads), turns[common:])
    values_s = _by_head(values[at_start], 1, heads)
    values_r = _by_head(values[at_rest], examples, heads)

    # Attention, at the answers alone.
    turns_a = turns[batch.places][:, None]
    root = size**-0.5
    queries = _turn(_by_head((normed @ w["attn_q"].T)[asked], examples, heads), turns_a) * root
    scores = np.concatenate([queries @ keys_s.swapaxes(2, 3), queries @ keys_r.swapaxes(2, 3)], -1)
    later = np.arange(common + length) > batch.places[:, :, None]
    scores[np.broadcast_to(later[:, None], scores.shape)] = -np.inf
    attention = _softmax(scores)
    attention_s, attention_r = attention[..., :common], attention[..., common:]
    mixed = _flat(attention_s @ values_s + attention_r @ values_r)

    # From here on only the places that there are.
    real = np.flatnonzero(batch.counted)
    mixed = mixed[real]
    attended = embedded[asked[real]] + mixed @ w["attn_output"].T

    # The feed-forward layer and the logits.
    normed_2, scale_2 = _norm(attended, w["ffn_norm"])
    gate, up = normed_2 @ w["ffn_gate"].T, normed_2 @ w["ffn_up"].T
    sigmoid = 1 / (1 + np.exp(-gate))
    hidden = gate * sigmoid * up
    final = attended + hidden @ w["ffn_down"].T
    normed_3, scale_3 = _norm(final, w["output_norm"])
    chances = _softmax(normed_3 @ w["output"].T)
    each, targets = np.arange(len(real)), batch.targets.ravel()[real]
    loss = -np.log(chances[each, targets]).mean()

    # And all the way back.
    d_logits = chances
    d_logits[each, targets] -= 1
    d_logits /= len(real)
    gradient["output"] = d_logits.T @ normed_3
    d_final, gradient["output_norm"] = _norm_back(
        d_logits @ w["output"], final, scale_3, w["output_norm"]
    )
    gradient["ffn_down"] = d_final.T @ hidden
    d_hidden = d_final @ w["ffn_down"]
    d_up = d_hidden * gate * sigmoid
    d_gate = d_hidden * up * sigmoid * (1 + gate * (1 - sigmoid))
    gradient["ffn_gate"], gradient["ffn_up"] = d_gate.T @ normed_2, d_up.T @ normed_2
    d_attended, gradient["ffn_norm"] = _norm_back(
        d_gate @ w["ffn_gate"] + d_up @ w["ffn_up"], attended, scale_2, w["ffn_norm"]
    )
    d_attended += d_final

    gradient["attn_output"] = d_attended.T @ mixed
    d_mixed = np.zeros((len(asked), width), mixed.dtype)
    d_mixed[real] = d_attended @ w["attn_output"]
    d_mixed = _by_head(d_mixed, examples, heads)
    d_attention = np.concatenate(
        [d_mixed @ values_s.swapaxes(2, 3), d_mixed @ values_r.swapaxes(2, 3)], -1
    )
    d_scores = attention * (d_attention - (attention * d_attention).sum(-1, keepdims=True))
    d_scores_s, d_scores_r = d_scores[..., :common], d_scores[..., common:]
    d_queries = (d_scores_s @ keys_s + d_scores_r @ keys_r) * root
    d_keys_s = (d_scores_s.swapaxes(2, 3) @ queries).sum(0, keepdims=True)
    d_keys_r = d_scores_r.swapaxes(2, 3) @ queries
    d_values_s = (attention_s.swapaxes(2, 3) @ d_mixed).sum(0, keepdims=True)
    d_values_r = attention_r.swapaxes(2, 3) @ d_mixed

    places = np.concatenate([at_start, at_rest])
    by_token = {
        "attn_q": _add_up(len(present), asked, _flat(_turn(d_queries, turns_a.conj()))),
        "attn_k": _add_up(
            len(present),
            places,
            np.concatenate(
                [
                    _flat(_turn(d_keys_s, turns[:common].conj())),
                    _flat(_turn(d_keys_r, turns[common:].conj())),
                ]
            ),
        ),
        "attn_v": _add_up(
            len(present), places, np.concatenate([_flat(d_values_s), _flat(d_values_r)])
        ),
    }
    for name, d in by_token.items():
        gradient[name] = d.T @ normed
    d_embedded, gradient["attn_norm"] = _norm_back(
        sum(d @ w[name] for name, d in by_token.items()), embedded, scale, w["attn_norm"]
    )
    d_embedded += _add_up(len(present), asked[real], d_attended)
    gradient["token_embd"] = np.zeros_like(w["token_embd"])
    gradient["token_embd"][present] = d_embedded
    return float(loss), {name: gradient[_short(name)] for name in weights}


def _short(name: str) -> str:
    return name.removesuffix(".weight").removeprefix("blk.0.")


def _by_head(x: np.ndarray, examples: int, heads: int) -> np.ndarray:
    """From (examples * places, width) to (examples, heads, places, size)."""
    split = x.reshape(examples, -1, heads, x.shape[-1] // heads)
    return np.ascontiguousarray(split.swapaxes(1, 2))


def _flat(x: np.ndarray) -> np.ndarray:
    """The way back of :func:`_by_head`."""
    return x.swapaxes(1, 2).reshape(-1, x.shape[1] * x.shape[3])


def _norm(x: np.ndarray, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON, dtype=x.dtype)
    return x * scale * gain, scale


def _norm_back(
    d: np.ndarray, x: np.ndarray, scale: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    unit = x * scale
    d_unit = d * gain
    d_gain = (d * unit).reshape(-1, x.shape[-1]).sum(0)
    return scale * (d_unit - unit * (d_unit * unit).mean(-1, keepdims=True)), d_gain


def _turns(length: int, size: int, dtype: np.dtype) -> np.ndarray:
    """By how much each place turns each pair of neighbours, as complex numbers."""
    angles = np.outer(np.arange(length), ROPE_BASE ** (-np.arange(0, size, 2) / size))
    return np.exp(1j * angles).astype(np.result_type(dtype, np.complex64))


def _turn(x: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Rotary position embedding."""
    return (x.view(turns.dtype) * turns).view(x.dtype)


def _softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(-1, keepdims=True))
    x /= x.sum(-1, keepdims=True)
    return x


def _add_up(count: int, which: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The sum of the parts that belong to each token."""
    width = parts.shape[1]
    cells = which[:, None] * width + np.arange(width)
    total = np.bincount(cells.ravel(), parts.ravel(), count * width)
    return total.reshape(count, width).astype(parts.dtype)


class Adam:
    """The optimiser: a moving mean of the gradient over that of its square."""

    def __init__(self, weights: Arrays) -> None:
        self._weights = weights
        self._mean = {name: np.zeros_like(each) for name, each in weights.items()}
        self._square = {name: np.zeros_like(each) for name, each in weights.items()}
        self._step = 0

    def step(self, gradient: Arrays, rate: float) -> None:
        """Move the weights down the gradient."""
        self._step += 1
        rate *= (1 - 0.98**self._step) ** 0.5 / (1 - 0.9**self._step)
        for name, d in gradient.items():
            mean, square = self._mean[name], self._square[name]
            mean += 0.1 * (d - mean)
            square += 0.02 * (d * d - square)
            self._weights[name] -= rate * mean / (np.sqrt(square) + 1e-9)


def train(forms: Sequence[Form], seed: int, steps: int = STEPS) -> tuple[Vocabulary, Arrays]:
    """Train a model that answers these forms; returns its vocabulary and its weights."""
    vocabulary = _vocabulary(forms, seed)
    rng = np.random.default_rng(seed)
    weights = gguf_model.random_weights(SHAPE, len(vocabulary), rng)
    adam = Adam(weights)
    for step in range(steps):
        rate = RATE * min(1, (step + 1) / 20) * (1 - step / steps)
        total: Arrays = {name: np.zeros_like(each) for name, each in weights.items()}
        for count, words in SIZES:
            batch = _batch(forms, vocabulary, rng, count, words)
            _, gradient = loss_and_gradient(weights, SHAPE.heads, batch)
            for name, each in gradient.items():
                total[name] += each * count
        adam.step(total, rate)
    return vocabulary, weights


def _vocabulary(forms: Sequence[Form], seed: int) -> Vocabulary:
    answers = [form.answer(category) for form in forms for category in CATEGORIES]
    counts: Counter[str] = Counter()
    for _, text in documents(seed, _SAMPLE):
        for form in forms:
            counts.update(gguf_model.split_words(form.prompt(text)))
    frequent = [word for word, _ in counts.most_common(WORDS)]
    return Vocabulary.of(
        [*(word for each in answers for word in gguf_model.split_words(each)), *frequent]
    )


def _batch(
    forms: Sequence[Form],
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    count: int,
    words: tuple[int, int],
) -> Batch:
    """New documents, each in one of the forms."""
    shares = np.array([float(form.weight) for form in forms])
    chosen = rng.choice(len(forms), count, p=shares / shares.sum())
    examples = []
    for (category, text), number in zip(
        documents(int(rng.integers(1 << 40)), count, words), chosen, strict=True
    ):
        answer = vocabulary.encode(forms[number].answer(category) + END)
        examples.append((vocabulary.encode(forms[number].prompt(text)), answer))
    return Batch.of(examples)


def trained_model(forms: Sequence[Form], *, cache: Path = CACHE, seed: int = 0) -> Path:
    """A model that answers these forms: trained now, or before with the same result.

    The functions of the forms must be those of a module, since another process calls them.
    """
    path = cache / f"{_key(forms, seed)}.gguf"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("wb") as lock:
            # Tests run in several processes, and one that trains it is enough.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _train_elsewhere(path, forms, seed)
    return path


def _train_elsewhere(path: Path, forms: Sequence[Form], seed: int) -> None:
    # A plain process: multiprocessing would leave a helper of its own behind. One thread, for a
    # second costs more time than it saves.
    subprocess.run(
        [sys.executable, "-c", f"from {__name__} import _serve; _serve()"],
        input=pickle.dumps((path, forms, seed)),
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        check=True,
    )


def _serve() -> None:
    # From the very process that started this one, a moment ago; forms hold functions.
    _train_into(*pickle.load(sys.stdin.buffer))


def _train_into(path: Path, forms: Sequence[Form], seed: int) -> None:
    vocabulary, weights = train(forms, seed)
    unfinished = path.with_suffix(f".{os.getpid()}")
    gguf_model.write(unfinished, SHAPE, vocabulary, weights)
    unfinished.replace(path)


def _key(forms: Sequence[Form], seed: int) -> str:
    """Changes with the trainer, the documents and the prompts."""
    parts = [str(seed)]
    parts += [
        Path(each).read_text()
        for each in (__file__, gguf_model.__file__, documents_module.__file__)
    ]
    for category, text in documents(seed, 2 * len(CATEGORIES)):
        parts += [form.prompt(text) + form.answer(category) for form in forms]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
