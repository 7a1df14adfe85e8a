"""One settings object, made once at the door and passed in.

Precedence: explicit argument (a command's option) > environment variable > ``doc-classify.toml``
in the working directory > default. An environment variable is the field's name in capitals with
the prefix ``DOC_CLASSIFY_``; those that other tools share have their usual names (see
:data:`SHARED_VARIABLES`).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from doc_classify.errors import ConfigurationError
from doc_classify.records import CASCADE, Prices
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Taxonomy

CONFIG_FILE = "doc-classify.toml"
ENV_PREFIX = "DOC_CLASSIFY_"

_LANGUAGES = r"^\w+(/\w+)?(\+\w+(/\w+)?)*$"

SHARED_VARIABLES = {
    "database_url": "DATABASE_URL",
    "ollama_host": "OLLAMA_HOST",
    "ollama_model": "OLLAMA_MODEL",
    "openai_base_url": "OPENAI_BASE_URL",
    "openai_api_key": "OPENAI_API_KEY",
    "categories": "CATEGORIES",
    "celery_broker_url": "CELERY_BROKER_URL",
}
"""Fields whose environment variable has no prefix."""


SECRETS = frozenset({"openai_api_key"})
"""Fields whose value is never shown."""

MODEL_FIELDS = {
    "auto": "ollama_model",
    "ollama": "ollama_model",
    "openai": "openai_model",
    "llamacpp": "llamacpp_model",
    "embedded": "embedded_model",
}
"""The field that names the model of a classifier."""

ADDRESS_FIELDS = {
    "auto": "ollama_host",
    "ollama": "ollama_host",
    "openai": "openai_base_url",
}
"""The field that has the address of a classifier's server."""

_MAY_BE_UNSET = (
    "workers",
    "categories",
    "taxonomy",
    "embedded_model",
    "openai_base_url",
    "openai_model",
    "openai_api_key",
    "llamacpp_model",
    "llamacpp_threads",
    "max_llm_calls",
    "max_cost",
    "price_cached",
)
"""Fields without a default: where a file has them as "", they are not given."""


