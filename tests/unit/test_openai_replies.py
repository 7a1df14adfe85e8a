"""What servers answer, read without trust: words for the same fault, and nonsense."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doc_classify.classification.chat import Token
from doc_classify.classification.http import Answer
from doc_classify.classification.openai_replies import raise_failure, read_reply
from doc_classify.classification.replies import FLOOR
from doc_classify.errors import ContextExceededError, DocClassifyError, ServerError
from doc_classify.records import Usage


@pytest.mark.parametrize(
    ("text", "tokens", "limit"),
    [
        (
            "This model's maximum context length is 16384 tokens. However, you requested 8192 "
            "output tokens and your prompt contains at least 8193 input tokens, for a total of "
            "at least 16385 tokens.",
            8193,
            16384,
        ),
        (
            "This model's maximum context length is 4097 tokens. However, you requested 5000 "
            "tokens (4500 in the messages, 500 in the completion). Please reduce the length of "
            "the messages or completion.",
            4500,
            4097,
        ),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 500. This model's maximum "
            "context length is 4096 tokens and your request has 4000 input tokens "
            "(500 > 4096 - 4000).",
            4000,
            4096,
        ),
        (
            "The decoder prompt (length 5019) is longer than the maximum model length of 4096. "
            "Make sure that `max_model_len` is no smaller than the number of text tokens.",
            5019,
            4096,
        ),
        (
            "The input (5163 tokens) is longer than the model's context length (4096 tokens).",
            5163,
            4096,
        ),
        (
            "Input tokens exceed the configured limit of 272,000 tokens. Your messages resulted "
            "in 509,178 tokens. Please reduce the length of the messages.",
            509178,
            272000,
        ),
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: "
            "4000 `inputs` tokens and 200 `max_new_tokens`",
            4000,
            4096,
        ),
        (
            "Prompt contains 9000 tokens and 0 draft tokens, too large for model with 8192 "
            "maximum context length",
            9000,
            8192,
        ),
        (
            "The number of tokens to keep from the initial prompt is greater than the context "
            "length. Try to load the model with a larger context length",
            None,
            None,
        ),
    ],
)
def test_ways_to_say_that_a_prompt_is_too_long(text, tokens, limit):
    answer = Answer(400, {"error": {"message": text, "type": "BadRequestError"}}, text)
    with pytest.raises(ContextExceededError) as raised:
        raise_failure(answer, "http://host/v1")
    assert (raised.value.tokens, raised.value.limit) == (tokens, limit)


def completion(**fields: Any) -> Answer:
    chosen: dict[str, Any] = {"message": {"role": "assistant", "content": "x"}}
    chosen["message"] |= {key: value for key, value in fields.items() if key != "logprobs"}
    chosen["logprobs"] = fields.get("logprobs")
    return Answer(200, {"choices": [chosen]}, "")


def test_kinds_of_content():
    assert read_reply(completion(content=None)).text == ""
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "yes"}, 7]
    reply = read_reply(completion(content=parts))
    assert (reply.text, reply.thought) == ("yes", True)
    with pytest.raises(ServerError):
        read_reply(completion(content=7))


def test_thoughts_that_do_not_end_are_an_answer_cut_short_whatever_the_server_says():
    reply = read_reply(completion(content="<think>so it"))
    assert (reply.text, reply.thought, reply.truncated) == ("", True, True)


def test_usage_that_cannot_be():
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": -1,
        "prompt_tokens_details": {"cached_tokens": 9},
    }
    answer = completion()
    answer.data["usage"] = usage
    assert read_reply(answer).usage == Usage(1, 5, 5, 0)


def test_logprobs_that_cannot_be_are_dropped_or_floored():
    def read(*entries: Any) -> tuple[Token, ...]:
        return read_reply(completion(logprobs={"content": list(entries)})).tokens

    endless = -math.inf
    top = [
        {"token": "b", "logprob": endless},
        {"token": "c", "logprob": math.nan},
        {"token": "d", "logprob": 3},
        {"token": 5, "logprob": -1},
        "e",
    ]
    [token] = read({"token": "a", "logprob": 1e-7, "top_logprobs": top})
    assert token == Token("a", 0.0, (("a", 0.0), ("b", FLOOR)))
    assert read({"token": "a", "logprob": -(10**400)}) == (Token("a", FLOOR),)
    assert read({"token": "a", "logprob": -1}, {"token": "b", "logprob": math.nan}) == ()
    assert read({"token": "a"}) == read({"token": None, "logprob": -1}) == read(None) == ()


def test_tokens_of_hidden_thoughts_that_cannot_be_told_apart_are_dropped():
    entries = [{"token": text, "logprob": -1.0} for text in ("so", " it", " is")]
    reply = read_reply(
        completion(content="blue", reasoning_content="so it is", logprobs={"content": entries})
    )
    assert (reply.text, reply.thought, reply.tokens) == ("blue", True, ())


FIELDS = (
    *("choices", "message", "content", "refusal", "reasoning", "finish_reason", "usage"),
    *("prompt_tokens", "logprobs", "token", "logprob", "top_logprobs", "type", "text"),
    *("error", "code", "param"),
)
PIECES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: (
        st.lists(parts, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), parts, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(PIECES, st.sampled_from([200, 200, 400, 404, 429, 500]))
def test_no_answer_brings_anything_but_our_own_errors(data, status):
    for sent in (data, {"choices": [data]}, {"choices": [{"message": data}]}):
        answer = Answer(status, sent, json.dumps(sent))
        try:
            raise_failure(answer, "http://host/v1")
            assert isinstance(read_reply(answer).text, str)
        except DocClassifyError:
            pass
