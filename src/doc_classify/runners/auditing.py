"""The door to audits: the run's LLM opened again, and asked about documents drawn afresh."""

from __future__ import annotations

from typing import Any

from doc_classify.classification.llm import LlmClassifier
from doc_classify.classification.opening import open_classifier
from doc_classify.errors import ConfigurationError
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.pipeline.lot_audit import LotAudit, faults_of
from doc_classify.pipeline.plan import Plan, settings_of_run
from doc_classify.settings import Settings
from doc_classify.storage.base import RunInfo, Store
from doc_classify.storage.lots import FINISHED, LotLedger
from doc_classify.storage.store import SqlStore
from doc_classify.taxonomy import Taxonomy


def check_certificates(store: Store, info: RunInfo) -> dict[int, list[str]]:
    """What does not follow from the stored samples, by lot; lots without a certificate left out.

    Raises:
        ConfigurationError: no cascade made the run.
    """
    ledger = _ledger(store, info)
    found = {}
    for lot in ledger.lots_of(info.run_id, info.spec):
        faults = faults_of(ledger, lot)
        if faults is not None:
            found[lot.id] = faults
    return found


async def audit(
    store: Store, info: RunInfo, settings: Settings, more: int | None
) -> dict[int, dict[str, Any]]:
    """Audit every certified lot of a run; returns what was found, by lot.

    Args:
        store: the ledger.
        info: the run, of a cascade.
        settings: where the LLM is, and what may be asked of it.
        more: documents to draw from each lot; None: as many as should suffice.

    Raises:
        ConfigurationError: no cascade made the run, or the LLM is not the one that taught.
        ServerError, CannotGoOnError: the LLM cannot be asked.
    """
    ledger = _ledger(store, info)
    lots = [
        lot
        for lot in ledger.lots_of(info.run_id, info.spec)
        if lot.state == FINISHED and "certificate" in lot.journal
    ]
    if not lots:
        raise ConfigurationError(f"run {info.run_id} has no certificate yet")
    stored: Any = info.spec.settings
    settings = settings_of_run(settings, info.spec)
    taxonomy = Taxonomy.from_dict(stored["taxonomy"], "stored run")
    reasoning = bool(stored["include_reasoning"])
    async with open_classifier(settings, taxonomy, include_reasoning=reasoning) as chosen:
        plan = Plan.make(
            settings,
            chosen.classifier,
            taxonomy=taxonomy,
            options=ExtractionOptions.from_dict(stored["extraction"]),
            include_reasoning=reasoning,
        )
        if not isinstance(store, SqlStore) or not isinstance(chosen.classifier, LlmClassifier):
            raise ConfigurationError("an audit needs the ledger and the LLM of a cascade")
        auditing = LotAudit(store, plan, chosen.classifier, info)
        try:
            return {lot.id: await auditing.audit(lot, more) for lot in lots}
        finally:
            await auditing.close()


def _ledger(store: Store, info: RunInfo) -> LotLedger:
    if not info.spec.teacher or not isinstance(store, SqlStore):
        raise ConfigurationError(f"run {info.run_id} was not made by a cascade")
    return LotLedger(store)