class Settings(BaseSettings):
    """Everything that can be set. Sizes in MB are 10^6 bytes, times in seconds."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    database_url: str = Field(
        "sqlite:///doc-classify.db",
        description="Where results are kept: sqlite:///FILE or postgresql://USER@HOST/NAME.",
    )
    categories: str | None = Field(
        None, description="Categories as comma-separated names; see also taxonomy."
    )
    taxonomy: Path | None = Field(
        None, description="TOML or JSON file with categories and descriptions."
    )
    classifier: str = Field(
        "auto",
        description="Which classifier decides: ollama, openai, llamacpp, embedded, cascade (an LLM "
        "and what learns from it), or auto (embedded where embedded_model is set; else Ollama "
        "where it runs and has the model, else embedded).",
    )
    teacher: str = Field("ollama", description="LLM of a cascade: ollama, openai or llamacpp.")
    agreement: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="Share of the documents that a cascade has to give the LLM's category.",
    )
    assurance: float = Field(
        0.95, gt=0, lt=1, description="Probability with which a cascade keeps that promise."
    )
    guarantee: Literal["overall", "student"] = Field(
        "overall",
        description="What a cascade promises for: the whole run, or the student's share of it.",
    )
    if_hopeless: Literal["continue", "stop"] = Field(
        "continue",
        description="Where a cascade would save nothing: go on with the LLM alone, or stop.",
    )
    embedded_model: Path | None = Field(
        None,
        description="Model file of 'doc-classify train' that the classifier embedded uses; it "
        "brings its categories.",
    )
    workers: int | None = Field(
        None, ge=1, le=1024, description="Worker processes; default: the CPU cores."
    )
    chunk_size: int = Field(
        10, ge=1, le=10_000, description="Documents handed to a worker process at a time."
    )
    batch_size: int = Field(
        100, ge=1, le=10_000, description="Results written to the database in one transaction."
    )
    pages: str = Field(
        "3+1", description="Pages to read: all, 5 (the first five), 3+1 (first three and last)."
    )
    ocr: bool = Field(True, description="Read scanned pages and images by OCR.")
    ocr_languages: str = Field(
        "eng", pattern=_LANGUAGES, description="Tesseract languages: eng+deu."
    )
    attachments: bool = Field(False, description="Also read the text of mail attachments.")
    store_text: bool = Field(
        True, description="Keep the text read, so that other categories need no new extraction."
    )
    time_limit: float = Field(
        120.0, gt=0, description="Seconds that a worker may spend on one document."
    )
    memory_limit_mb: int = Field(
        2_000, ge=256, description="Address space that a worker process may have, in MB."
    )
    max_unpacked_mb: int = Field(
        200, ge=1, description="Decompressed size that one document may reach, in MB."
    )
    recycle_after: int = Field(
        5_000, ge=1, description="Documents after which a worker process is replaced."
    )
    recursive: bool = Field(True, description="Go into subfolders.")
    ollama_host: str = Field("http://localhost:11434", description="Address of the Ollama server.")
    ollama_model: str = Field("llama3.2:3b", description="Model that Ollama runs.")
    openai_base_url: str | None = Field(
        None, description="Address of an OpenAI-compatible server: http://HOST:PORT/v1."
    )
    openai_model: str | None = Field(
        None, description="Model of that server; may be left out where it has only one."
    )
    openai_api_key: SecretStr | None = Field(None, description="Key for that server.")
    llamacpp_model: Path | None = Field(
        None, description="GGUF file that the classifier llamacpp runs."
    )
    llamacpp_parallel: int = Field(
        4, ge=1, le=256, description="Requests that llamacpp works on at a time."
    )
    llamacpp_threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of llamacpp; default: as it finds best."
    )
    llamacpp_gpu_layers: int = Field(
        -1, ge=-1, description="Layers of the model in GPU memory; -1: as many as fit."
    )
    max_concurrent: int = Field(
        50, ge=1, le=10_000, description="LLM requests in flight at most; fewer where that is best."
    )
    llm_context: int = Field(
        4096, ge=512, description="Tokens that prompt and answer may have together."
    )
    llm_document_tokens: int = Field(
        1500, ge=64, description="Tokens of a document that the LLM sees: its head and tail."
    )
    llm_timeout: float = Field(
        600.0, gt=0, description="Seconds for one answer, time in the server's queue included."
    )
    llm_give_up: float = Field(
        900.0, ge=0, description="Seconds to wait for a server that went away before giving up."
    )
    max_llm_calls: int | None = Field(
        None, ge=1, description="Stop a run after so many LLM requests."
    )
    max_cost: float | None = Field(
        None, gt=0, description="Stop a run before it costs more, by the prices below."
    )
    price_prompt: float = Field(0.0, ge=0, description="Price of a million prompt tokens.")
    price_cached: float | None = Field(
        None, ge=0, description="Price of a million cached prompt tokens; default: price_prompt."
    )
    price_completion: float = Field(0.0, ge=0, description="Price of a million answer tokens.")
    distributed_chunk_size: int = Field(
        25, ge=1, le=10_000, description="Documents that a distributed worker claims at a time."
    )
    lease_seconds: float = Field(
        120.0,
        ge=1,
        description="Seconds after which a distributed worker that is not heard of is given up.",
    )
    stretch_seconds: float = Field(
        20.0,
        ge=0,
        description="Seconds for which a distributed worker goes on from chunk to chunk by itself.",
    )
    celery_broker_url: str = Field(
        "redis://localhost:6379/0", description="Message broker of the distributed mode."
    )

    config_file: ClassVar[str] = CONFIG_FILE

    @field_validator(*_MAY_BE_UNSET, mode="before")
    @classmethod
    def _blank_is_unset(cls, value: object) -> object:
        # Compose files and CI systems pass an empty variable where none is meant.
        return None if value == "" else value

    @model_validator(mode="before")
    @classmethod
    def _own_model_decides(cls, values: dict[str, Any]) -> dict[str, Any]:
        # Whoever names a model of his own does not want another classifier to decide unasked.
        if values.get("embedded_model") and values.get("classifier", "auto") == "auto":
            return values | {"classifier": "embedded"}
        return values

    @field_validator("categories", mode="before")
    @classmethod
    def _join_list(cls, value: object) -> object:
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what :func:`load_settings` passes counts: it has merged the sources."""
        return (init_settings,)

    def make_taxonomy(self) -> Taxonomy:
        """The taxonomy that these settings name: the file's, the names', or the default one.

        Raises:
            ConfigurationError: the file or the names cannot be used.
        """
        if self.categories:
            return Taxonomy.from_names(self.categories.split(","))
        if self.taxonomy:
            return Taxonomy.from_file(self.taxonomy)
        return DEFAULT_TAXONOMY

    def changed(self, **changes: Any) -> Settings:
        """A copy with other values.

        Raises:
            ConfigurationError: a value cannot be used.
        """
        try:
            return Settings(**(self.model_dump() | changes))
        except ValidationError as error:
            raise ConfigurationError(_explain(error, lambda _field: "option")) from None

    def choosing(self, classifier: str, model: str | None = None) -> Settings:
        """A copy with another classifier, and its model where one is given.

        The embedded classifier needs none, so that no model means none.

        Raises:
            ConfigurationError: the classifier has no model to choose.
        """
        if model is None:
            return self.changed(classifier=classifier, embedded_model=None)
        field = MODEL_FIELDS.get(self.teacher if classifier == CASCADE else classifier)
        if field is None:
            raise ConfigurationError(f"the classifier {classifier} takes no model")
        return self.changed(classifier=classifier, **{"embedded_model": None, field: model})

    @property
    def chosen_model(self) -> str | None:
        """The model that the chosen classifier is to use; None where it has none to choose."""
        field = MODEL_FIELDS.get(self.asked)
        value = getattr(self, field) if field else None
        return None if value is None else str(value)

    @property
    def asked(self) -> str:
        """The classifier whose model and server count: of a cascade, the LLM."""
        return self.teacher if self.classifier == CASCADE else self.classifier

    @property
    def prices(self) -> Prices:
        """Prices of an LLM's tokens."""
        return Prices(self.price_prompt, self.price_completion, self.price_cached)

    @property
    def worker_count(self) -> int:
        """Worker processes: as set, else the cores that this process may use."""
        return self.workers or available_cores()


