"""Writes small models of the llama architecture as GGUF files, vocabulary and template included.

The vocabulary is one of whole words: the "llama-bpe" tokenizer takes a word that is in the
vocabulary as one token whatever the merges, and spells any other word byte by byte, so that every
text can be tokenised.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import gguf
import numpy as np

START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONTEXT = 32768
EPSILON = 1e-5
ROPE_BASE = 1e6
Weights = Mapping[str, np.ndarray]

# As the engine's "llama-bpe" splits text into words, \p{L} and \p{N} written for Python's re.
_NUMBER = r"\d²³¹¼½¾"
_LETTER = rf"[^\W{_NUMBER}_]"
_SYMBOL = rf"(?:_|[^\s\w{_NUMBER}])"
_WORDS = re.compile(
    r"(?i:'(?:s|t|re|ve|m|ll|d))"
    rf"|(?:_|[^\r\n\w{_NUMBER}])?{_LETTER}+"
    rf"|[{_NUMBER}]{{1,3}}"
    rf"| ?{_SYMBOL}+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)
_SPECIAL = re.compile(f"({re.escape(START)}|{re.escape(END)})")


def _byte_letters() -> tuple[str, ...]:
    """The letter that stands for each byte in a vocabulary of this kind."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in plain else next(others)) for byte in range(256))


_BYTES = _byte_letters()


def _spell(word: str) -> str:
    return "".join(_BYTES[byte] for byte in word.encode())


def split_words(text: str) -> list[str]:
    """The words of a text as the tokenizer sees them, most with the space before them."""
    return _WORDS.findall(text)


@dataclass(frozen=True)
class Vocabulary:
    """The tokens: special ones, the 256 bytes, then words."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, words: Iterable[str]) -> Vocabulary:
        """A vocabulary of these words, those left out that are a single byte anyway."""
        return cls(tuple(word for word in dict.fromkeys(words) if len(word.encode()) > 1))

    @cached_property
    def tokens(self) -> list[str]:
        """The tokens in the spelling of the file."""
        return [START, END, *_BYTES, *map(_spell, self.words)]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    @cached_property
    def _by_word(self) -> dict[str, list[int]]:
        return {word: [self._numbers[_spell(word)]] for word in self.words}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text with special ones in it, as the engine finds them."""
        return list(chain.from_iterable(map(self._encode_part, _SPECIAL.split(text))))

    def _encode_part(self, part: str) -> list[int]:
        if part in (START, END):
            return [self._numbers[part]]
        known = self._by_word
        found: list[int] = []
        for word in split_words(part):
            if word not in known:
                known[word] = [self._numbers[letter] for letter in _spell(word)]
            found += known[word]
        return found


@dataclass(frozen=True)
class Shape:
    """The sizes of a model."""

    width: int
    heads: int
    hidden: int
    layers: int


def chat(system: str, user: str) -> str:
    """What the template makes of a conversation of two messages, up to the answer."""
    return f"{START}system\n{system}{END}\n{START}user\n{user}{END}\n{START}assistant\n"


def random_weights(
    shape: Shape, vocabulary: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Weights as they are before training, by their names in the file."""

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return rng.normal(0, scale / columns**0.5, (rows, columns)).astype(np.float32)

    width, hidden = shape.width, shape.hidden
    ones = np.ones(width, np.float32)
    weights = {
        "token_embd.weight": matrix(vocabulary, width, 0.2 * width**0.5),
        "output_norm.weight": ones.copy(),
        "output.weight": matrix(vocabulary, width),
    }
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        weights[f"{block}.attn_norm.weight"] = ones.copy()
        for name in ("q", "k", "v", "output"):
            weights[f"{block}.attn_{name}.weight"] = matrix(width, width)
        weights[f"{block}.ffn_norm.weight"] = ones.copy()
        weights[f"{block}.ffn_gate.weight"] = matrix(hidden, width)
        weights[f"{block}.ffn_up.weight"] = matrix(hidden, width)
        weights[f"{block}.ffn_down.weight"] = matrix(width, hidden)
    return weights


def write(path: Path, shape: Shape, vocabulary: Vocabulary, weights: Weights) -> None:
    """Write a model: matrices with half precision, which is what the engine computes with."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(path.stem)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(len(vocabulary))

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(vocabulary.tokens)
    special, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([special, special] + [normal] * (len(vocabulary) - 2))
    writer.add_token_merges([f"{_BYTES[0]} {_BYTES[0]}"])  # some are demanded; texts have no NUL
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)

    for name, weight in weights.items():
        writer.add_tensor(name, weight.astype(np.float16) if weight.ndim == 2 else weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_random(path: Path, seed: int, words: Iterable[str] = ()) -> Vocabulary:
    """Write a model that has learnt nothing, well under a megabyte: for what is not its answer."""
    vocabulary = Vocabulary.of(words)
    shape = Shape(width=64, heads=4, hidden=128, layers=2)
    rng = np.random.default_rng(seed)
    write(path, shape, vocabulary, random_weights(shape, len(vocabulary), rng))
    return vocabulary
