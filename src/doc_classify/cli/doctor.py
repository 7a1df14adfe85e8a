"""The command ``check``: what works on this machine, what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from doc_classify.cli import EXIT_COULD_NOT_RUN
from doc_classify.cli.check_classifier import check_classifier
from doc_classify.cli.options import as_json, settings_from, verbose, which_classifier
from doc_classify.errors import ConfigurationError, DocClassifyError, MissingDependencyError
from doc_classify.terminal import one_line

if TYPE_CHECKING:
    from doc_classify.settings import Settings

_TIMEOUT = 2.0
_REDIS_PORT = 6379


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing. ``needed``: the configuration cannot do without it."""

    name: str
    needed: bool
    ok: bool
    found: str


@click.command()
@which_classifier
@as_json
@verbose
def check(as_json: bool, verbose: bool, **which: Any) -> int:
    """Say what works on this machine and what is missing.

    An LLM is asked about one document, and from the time it takes follows the time for 500,000.
    Ends with exit code 3 when something that the configuration needs is missing.
    """
    settings = settings_from(**which)
    findings = [
        _look(name, needed, look, settings)
        for name, needed, look in (
            ("machine", True, _machine),
            ("categories", True, _categories),
            ("formats", True, _formats),
            ("OCR", settings.ocr, _ocr),
            ("database", True, _database),
            ("legacy formats", False, _legacy),
            ("Parquet export", False, _parquet),
            ("message broker", False, _broker),
        )
    ]
    findings += [
        Finding(name, True, ok, one_line(text)) for name, ok, text in check_classifier(settings)
    ]
    usable = all(finding.ok or not finding.needed for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            mark = "ok" if finding.ok else "MISSING" if finding.needed else "not there"
            click.echo(f"{mark:<10} {finding.name:<15} {finding.found}")
        click.echo("Ready." if usable else "Not ready: see MISSING above.")
    return 0 if usable else EXIT_COULD_NOT_RUN


def _look(name: str, needed: bool, look: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(name, needed, True, look(settings))
    except (DocClassifyError, OSError, ImportError) as error:
        return Finding(name, needed, False, one_line(str(error)))


def _machine(settings: Settings) -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    memory = pages * size / 1e9
    return (
        f"Python {platform.python_version()}, {settings.worker_count} workers, "
        f"{memory:.1f} GB of memory"
    )


def _categories(settings: Settings) -> str:
    return ", ".join(settings.make_taxonomy().names)


def _formats(_settings: Settings) -> str:
    """Each engine with what it reads, as far as nothing more need be installed."""
    from doc_classify.extraction.registry import extractors
    from doc_classify.sniffing import describe

    engines: dict[str, set[str]] = {}
    for media_type, extractor in extractors().items():
        if extractor.extra is None:
            engines.setdefault(extractor.name, set()).add(describe(media_type))
    return "; ".join(
        f"{name}: {', '.join(sorted(types, key=str.casefold))}"
        for name, types in sorted(engines.items())
    )


def _ocr(settings: Settings) -> str:
    from doc_classify.extraction.ocr import check_languages

    check_languages(settings.ocr_languages)
    import tesserocr

    version = tesserocr.tesseract_version().split()[1]
    return f"Tesseract {version} with {settings.ocr_languages.replace('+', ', ')}"


def _database(settings: Settings) -> str:
    from doc_classify.storage.probe import probe

    return probe(settings.database_url)


def _legacy(_settings: Settings) -> str:
    return _extra("kreuzberg", "legacy", "read .doc and .ppt files")


def _parquet(_settings: Settings) -> str:
    return _extra("pyarrow", "parquet", "export to Parquet")


def _extra(package: str, extra: str, purpose: str) -> str:
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(package, extra, purpose)
    return f"{package} is installed"


def _broker(settings: Settings) -> str:
    try:
        parts = urlsplit(settings.celery_broker_url)
        host, port = parts.hostname or "localhost", parts.port or _REDIS_PORT
        socket.create_connection((host, port), _TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"no message broker answers ({error}); not needed on one machine"
        ) from error
    return f"{host}:{port} answers"
