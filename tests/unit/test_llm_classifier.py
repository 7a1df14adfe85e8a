"""The LLM classifier on a scripted back end: what is asked, and what is made of the answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.budget import Budget
from doc_classify.classification.chat import ChatReply, ChatRequest, ServerFacts, Token
from doc_classify.classification.llm import LlmClassifier
from doc_classify.errors import (
    BudgetReachedError,
    ContextExceededError,
    InvalidAnswerError,
    ServerError,
)
from doc_classify.records import Classification, Prices, Usage
from doc_classify.taxonomy import DEFAULT_TAXONOMY

FACTS = ServerFacts("http://server", "tiny", "1", context=4096, logprobs=True, schema=True)
Answering = Callable[[ChatRequest], ChatReply]


class ScriptedBackend:
    """A double of a chat back end: answers from a function, remembers the requests."""

    name = "scripted"

    def __init__(self, answer: Answering, facts: ServerFacts = FACTS) -> None:
        self.answer = answer
        self.facts = facts
        self.requests: list[ChatRequest] = []

    async def open(self) -> ServerFacts:
        return self.facts

    async def chat(self, request: ChatRequest) -> ChatReply:
        self.requests.append(request)
        return self.answer(request)

    async def alive(self) -> None: ...

    async def close(self) -> None: ...


def says(*texts: str, usage: Usage | None = None) -> Answering:
    """Gives one text after the other, the last one again and again."""
    left = list(texts)

    def answer(request: ChatRequest) -> ChatReply:
        text = left.pop(0) if len(left) > 1 else left[0]
        counted = usage or Usage(1, len((request.system + request.user).split()) + 40, 0, 2)
        tokens = ()
        if request.logprobs:
            tokens = (Token(text, math.log(0.9), ((text, math.log(0.9)), ("con", math.log(0.1)))),)
        return ChatReply(text, counted, tokens)

    return answer


def classify(
    backend: ScriptedBackend,
    text: str = "Dear Sir",
    *,
    budget: Budget | None = None,
    reasoning: bool = False,
) -> tuple[Classification, Usage]:
    async def run() -> tuple[Classification, Usage]:
        classifier = LlmClassifier(
            backend,
            DEFAULT_TAXONOMY,
            context=4096,
            document_tokens=1500,
            include_reasoning=reasoning,
        )
        async with classifier:
            meter = classifier.meter(budget or Budget())
            try:
                return await classifier.classify(ClassifierInput(text), meter), meter.usage
            finally:
                backend.usage = meter.usage  # type: ignore[attr-defined]

    return asyncio.run(run())


def test_one_request_is_enough():
    backend = ScriptedBackend(says("reports"))
    classification, usage = classify(backend)
    assert (classification.category, classification.score) == ("reports", 0.9)
    assert not classification.needs_review and classification.confidence is None
    assert usage.calls == 1 and usage.completion_tokens == 2
    request = backend.requests[0]
    assert request.schema is None and request.logprobs and request.max_tokens < 20


def test_a_chatty_answer_is_asked_again_for_json():
    backend = ScriptedBackend(says("This looks like a report", '{"category": "reports"}'))
    classification, usage = classify(backend)
    assert classification.category == "reports" and usage.calls == 2
    assert backend.requests[1].schema is not None
    assert backend.requests[0].system == backend.requests[1].system


def test_what_is_never_a_category_is_a_failure_not_other():
    backend = ScriptedBackend(says("I cannot\x1b[31m tell <b>"))
    with pytest.raises(InvalidAnswerError, match="none of the categories") as caught:
        classify(backend)
    assert "\x1b" not in str(caught.value)
    assert backend.usage.calls == 2  # type: ignore[attr-defined]


def test_no_answer_at_all_is_a_failure_too():
    backend = ScriptedBackend(lambda _request: ChatReply("", Usage(1), truncated=True))
    with pytest.raises(InvalidAnswerError, match="no answer in the tokens it had"):
        classify(backend)


def test_without_log_probabilities_there_is_no_score():
    facts = replace(FACTS, logprobs=False)
    backend = ScriptedBackend(says('{"category": "research"}'), facts)
    classification, usage = classify(backend)
    assert (classification.category, classification.score) == ("research", None)
    assert classification.scores == () and not classification.needs_review
    assert usage.calls == 1 and backend.requests[0].schema


def test_a_server_that_knows_nothing_but_text():
    backend = ScriptedBackend(says("research"), replace(FACTS, logprobs=False, schema=False))
    classification, _ = classify(backend)
    assert classification.category == "research"
    assert backend.requests[0].schema is None and not backend.requests[0].logprobs


def test_a_model_that_thinks_gets_room_for_it():
    backend = ScriptedBackend(says('{"category": "other"}'), replace(FACTS, thinks=True))
    classification, usage = classify(backend)
    assert classification.category == "other" and usage.calls == 1
    assert backend.requests[0].max_tokens > 1000


def test_reasoning_comes_before_the_category():
    answer = '{"reasoning": "It asks\\n for payment.", "category": "invoices"}'
    backend = ScriptedBackend(says(answer))
    classification, _ = classify(backend, reasoning=True)
    assert classification.category == "invoices"
    assert classification.reasoning == "It asks for payment."
    schema = backend.requests[0].schema
    assert schema is not None and list(schema["properties"]) == ["reasoning", "category"]


def test_an_even_answer_is_for_review():
    def even(_request: ChatRequest) -> ChatReply:
        half = math.log(0.5)
        return ChatReply("reports", Usage(1), (Token("rep", half, (("rep", half), ("con", half))),))

    assert classify(ScriptedBackend(even))[0].needs_review


def test_a_prompt_that_is_too_long_is_shortened_by_what_the_server_counts():
    def strict(request: ChatRequest) -> ChatReply:
        count = len(request.user) // 2
        if count > 900:
            raise ContextExceededError("too long", tokens=count, limit=900)
        return says("reports")(request)

    backend = ScriptedBackend(strict)
    classification, usage = classify(backend, "the words of a long report " * 500)
    assert classification.category == "reports" and usage.calls == 2
    assert "left out" in backend.requests[1].user


def test_a_prompt_that_never_fits_is_a_failure():
    def never(_request: ChatRequest) -> ChatReply:
        raise ContextExceededError("too long")

    backend = ScriptedBackend(never)
    with pytest.raises(ContextExceededError):
        classify(backend, "words " * 3000)
    assert len(backend.requests) == 3


def test_a_server_that_cuts_prompts_in_silence_is_found_out():
    """It counts fewer tokens than the prompt has words: it has not seen them all."""
    backend = ScriptedBackend(says("reports", usage=Usage(1, 150, 0, 1)))
    with pytest.raises(ContextExceededError, match="cuts prompts"):
        classify(backend, "words " * 1000)


def test_a_server_that_does_not_count_is_believed():
    backend = ScriptedBackend(says("reports", usage=Usage(1)))
    assert classify(backend, "words " * 1000)[0].category == "reports"


def test_failed_requests_count_as_calls():
    def away(_request: ChatRequest) -> ChatReply:
        raise ServerError("gone")

    backend = ScriptedBackend(away)
    budget = Budget()
    with pytest.raises(ServerError):
        classify(backend, budget=budget)
    assert budget.spent == Usage(calls=1)


def test_the_context_of_the_server_is_the_limit():
    small = ScriptedBackend(says("reports"), replace(FACTS, context=1024))
    classify(small, "words " * 3000)
    assert len(small.requests[0].user.split()) < 700


def test_the_fingerprint_covers_model_and_prompt():
    def fingerprint(facts: ServerFacts = FACTS, tokens: int = 1500) -> str:
        async def run() -> str:
            classifier = LlmClassifier(
                ScriptedBackend(says("x"), facts),
                DEFAULT_TAXONOMY,
                context=4096,
                document_tokens=tokens,
            )
            async with classifier:
                return classifier.fingerprint

        return asyncio.run(run())

    changed = [
        fingerprint(),
        fingerprint(replace(FACTS, version="2")),
        fingerprint(replace(FACTS, model="small")),
        fingerprint(tokens=700),
        fingerprint(replace(FACTS, logprobs=False)),
    ]
    assert len(set(changed)) == len(changed)
    # Where the server stands is no part of what it answers.
    assert fingerprint(replace(FACTS, address="http://elsewhere")) == changed[0]


def test_a_budget_of_calls_is_kept():
    async def main() -> None:
        budget = Budget(max_calls=3)
        for _ in range(3):
            budget.settle(await budget.hold(Usage(1, 10, 0, 5)), Usage(1, 9, 0, 1))
        with pytest.raises(BudgetReachedError, match="3 LLM requests"):
            await budget.hold(Usage(1))

    asyncio.run(main())


def test_a_budget_of_money_is_never_passed():
    """What is in flight counts as if it cost the most that it can, until it is settled."""

    async def main() -> None:
        budget = Budget(Prices(prompt=1000.0, completion=2000.0), max_cost=1.0)
        most = Usage(1, 200, 0, 50)  # 0.3
        held = [await budget.hold(most) for _ in range(3)]
        waiting = asyncio.create_task(budget.hold(most))
        await asyncio.sleep(0)
        assert not waiting.done()
        for cost in held:
            budget.settle(cost, Usage(1, 100, 0, 10))  # 0.12 each
        assert await waiting == pytest.approx(0.3)
        assert budget.prices.cost(budget.spent) == pytest.approx(0.36)
        # Nobody knows what this one has cost: it may have been all of it.
        budget.settle(0.3, Usage(1), known=False)
        budget.settle(await budget.hold(most), Usage(1, 200, 0, 50))
        with pytest.raises(BudgetReachedError, match="max_cost"):
            await budget.hold(most)

    asyncio.run(main())


def test_requests_that_end_without_a_count_are_taken_for_dear():
    def away(_request: ChatRequest) -> ChatReply:
        raise ServerError("cut off", timed_out=True)

    budget = Budget(Prices(prompt=1000.0), max_cost=1.5)
    for _ in range(1):
        with pytest.raises(ServerError):
            classify(ScriptedBackend(away), budget=budget)
    with pytest.raises(BudgetReachedError):
        classify(ScriptedBackend(away), budget=budget)


def test_cached_tokens_have_their_own_price():
    usage = Usage(1, 1_000_000, 600_000, 100_000)
    assert Prices(1.0, 10.0).cost(usage) == pytest.approx(2.0)
    assert Prices(1.0, 10.0, cached=0.5).cost(usage) == pytest.approx(1.7)
