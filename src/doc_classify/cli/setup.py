"""Commands that prepare: ``init`` and ``config``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from doc_classify.cli.options import as_json, verbose
from doc_classify.errors import ConfigurationError
from doc_classify.settings import (
    CONFIG_FILE,
    Settings,
    environment_variable,
    load_settings_with_origins,
)
from doc_classify.terminal import one_line

_TAXONOMY_FILE = "taxonomy.toml"
_SECRET_URLS = {"database_url", "celery_broker_url"}
_SERVER_URLS = {"ollama_host", "openai_base_url"}


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
            f"{row['setting']:<18} {one_line(str(row['value'])):<36} {row['origin']:<12} "
            f"{row['variable']}"
        )
    return 0


def _shown(name: str, value: Any) -> Any:
    from doc_classify.storage import mask_url

    if name in _SECRET_URLS or (name in _SERVER_URLS and value and "@" in value):
        return mask_url(str(value))
    if isinstance(value, SecretStr):
        return str(value)  # stars
    return str(value) if isinstance(value, Path) else value
