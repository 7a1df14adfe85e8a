"""The CloudFormation templates: linted, closed to the world, and made on moto's server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from moto.core.models import botocore_stubber
from moto.server import ThreadedMotoServer
from tests.deploy.aws import FOLDER, NOT_IN_MOTO, STACKS, Cloud, resources, template, walk

from doc_classify.cli import cli
from doc_classify.planning.catalogue import configurations
from doc_classify.settings import Settings, environment_variable
from doc_classify.storage.monitoring import Backlog

IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/doc-classify:1"
READ_BY_OTHERS = {"AWS_REGION", "PGPASSWORD"}
SIZES = ("minimal", "recommended", "premium")


def containers() -> dict[str, dict[str, Any]]:
    return {
        container["Name"]: container
        for _, _, task in resources("AWS::ECS::TaskDefinition")
        for container in task["Properties"]["ContainerDefinitions"]
    }


def test_cfn_lint_finds_nothing():
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from cfnlint.runner import main; main()"),
            *sorted(map(str, FOLDER.glob("*.yaml"))),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_laid_over_an_image_is_declared_there_else_only_root_could_write_to_it():
    files = {"worker": "Dockerfile", "command": "Dockerfile"}
    for name, container in containers().items():
        text = (FOLDER.parents[1] / files.get(name, "deploy/ollama.Dockerfile")).read_text("utf-8")
        (declared,) = re.findall(r"^VOLUME (.+)$", text, re.MULTILINE)
        assert {one["ContainerPath"] for one in container["MountPoints"]} <= {*json.loads(declared)}


def test_every_template_is_one_of_the_stacks():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(STACKS)


# --- nothing is public ----------------------------------------------------------------------------


def test_there_is_no_way_to_or_from_the_internet():
    kinds = {resource["Type"] for _, _, resource in resources()}
    assert not kinds & {
        "AWS::EC2::InternetGateway",
        "AWS::EC2::EgressOnlyInternetGateway",
        "AWS::EC2::NatGateway",
        "AWS::EC2::EIP",
        "AWS::EC2::Route",
        "AWS::EC2::VPCPeeringConnection",
        "AWS::EC2::TransitGatewayAttachment",
    }
    for _, name, group in resources("AWS::EC2::SecurityGroup"):
        for rule in group["Properties"].get("SecurityGroupIngress", []):
            source = rule.get("CidrIp") or rule["SourceSecurityGroupId"]
            assert set(source) == {"Ref"}, (name, rule)
            assert rule["FromPort"] == rule["ToPort"]
    everything = "".join((FOLDER / f"{name}.yaml").read_text("utf-8") for name in STACKS)
    assert "0.0.0.0/0" not in everything and "::/0" not in everything


def test_nothing_has_a_public_address():
    places = [
        value["AwsvpcConfiguration"]
        for _, _, service in resources("AWS::ECS::Service")
        for value in walk(service)
        if isinstance(value, dict) and "AwsvpcConfiguration" in value
    ]
    assert len(places) == 3
    assert all(place["AssignPublicIp"] == "DISABLED" for place in places)
    for _, _, subnet in resources("AWS::EC2::Subnet"):
        assert subnet["Properties"]["MapPublicIpOnLaunch"] is False
    ((_, _, database),) = resources("AWS::RDS::DBInstance")
    assert database["Properties"]["PubliclyAccessible"] is False
    ((_, _, balancer),) = resources("AWS::ElasticLoadBalancingV2::LoadBalancer")
    assert balancer["Properties"]["Scheme"] == "internal"


def test_what_is_kept_and_sent_is_encrypted():
    ((_, _, database),) = resources("AWS::RDS::DBInstance")
    assert database["Properties"]["StorageEncrypted"] is True
    assert database["DeletionPolicy"] == "Snapshot"
    assert re.fullmatch(r"16\.\d+", template("data")["Parameters"]["PostgresVersion"]["Default"])
    ((_, _, forced),) = resources("AWS::RDS::DBParameterGroup")
    assert forced["Properties"]["Parameters"] == {"rds.force_ssl": "1"}
    ((_, _, broker),) = resources("AWS::ElastiCache::ReplicationGroup")
    assert broker["Properties"]["TransitEncryptionEnabled"] is True
    assert broker["Properties"]["AtRestEncryptionEnabled"] is True
    ((_, _, rules),) = resources("AWS::ElastiCache::ParameterGroup")
    assert rules["Properties"]["Properties"] == {"maxmemory-policy": "noeviction"}
    machines = list(resources("AWS::EC2::LaunchTemplate"))
    for _, _, machine in machines:
        data = machine["Properties"]["LaunchTemplateData"]
        assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        assert all(disk["Ebs"]["Encrypted"] for disk in data["BlockDeviceMappings"])
        # A task that was taken over must not get the rights of its machine.
        assert "ECS_AWSVPC_BLOCK_IMDS=true" in json.dumps(data["UserData"])
    assert len(machines) == 2


def test_rights_name_what_they_are_for():
    for stack, name, role in resources("AWS::IAM::Role"):
        for policy in role["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                assert "*" not in json.dumps(statement["Action"]), (stack, name)
                assert statement["Resource"] != "*", (stack, name)
                if "Put" in json.dumps(statement["Action"]):
                    assert "/doc-classify-results/*" in json.dumps(statement["Resource"])


def test_passwords_stand_in_no_variable():
    for name in ("worker", "command"):
        container = containers()[name]
        plain = {one["Name"] for one in container["Environment"]}
        secret = {one["Name"] for one in container["Secrets"]}
        assert secret == {"PGPASSWORD", "CELERY_BROKER_URL"} and not plain & secret
        assert "resolve" not in json.dumps(container)
    url = json.dumps(template("data")["Outputs"]["DatabaseUrl"])
    assert "sslmode=require" in url and not re.search(r"://\w+:[^@]*@", url)
    broker = template("data")["Resources"]["BrokerUrl"]["Properties"]["SecretString"]["Fn::Sub"]
    assert broker.startswith("rediss://:{{resolve:secretsmanager:") and "ssl_cert" not in broker


# --- true to the program --------------------------------------------------------------------------


def test_only_what_is_read_is_set():
    known = {environment_variable(field) for field in Settings.model_fields} | READ_BY_OTHERS
    for name in ("worker", "command"):
        container = containers()[name]
        assert {one["Name"] for one in container["Environment"] + container["Secrets"]} <= known


def test_ours_run_without_rights_and_write_to_two_folders():
    for name in ("worker", "command"):
        container = containers()[name]
        assert container["User"] == "10001:10001"
        assert container["ReadonlyRootFilesystem"] is True
        assert [mount["ContainerPath"] for mount in container["MountPoints"]] == ["/tmp", "/work"]
    assert containers()["worker"]["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}


def test_the_workers_command_is_that_of_the_other_deployments():
    command = containers()["worker"]["Command"]
    assert command[:5] == ["celery", "-A", "doc_classify.celery_tasks", "worker", "--loglevel=info"]
    assert command[-1] == "--hostname=worker@%h"


def test_the_metric_is_what_the_backlog_command_prints():
    command = containers()["command"]
    assert command["EntryPoint"] == ["doc-classify"]
    name, *options = command["Command"]
    with cli.make_context("doc-classify", [name, *options], resilient_parsing=False) as context:
        found = cli.get_command(context, name)
        assert found is not None
        parsed = found.make_context(name, list(options))
    assert parsed.params["as_json"] and parsed.params["every"] == 60
    ((_, _, metric),) = resources("AWS::Logs::MetricFilter")
    properties = metric["Properties"]
    (change,) = properties["MetricTransformations"]
    field = change["MetricValue"].removeprefix("$.")
    assert properties["FilterPattern"] == f"{{ $.{field} = * }}"
    assert isinstance(getattr(Backlog(), field), int)
    ((_, _, policy),) = resources("AWS::AutoScaling::ScalingPolicy")
    metrics = policy["Properties"]["TargetTrackingConfiguration"]["CustomizedMetricSpecification"]
    first = metrics["Metrics"][0]["MetricStat"]["Metric"]
    assert first["Namespace"] == change["MetricNamespace"]
    assert first["MetricName"] == change["MetricName"]
    ((_, _, group),) = [
        one for one in resources("AWS::AutoScaling::AutoScalingGroup") if one[0] == "workers"
    ]
    (collected,) = group["Properties"]["MetricsCollection"]
    assert collected["Metrics"] == [metrics["Metrics"][1]["MetricStat"]["Metric"]["MetricName"]]


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_one_of_all_stacks_and_fits_its_machines(size: str):
    found = template("workers")["Mappings"]["Sizes"][size]
    assert size in template("data")["Mappings"]["Sizes"]
    assert found["Processes"] == {"4xlarge": 16, "8xlarge": 32}[found["Type"].split(".")[1]]
    # Two GiB for each virtual core is what a c machine has; the system and the agent need some.
    assert found["Memory"] <= 0.9 * 2048 * found["Processes"]
    assert found["Memory"] / found["Processes"] > 1700, "a process may use 2,000 MB of addresses"


def test_a_size_is_the_planners_configuration_of_that_name():
    known = configurations()
    for size in SIZES:
        machines = template("workers")["Mappings"]["Sizes"][size]
        data = template("data")["Mappings"]["Sizes"][size]
        planned = known[size]
        assert machines["Type"] == planned.machine
        assert machines["Machines"] == planned.machines
        assert machines["Processes"] == planned.workers
        assert machines["OnDemandPercent"] == (0 if planned.spot else 100)
        assert (data["Database"], data["Broker"]) == (planned.database, planned.broker)


# --- made -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    enabled, botocore_stubber.enabled = botocore_stubber.enabled, False
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    try:
        yield Cloud(f"http://127.0.0.1:{port}")
    finally:
        server.stop()
        botocore_stubber.enabled = enabled


@pytest.fixture(scope="module", params=SIZES)
def made(cloud: Cloud, request: pytest.FixtureRequest) -> dict[str, Any]:
    """All four stacks of a size; their outputs."""
    cloud.empty()
    outputs = {
        "size": request.param,
        "network": cloud.create("network", {"DocumentsBucket": "archive"}),
        "data": cloud.create("data", {"Size": request.param}),
        "llm": cloud.create("llm", {"Image": IMAGE, "Servers": "2"}),
    }
    outputs["workers"] = cloud.create(
        "workers",
        {
            "Image": IMAGE,
            "Size": request.param,
            "Classifier": "ollama",
            "OllamaHost": outputs["llm"]["Address"],
        },
    )
    return outputs


def test_what_moto_cannot_make_is_named():
    kinds = {resource["Type"] for _, _, resource in resources()}
    assert kinds >= NOT_IN_MOTO


def test_it_is_made_as_the_size_says(cloud: Cloud, made: dict[str, Any]):
    size = template("workers")["Mappings"]["Sizes"][made["size"]]
    (database,) = cloud.client("rds").describe_db_instances()["DBInstances"]
    assert (
        database["DBInstanceClass"]
        == (template("data")["Mappings"]["Sizes"][made["size"]]["Database"])
    )
    assert database["Engine"] == "postgres" and database["EngineVersion"].startswith("16.")
    assert database["StorageEncrypted"] and not database["PubliclyAccessible"]
    assert made["data"]["DatabaseUrl"].startswith("postgresql://doc_classify@")
    groups = cloud.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    sizes = {one["AutoScalingGroupName"]: (one["MinSize"], one["MaxSize"]) for one in groups}
    assert sizes.pop(made["workers"]["Machines"]) == (1, size["Machines"])
    assert list(sizes.values()) == [(2, 2)]
    assert made["llm"]["Address"].startswith("http://") and made["llm"]["Address"].endswith(
        ":11434"
    )


def test_the_task_reads_what_the_other_stacks_give(cloud: Cloud, made: dict[str, Any]):
    client = cloud.client("ecs")
    task = client.describe_task_definition(taskDefinition=made["workers"]["CommandTask"])
    (command,) = task["taskDefinition"]["containerDefinitions"]
    plain = {one["name"]: one["value"] for one in command["environment"]}
    assert plain["DATABASE_URL"] == made["data"]["DatabaseUrl"]
    assert plain["OLLAMA_HOST"] == made["llm"]["Address"]
    secrets = {one["name"]: one["valueFrom"] for one in command["secrets"]}
    assert secrets["PGPASSWORD"] == made["data"]["DatabasePassword"]
    assert command["command"] == ["backlog", "--json", "--every", "60"]


def test_the_network_has_no_way_out(cloud: Cloud, made: dict[str, Any]):
    client = cloud.client("ec2")
    subnets = re.findall(r"subnet-\w+", made["network"]["CommandNetwork"])
    assert len(subnets) == 2
    (table,) = client.describe_route_tables(RouteTableIds=[cloud.physical("network", "Routes")])[
        "RouteTables"
    ]
    ways = {route.get("GatewayId") for route in table["Routes"]}
    assert not any(str(way).startswith(("igw-", "nat-")) for way in ways)
    endpoints = client.describe_vpc_endpoints()["VpcEndpoints"]
    assert len({one["ServiceName"] for one in endpoints}) == 8


def test_what_moto_makes_only_when_asked_directly(cloud: Cloud, made: dict[str, Any]):
    """Checked by botocore against the models of the services, and taken by moto."""
    workers = template("workers")
    resolve = cloud.resolver("workers", workers, {})
    ((_, _, metric),) = resources("AWS::Logs::MetricFilter")
    properties = resolve(metric["Properties"])
    assert properties["LogGroupName"] == made["workers"]["CommandLog"]
    cloud.client("logs").put_metric_filter(
        filterName="backlog",
        logGroupName=properties["LogGroupName"],
        filterPattern=properties["FilterPattern"],
        metricTransformations=[
            {key[0].lower() + key[1:]: value for key, value in change.items()}
            for change in properties["MetricTransformations"]
        ],
    )
    ((_, _, policy),) = resources("AWS::AutoScaling::ScalingPolicy")
    properties = resolve(policy["Properties"])
    tracking = properties["TargetTrackingConfiguration"]
    tracking["TargetValue"] = float(tracking["TargetValue"])
    assert properties["AutoScalingGroupName"] == made["workers"]["Machines"]
    cloud.client("autoscaling").put_scaling_policy(PolicyName="backlog", **properties)
    given = {"Size": made["size"], "BrokerToken": "token"}
    given |= dict.fromkeys(("BrokerParameters", "BrokerSubnets"), "default.redis7")
    broker = template("data")["Resources"]["Broker"]["Properties"]
    cloud.client("elasticache").create_replication_group(
        ReplicationGroupId="broker", **cloud.resolver("data", template("data"), given)(broker)
    )
