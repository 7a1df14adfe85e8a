"""The classifier that asks a large language model, whichever server runs it.

A document costs one request in most cases: the answer is the bare name of a category, and the
log-probabilities of its tokens give the score. Where the answer is none of the names, or where the
server gives no choice, the question is asked again for JSON that a schema confines to the names.
An answer that is still none of them is a failure of that document; nothing is guessed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from types import TracebackType

from doc_classify.classification.base import ClassifierInput
from doc_classify.classification.budget import Budget
from doc_classify.classification.chat import ChatBackend, ChatReply, ChatRequest, ServerFacts
from doc_classify.classification.decoding import Decision, Decoder
from doc_classify.classification.explaining import Asked, Check, Explanation, needs_review
from doc_classify.classification.prompt import TEMPLATE_TOKENS, Prompt, Question
from doc_classify.classification.tokens import estimated_tokens, fewest_tokens
from doc_classify.errors import (
    ClassificationError,
    ContextExceededError,
    InvalidAnswerError,
    ServerBusyError,
    ServerError,
    ServerSetupError,
)
from doc_classify.records import Classification, Usage
from doc_classify.taxonomy import Taxonomy
from doc_classify.terminal import one_line

_DECODING_VERSION = 1
"""To be raised with every change that can turn the same answer into another category."""

_REVIEW_MARGIN, _REVIEW_MASS = 0.2, 0.5
_THINKING_TOKENS = 1_024
"""More tokens for an answer of a model that cannot be kept from thinking aloud."""
_SHRINK_TRIES = 3
_CHECK_SECONDS = 60.0
_LEAST_CONTEXT = 128
_PLAIN = ClassifierInput(
    "Invoice no. 1234\nDate: 3 May 2021\nTo: Miller Ltd\n10 chairs at 45.00 each: 450.00\n"
    "VAT 19 %: 85.50\nTotal amount due: 535.50\nPlease pay within 30 days.",
    name="invoice.txt",
)
_SAFE_SHARE = 0.9
_LEAST_TOKENS = 32
_SHOWN = 80


class Meter:
    """Sends the requests of one document, and counts what they use, the failed ones included."""

    def __init__(self, backend: ChatBackend, budget: Budget) -> None:
        self._backend = backend
        self._budget = budget
        self.usage = Usage()
        self.last: ChatRequest | None = None
        """The request that was sent last."""

    async def ask(self, request: ChatRequest) -> ChatReply:
        """Send one request within the budget; raises as :meth:`.ChatBackend.chat` does.

        Raises:
            BudgetReachedError: the run may not spend it.
        """
        # No tokenizer has more tokens than bytes.
        prompt = len(request.system.encode()) + len(request.user.encode()) + TEMPLATE_TOKENS
        held = await self._budget.hold(Usage(1, prompt, 0, request.max_tokens))
        self.last = request
        used, known = Usage(calls=1), False
        try:
            reply = await self._backend.chat(request)
            used, known = reply.usage, True
            return reply
        except ClassificationError as error:
            used, known = error.usage or used, True  # refused before it cost anything
            raise
        except (ServerBusyError, ServerSetupError):
            known = True
            raise
        except ServerError as error:
            known = error.unreachable
            raise
        finally:
            self._budget.settle(held, used, known=known)
            self.usage += used


class LlmClassifier:
    """Puts documents into categories by asking a model; belongs to one event loop.

    Args:
        backend: the server; opened and closed with this object (``async with``).
        taxonomy: the categories.
        context: tokens that prompt and answer may have together.
        document_tokens: tokens of a document that the model sees.
        include_reasoning: ask for the reason as well.

    Raises:
        ConfigurationError: the taxonomy leaves no room for a document.
    """

    def __init__(
        self,
        backend: ChatBackend,
        taxonomy: Taxonomy,
        *,
        context: int,
        document_tokens: int,
        include_reasoning: bool = False,
    ) -> None:
        self.backend = backend
        self._taxonomy = taxonomy
        self._context = context
        self._wanted_tokens = document_tokens
        self._include_reasoning = include_reasoning
        self._decoder = Decoder(taxonomy)
        self._prompt = self._make_prompt(context)
        self._facts: ServerFacts | None = None

    async def __aenter__(self) -> LlmClassifier:
        try:
            self._facts = facts = await self.backend.open()
            if facts.context is not None and facts.context < self._context:
                self._prompt = self._make_prompt(facts.context)
        except BaseException:
            await self.backend.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.backend.close()

    @property
    def name(self) -> str:
        """Short name as in ``--classifier``."""
        return self.backend.name

    @property
    def facts(self) -> ServerFacts:
        """What is known of server and model; only after opening."""
        if self._facts is None:
            raise RuntimeError("the classifier is not open")
        return self._facts

    @property
    def model(self) -> str:
        """The model's name."""
        return self.facts.model

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same document could get another answer; only after opening."""
        facts = self.facts
        parts = [
            _DECODING_VERSION,
            self._prompt.fingerprint,
            facts.model,
            facts.version,
            facts.logprobs,
            facts.schema,
            facts.thinks,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def meter(self, budget: Budget) -> Meter:
        """For the requests of one document."""
        return Meter(self.backend, budget)

    async def check(self, budget: Budget) -> None:
        """Make sure that the model answers at all, with as small a question as there is.

        Raises:
            ServerError, ServerSetupError: it does not.
            BudgetReachedError: not even this may be asked.
        """
        await self.backend.alive()
        question = ChatRequest(system=self._prompt.system, user="Answer: yes", max_tokens=1)
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self.meter(budget).ask(question)
        except TimeoutError:
            raise ServerError(f"no answer within {_CHECK_SECONDS:g} s") from None
        except ClassificationError:
            pass  # it is there, and does not like the question

    async def knows(self, budget: Budget) -> bool:
        """Whether a plain document gets a category, whichever: the model can do what it must.

        Raises:
            ServerError, ServerSetupError, BudgetReachedError: as :meth:`classify` does.
        """
        try:
            await self.classify(_PLAIN, self.meter(budget))
        except ClassificationError:
            return False
        return True

    async def classify(self, document: ClassifierInput, meter: Meter) -> Classification:
        """Ask about one document.

        Raises:
            InvalidAnswerError, ContextExceededError, RefusedError: no category for this document.
            ServerError: the server failed; the same document may be asked about again.
            ServerSetupError, BudgetReachedError: nothing more can be asked.
        """
        return _classification(await self._decide(document, meter))

    async def explain(self, document: ClassifierInput, meter: Meter) -> Explanation:
        """Ask about one document, and tell what was asked; raises as :meth:`classify` does."""
        decision = await self._decide(document, meter)
        system, user = (meter.last.system, meter.last.user) if meter.last else ("", "")
        asked = Asked(
            system=len(system),
            user=len(user),
            tokens=estimated_tokens(system) + estimated_tokens(user),
            label_mass=decision.label_mass,
            usage=meter.usage,
        )
        return Explanation(_classification(decision), _checks(decision), asked=asked)

    async def _decide(self, document: ClassifierInput, meter: Meter) -> Decision:
        if self._include_reasoning:
            reply = await self._ask(document, self._prompt.with_reasoning, meter)
            decision = self._decoder.json(reply)
        else:
            decision = None
            # A model that thinks first has no use for a short answer.
            if not self.facts.thinks and (self.facts.logprobs or not self.facts.schema):
                reply = await self._ask(document, self._prompt.by_name, meter)
                decision = self._decoder.name(reply)
            if decision is None:
                reply = await self._ask(document, self._prompt.by_json, meter)
                decision = self._decoder.json(reply) or self._decoder.name(reply)
        if decision is None:
            raise InvalidAnswerError(_complaint(reply))
        return decision

    async def _ask(self, document: ClassifierInput, question: Question, meter: Meter) -> ChatReply:
        """Ask; where the prompt turns out too long for the server, with less of the document."""
        tokens = self._prompt.document_tokens
        for left in reversed(range(_SHRINK_TRIES)):
            try:
                return await self._ask_once(document, question, meter, tokens)
            except ContextExceededError as error:
                tokens = self._shorter(document, question, tokens, error)
                if not left or tokens < _LEAST_TOKENS:
                    raise
        raise AssertionError("unreachable")

    def _shorter(
        self,
        document: ClassifierInput,
        question: Question,
        tokens: int,
        error: ContextExceededError,
    ) -> int:
        """Tokens of the document that should fit, by the server's own count where it told one."""
        user = self._prompt.user(document, question, tokens=tokens)
        shown = min(tokens, estimated_tokens(user))
        if error.tokens is None or error.limit is None or error.tokens <= error.limit:
            return shown // 2
        ours = estimated_tokens(self._prompt.system) + estimated_tokens(user)
        excess = (error.tokens - error.limit + question.max_tokens) * ours / error.tokens
        return int(_SAFE_SHARE * (shown - excess))

    async def _ask_once(
        self, document: ClassifierInput, question: Question, meter: Meter, tokens: int
    ) -> ChatReply:
        facts = self.facts
        user = self._prompt.user(document, question, tokens=tokens)
        reply = await meter.ask(
            ChatRequest(
                system=self._prompt.system,
                user=user,
                max_tokens=question.max_tokens + (_THINKING_TOKENS if facts.thinks else 0),
                schema=question.schema if facts.schema else None,
                logprobs=facts.logprobs,
            )
        )
        # Some servers leave cached tokens out, and some count in a way of their own: what is less
        # than any context is no count of a prompt that was cut.
        counted = reply.usage.prompt_tokens + reply.usage.cached_tokens
        least = fewest_tokens(self._prompt.system) + fewest_tokens(user)
        if _LEAST_CONTEXT <= counted < least:
            raise ContextExceededError(
                f"the server has read {counted} tokens of a prompt of {least} words: it cuts "
                "prompts to a shorter context than was asked for"
            )
        return reply

    def _make_prompt(self, context: int) -> Prompt:
        return Prompt(
            self._taxonomy,
            context=context,
            document_tokens=self._wanted_tokens,
            include_reasoning=self._include_reasoning,
        )


def _classification(decision: Decision) -> Classification:
    return Classification(
        category=decision.category,
        score=dict(decision.scores).get(decision.category),
        scores=decision.scores,
        needs_review=needs_review(_checks(decision)),
        reasoning=decision.reasoning,
    )


def _checks(decision: Decision) -> tuple[Check, ...]:
    """Nothing can be checked where the server tells no probabilities."""
    scores = dict(decision.scores)
    score = scores.pop(decision.category, None)
    margin = mass = None
    if score is not None:
        margin = round(score - max(scores.values()), 4)
        mass = decision.label_mass or 0.0
    return (
        Check("margin to the runner-up", margin, _REVIEW_MARGIN, "the model wavers"),
        Check(
            "probability of any category",
            mass,
            _REVIEW_MASS,
            "the model would rather have answered something else",
        ),
    )


def _complaint(reply: ChatReply) -> str:
    if not reply.text.strip():
        return "the LLM gave no answer" + (" in the tokens it had" if reply.truncated else "")
    return f"the LLM's answer is none of the categories: {one_line(reply.text[:_SHOWN])!r}"
