"""The commands of a guide: found, run as they stand, or checked where they need a cloud."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import botocore.session
import click
from botocore import xform_name
from ruamel.yaml import YAML
from tests.deploy.aws import template

from doc_classify.cli import cli

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INNER = re.compile(r"\$\(([^()]*)\)")


@dataclass(frozen=True)
class Fence:
    """A block of commands that one shell would run."""

    guide: str
    number: int
    lines: tuple[str, ...]

    @property
    def starts_a_worker(self) -> bool:
        return bool(re.match(r"celery .* worker ", self.lines[0]))

    @property
    def starts_flower(self) -> bool:
        return bool(re.match(r"celery .* flower ", self.lines[0]))


def fences(guide: str) -> list[Fence]:
    """The blocks of a guide in its order; lines that are continued are joined."""
    text = (ROOT / guide).read_text("utf-8")
    return [
        Fence(guide, number, tuple(_lines(found[1])))
        for number, found in enumerate(_FENCE.finditer(text), 1)
    ]


def _lines(block: str) -> Iterator[str]:
    for line in block.replace("\\\n", " ").splitlines():
        bare = re.sub(r"\s+# .*$", "", line).strip()
        if bare and not bare.startswith("#"):
            yield bare


def programs(line: str) -> set[str]:
    """The programs that a line calls, also within $(...), pipes and functions."""
    parts = [line, *_INNER.findall(line)]
    return {
        words[0]
        for part in parts
        for piece in re.split(r"\||;|\{|&&", re.sub(r"'[^']*'|\"[^\"]*\"", "", part))
        if (words := re.sub(r"^\s*\w+=\S*\s*", "", piece).split())
    }


# --- checked, not run -----------------------------------------------------------------------------


def check(line: str) -> None:
    """See that a command which is not run would be taken by what it is for.

    Raises:
        AssertionError: it would not.
    """
    if line.startswith(("out() {", "task() {")):
        body = line[line.index("{") + 1 : line.rindex("}")].strip().removesuffix(";")
        _check(body)
    elif line.startswith("task "):
        (command,) = shlex.split(line)[1:]
        accepted(YAML(typ="safe").load(command))
    elif found := re.match(r"\w+=\$\((.*?)\)(\S*)$", line):
        _check(found[1])
    else:
        for piece in re.split(r"\s\|\s", line):
            _check(piece)


def _check(line: str) -> None:
    for inner in _INNER.findall(line):
        words = inner.split()
        if words[0] == "out":
            stack, output = words[1:]
            assert output in template(stack)["Outputs"], inner
        elif words[0] != "openssl":
            _check(inner)
    words = shlex.split(_INNER.sub("VALUE", line).replace('\\"', "'"))
    assert words[0] in NOT_RUN, line
    NOT_RUN[words[0]](words[1:])


def accepted(words: list[str]) -> None:
    """A command line of doc-classify is parsed."""
    name, *rest = words
    with cli.make_context("doc-classify", [name]) as context:
        command = cli.get_command(context, name)
    assert command is not None, words
    try:
        command.make_context(name, list(rest))
    except click.ClickException as error:
        raise AssertionError(f"{words}: {error.message}") from error


def _aws(words: list[str]) -> None:
    service, operation, *rest = words
    options = _options(rest)
    if (service, operation) == ("cloudformation", "deploy"):
        _stack(rest)
        return
    if (service, operation) in _OF_THE_CLI:
        assert set(options) <= _OF_THE_CLI[service, operation], words
        return
    model = _session().get_service_model(service)
    known = {xform_name(name, "-"): name for name in model.operation_names}
    assert operation in known, words
    shape = model.operation_model(known[operation]).input_shape
    members = {f"--{xform_name(name, '-')}" for name in shape.members}
    assert set(options) <= members | {"--query", "--output"}, words
    required = {f"--{xform_name(name, '-')}" for name in shape.required_members}
    assert required <= set(options), words


_OF_THE_CLI = {
    ("ecr", "get-login-password"): set[str](),
    ("logs", "tail"): {"--follow", "--since"},
    ("s3", "cp"): {"--recursive"},
    ("s3", "sync"): set[str](),
}
"""Commands of the AWS command line that are no operation of a service."""


@cache
def _session() -> botocore.session.Session:
    return botocore.session.Session()


def _options(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("--")]


def _stack(words: list[str]) -> None:
    """``cloudformation deploy``: the template, and every parameter without a default."""
    path = ROOT / words[words.index("--template-file") + 1]
    assert path.is_file(), path
    assert words[words.index("--stack-name") + 1] == f"doc-classify-{path.stem}"
    parameters = template(path.stem)["Parameters"]
    given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z]\w*=", word))
    assert set(given) <= set(parameters), words
    assert {name for name, one in parameters.items() if "Default" not in one} <= set(given)
    for name, value in given.items():
        assert value in parameters[name].get("AllowedValues", [value]), (name, value)
    roles = "AWS::IAM::Role" in str(template(path.stem))
    assert ("CAPABILITY_IAM" in words) == roles, words


def _kubectl(words: list[str]) -> None:
    if "--" in words:
        inner = words[words.index("--") + 1 :]
        assert inner[0] == "doc-classify"
        accepted(inner[1:])
        words = words[: words.index("--")]
    if words[0] == "-n":
        assert words[1] == "doc-classify"
        words = words[2:]
    verb, *rest = words
    if verb == "apply":
        assert rest[0] == "-k" and (ROOT / rest[1] / "kustomization.yaml").is_file()
    elif verb == "create" and rest[0] == "-f":
        assert (ROOT / rest[1]).is_file()
    elif verb == "create":
        assert rest[0] in ("namespace", "secret") and "doc-classify" in rest
    else:
        assert verb in ("exec", "logs", "rollout")
        assert rest[-1] == "deployment/worker"


def _docker(words: list[str]) -> None:
    if words[0] == "compose":
        assert words[1] == "-f" and (ROOT / words[2]).is_file()
        services = YAML(typ="safe").load(ROOT / words[2])["services"]
        verb, *rest = words[3:]
        assert verb in ("up", "ps", "run", "logs", "stop", "restart")
        named = [word.split("=")[0] for word in rest if not word.startswith("-")]
        if verb == "run":
            assert named[0] in services
            accepted(named[1:])
        else:
            assert set(named) <= set(services), words
    elif words[0] == "build":
        assert words[-1] == "."
        file = words[words.index("-f") + 1] if "-f" in words else "Dockerfile"
        known = set(re.findall(r"^ARG (\w+)", (ROOT / file).read_text("utf-8"), re.MULTILINE))
        for place, word in enumerate(words):
            if word == "--build-arg":
                name, value = words[place + 1].split("=")
                assert name in known
                if name == "EXTRAS":
                    assert set(value.split(",")) <= set(_project()["optional-dependencies"])
    else:
        assert words[0] in ("push", "login"), words


def _pip(words: list[str]) -> None:
    assert words[0] == "install", words
    for word in words[1:]:
        extras = re.fullmatch(r"(?:doc-classify|\.)\[(.*)\]", word)
        assert word in (".", "-e") or (
            extras and set(extras[1].split(",")) <= set(_project()["optional-dependencies"])
        )


def _project() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = tomllib.loads(
        (ROOT / "pyproject.toml").read_text("utf-8")
    )["project"]
    return found


def _ollama(words: list[str]) -> None:
    assert words[0] in ("ps", "list") or (words[0] == "pull" and words[1].startswith("llama3.2:"))


NOT_RUN: dict[str, Callable[[list[str]], None]] = {
    "aws": _aws,
    "docker": _docker,
    "kubectl": _kubectl,
    "ollama": _ollama,
    "pip": _pip,
}
"""Programs that would need a cloud, a daemon, a model or the network: what they are given is
checked instead. Everything else in the guides is run."""
