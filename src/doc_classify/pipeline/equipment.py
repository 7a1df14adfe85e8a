"""What the stages of a run work with, made once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from doc_classify.classification.llm import LlmClassifier
from doc_classify.pipeline.asking import Asking
from doc_classify.pipeline.copies import FETCH_THREADS
from doc_classify.pipeline.isolation import IsolatedWorker
from doc_classify.pipeline.messages import WorkerConfig
from doc_classify.pipeline.plan import Plan
from doc_classify.records import Usage

_T = TypeVar("_T")

_HASH_THREADS = 4


class Equipment:
    """What costs time to make: worker processes, threads, the pace of the LLM's server.

    Made once and used for one run, or for many chunks of runs that classify in the same way.
    Belongs to one event loop.

    Args:
        plan: how to classify.
        classifier: the LLM to be asked, opened; None where the workers classify.
        on_notice: called in the event loop with what is waited for, None when it is over.
    """

    def __init__(
        self,
        plan: Plan,
        classifier: LlmClassifier | None = None,
        on_notice: Callable[[str | None], None] | None = None,
    ) -> None:
        self.plan = plan
        self.store_thread = ThreadPoolExecutor(1, "store")
        self.intake_thread = ThreadPoolExecutor(1, "intake")
        self.hash_threads = ThreadPoolExecutor(_HASH_THREADS, "hash")
        self.fetch_threads = ThreadPoolExecutor(FETCH_THREADS, "fetch")
        self._config = plan.worker_config()
        self.workers = self._made()
        self.asking: Asking | None = None
        if classifier:
            self.asking = Asking(
                classifier,
                maximum=plan.max_concurrent,
                give_up=plan.give_up,
                budget=plan.budget(),
                on_notice=on_notice or (lambda _notice: None),
            )

    async def employ(self, config: WorkerConfig) -> None:
        """Have worker processes that are told something else; those of before are ended."""
        if config == self._config:
            return
        await self.close_workers()
        self._config = config
        self.workers = self._made()

    def _made(self) -> list[IsolatedWorker]:
        return [
            IsolatedWorker(self._config, recycle_after=self.plan.recycle_after)
            for _ in range(self.plan.workers)
        ]

    @property
    def spent(self) -> Usage | None:
        """What the LLM was asked so far; None where there is none."""
        return self.asking.spent if self.asking else None

    async def in_store(self, work: Callable[[], _T]) -> _T:
        """Run ``work`` in the one thread that talks to the store."""
        return await asyncio.get_running_loop().run_in_executor(self.store_thread, work)

    async def close(self) -> None:
        """End the worker processes and the threads; what the threads do is finished first."""
        await self.close_workers()
        self.shut()

    async def close_workers(self) -> None:
        """End the worker processes, all at once."""
        await asyncio.gather(*(worker.stop() for worker in self.workers))

    def shut(self) -> None:
        """Let the threads finish and end. Safe to call twice."""
        for threads in (
            self.intake_thread,
            self.hash_threads,
            self.fetch_threads,
            self.store_thread,
        ):
            threads.shutdown(wait=True, cancel_futures=True)
