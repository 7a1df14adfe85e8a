"""The stage that asks an LLM, with as many requests in flight as its server really takes.

Documents wait here, not at the server: the queue in front of this stage is bounded, so a slow
server holds back extraction. A server that is away is waited for, and no document is failed for
it (:mod:`..classification.breaker`); one that fails over the same document four times, and answers
others in between, is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

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
    SickModelError,
)
from doc_classify.records import (
    Classification,
    Extraction,
    Failure,
    Outcome,
    Timings,
    Usage,
    document_name,
)
from doc_classify.storage.base import Task

_SICK = 50
"""Documents in a row without a category after which the model comes under suspicion."""
_FEW = 10
"""The same where these are all documents that there are."""
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
        self._refused_since: float | None = None
        self._suspects: list[Outcome] = []
        self._answered = False  # some document got a category
        self._out_of_budget = asyncio.Event()
        self._budget_error: BudgetReachedError | None = None

    @property
    def spent(self) -> Usage:
        """Everything that was asked so far, checks and documents without an outcome included."""
        return self._budget.spent

    def count_as_spent(self, calls: int) -> None:
        """Have requests of earlier runs count against the limit of this one."""
        self._budget.lower(calls)

    async def ask_again(
        self,
        documents: Sequence[ReadDocument],
        put: Callable[[Outcome], Awaitable[None]],
    ) -> None:
        """Ask about a few documents once more, and hand on how each ended.

        Raises:
            ServerSetupError, SickModelError, BudgetReachedError: as :meth:`run` does.
        """
        queue: asyncio.Queue[ReadDocument | End] = asyncio.Queue()
        for document in documents:
            queue.put_nowait(document)
        queue.put_nowait(End())
        await self.run(queue, put)

    async def run(
        self,
        documents: asyncio.Queue[ReadDocument | End],
        put: Callable[[Outcome], Awaitable[None]],
    ) -> None:
        """Work until the queue's :class:`End`.

        Raises:
            ServerSetupError: the server cannot be used, or did not come back.
            SickModelError: its model gives no document a category.
            BudgetReachedError: nothing more may be spent; what was in flight has been handed on.
        """
        stopping = asyncio.create_task(self._out_of_budget.wait())
        self._breaker = self._new_breaker()
        self._answered = False
        try:
            async with asyncio.TaskGroup() as group:
                while document := await self._next(documents, stopping):
                    await self._tasks.acquire()
                    place = await self._place()
                    if self._out_of_budget.is_set():
                        break
                    group.create_task(self._one(document, place, put))
            if self._suspects and len(self._suspects) >= _FEW and not self._answered:
                await self._clear_suspects(put)
            await self._hand_on_suspects(put)
        except BaseExceptionGroup as errors:
            # One cause is enough: the other tasks were cancelled because of it.
            raise errors.exceptions[0] from None
        finally:
            stopping.cancel()
            await self._breaker.close()
        if self._budget_error:
            raise self._budget_error

    async def _next(
        self, documents: asyncio.Queue[ReadDocument | End], stopping: asyncio.Task[bool]
    ) -> ReadDocument | None:
        """The next document; None where there is none, or where the budget is spent."""
        getting = asyncio.create_task(documents.get())
        try:
            await asyncio.wait({getting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not getting.done():
                getting.cancel()
        if not getting.done() or getting.cancelled():
            return None
        found = getting.result()
        return None if isinstance(found, End) else found

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
            failure = found if isinstance(found, Failure) else None
            outcome = Outcome(
                document_id=document.task.document_id,
                file_id=document.task.file_id,
                classification=None if isinstance(found, Failure) else found,
                failure=failure,
                extraction=document.extraction if document.fresh else None,
                timings=replace(document.timings, classify=time.monotonic() - started),
                crashes=document.crashes,
                usage=meter.usage,
            )
            if failure:
                await self._suspect(outcome, put)
            else:
                self._answered = True
                await self._hand_on_suspects(put)
                await put(outcome)
        except BudgetReachedError as error:
            self._budget_error = error
            self._out_of_budget.set()
        finally:
            # Not before the outcome was taken: what is done and not stored must not pile up.
            self._tasks.release()

    async def _suspect(self, outcome: Outcome, put: Callable[[Outcome], Awaitable[None]]) -> None:
        """Keep a failure back until it is known to be its document's.

        When many documents in a row have no category, the model is asked about a plain one. If
        that has none either, the run ends, and nothing of this is stored: the documents are as
        good as before.

        Raises:
            SickModelError: the fault is not the documents'.
        """
        self._suspects.append(outcome)
        if len(self._suspects) >= _SICK:
            await self._clear_suspects(put)

    async def _clear_suspects(self, put: Callable[[Outcome], Awaitable[None]]) -> None:
        count, failure = len(self._suspects), self._suspects[-1].failure
        if not await self._classifier.knows(self._budget):
            raise SickModelError(
                f"none of the last {count} documents got a category, and a plain invoice gets none "
                f"either; the last one: {failure.message if failure else ''}"
            )
        await self._hand_on_suspects(put)

    async def _hand_on_suspects(self, put: Callable[[Outcome], Awaitable[None]]) -> None:
        while self._suspects:
            await put(self._suspects.pop())

    async def _answer(
        self, document: ReadDocument, place: Place, meter: Meter
    ) -> Classification | Failure:
        """Ask until there is an answer; gives the place back."""
        name = document_name(document.task.source.uri)
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
                if attempts.failed(weight=2 if error.timed_out else 1):
                    return Failure(error.kind, f"{error} (again and again)")
                self._breaker.failed(error, at_once=error.unreachable)
            finally:
                self._pace.release(place, work)
            place = await self._place(ahead=attempts.ahead)

    def _succeeded(self) -> None:
        self._refused_since = None
        self._breaker.succeeded()
        if self._told:
            self._told = False
            self._on_notice(None)

    def _busy(self, place: Place, error: ServerBusyError) -> None:
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        left = self._refused_since + self._give_up - now
        if left <= 0:
            raise ServerSetupError(
                f"the server has refused every request for {self._give_up:g} s: {error}"
            ) from error
        wait = error.retry_after
        self._pace.overloaded(place, None if wait is None else min(wait, left + 1.0))
        if not self._told and self._pace.pause >= _WORTH_TELLING:
            self._told = True
            self._on_notice(f"{error}; it asks to wait {self._pace.pause:.0f} s")

    async def _check(self) -> None:
        with contextlib.suppress(BudgetReachedError):  # the next document will meet it, too
            await self._classifier.check(self._budget)
        self._pace.restart()


def _work(before: Usage, after: Usage) -> float:
    """What the server has done for an answer, in tokens of a prompt; 1 where it does not count."""
    prompt = after.prompt_tokens - before.prompt_tokens
    cached = after.cached_tokens - before.cached_tokens
    completion = after.completion_tokens - before.completion_tokens
    return max(1.0, prompt - cached + _COMPLETION_WORK * completion)
