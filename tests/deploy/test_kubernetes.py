"""The Kubernetes manifests: valid by Kubernetes' and KEDA's schemas, closed, and true to us."""

from __future__ import annotations

import copy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import kubernetes_validate
import psycopg
import pytest
from ruamel.yaml import YAML

from conftest import fresh_database
from doc_classify.celery_tasks import QUEUE
from doc_classify.cli import cli
from doc_classify.records import Source
from doc_classify.settings import Settings, environment_variable
from doc_classify.storage import monitoring
from doc_classify.storage.base import RunSpec
from doc_classify.storage.chunks import CANCELLED, ChunkLedger
from doc_classify.storage.store import SqlStore

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
COMPONENTS = ("servers", "scale-by-queue", "scale-by-cpu", "ollama", "shared-folder")
VERSION = kubernetes_validate.latest_version()
READ_BY_OTHERS = {"PGPASSWORD", "BROKER_PASSWORD"}

Manifest = dict[str, Any]


def load(path: Path) -> list[Manifest]:
    return [one for one in YAML(typ="safe").load_all(path) if one]


def rendered(folder: Path) -> list[Manifest]:
    """The resources of a kustomization, without its patches."""
    (kustomization,) = load(folder / "kustomization.yaml")
    return [
        resource for name in kustomization.get("resources", []) for resource in load(folder / name)
    ]


def with_components(*names: str) -> list[Manifest]:
    """The base with components: what we use of kustomize, done here."""
    found = rendered(FOLDER / "base")
    for name in names:
        found += rendered(FOLDER / name)
        (component,) = load(FOLDER / name / "kustomization.yaml")
        for patch in component.get("patches", []):
            operations = YAML(typ="safe").load(patch["patch"])
            (target,) = [
                one
                for one in found
                if one["kind"] == patch["target"]["kind"]
                and one["metadata"]["name"] == patch["target"]["name"]
            ]
            jsonpatch.apply_patch(target, operations, in_place=True)
    return found


def everything() -> list[Manifest]:
    files = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
    return [one for path in files for one in load(path)]


def pods() -> Iterator[tuple[str, Manifest]]:
    for one in everything():
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            name = one["metadata"].get("name") or one["metadata"]["generateName"]
            yield name, one["spec"]["template"]


# --- valid ----------------------------------------------------------------------------------------

