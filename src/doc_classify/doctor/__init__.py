"""Checks that run: what works on this machine and around it, what does not, and what to do.

``machine`` looks at this computer and the program's parts, ``classifier`` at the classifier and its
server, ``services`` at the database, the broker and the workers, ``limits`` at settings that
contradict each other. Nothing is changed by looking.
"""

from __future__ import annotations

from collections.abc import Iterator

from doc_classify.doctor.findings import Finding
from doc_classify.settings import Settings


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, as soon as it is made."""
    from doc_classify.doctor import classifier, limits, machine, services

    yield from machine.findings(settings)
    yield from services.findings(settings)
    yield from limits.findings(settings)
    yield from classifier.findings(settings)
