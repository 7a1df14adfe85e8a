"""Prices, speeds of language models, costs of services and named configurations, from data files.

The files lie in ``planning/data``; prices can be replaced by a file of the same form.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AllowInfNan, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from doc_classify.errors import ConfigurationError
from doc_classify.terminal import one_line, shown_path

Amount = Annotated[float, AllowInfNan(False), Field(ge=0, le=1e9)]
Positive = Annotated[float, AllowInfNan(False), Field(gt=0, le=1e12)]
Count = Annotated[int, Field(ge=1, le=10**6)]
Cores = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(ge=0, le=1)]

_STRICT = ConfigDict(extra="forbid")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, config=_STRICT)
class Priced:
    """A machine to rent. ``hour`` is the on-demand price of one hour."""

    hour: Amount
    source: str
    cores: Cores = 1
    memory_gb: Positive = 1.0


@dataclass(frozen=True, slots=True, config=_STRICT)
class Gpu:
    """A machine with one GPU, ``machine`` by the name under which it is rented."""

    machine: str
    hour: Amount
    source: str


@dataclass(frozen=True, slots=True, config=_STRICT)
class Storage:
    """Prices of keeping and moving bytes; a GB is 10^9 bytes."""

    database_gb_month: Amount
    database_source: str
    objects_gb_month: Amount
    objects_source: str
    transfer_out_gb: Amount
    transfer_source: str


@dataclass(frozen=True, slots=True, config=_STRICT)
class ConnectionRule:
    """Connections that a database server allows by its memory."""

    bytes_each: Positive
    most: Count
    source: str

    def allowed(self, memory_gb: float) -> int:
        """For a server of ``memory_gb`` GiB."""
        return min(self.most, int(memory_gb * 2**30 / self.bytes_each))


@dataclass(frozen=True, slots=True, config=_STRICT)
class Prices:
    """A price list. ``databases`` and ``brokers`` are ordered by size in :meth:`by_size`."""

    currency: str
    cloud: str
    region: str
    date: str
    machine: str
    spot_of_on_demand: Annotated[float, Field(gt=0, le=1)]
    spot_source: str
    machines: dict[str, Priced]
    gpus: dict[str, Gpu]
    databases: dict[str, Priced]
    brokers: dict[str, Priced]
    storage: Storage
    connections: ConnectionRule

    def machine_named(self, name: str) -> Priced:
        """The worker machine of that name.

        Raises:
            ConfigurationError: the list has none.
        """
        if name not in self.machines:
            raise ConfigurationError(
                f"no machine {one_line(name)} in the price list; there: {', '.join(self.machines)}"
            )
        return self.machines[name]


def by_size(machines: Mapping[str, Priced]) -> list[tuple[str, Priced]]:
    """The smallest first."""
    return sorted(machines.items(), key=lambda item: (item[1].cores, item[1].memory_gb))


@dataclass(frozen=True, slots=True, config=_STRICT)
class LlmProfile:
    """How fast a language model answers on some hardware, by somebody's publication.

    Attributes:
        title: the model and the hardware.
        where: ``workers``: on the cores that read documents, too; ``server``: a machine of its
            own; ``hosted``: somebody else's.
        threads: cores that one answer keeps busy, of a model that runs on ``workers``.
        prompt_rate, answer_rate: tokens a second read and written, one request at a time; without
            ``answer_rate`` the time of the answer counts as nothing, and the rate is a ceiling.
        total_rate: tokens a second of a server that works on many requests at once.
        gpu: its price's name, where it can be rented.
        price_prompt, price_answer: of a million tokens of a hosted model; ``batch_discount`` of
            them is taken off for batches.
    """

    title: str
    where: Literal["workers", "server", "hosted"]
    source: str
    threads: Count = 1
    prompt_rate: Positive | None = None
    answer_rate: Positive | None = None
    total_rate: Positive | None = None
    gpu: str | None = None
    price_prompt: Amount = 0.0
    price_answer: Amount = 0.0
    batch_discount: Share = 0.0

    def seconds(self, prompt: float, answer: float) -> float | None:
        """Seconds of one server for a document; None where nothing limits it that is known."""
        if self.total_rate:
            return (prompt + answer) / self.total_rate
        if self.prompt_rate:
            return prompt / self.prompt_rate + (
                answer / self.answer_rate if self.answer_rate else 0
            )
        return None


@dataclass(frozen=True, slots=True, config=_STRICT)
class LlmProfiles:
    """All of them, and the tokens of a document that they are compared by."""

    date: str
    prompt_tokens: Count
    answer_tokens: Count
    profiles: dict[str, LlmProfile]

    def named(self, name: str) -> LlmProfile:
        """The profile of that name.

        Raises:
            ConfigurationError: there is none.
        """
        if name not in self.profiles:
            raise ConfigurationError(
                f"no LLM profile {one_line(name)!r}; there are: {', '.join(self.profiles)}"
            )
        return self.profiles[name]


@dataclass(frozen=True, slots=True, config=_STRICT)
class ServiceCost:
    """What a document takes of a service; ``where`` it was measured, if not as the others."""

    value: Positive
    unit: str
    source: str
    where: str | None = None


@dataclass(frozen=True, slots=True, config=_STRICT)
class Assumed:
    """What nobody measured and a plan allows for; see the data file."""

    retries: Share = 0.0
    losses_per_day: Amount = 0.0
    restart_seconds: Amount = 0.0
    start_seconds: Amount = 0.0


@dataclass(frozen=True, slots=True, config=_STRICT)
class Services:
    """Measured costs of a document besides reading and classifying it, and assumptions."""

    measured_on: str
    figures: dict[str, ServiceCost]
    assumed: Assumed = field(default_factory=Assumed)


@dataclass(frozen=True, slots=True, config=_STRICT)
class Configuration:
    """A fleet by name; see ``profiles.toml``."""

    title: str
    machines: Count
    workers: Cores
    machine: str | None = None
    cores: Cores | None = None
    memory_gb: Positive | None = None
    in_flight: Count | None = None
    spot: bool = False
    database: str | None = None
    broker: str | None = None
    llm: str | None = None
    objects_gb: Amount = 0.0
    transfer_gb: Amount = 0.0


def read_prices(path: Path | None = None) -> Prices:
    """The price list of the package, or another one.

    Raises:
        ConfigurationError: the file cannot be read, or is no price list.
    """
    if path is None:
        return _packaged("prices.toml", Prices)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read {shown_path(path)}: {error}") from error
    return _parsed(text, shown_path(path), Prices)


def llm_profiles() -> LlmProfiles:
    """The language models' speeds."""
    return _packaged("llm.toml", LlmProfiles)


def services() -> Services:
    """What services take of a document."""
    return _packaged("services.toml", Services)


def configurations() -> dict[str, Configuration]:
    """The named fleets."""
    return _packaged("profiles.toml", dict[str, Configuration])


def packaged_benchmark() -> Path:
    """The benchmark's result that plans are made from where none is given."""
    return Path(str(resources.files("doc_classify.planning") / "data" / "measured.json"))


@cache
def _text(name: str) -> str:
    return (resources.files("doc_classify.planning") / "data" / name).read_text("utf-8")


def _packaged(name: str, kind: type[_T]) -> _T:
    return _parsed(_text(name), name, kind)


def _parsed(text: str, name: str, kind: type[_T]) -> _T:
    try:
        data: Any = tomllib.loads(text)
        return TypeAdapter(kind).validate_python(data)
    except (ValueError, RecursionError) as error:
        if not isinstance(error, ValidationError):
            raise ConfigurationError(f"{name} is no TOML: {one_line(str(error))}") from error
        first = error.errors(include_input=False, include_url=False)[0]
        where = one_line(".".join(map(str, first["loc"]))) or "the whole"
        raise ConfigurationError(f"{name}: {where}: {first['msg']}") from error
