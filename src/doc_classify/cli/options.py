"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from doc_classify.errors import ConfigurationError
from doc_classify.settings import ADDRESS_FIELDS, MODEL_FIELDS, Settings, load_settings

_F = TypeVar("_F", bound=Callable[..., Any])


class Location(click.Path):
    """A path, or the URL of an object store, of which no path may be made."""

    name = "path or url"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as such, the URL as text."""
        from doc_classify.records import is_object_uri

        if is_object_uri(value):
            from doc_classify.discovery import location

            return location(value)
        return super().convert(value, param, ctx)


class Finite(click.FloatRange):
    """A number of a range, and none that is no number: "nan" is in every range by itself."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number


verbose = click.option("-v", "--verbose", is_flag=True, help="Say more, and show tracebacks.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
database_url = click.option(
    "--database-url",
    metavar="URL",
    help="Database to use instead of the configured one.",
)
run_argument = click.argument("run", required=False)


server_address = click.option(
    "--host", "--base-url", "address", metavar="URL", help="Address of the LLM's server."
)


def _classifier(function: _F) -> _F:
    for option in reversed(
        (
            click.option(
                "--classifier",
                metavar="NAME",
                help="Which classifier decides: auto, embedded, ollama, openai, llamacpp, or "
                "cascade: an LLM, and what learns from it.",
            ),
            click.option(
                "--model",
                metavar="NAME",
                help="Model of an LLM; a file for llamacpp and for embedded.",
            ),
        )
    ):
        function = option(function)
    return function


def cascade_terms(function: _F) -> _F:
    """The options that say what a cascade promises."""
    for option in reversed(
        (
            click.option(
                "--teacher",
                metavar="NAME",
                help="LLM of a cascade: ollama, openai or llamacpp [default: ollama].",
            ),
            click.option(
                "--agreement",
                type=click.FloatRange(0, 1, min_open=True, max_open=True),
                help="Share of documents to which a cascade gives the LLM's category "
                "[default: 0.95].",
            ),
            click.option(
                "--assurance",
                type=click.FloatRange(0, 1, min_open=True, max_open=True),
                help="Probability that it does [default: 0.95].",
            ),
            click.option(
                "--guarantee",
                type=click.Choice(["overall", "student"]),
                help="Promise for all documents, or for those that the LLM is not asked about "
                "[default: overall].",
            ),
            click.option(
                "--if-hopeless",
                type=click.Choice(["continue", "stop"]),
                help="Where a cascade would save nothing: go on with the LLM alone, or stop "
                "[default: continue].",
            ),
        )
    ):
        function = option(function)
    return function


def which_classifier(function: _F) -> _F:
    """The options that choose the classifier."""
    return _classifier(server_address(function))


def what_and_how(function: _F) -> _F:
    """The options that decide what a document's result is."""
    return _what_and_how(function, which_classifier)


def what_and_how_elsewhere(function: _F) -> _F:
    """The same for workers, each of which knows the address of its own LLM server."""
    return _what_and_how(function, _classifier)


def _what_and_how(function: _F, which: Callable[[_F], _F]) -> _F:
    for option in reversed(
        (
            click.option("-c", "--categories", metavar="A,B,C", help="Categories by name."),
            click.option(
                "--taxonomy",
                type=click.Path(path_type=Path, dir_okay=False),
                help="TOML or JSON file with categories and descriptions.",
            ),
            which,
            cascade_terms,
            click.option("--reasoning", "include_reasoning", is_flag=True, help="Also say why."),
            click.option(
                "--pages",
                metavar="SPEC",
                help="Pages to read: all, 5 (the first five), 3+1 (first three and last).",
            ),
            click.option("--ocr/--no-ocr", default=None, help="Read scans and images, or not."),
        )
    ):
        function = option(function)
    return function


def llm_limits(function: _F) -> _F:
    """The options that bound what an LLM is asked."""
    for option in reversed(
        (
            click.option(
                "--max-concurrent",
                type=click.IntRange(1),
                help="LLM requests in flight at most [default: 50]; fewer where that is best.",
            ),
            click.option(
                "--max-llm-calls", type=click.IntRange(1), help="Stop after so many LLM requests."
            ),
            click.option(
                "--max-cost",
                type=click.FloatRange(0, min_open=True),
                help="Stop before the LLM costs more, by the prices in the settings.",
            ),
        )
    ):
        function = option(function)
    return function


def _is_file(model: str) -> bool:
    """Whether a model is meant to be a file, even one that is not there: Ollama's are names."""
    return model.endswith(".safetensors") or model[:1] in "./~" or Path(model).is_file()


def settings_from(
    *, model: str | None = None, address: str | None = None, **options: Any
) -> Settings:
    """Settings with the given options on top of environment and file.

    Args:
        model: for whichever classifier is chosen.
        address: of its server, likewise.
        options: fields of the settings; None counts as not given.

    Raises:
        ConfigurationError: a value cannot be used, or the classifier takes no model or address.
    """
    settings = load_settings(**options)
    if model is not None and settings.classifier == "auto" and _is_file(model):
        # Ollama's models are names; to let another classifier decide would be a surprise.
        settings = settings.changed(classifier="embedded")
    for value, fields, what in (
        (model, MODEL_FIELDS, "model"),
        (address, ADDRESS_FIELDS, "server"),
    ):
        if value is None:
            continue
        if settings.asked not in fields:
            raise ConfigurationError(f"the classifier {settings.asked} has no {what} to choose")
        settings = settings.changed(**{fields[settings.asked]: value})
    return settings