Origin = Literal["option", "environment", "file", "default"]


def available_cores() -> int:
    """CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment_variable(field: str) -> str:
    """Name of the environment variable of a field."""
    return SHARED_VARIABLES.get(field, ENV_PREFIX + field.upper())


def load_settings(directory: Path | None = None, **options: Any) -> Settings:
    """Read the settings; ``options`` that are None count as not given.

    Raises:
        ConfigurationError: a value cannot be used; the message says which and where it is from.
    """
    return load_settings_with_origins(directory, **options)[0]


def load_settings_with_origins(
    directory: Path | None = None, **options: Any
) -> tuple[Settings, dict[str, Origin]]:
    """Like :func:`load_settings`, with where each value came from."""
    path = (directory or Path()) / CONFIG_FILE
    layers: list[tuple[Origin, dict[str, Any]]] = [
        ("file", _read_file(path)),
        ("environment", _read_environment()),
        ("option", {name: value for name, value in options.items() if value is not None}),
    ]
    merged: dict[str, Any] = {}
    origins: dict[str, Origin] = dict.fromkeys(Settings.model_fields, "default")
    for origin, values in layers:
        # Two ways to name the categories: the stronger source wins, not the more specific one.
        for given, other in (("categories", "taxonomy"), ("taxonomy", "categories")):
            if given in values and other not in values:
                merged.pop(other, None)
                origins[other] = "default"
        merged |= values
        origins |= dict.fromkeys(values, origin)
    if origins["categories"] == origins["taxonomy"] != "default" and {
        "categories",
        "taxonomy",
    } <= set(merged):
        raise ConfigurationError(
            f"categories and taxonomy are both set ({origins['taxonomy']}): give one of them"
        )
    if merged.get("embedded_model") and merged.get("classifier", "auto") == "auto":
        origins["classifier"] = origins["embedded_model"]  # see Settings
    try:
        return Settings(**merged), origins
    except ValidationError as error:

        def place(field: str) -> str:
            named = {"file": str(path), "environment": environment_variable(field)}
            return named.get(origins.get(field, "default"), "option")

        raise ConfigurationError(_explain(error, place)) from None


def _explain(error: ValidationError, place: Callable[[str], str]) -> str:
    """One line that names every setting at fault and the place where its value stands."""
    lines = []
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else "settings"
        reason = (
            "there is no such setting"
            if problem["type"] == "extra_forbidden"
            else problem["msg"].lower()
            if field in SECRETS
            else f"{problem['msg'].lower()}, got {problem['input']!r}"
        )
        lines.append(f"{field} ({place(field)}): {reason}")
    return "; ".join(lines)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8 is a ValueError as well
        raise ConfigurationError(f"cannot read {path}: {error}") from error
    return {
        name: value for name, value in values.items() if not (name in _MAY_BE_UNSET and value == "")
    }


def _read_environment() -> dict[str, Any]:
    values = {}
    for field in Settings.model_fields:
        value = os.environ.get(environment_variable(field))
        if value:
            values[field] = value
    return values