COMBINATIONS = [
    (),
    *((name,) for name in COMPONENTS),
    tuple(name for name in COMPONENTS if name != "scale-by-cpu"),
]


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_what_is_deployed_is_valid_by_the_schema(names: tuple[str, ...]):
    for one in [*with_components(*names), *load(FOLDER / "submit.yaml")]:
        if not one["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(one, VERSION, strict=True)


def test_the_schema_would_find_a_mistake():
    (worker,) = [one for one in with_components() if one["kind"] == "Deployment"]
    wrong = copy.deepcopy(worker)
    wrong["spec"]["template"]["spec"]["containers"][0]["imag"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError, match="imag"):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


FIELDS_OF_KEDA = {
    "ScaledObject": {
        *("scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval"),
        *("cooldownPeriod", "advanced", "triggers"),
    },
    "TriggerAuthentication": {"secretTargetRef"},
}
FIELDS_OF_TRIGGERS = {
    "redis": {"address", "listName", "listLength"},
    "postgresql": {
        *("host", "port", "userName", "dbName", "sslmode", "query", "targetQueryValue"),
    },
}


def test_what_is_for_keda_has_fields_that_keda_has():
    """By its documentation: no package of the test extra brings its schema."""
    found = [one for one in everything() if one["apiVersion"] == "keda.sh/v1alpha1"]
    names = set()
    for one in found:
        assert set(one["spec"]) <= FIELDS_OF_KEDA[one["kind"]]
        if one["kind"] == "TriggerAuthentication":
            names.add(one["metadata"]["name"])
            for secret in one["spec"]["secretTargetRef"]:
                assert set(secret) == {"parameter", "name", "key"}
    (scaled,) = [one for one in found if one["kind"] == "ScaledObject"]
    assert scaled["spec"]["scaleTargetRef"] == {"name": "worker"}
    assert 1 <= scaled["spec"]["minReplicaCount"] < scaled["spec"]["maxReplicaCount"]
    for trigger in scaled["spec"]["triggers"]:
        assert set(trigger) == {"type", "metadata", "authenticationRef"}
        assert set(trigger["metadata"]) == FIELDS_OF_TRIGGERS[trigger["type"]]
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        assert trigger["authenticationRef"]["name"] in names
    # The rest is Kubernetes' own.
    behavior = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    (own,) = [one for one in everything() if one["kind"] == "HorizontalPodAutoscaler"]
    kubernetes_validate.validate(
        own | {"spec": own["spec"] | {"behavior": behavior}}, VERSION, strict=True
    )


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")
def test_kustomize_makes_of_it_what_is_made_here():
    done = subprocess.run(
        ["kubectl", "kustomize", FOLDER], check=True, capture_output=True, text=True
    )
    made = {(one["kind"], one["metadata"]["name"]): one for one in load_text(done.stdout)}
    (chosen,) = load(FOLDER / "kustomization.yaml")
    ours = {
        (one["kind"], one["metadata"]["name"]) for one in with_components(*chosen["components"])
    }
    assert set(made) == ours | {("ConfigMap", "doc-classify")}
    for (kind, _), one in made.items():
        assert one["metadata"].get("namespace") == (None if kind == "Namespace" else "doc-classify")


def load_text(text: str) -> list[Manifest]:
    return [one for one in YAML(typ="safe").load_all(text) if one]


def test_every_component_is_offered():
    text = (FOLDER / "kustomization.yaml").read_text("utf-8")
    for name in COMPONENTS:
        assert f"- {name}\n" in text
        (component,) = load(FOLDER / name / "kustomization.yaml")
        assert component["kind"] == "Component"
    assert {path.parent.name for path in FOLDER.glob("*/kustomization.yaml")} == {
        "base",
        *COMPONENTS,
    }


# --- closed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "template"), list(pods()), ids=[name for name, _ in pods()])
def test_no_pod_has_any_privilege(name: str, template: Manifest):
    spec = template["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] >= 999
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert not any("hostPath" in volume for volume in spec.get("volumes", []))
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def test_nothing_is_open_to_the_outside():
    services = [one for one in everything() if one["kind"] == "Service"]
    assert services and all(one["spec"].get("type", "ClusterIP") == "ClusterIP" for one in services)
    assert not any(one["kind"] in ("Ingress", "HTTPRoute", "Gateway") for one in everything())
    policies = [one for one in everything() if one["kind"] == "NetworkPolicy"]
    (nothing,) = [one for one in policies if one["metadata"]["name"] == "nothing"]
    assert nothing["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies:
        for rule in policy["spec"].get("ingress", []) + policy["spec"].get("egress", []):
            assert rule["ports"]
            peers = rule.get("to") or rule.get("from")
            assert peers and not any("ipBlock" in peer for peer in peers)


def test_secrets_are_named_not_written():
    assert not any(one["kind"] == "Secret" for one in everything())
    for _, template in pods():
        for container in template["spec"]["containers"]:
            for variable in container.get("env", []):
                if "PASSWORD" in variable["name"] or variable["name"] == "REDISCLI_AUTH":
                    assert variable["valueFrom"]["secretKeyRef"]["name"] == "doc-classify"


# --- true to the program --------------------------------------------------------------------------


def ours() -> dict[str, Manifest]:
    return {
        name: template["spec"]["containers"][0]
        for name, template in pods()
        if template["metadata"]["labels"].get("doc-classify/role") == "reader"
    }


def test_only_what_is_read_is_set():
    known = {environment_variable(field) for field in Settings.model_fields} | READ_BY_OTHERS
    (kustomization,) = load(FOLDER / "base" / "kustomization.yaml")
    (generator,) = kustomization["configMapGenerator"]
    given = {literal.partition("=")[0] for literal in generator["literals"]}
    for container in ours().values():
        given |= {variable["name"] for variable in container["env"]}
    assert given <= known and "DATABASE_URL" in given
    assert set(ours()) == {"worker", "submit-"}


def test_addresses_are_services():
    ports = {
        one["metadata"]["name"]: one["spec"]["ports"][0]["port"]
        for one in everything()
        if one["kind"] == "Service"
    }
    assert ports == {"postgres": 5432, "redis": 6379, "ollama": 11434}
    text = (FOLDER / "base" / "kustomization.yaml").read_text("utf-8")
    assert "@postgres:5432/" in text and "http://ollama:11434" in text
    for container in ours().values():
        url = {one["name"]: one.get("value") for one in container["env"]}["CELERY_BROKER_URL"]
        assert url == "redis://:$(BROKER_PASSWORD)@redis:6379/0"


def test_the_workers_command_is_that_of_the_other_deployments():
    worker = ours()["worker"]
    assert worker["command"] == [
        *("celery", "-A", "doc_classify.celery_tasks", "worker", "--loglevel=info")
    ]
    processes, name = worker["args"]
    assert name == "--hostname=worker@%h"
    assert worker["livenessProbe"]["exec"]["command"][2].endswith(" -d worker@$(hostname)")
    cores = int(worker["resources"]["requests"]["cpu"])
    assert processes == f"--concurrency={cores}"
    assert worker["resources"]["limits"]["memory"] == f"{2 * cores}Gi"


def test_the_submitting_command_is_one_of_ours():
    container = ours()["submit-"]
    assert container["command"] == ["doc-classify"]
    name, *arguments = container["args"]
    with cli.make_context("doc-classify", [name]) as context:
        found = cli.get_command(context, name)
    assert found is not None
    found.make_context(name, arguments)


def triggers() -> dict[str, Manifest]:
    (scaled,) = [one for one in everything() if one["kind"] == "ScaledObject"]
    return {one["type"]: one["metadata"] for one in scaled["spec"]["triggers"]}


def test_the_queue_that_scales_is_ours():
    assert triggers()["redis"]["listName"] == QUEUE
    assert triggers()["redis"]["address"].startswith("redis.doc-classify.svc:")


def test_the_query_that_scales_counts_what_the_backlog_command_counts(postgres_url: str):
    url = fresh_database(postgres_url)
    store = SqlStore(url)
    try:
        ledger = ChunkLedger(store)
        spec = RunSpec("/d", "distributed", "f" * 16, "e" * 16, "embedded", ("a",), {})
        run_id, cancelled = ledger.begin(spec), ledger.begin(spec)
        for one in (run_id, cancelled):
            ledger.add(one, [[Source(f"file:///{one}/{n}", 1, 1)] for n in range(5)], 0)
        ledger.end(cancelled, CANCELLED, None)
        ledger.claim(run_id, 0, "one", 60)
        claim = ledger.claim(run_id, 1, "one", 60)
        assert claim is not None
        ledger.finish(claim)
        with psycopg.connect(url) as connection:
            (counted,) = connection.execute(triggers()["postgresql"]["query"]).fetchone() or (None,)
        assert counted == monitoring.backlog(store).unfinished == 4
    finally:
        store.close()
