"""What all chat servers' answers have in common, read without trust.

Ollama and OpenAI name the same things differently; :mod:`.ollama_replies` and
:mod:`.openai_replies` find them, and here is what is made of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from doc_classify.classification.chat import Token
from doc_classify.classification.http import count
from doc_classify.records import Usage

LONGEST_TEXT = 100_000
"""Characters of an answer that are looked at, and of all its tokens together."""
FLOOR = -9999.0
"""Log-probability that stands for none at all; OpenAI and vLLM say so, others say -Infinity."""
_ROUNDING = 0.01
"""How far above 0 a log-probability may be by the rounding of a server."""
_MOST_ALTERNATIVES = 64

_STARTS = ("<think>", "<thinking>")
_END = re.compile(r"</(?:think|thinking)>")
_END_IN_BYTES = re.compile(rb"</(?:think|thinking)>")
_TAG = re.compile(r"</?(?:think|thinking)>")


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def text_of(value: object) -> str:
    """The value where it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def clean(text: str) -> str:
    """Without lone surrogates, which JSON can spell and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def make_usage(prompt: object, cached: object, completion: object) -> Usage:
    """The use of one request; nonsense counts nothing."""
    tokens = count(prompt)
    return Usage(1, tokens, min(count(cached), tokens), count(completion))


def without_thoughts(content: str) -> tuple[str, bool, bool]:
    """(the answer, whether the model thought aloud before it, whether the answer is cut).

    Models whose template opens the block of thoughts close one that they have not opened. An empty
    block is no thought. Thoughts that do not end are an answer that is cut; so is one that is
    longer than :data:`LONGEST_TEXT`.
    """
    text, cut = clean(content[:LONGEST_TEXT]), len(content) > LONGEST_TEXT
    *_, end = [None, *_END.finditer(text)]
    if end is not None:
        thoughts = _TAG.sub("", text[: end.start()])
        return text[end.end() :].strip(), bool(thoughts.strip()), cut
    if text.lstrip().startswith(_STARTS):
        return "", True, True
    return text, False, cut


def read_tokens(entries: object, text: str, *, whole: bool) -> tuple[Token, ...]:
    """The tokens of an answer.

    None where one of them cannot be used, and so none fits; and none where those of the answer
    cannot be told from those of the thoughts before it.

    Args:
        entries: list of ``{"token": ..., "logprob": ..., "bytes": ..., "top_logprobs": ...}``.
        text: the answer.
        whole: the answer is all that the model wrote.
    """
    answer = text.encode("utf-8", "replace").strip()
    scored = _scored(entries)
    if whole or not answer:
        return tuple(token for token, _ in scored) if answer else ()
    spelt = b"".join(raw for _, raw in scored)
    *_, end = [None, *_END_IN_BYTES.finditer(spelt)]
    if end is not None:
        start = len(spelt) - len(spelt[end.end() :].lstrip())
    else:
        # rfind takes time that grows with the product of both lengths, find does not.
        behind = spelt[::-1].find(answer[::-1])
        if behind < 0:
            return ()
        start = len(spelt) - behind - len(answer)
    kept, place = [], 0
    for token, raw in scored:
        place += len(raw)
        if place > start:
            kept.append(token)
    return tuple(kept)


def _scored(entries: object) -> list[tuple[Token, bytes]]:
    """The tokens with the bytes that they stand for."""
    found, length = [], 0
    for entry in map(mapping, entries if isinstance(entries, list) else ()):
        said, logprob = entry.get("token"), _logprob(entry.get("logprob"))
        if not isinstance(said, str) or logprob is None:
            return []
        length += len(said)
        if length > LONGEST_TEXT:
            return []
        text = clean(said)
        token = Token(text, logprob, _alternatives(entry.get("top_logprobs"), text, logprob))
        found.append((token, _bytes(entry.get("bytes")) or text.encode()))
    return found


def _bytes(spelt: object) -> bytes:
    try:
        return bytes(spelt) if isinstance(spelt, list) else b""
    except (TypeError, ValueError):
        return b""


def _alternatives(given: object, text: str, logprob: float) -> tuple[tuple[str, float], ...]:
    found = list(_pairs(given)) if isinstance(given, list) else []
    # llama.cpp puts bytes of the character before into a token's text, but not into its twin's.
    if found and not any(other == text or value == logprob for other, value in found):
        found.append((text, logprob))
    return tuple(sorted(found, key=lambda pair: -pair[1])[:_MOST_ALTERNATIVES])


def _pairs(given: list[object]) -> Iterator[tuple[str, float]]:
    for alternative in map(mapping, given):
        text, logprob = alternative.get("token"), _logprob(alternative.get("logprob"))
        if isinstance(text, str) and logprob is not None:
            yield clean(text), logprob


def _logprob(value: object) -> float | None:
    """A log-probability, at least :data:`FLOOR` and at most 0; None for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(min(max(value, FLOOR), 0.0)) if value <= _ROUNDING else None  # NaN is not
