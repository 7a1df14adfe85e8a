"""Commands that prepare: ``init``, ``config`` and ``check``."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from doc_classify.cli import EXIT_COULD_NOT_RUN
from doc_classify.cli.options import as_json, settings_from, verbose
from doc_classify.errors import ConfigurationError, DocClassifyError
from doc_classify.settings import (
    CONFIG_FILE,
    Settings,
    environment_variable,
    load_settings_with_origins,
)

_TAXONOMY_FILE = "taxonomy.toml"
_TIMEOUT = 2.0
_SECRET_URLS = {"database_url", "celery_broker_url"}


@click.command()
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@verbose
def init(force: bool, verbose: bool) -> int:
    """Write doc-classify.toml and taxonomy.toml to start from, into this folder."""
    texts = {CONFIG_FILE: _config_text(), _TAXONOMY_FILE: _taxonomy_text()}
    present = [name for name in texts if Path(name).exists()]
    if present and not force:
        raise ConfigurationError(
            f"{' and '.join(present)} exist{'s' if len(present) == 1 else ''} already: "
            "--force overwrites"
        )
    for name, text in texts.items():
        Path(name).write_text(text, "utf-8")
        click.echo(f"Wrote {name}")
    return 0


def _config_text() -> str:
    lines = [
        "# Settings of doc-classify. Options of a command and environment variables come first.",
        "# Every line below shows the default; remove the '#' to change it.",
        "",
    ]
    for name, field in Settings.model_fields.items():
        default = field.default
        if name == "taxonomy":
            default = _TAXONOMY_FILE
        elif default is None:
            default = ""
        lines += [f"# {field.description}", f"# {name} = {json.dumps(default)}", ""]
    return "\n".join(lines)


def _taxonomy_text() -> str:
    from doc_classify.taxonomy import DEFAULT_TAXONOMY

    lines = [
        "# Your categories. Use it with --taxonomy taxonomy.toml, or set taxonomy in",
        "# doc-classify.toml. Descriptions, keywords and examples help the classifier.",
    ]
    for category in DEFAULT_TAXONOMY.categories:
        lines += [
            "",
            "[[categories]]",
            f"name = {json.dumps(category.name)}",
            f"description = {json.dumps(category.description)}",
        ]
    return "\n".join(lines) + "\n"


@click.command()
@as_json
@verbose
def config(as_json: bool, verbose: bool) -> int:
    """Show every setting, its value and where that comes from."""
    settings, origins = load_settings_with_origins()
    rows = [
        {
            "setting": name,
            "value": _shown(name, getattr(settings, name)),
            "origin": origins[name],
            "variable": environment_variable(name),
            "description": field.description,
        }
        for name, field in Settings.model_fields.items()
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return 0
    for row in rows:
        click.echo(
            f"{row['setting']:<18} {row['value']!s:<36} {row['origin']:<12} {row['variable']}"
        )
    return 0


def _shown(name: str, value: Any) -> Any:
    from doc_classify.storage import mask_url

    if name in _SECRET_URLS or (name == "ollama_host" and "@" in value):
        return mask_url(str(value))
    return str(value) if isinstance(value, Path) else value


@click.command()
@as_json
@verbose
def check(as_json: bool, verbose: bool) -> int:
    """Say what is installed, reachable and usable here, what is missing and how to get it.

    Ends with exit code 3 when something that the configuration needs is missing.
    """
    settings = settings_from()
    findings = [
        _finding(name, needed, look, settings)
        for name, needed, look in (
            ("machine", True, _machine),
            ("categories", True, _categories),
            ("classifier", True, _classifier),
            ("formats", True, _formats),
            ("OCR", settings.ocr, _ocr),
            ("database", True, _database),
            ("legacy formats", False, _legacy),
            ("Parquet export", False, _parquet),
            ("Ollama", settings.classifier == "ollama", _ollama),
            ("message broker", False, _broker),
        )
    ]
    if as_json:
        click.echo(json.dumps(findings))
    else:
        for finding in findings:
            mark = "ok" if finding["ok"] else "MISSING" if finding["needed"] else "not there"
            click.echo(f"{mark:<10} {finding['name']:<15} {finding['found']}")
    usable = all(finding["ok"] or not finding["needed"] for finding in findings)
    if not as_json:
        click.echo("Ready." if usable else "Not ready: see MISSING above.")
    return 0 if usable else EXIT_COULD_NOT_RUN


def _finding(
    name: str, needed: bool, look: Callable[[Settings], str], settings: Settings
) -> dict[str, Any]:
    try:
        found, ok = look(settings), True
    except (DocClassifyError, OSError) as error:
        found, ok = str(error), False
    return {"name": name, "needed": needed, "ok": ok, "found": found}


def _machine(settings: Settings) -> str:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return (
        f"Python {platform.python_version()}, {settings.worker_count} workers, "
        f"{pages * size / 1e9:.1f} GB of memory"
    )


def _categories(settings: Settings) -> str:
    return ", ".join(settings.make_taxonomy().names)


def _classifier(settings: Settings) -> str:
    from doc_classify.classification import make_classifier

    classifier = make_classifier(settings.classifier, settings.make_taxonomy())
    return f"{classifier.name}, version {classifier.fingerprint}"


def _formats(_settings: Settings) -> str:
    from doc_classify.extraction import supported_media_types
    from doc_classify.sniffing import describe

    return ", ".join(sorted({describe(media_type) for media_type in supported_media_types()}))


def _ocr(settings: Settings) -> str:
    from doc_classify.extraction.ocr import check_languages

    check_languages(settings.ocr_languages)
    return f"Tesseract with {settings.ocr_languages.replace('+', ', ')}"


def _database(settings: Settings) -> str:
    from doc_classify.storage import mask_url, open_store

    url = settings.database_url
    path = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and not path.exists():
        folder = path.absolute().parent
        if folder.exists() and not os.access(folder, os.W_OK):
            raise ConfigurationError(f"the folder {folder} of the database cannot be written")
        return f"{mask_url(url)}, made by the first run that uses it"
    open_store(url).close()
    return mask_url(url)


def _legacy(_settings: Settings) -> str:
    return _extra("kreuzberg", "legacy", "read .doc and .ppt files")


def _parquet(_settings: Settings) -> str:
    return _extra("pyarrow", "parquet", "export to Parquet")


def _extra(package: str, extra: str, purpose: str) -> str:
    from doc_classify.errors import MissingDependencyError

    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(package, extra, purpose)
    return f"{package} is installed"


def _ollama(settings: Settings) -> str:
    host = settings.ollama_host
    url = host if "://" in host else f"http://{host}"
    try:
        with urllib.request.urlopen(f"{url}/api/version", timeout=_TIMEOUT) as answer:  # noqa: S310
            version = json.load(answer).get("version", "?")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"no Ollama answers at {url} ({error}); the embedded classifier needs none"
        ) from error
    return f"version {version} at {url}"


def _broker(settings: Settings) -> str:
    parts = urlsplit(settings.celery_broker_url)
    address = (parts.hostname or "localhost", parts.port or 6379)
    try:
        socket.create_connection(address, _TIMEOUT).close()
    except OSError as error:
        raise ConfigurationError(
            f"nothing answers at {address[0]}:{address[1]} ({error}); one machine needs none"
        ) from error
    return f"{address[0]}:{address[1]} answers"
