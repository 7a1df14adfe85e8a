"""The container files: valid by the Compose specification, and true to the program and the docs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from doc_classify.settings import Settings, environment_variable

ROOT = Path(__file__).parents[2]
ALONE = ROOT / "docker-compose.yml"
WORKERS = ROOT / "docker-compose-workers.yml"
WORKER_NAMES = ["worker1", "worker2", "worker3", "worker4"]

READ_BY_OTHERS = {
    "CELERY_RESULT_BACKEND",  # Celery
    "PGPASSWORD",  # libpq
    "FLOWER_BASIC_AUTH",  # Flower
}


def load(path: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(path)


def without_comments(path: Path) -> str:
    return "".join(
        line
        for line in path.read_text("utf-8").splitlines(keepends=True)
        if not line.lstrip().startswith("#")
    )


SERVICES = load(WORKERS)["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def settings_variables() -> set[str]:
    return {environment_variable(field) for field in Settings.model_fields}


@pytest.mark.parametrize("path", [ALONE, WORKERS], ids=lambda path: path.name)
def test_is_valid_by_the_specification(path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_has_the_services_of_the_distributed_mode():
    assert {"redis", "postgres", "ollama", "ollama-model", "flower", *WORKER_NAMES} <= set(SERVICES)
    assert {"flower", *WORKER_NAMES} <= set(OURS)
    assert all("image" in service for service in SERVICES.values())
    started = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert set(SERVICES) - started == {"client"}


def test_both_files_mean_the_same_database():
    (service,) = load(ALONE)["services"].items()
    assert service == ("postgres", {"extends": {"file": WORKERS.name, "service": "postgres"}})
    volumes = [volume.split(":")[0] for volume in SERVICES["postgres"]["volumes"]]
    assert set(volumes) == set(load(ALONE)["volumes"])


def test_every_volume_is_declared_and_used():
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith("$")
    }
    assert used == set(load(WORKERS)["volumes"])


@pytest.mark.parametrize("name", SERVICES)
def test_can_be_scaled(name: str):
    assert not {"container_name", "hostname"} & set(SERVICES[name])
    if name in WORKER_NAMES:
        assert "ports" not in SERVICES[name]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_only(name: str):
    for port in SERVICES[name].get("ports", []):
        assert re.match(r"127\.0\.0\.1:|\$\{\w+:-127\.0\.0\.1\}:", port), port


@pytest.mark.parametrize("name", SERVICES)
def test_waits_for_what_can_become_ready(name: str):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[other].get("healthcheck", {}), other
        else:
            assert how["condition"] == "service_completed_successfully"
            assert SERVICES[other]["restart"].startswith("on-failure"), "it must end to complete"


@pytest.mark.parametrize("name", WORKER_NAMES)
def test_workers_are_told_apart_and_asked_by_their_own_name(name: str):
    command = SERVICES[name]["command"]
    assert command[:4] == ["celery", "-A", "doc_classify.celery_tasks", "worker"]
    assert f"--hostname={name}@%h" in command
    assert SERVICES[name]["healthcheck"]["test"][1].endswith(f"-d {name}@$$(hostname)")
    assert set(SERVICES[name]["depends_on"]) == {"redis", "postgres", "ollama-model"}


def test_workers_differ_in_nothing_but_their_names():
    first, *others = (
        repr(SERVICES[name]).replace(f"{name}@", "NAME@") for name in ("worker1", *WORKER_NAMES[1:])
    )
    assert all(other == first for other in others)


@pytest.mark.parametrize("name", OURS)
def test_sets_only_what_is_read(name: str):
    assert set(OURS[name]["environment"]) <= settings_variables() | READ_BY_OTHERS


@pytest.mark.parametrize("name", OURS)
def test_has_no_privileges(name: str):
    assert OURS[name]["cap_drop"] == ["ALL"]
    assert OURS[name]["security_opt"] == ["no-new-privileges:true"]
    assert OURS[name]["init"] is True
    assert not OURS[name].get("privileged")


@pytest.mark.parametrize("name", [*WORKER_NAMES, "client"])
def test_documents_are_read_only_and_the_same_to_all(name: str):
    volumes = SERVICES[name]["volumes"]
    assert volumes == SERVICES["worker1"]["volumes"]
    assert all(volume.endswith(":ro") for volume in volumes)
    assert any(volume.endswith(":/documents:ro") for volume in volumes)


def test_addresses_are_services():
    environment = SERVICES["worker1"]["environment"]
    assert environment["CELERY_BROKER_URL"].startswith("redis://redis:6379/")
    assert "@postgres:5432/" in environment["DATABASE_URL"]
    assert environment["OLLAMA_HOST"] == "http://ollama:11434"
    assert SERVICES["ollama-model"]["command"] == [environment["OLLAMA_MODEL"]]
    default = Settings.model_fields["ollama_model"].default
    assert environment["OLLAMA_MODEL"] == f"${{OLLAMA_MODEL:-{default}}}"


def test_the_queue_is_kept():
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options == {"--appendonly": "yes", "--maxmemory-policy": "noeviction"}


def test_the_password_stands_in_one_place():
    everything = without_comments(ALONE) + without_comments(WORKERS)
    assert everything.count("POSTGRES_PASSWORD:-") == 1
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${")
    assert not re.search(r"://[^/\s]*:[^/@\s]*@", everything), "a password in an address"


def test_the_example_lists_every_variable_with_its_default():
    found = re.findall(
        r"(?<!\$)\$\{(\w+)(?::-([^{}$]*))?", without_comments(ALONE) + without_comments(WORKERS)
    )
    taken = dict(found) | {"FLOWER_BASIC_AUTH": None}
    del taken["PWD"]
    example = dict(
        re.findall(r"^#?(\w+)=(.*)$", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE)
    )
    assert set(example) == set(taken)
    for name, default in taken.items():
        if name not in ("DOCUMENTS", "FLOWER_BASIC_AUTH"):  # which have none
            assert example[name] == default, name
    settings = {name for name in example if name.startswith("DOC_CLASSIFY_")}
    assert settings <= settings_variables()


def instructions() -> list[list[str]]:
    """The Dockerfile's instructions, each as its words."""
    text = without_comments(ROOT / "Dockerfile").replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line.strip()]


def test_the_image_is_built_from_files_that_are_there():
    sources = [
        source
        for word, *rest in instructions()
        if word == "COPY" and not rest[0].startswith("--from")
        for source in rest[:-1]
    ]
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    assert set(sources) == allowed
    assert all((ROOT / source).exists() for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["readme"] in sources, "the package cannot be built without"


def test_the_image_has_extras_that_exist():
    (extras,) = (
        words[1].removeprefix("EXTRAS=")
        for words in instructions()
        if words[0] == "ARG" and words[1].startswith("EXTRAS=")
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_image_does_not_run_as_root():
    users = [words[1] for words in instructions() if words[0] == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    assert SERVICES["worker1"]["user"] == f"${{DOCUMENTS_USER:-{users[-1]}}}"


def test_the_base_image_can_be_chosen():
    first, *_ = instructions()
    assert first[0] == "ARG" and first[1].startswith("BASE=")
    assert [words[1] for words in instructions() if words[0] == "FROM"] == ["${BASE}"] * 2
