"""One process that works on chunks of distributed runs, one after the other.

Knows nothing of a broker: it is told a run and a number, claims that chunk in the ledger, takes its
files through the same stages as a run on one machine, and says so in the ledger. What is costly
(worker process, connections, model, pace) is kept from chunk to chunk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from doc_classify.classification.llm import LlmClassifier
from doc_classify.classification.opening import open_classifier
from doc_classify.errors import (
    CannotGoOnError,
    ConfigurationError,
    DocClassifyError,
    HopelessError,
    ServerError,
    ServerSetupError,
    SickModelError,
    StorageError,
)
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.pipeline.cascade_run import CascadeJobs, list_only
from doc_classify.pipeline.equipment import Equipment
from doc_classify.pipeline.plan import Plan, settings_of_run
from doc_classify.pipeline.stages import Stages
from doc_classify.records import FILE_SCHEME, Rejected, Source, uri_to_path
from doc_classify.settings import Settings
from doc_classify.storage.base import RunSpec
from doc_classify.storage.chunks import FAILED, REST, SAMPLE, SETTLE, ChunkLedger, Claim
from doc_classify.storage.store import SqlStore
from doc_classify.taxonomy import Taxonomy

_RENEWALS = 5
"""Times that a lease is renewed before it would end."""
_BREAK_OFF_LIMIT = 5.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0

_logger = logging.getLogger("doc_classify.worker")


class CannotWorkError(CannotGoOnError):
    """This worker cannot do chunks of that run, though others may: it should take a rest."""

    kind = "worker"


@dataclass(slots=True)
class _Bench:
    """What is set up for one way to classify."""

    key: tuple[Any, ...]
    plan: Plan
    equipment: Equipment
    resources: AsyncExitStack

    async def close(self) -> None:
        await self.equipment.close()
        await self.resources.aclose()


class ChunkWorker:
    """Works on chunks. Made once per process; its methods are called from one thread.

    Args:
        settings: of this machine: where the LLM server is, limits of memory and time. How to
            classify comes from the run.
        store: the ledger.
        share: processes like this one on the machine, which share its requests to the LLM.
    """

    def __init__(self, settings: Settings, store: SqlStore, *, share: int = 1) -> None:
        self._settings = settings.changed(
            workers=1,
            max_concurrent=max(1, settings.max_concurrent // share),
            # Limits of a whole run; a worker sees but its part of it.
            max_llm_calls=None,
            max_cost=None,
        )
        self._lease = settings.lease_seconds
        self._store = store
        self._ledger = ChunkLedger(store)
        self._holder = f"{socket.gethostname()} pid {os.getpid()}"
        self._runner: asyncio.Runner | None = None
        self._bench: _Bench | None = None
        self._run_id = ""
        self._students: tempfile.TemporaryDirectory[str] | None = None

    def work(self, run_id: str, number: int) -> bool:
        """Do a chunk; False where there was nothing to do, since others have it or had it.

        Raises:
            CannotWorkError: the documents cannot be seen from here, or this worker would classify
                them in another way than the run's others do. The chunk was handed back.
            DocClassifyError: the database or the LLM server is away for good, or the like. The
                chunk was handed back where that was possible; else its lease ends.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            return self._runner.run(self._work(run_id, number))
        except DocClassifyError:
            raise
        except BaseException:
            # A time limit or a signal struck somewhere in the loop: it cannot be trusted.
            self.close()
            raise

    def close(self) -> None:
        """End the worker process and give back connections; safe to call twice."""
        runner, self._runner = self._runner, None
        bench, self._bench = self._bench, None
        students, self._students = self._students, None
        if students:
            students.cleanup()
        if runner is None:
            return
        try:
            with runner:
                runner.run(_break_off(bench))
        except Exception:
            # Nothing hangs on it: a new loop is made for the next chunk, and the error that led
            # here goes on. But somebody should know.
            _logger.warning("what a broken chunk left could not be put away", exc_info=True)

    async def _work(self, run_id: str, number: int) -> bool:
        claim = self._ledger.claim(run_id, number, self._holder, self._lease)
        if claim is None:
            return False
        self._run_id = run_id
        claims = [claim]
        renewing = asyncio.create_task(self._renew(claims))
        try:
            if claim.is_last:
                self._give_up(claim)
            elif claim.job:
                await self._do_jobs(claims)
            else:
                await self._process(claims)
            finished = [self._ledger.finish(claim) for claim in claims]
            return all(finished)
        except HopelessError as error:
            self._hand_back(claims, str(error))
            self._ledger.end(run_id, FAILED, str(error))
            raise
        except SickModelError as error:
            # Every chunk would end like this one: the run waits until somebody resumes it.
            self._hand_back(claims, str(error))
            self._ledger.end(run_id, FAILED, str(error))
            raise
        except DocClassifyError as error:
            with contextlib.suppress(StorageError):  # the leases will end, too
                self._hand_back(claims, f"{self._holder}: {error}")
            raise
        finally:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing

    def _hand_back(self, claims: Sequence[Claim], reason: str) -> None:
        for claim in claims:
            self._ledger.hand_back(claim, reason)

    async def _renew(self, claims: list[Claim]) -> None:
        while True:
            await asyncio.sleep(self._lease / _RENEWALS)
            for claim in list(claims):
                with contextlib.suppress(StorageError):
                    # If somebody else has it by now, whatever we store does no harm.
                    await asyncio.to_thread(self._ledger.renew, claim, self._lease)

    async def _process(self, claims: list[Claim]) -> None:
        """Do the first chunk, and for a while others of its run, which are added to ``claims``.

        From one chunk to the next everything would come to rest: the last requests to an LLM, the
        last document that is read. So the next chunk is begun while the last one is being done.
        """
        claim = claims[0]
        spec = self._spec(claim)
        bench = await self._prepared(claim.run_id, spec)
        if bench.plan.promise:
            listing = list_only(
                self._store, bench.equipment, claim.run_id, self._sources(claims, spec), again=True
            )
            async for _ in listing:
                pass
            return
        # Whoever had the chunk before may have registered its files, and then handed it back.
        stages = Stages(
            self._store,
            bench.equipment,
            claim.run_id,
            again=True,
            taken_in=max(1, len(claim.sources)),
        )
        try:
            await stages.work(self._sources(claims, spec))
        except DocClassifyError:
            # Broken off somewhere: places of requests may be taken, the budget may be spent.
            await self._put_away()
            raise

    async def _do_jobs(self, claims: list[Claim]) -> None:
        """Do a job of a cascade, and for a while others of the same kind."""
        claim: Claim | None = claims[0]
        bench = await self._prepared(claims[0].run_id, self._spec(claims[0]))
        until = time.monotonic() + min(self._settings.stretch_seconds, self._lease / 2)
        try:
            while claim:
                spec = self._spec(claim)
                if self._students is None:
                    self._students = tempfile.TemporaryDirectory(prefix="doc-classify-student-")
                jobs = CascadeJobs(
                    self._store,
                    bench.equipment,
                    claim.run_id,
                    spec,
                    Path(self._students.name),
                    self._tell_stage,
                )
                if claim.job == SAMPLE:
                    parts = await jobs.sample(self._settings.distributed_chunk_size)
                    self._ledger.add_jobs(claim.run_id, REST, parts)
                elif claim.job == SETTLE:
                    await jobs.settle()
                else:
                    await jobs.rest(claim.part)
                if claim.job != REST or time.monotonic() >= until:
                    return
                claim = self._ledger.claim_another(claim.run_id, self._holder, self._lease, REST)
                if claim:
                    claims.append(claim)
        except DocClassifyError:
            await self._put_away()
            raise

    def _tell_stage(self, text: str) -> None:
        _logger.info("cascade: %s", text)

    def _spec(self, claim: Claim) -> RunSpec:
        found = self._ledger.spec(claim.run_id)
        if found is None:
            raise ConfigurationError(f"there is no run {claim.run_id!r}")
        self._look_for(claim, found[0])
        return found[0]

    def _sources(self, claims: list[Claim], spec: RunSpec) -> Iterator[Source]:
        """The files of the first chunk, then those of others as long as there is time."""
        until = time.monotonic() + min(self._settings.stretch_seconds, self._lease / 2)
        claim: Claim | None = claims[0]
        while claim:
            yield from claim.sources
            if time.monotonic() >= until:
                return
            claim = self._ledger.claim_another(claim.run_id, self._holder, self._lease)
            if claim:
                claims.append(claim)
                self._look_for(claim, spec)

    def _look_for(self, claim: Claim, spec: RunSpec) -> None:
        """Make sure that the documents can be seen at all from this machine.

        One file of the chunk is proof enough, or else the first that the run has met: without
        either, this is a machine where the documents are not, and no chunk of deleted files.
        """
        witness = str(spec.settings.get("witness") or "")
        shown = [source.uri for source in claim.sources] + [witness]
        if not any(map(_is_there, shown)):
            raise CannotWorkError(
                f"the documents of {spec.source} cannot be seen from {socket.gethostname()}: is "
                "their file system mounted here, at the same place?"
            )

    async def _prepared(self, run_id: str, spec: RunSpec) -> _Bench:
        """The bench for a run; that of the last chunk, if that run classified in the same way."""
        if self._bench and spec.fingerprint and self._bench.key == _key(spec):
            return self._bench
        await self._put_away()
        resources = AsyncExitStack()
        try:
            plan, llm = await self._plan(spec, resources)
            bound = self._ledger.bind(run_id, plan.spec(spec.source, spec.door))
            if bound.fingerprint != plan.fingerprint:
                raise CannotWorkError(
                    f"worker {socket.gethostname()} would classify in another way than run "
                    f"{run_id} began with ({plan.classifier} {plan.model or ''} here, "
                    f"{bound.classifier} {bound.settings.get('model') or ''} there): its version "
                    "of doc-classify, its model or its settings differ"
                )
            equipment = Equipment(plan, llm, self._notice)
        except BaseException:
            await resources.aclose()
            raise
        self._bench = _Bench(_key(bound), plan, equipment, resources)
        return self._bench

    async def _put_away(self) -> None:
        bench, self._bench = self._bench, None
        if bench:
            await bench.close()

    async def _plan(
        self, spec: RunSpec, resources: AsyncExitStack
    ) -> tuple[Plan, LlmClassifier | None]:
        stored: Any = spec.settings
        settings = settings_of_run(self._settings, spec)
        taxonomy = Taxonomy.from_dict(stored["taxonomy"], "stored run")
        reasoning = bool(stored["include_reasoning"])
        wait = _FIRST_WAIT
        waited = 0.0
        while True:
            opening = open_classifier(
                settings,
                taxonomy,
                include_reasoning=reasoning,
                digest=stored.get("model_digest"),
            )
            try:
                chosen = await resources.enter_async_context(opening)
                if waited:
                    self._notice(None)
                break
            except ConfigurationError as error:
                # Such as a model file that is not here, or not that of the run.
                raise CannotWorkError(f"worker {socket.gethostname()}: {error}") from error
            except ServerError as error:
                if waited >= settings.llm_give_up:
                    raise ServerSetupError(f"{error} (for {waited:.0f} s)") from error
                self._notice(f"{error}; trying again in {wait:.0f} s")
            await asyncio.sleep(wait)
            waited += wait
            wait = min(2 * wait, _LONGEST_WAIT)
        plan = Plan.make(
            settings,
            chosen.classifier,
            taxonomy=taxonomy,
            options=ExtractionOptions.from_dict(stored["extraction"]),
            include_reasoning=reasoning,
            force=spec.force,
        )
        plan = replace(plan, store_text=spec.store_text)
        _logger.info("classifier: %s", chosen.reason)
        llm = chosen.classifier if isinstance(chosen.classifier, LlmClassifier) else None
        return plan, llm

    def _notice(self, text: str | None) -> None:
        if text:
            _logger.warning("%s", text)
        asyncio.get_running_loop().run_in_executor(None, self._tell, self._run_id, text)

    def _tell(self, run_id: str, text: str | None) -> None:
        with contextlib.suppress(StorageError):  # it was for information
            self._ledger.note(run_id, self._holder, text)

    def _give_up(self, claim: Claim) -> None:
        """Record the files of a chunk that has ended its workers again and again as failed."""
        if claim.job:
            reason = f"the job {claim.job!r} of the cascade was given up again and again"
            self._ledger.end(claim.run_id, FAILED, reason)
            return
        reason = f"its chunk was given up after {claim.attempts - 1} attempts"
        rejected = [Rejected(source.uri, "given_up", reason) for source in claim.sources]
        self._store.reject(claim.run_id, rejected, again=True)


async def _break_off(bench: _Bench | None) -> None:
    """End what is still under way, and only then what it works with: else it would seem to die."""
    under_way = asyncio.all_tasks() - {asyncio.current_task()}
    for task in under_way:
        task.cancel()
    if under_way:
        await asyncio.wait(under_way, timeout=_BREAK_OFF_LIMIT)
    if bench:
        await bench.close()


def _key(spec: RunSpec) -> tuple[Any, ...]:
    """What decides whether two runs can be worked on with the same equipment."""
    return spec.fingerprint, spec.force, spec.store_text, repr(spec.settings.get("prices"))


def _is_there(uri: str) -> bool:
    """Whether a file can be seen; objects of a store are asked for when their turn comes."""
    if not uri.startswith(FILE_SCHEME):
        return bool(uri)
    return os.path.lexists(uri_to_path(uri))
