"""The stage that asks an LLM, with as many requests in flight as its server really takes.

Documents wait here, not at the server: the queue in front of this stage is bounded, so a slow
server holds back extraction. A document is failed for what is wrong with it, never for what is
wrong with the server; a server that is away is waited for (:mod:`..classification.breaker`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from doc_classify.classification import ClassifierInput
from doc_classify.classification.breaker import Attempts, Breaker
from doc_classify.classification.budget import Budget
from doc_classify.classification.llm import LlmClassifier, Meter
from doc_classify.classification.pacing import Pace, Place
from doc_classify.errors import (
    BudgetReachedError,
    ClassificationError,
    ServerBusyError,
    ServerError,
    ServerSetupError,
)
from doc_classify.records import (
    Classification,
    Extraction,
    Failure,
    Outcome,
    Timings,
    Usage,
    display_name,
)
from doc_classify.storage.base import Task

_WORTH_TELLING = 5.0
"""Seconds of a pause that a person should know of."""
_COMPLETION_WORK = 4
"""An answer's token costs a server about as much as so many tokens of a prompt."""


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A document whose text is known.

    ``fresh``: the text is not stored yet and goes along with the outcome. ``timings`` and
    ``crashes`` are those of reading it.
    """

    task: Task
    extraction: Extraction
    fresh: bool
    timings: Timings
    crashes: int


@dataclass(frozen=True, slots=True)
class End:
    """Put on a queue by its producer when nothing more will come."""


class Asking:
    """Takes documents from a queue, asks about each, and hands on how it ended.

    Args:
        classifier: opened in this event loop.
        maximum: requests in flight at most.
        give_up: seconds without any answer after which the run is given up.
        budget: what may be spent.
        on_notice: called with what is being waited for, and with None when it is over.
    """

    def __init__(
        self,
        classifier: LlmClassifier,
        *,
        maximum: int,
        give_up: float,
        budget: Budget,
        on_notice: Callable[[str | None], None],
    ) -> None:
        self._classifier = classifier
        self._budget = budget
        self._give_up = give_up
        self._on_notice = on_notice
        self._pace = Pace(maximum)
        self._breaker = self._new_breaker()
        self._tasks = asyncio.Semaphore(maximum)
        self._told = False
        self._last_success = time.monotonic()
        self._out_of_budget: BudgetReachedError | None = None

    async def run(
        self,
        documents: asyncio.Queue[ReadDocument | End],
        put: Callable[[Outcome], Awaitable[None]],
    ) -> None:
        """Work until the queue's :class:`End`.

        Raises:
            ServerSetupError: the server cannot be used, or did not come back.
            BudgetReachedError: nothing more may be spent; what was in flight has been handed on.
        """
        self._breaker = self._new_breaker()
        self._last_success = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                while not isinstance(document := await documents.get(), End):
                    await self._tasks.acquire()
                    place = await self._place()
                    if self._out_of_budget:
                        break
                    group.create_task(self._one(document, place, put))
        except BaseExceptionGroup as errors:
            # One cause is enough: the other tasks were cancelled because of it.
            raise errors.exceptions[0] from None
        finally:
            await self._breaker.close()
        if self._out_of_budget:
            raise self._out_of_budget

    def _new_breaker(self) -> Breaker:
        return Breaker(self._check, give_up=self._give_up, on_wait=self._on_notice)

    async def _place(self, *, ahead: bool = False) -> Place:
        while True:
            await self._breaker.ready()
            place = await self._pace.acquire(ahead=ahead)
            if not self._breaker.is_open:  # it may have opened while this one waited
                return place
            self._pace.release(place, None)

    async def _one(
        self, document: ReadDocument, place: Place, put: Callable[[Outcome], Awaitable[None]]
    ) -> None:
        meter = self._classifier.meter(self._budget)
        started = time.monotonic()
        try:
            found = await self._answer(document, place, meter)
        except BudgetReachedError as error:
            self._out_of_budget = error
            return
        finally:
            self._tasks.release()
        classification, failure = (None, found) if isinstance(found, Failure) else (found, None)
        await put(
            Outcome(
                document_id=document.task.document_id,
                file_id=document.task.file_id,
                classification=classification,
                failure=failure,
                extraction=document.extraction if document.fresh else None,
                timings=Timings(document.timings.extract, time.monotonic() - started),
                crashes=document.crashes,
                usage=meter.usage,
            )
        )

    async def _answer(
        self, document: ReadDocument, place: Place, meter: Meter
    ) -> Classification | Failure:
        """Ask until there is an answer; gives the place back."""
        name = Path(display_name(document.task.source.uri)).name
        shown = ClassifierInput.of(document.extraction, name)
        attempts = Attempts(self._breaker)
        while True:
            before = meter.usage
            work: float | None = None
            try:
                classification = await self._classifier.classify(shown, meter)
                work = _work(before, meter.usage)
                self._succeeded()
                return classification
            except ClassificationError as error:
                work = _work(before, meter.usage)
                self._succeeded()  # of the server, that is
                return Failure(error.kind, str(error))
            except ServerBusyError as error:
                self._busy(place, error)
            except ServerError as error:
                if attempts.failed():
                    return Failure(error.kind, f"{error} ({attempts.count} times)")
                self._breaker.failed(error, at_once=error.unreachable)
            finally:
                self._pace.release(place, work)
            place = await self._place(ahead=attempts.ahead)

    def _succeeded(self) -> None:
        self._last_success = time.monotonic()
        self._breaker.succeeded()
        if self._told:
            self._told = False
            self._on_notice(None)

    def _busy(self, place: Place, error: ServerBusyError) -> None:
        self._pace.overloaded(place, error.retry_after)
        if not self._told and self._pace.pause >= _WORTH_TELLING:
            self._told = True
            self._on_notice(f"{error}; it asks to wait {self._pace.pause:.0f} s")
        silent = time.monotonic() - self._last_success
        if silent > self._give_up and not self._pace.in_flight > 1:
            raise ServerSetupError(
                f"the server has refused every request for {silent:.0f} s: {error}"
            ) from error

    async def _check(self) -> None:
        await self._classifier.check()
        # The model has answered: what still fails may be a document's fault.
        self._breaker.successes += 1
        self._pace.restart()


def _work(before: Usage, after: Usage) -> float:
    """What the server has done for an answer, in tokens of a prompt; 1 where it does not count."""
    prompt = after.prompt_tokens - before.prompt_tokens
    cached = after.cached_tokens - before.cached_tokens
    completion = after.completion_tokens - before.completion_tokens
    return max(1.0, prompt - cached + _COMPLETION_WORK * completion)
