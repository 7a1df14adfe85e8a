"""What is common to all servers' answers: bounded, clean, and read in little time."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from doc_classify.classification import (
    llamacpp_server,
    ollama_replies,
    openai_probe,
    openai_replies,
    replies,
    secrecy,
)
from doc_classify.classification.http import Answer
from doc_classify.classification.replies import LONGEST_TEXT, read_tokens, without_thoughts
from doc_classify.errors import DocClassifyError

LONG = 100_000
TEXTS = [
    *(sign * LONG for sign in " \n(<[{a1.,_/\"'`"),
    *(part * (LONG // len(part)) for part in ("<think>", "</think>", "</", "< ", "1,", "a ")),
    "x E " + "a" * LONG,
    "x E a" + " " * LONG,
    "the context length is " + "1" * LONG,
    "1" * LONG + " maximum",
    "sk-" + "a" * LONG,
]


def expressions() -> list[tuple[str, re.Pattern[Any]]]:
    found = []
    for module in (
        *(llamacpp_server, ollama_replies, openai_probe, openai_replies, replies, secrecy),
    ):
        for name, value in vars(module).items():
            patterns = value if isinstance(value, tuple) else [value]
            found += [
                (f"{module.__name__}.{name}", one)
                for one in patterns
                if isinstance(one, re.Pattern)
            ]
    return found


@pytest.mark.parametrize(("name", "pattern"), expressions())
def test_no_text_keeps_an_expression_busy(name: str, pattern: re.Pattern[Any]) -> None:
    for text in TEXTS:
        subject = text.encode() if isinstance(pattern.pattern, bytes) else text
        best = min(_seconds(pattern, subject) for _ in range(3))
        assert best < 0.05, (name, text[:20])


def _seconds(pattern: re.Pattern[Any], text: Any) -> float:
    start = time.perf_counter()
    for _ in pattern.finditer(text):
        pass
    return time.perf_counter() - start


@pytest.mark.parametrize("text", [*TEXTS, "a" * 8_000_000, "</think>" * 1_000_000])
def test_an_answer_of_any_length_is_read_in_little_time(text: str) -> None:
    half = {"token": text[: len(text) // 2], "logprob": -1.0}
    chosen = {"message": {"content": text, "reasoning": "so"}, "logprobs": {"content": [half] * 2}}
    openai = Answer(200, {"choices": [chosen]}, text[:2000])
    ollama = Answer(200, {"message": {"content": text}, "logprobs": [half] * 2}, text[:2000])
    failed = Answer(400, {"error": {"message": text}}, text[:2000])
    for read in (
        lambda: openai_replies.read_reply(openai),
        lambda: ollama_replies.read_reply(ollama, 4096, "here"),
        lambda: _failure(failed),
    ):
        start = time.thread_time()  # whatever else the machine does
        read()
        assert time.thread_time() - start < 0.5


def _failure(answer: Answer) -> None:
    for raise_failure in (openai_replies.raise_failure, ollama_replies.raise_failure):
        with pytest.raises(DocClassifyError):
            raise_failure(answer, "here")


def test_a_text_that_is_longer_than_any_answer_is_cut() -> None:
    assert without_thoughts("a" * LONGEST_TEXT) == ("a" * LONGEST_TEXT, False, False)
    assert without_thoughts("a" * (LONGEST_TEXT + 1)) == ("a" * LONGEST_TEXT, False, True)
    assert without_thoughts("<think>" + "a" * LONGEST_TEXT + "</think>b") == ("", True, True)


def test_tokens_that_are_longer_than_any_answer_are_left_out() -> None:
    half = {"token": "a" * (LONGEST_TEXT // 2), "logprob": -1.0}
    assert len(read_tokens([half] * 2, "a", whole=True)) == 2
    assert read_tokens([half] * 3, "a", whole=True) == ()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("<think>a</think>b", ("b", True, False)),
        ("<thinking>a</thinking>\n b ", ("b", True, False)),
        ("a </think> c</think>b", ("b", True, False)),
        ("<think>\n</think>\n\nb", ("b", False, False)),
        (" <think>a", ("", True, True)),
        ("b <think>", ("b <think>", False, False)),
        ("b\ud800", ("b?", False, False)),
    ],
)
def test_thoughts_are_taken_off(content: str, found: tuple[str, bool, bool]) -> None:
    assert without_thoughts(content) == found


def test_both_protocols_read_the_same_answer_alike() -> None:
    content = "<think>so it is</think>\nblue\ud800"
    spelt = ["<think>", "so it is", "</think>", "\n", "blue", "\ud800"]
    entries = [
        {"token": text, "logprob": -0.5, "top_logprobs": [{"token": "b\ud800", "logprob": -1}]}
        for text in spelt
    ]
    chosen = {"message": {"content": content}, "logprobs": {"content": entries}}
    first = openai_replies.read_reply(Answer(200, {"choices": [chosen]}, ""))
    said = {"message": {"content": content}, "logprobs": entries}
    second = ollama_replies.read_reply(Answer(200, said, ""), 4096, "here")
    assert first == second
    assert first.text == "blue?"
    assert [token.text for token in first.tokens] == ["blue", "?"]
    assert dict(first.tokens[0].alternatives) == {"blue": -0.5, "b?": -1.0}


def test_tokens_of_an_answer_are_found_behind_thoughts_that_hold_the_same_words() -> None:
    entries = [{"token": text, "logprob": -0.5} for text in ("blue", " or", " blue")]
    assert [token.text for token in read_tokens(entries, "blue", whole=False)] == [" blue"]


# Secrets.


def test_a_secret_is_struck_in_every_form() -> None:
    secret = 'a/b "c" é+1'
    forms = secrecy.forms_of([secret, "short", ""])
    for text in (
        secret,
        json.dumps({"x": secret}),
        json.dumps(secret).replace("/", "\\/"),
        "a%2Fb%20%22c%22%20%C3%A9%2B1",
    ):
        assert "***" in secrecy.struck(text, forms)
        assert "c" not in secrecy.struck(text, forms)
    assert secrecy.struck("short e", forms) == "short e"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://host/openai/deployments/gpt-4o-mini-2024-07-18", []),
        ("http://host/v1/models/Qwen2.5-7B-Instruct", []),
        ("http://host/v1/projects/administration", []),
        ("http://host/sk-abc/v1", ["sk-abc"]),
        ("http://host/0123456789abcdef0123/v1", ["0123456789abcdef0123"]),
        ("http://host/x/123e4567-e89b-12d3-a456-426614174abc", ["426614174abc"]),
    ],
)
def test_what_looks_like_a_key_in_an_address(address: str, shown: list[str]) -> None:
    found = secrecy.secrets_of(secrecy.URL(address))
    assert bool(found) == bool(shown)
    assert all(any(part in secret for secret in found) for part in shown)
