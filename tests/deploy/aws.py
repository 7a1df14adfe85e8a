"""CloudFormation templates in the hands of a test: read, resolved, made on moto's server."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from cfnlint.decode import cfn_yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "aws"
REGION = "eu-central-1"
STACKS = ("network", "data", "llm", "workers")
"""In the order in which they are made."""

NOT_IN_MOTO = {
    "AWS::AutoScaling::ScalingPolicy",
    "AWS::ECS::CapacityProvider",
    "AWS::ECS::ClusterCapacityProviderAssociations",
    "AWS::ElastiCache::ParameterGroup",
    "AWS::ElastiCache::ReplicationGroup",
    "AWS::ElastiCache::SubnetGroup",
    "AWS::Logs::MetricFilter",
    "AWS::RDS::DBParameterGroup",  # it can, but takes the object for its name in the instance
    "AWS::SecretsManager::Secret",
}
"""What moto's CloudFormation cannot make; where moto's service can, it is asked directly."""


def template(name: str) -> dict[str, Any]:
    """A template with the short forms of functions written out."""
    loaded = cfn_yaml.load(str(FOLDER / f"{name}.yaml"))
    plain: dict[str, Any] = json.loads(json.dumps(loaded, default=str))
    return plain


def resources(kind: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(stack, name, resource) of all templates, or of one kind."""
    for name in STACKS:
        for key, value in template(name)["Resources"].items():
            if kind in (None, value["Type"]):
                yield name, key, value


def walk(value: Any) -> Iterator[Any]:
    """Everything in a template, at any depth."""
    yield value
    children = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        for child in children:
            yield from walk(child)


@dataclass
class Cloud:
    """An account on a moto server."""

    endpoint: str

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="tester",
            aws_secret_access_key="tester",
        )

    def empty(self) -> None:
        """As if nothing had ever been made."""
        request = urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        urllib.request.urlopen(request).close()

    def create(self, name: str, parameters: Mapping[str, str]) -> dict[str, str]:
        """Make a stack; returns its outputs.

        A resource that moto's CloudFormation lacks becomes a parameter of the same name, whose
        value is what the service itself was made to give (:meth:`_apart`).
        """
        body = template(name)
        lacking = {
            key: value for key, value in body["Resources"].items() if value["Type"] in NOT_IN_MOTO
        }
        given = dict(parameters)
        before = [k for k, v in lacking.items() if not _depends(v, set(body["Resources"]))]
        resolve = self.resolver(name, body, given)
        for key, value in lacking.items():
            del body["Resources"][key]
            body.setdefault("Parameters", {})[key] = {"Type": "String"}
            given[key] = "default.postgres16" if "RDS" in value["Type"] else key
            if key in before and value["Type"] == "AWS::SecretsManager::Secret":
                given[key] = self._secret(resolve(value["Properties"]))
        for value in body["Resources"].values():
            value.pop("DependsOn", None)
        client = self.client("cloudformation")
        client.create_stack(
            StackName=f"doc-classify-{name}",
            TemplateBody=json.dumps(body),
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        (stack,) = client.describe_stacks(StackName=f"doc-classify-{name}")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        made = client.list_stack_resources(StackName=f"doc-classify-{name}")
        assert {one["LogicalResourceId"] for one in made["StackResourceSummaries"]} == set(
            body["Resources"]
        )
        return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}

    def _secret(self, properties: dict[str, Any]) -> str:
        client = self.client("secretsmanager")
        rules = properties.get("GenerateSecretString")
        value = (
            client.get_random_password(**rules)["RandomPassword"]
            if rules
            else properties["SecretString"]
        )
        name = re.sub(r"\W+", "-", properties["Description"])
        return str(client.create_secret(Name=name, SecretString=value)["ARN"])

    def physical(self, stack: str, name: str) -> str:
        """What a resource of a stack is called in the cloud."""
        found = self.client("cloudformation").describe_stack_resource(
            StackName=f"doc-classify-{stack}", LogicalResourceId=name
        )
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    def resolver(
        self, stack: str, body: dict[str, Any], given: Mapping[str, str]
    ) -> Callable[[Any], Any]:
        """Does what CloudFormation does to the functions that our properties use."""
        defaults = {k: str(v.get("Default", "")) for k, v in body.get("Parameters", {}).items()}
        known = {
            "AWS::StackName": f"doc-classify-{stack}",
            "AWS::Region": REGION,
            "AWS::Partition": "aws",
        }

        def name(key: str) -> str:
            for table in (given, defaults, known):
                if key in table:
                    return table[key]
            return self.physical(stack, key)

        def resolve(value: Any) -> Any:
            if isinstance(value, list):
                return [resolve(one) for one in value]
            if not isinstance(value, dict):
                return value
            match list(value.items()):
                case [("Ref", key)]:
                    return name(key)
                case [("Fn::Sub", str(text))]:
                    return re.sub(r"\$\{([\w:]+)\}", lambda found: name(found[1]), text)
                case [("Fn::FindInMap", [table, first, second])]:
                    return body["Mappings"][table][resolve(first)][second]
                case [("Fn::ImportValue", export)]:
                    exports = self.client("cloudformation").list_exports()["Exports"]
                    return next(e["Value"] for e in exports if e["Name"] == resolve(export))
                case _:
                    return {key: resolve(one) for key, one in value.items()}

        return resolve


def _depends(resource: dict[str, Any], names: set[str]) -> bool:
    """Whether a resource mentions another one of its template."""
    text = json.dumps(resource["Properties"])
    return any(re.search(rf"(\"|\{{){re.escape(name)}\b", text) for name in names)
