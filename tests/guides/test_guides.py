"""Every command of the guides works: run as it stands there, or checked where it needs a cloud."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.deploy.aws import template
from tests.doubles.ollama import OllamaDouble
from tests.guides.commands import NOT_RUN, ROOT, Fence, check, fences, programs

from conftest import CeleryWorker, RedisServer, _free_port, fresh_database, wait_until
from doc_classify.doctor import examine
from doc_classify.errors import DocClassifyError
from doc_classify.settings import load_settings

GUIDES = ("DEPLOYMENT_GUIDE_PARALLEL.md", "TROUBLESHOOTING.md", "docs/scaling-guide.md")
SMALLER = {
    "--count 100": "--count 12 --scanned 0",
    "--concurrency=8": "--concurrency=2",
    "--output-dir benchmark_results/": "--output-dir benchmark_results/ --repeat 1",
}
"""What is made smaller here than a reader would have it."""
ONLY_LOOKS = re.compile(r"doc-classify (backlog|config|doctor|results|runs|status)\b[^$]*")
"""Commands that change nothing: the same line is run once for each guide."""
MAY_SAY_MORE = {"doctor": {0, 1}}
"""Commands whose exit code says something of this machine."""


@dataclass
class Reader:
    """Somebody who does what a guide says: a folder, and the servers that the guide supposes."""

    folder: Path
    database: str
    broker: str
    ollama: str

    def __post_init__(self) -> None:
        self.started: list[CeleryWorker] = []
        self.seen: set[str] = set()
        for name in ("scripts", "tests", "deploy"):
            (self.folder / name).symlink_to(ROOT / name)

    @property
    def environment(self) -> dict[str, str]:
        programs = Path(sys.executable).parent
        return {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "DATABASE_URL": self.database,
            "CELERY_BROKER_URL": self.broker,
            "OLLAMA_HOST": self.ollama,
            "DOC_CLASSIFY_WORKERS": "2",
        }

    def follow(self, fence: Fence) -> None:
        """Do what a block says."""
        if fence.starts_a_worker:
            self._start_worker(fence)
        elif fence.starts_flower:
            self._look_at_flower(fence)
        else:
            self._run(fence)

    def _start_worker(self, fence: Fence) -> None:
        (line,) = fence.lines
        words = self._adapted(line).split()
        assert words[:4] == ["celery", "-A", "doc_classify.celery_tasks", "worker"]
        name, concurrency = (
            next(word.removeprefix(f"--{option}=") for word in words if option in word)
            for option in ("hostname", "concurrency")
        )
        self.started.append(
            CeleryWorker(
                name.removesuffix("@%h"),
                self.environment,
                self.folder / "worker.log",
                concurrency=int(concurrency),
                directory=self.folder,
            ).wait_until_ready()
        )

    def _look_at_flower(self, fence: Fence) -> None:
        (line,) = fence.lines
        assert "--address=127.0.0.1" in line
        port = _free_port()
        words = re.sub(r"--port=\d+", f"--port={port}", line).split()
        with (self.folder / "flower.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=self.folder,
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
            )

        def answers() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck") as page:
                    return bool(page.read() == b"OK")
            except OSError:
                return False

        try:
            wait_until(answers, "Flower answers")
        finally:
            process.terminate()
            process.wait(20)

    def _run(self, fence: Fence) -> None:
        """The lines that can be run, in one shell, so that variables live as long as the block."""
        script = []
        for line in fence.lines:
            if any(program in NOT_RUN for program in programs(line)) or line.startswith("task "):
                check(line)
            elif not (ONLY_LOOKS.fullmatch(line) and line in self.seen):
                self.seen.add(line)
                script += [self._adapted(line), f'echo "$? {fence.number}" >&3']
        if not script:
            return
        codes, ends = os.pipe()
        with os.fdopen(codes) as read:
            done = subprocess.run(
                ["bash", "-c", "\n".join([f"exec 3>&{ends}", *script])],
                check=False,
                capture_output=True,
                text=True,
                timeout=300,
                cwd=self.folder,
                env=os.environ | self.environment,
                pass_fds=[ends],
            )
            os.close(ends)
            found = [int(line.split()[0]) for line in read]
        assert len(found) == len(script) // 2, done.stdout + done.stderr
        for line, code in zip(script[::2], found, strict=True):
            words = line.split()
            allowed = MAY_SAY_MORE.get(words[1], {0}) if len(words) > 1 else {0}
            assert code in allowed, (line, code, done.stdout[-2000:], done.stderr[-2000:])

    def _adapted(self, line: str) -> str:
        line = line.replace("postgresql://USER:PASSWORD@HOST/NAME", self.database)
        line = line.replace("redis://:PASSWORD@HOST:6379/0", self.broker)
        for given, smaller in SMALLER.items():
            line = line.replace(given, smaller)
        return line


@pytest.fixture
def reader(
    redis_server: RedisServer, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reader]:
    redis_server.flush()
    monkeypatch.setenv("DOC_CLASSIFY_LEASE_SECONDS", "12")
    with OllamaDouble(lambda _system, _user: {"invoices": 0.8, "other": 0.2}) as double:
        found = Reader(tmp_path, fresh_database(postgres_url), redis_server.url, double.url)
        try:
            yield found
        finally:
            for worker in found.started:
                worker.end()


def prepare(reader: Reader, *lines: str) -> None:
    """What a guide supposes to be there."""
    for number, line in enumerate(lines):
        reader.follow(Fence("preparation", number, (line,)))


WORKER = (
    "celery -A doc_classify.celery_tasks worker --loglevel=info --concurrency=8 --hostname=a@%h"
)


@pytest.mark.parametrize("guide", GUIDES)
def test_every_command_works(guide: str, reader: Reader):
    if guide == "TROUBLESHOOTING.md":
        prepare(
            reader,
            "doc-classify dataset --count 100 --hostile 0 --output test_docs",
            WORKER,
            'doc-classify submit "$PWD/test_docs" --wait',
        )
    for fence in fences(guide):
        reader.follow(fence)


def test_nothing_of_a_guide_is_passed_over():
    for guide in GUIDES:
        found = fences(guide)
        assert len(found) > 5
        text = (ROOT / guide).read_text("utf-8")
        # Blocks of other kinds hold no commands.
        assert set(re.findall(r"^```(\w+)$", text, re.MULTILINE)) <= {"bash", "text"}


@pytest.mark.parametrize(
    "line",
    [
        "aws cloudformation deploy --stack-name doc-classify-data --template-file "
        "deploy/aws/data.yaml --parameter-overrides Sise=minimal",
        "aws cloudformation deploy --stack-name doc-classify-network --template-file "
        "deploy/aws/network.yaml",
        "aws cloudformation delete-stack --stack doc-classify-network",
        "aws ecs start-tasks --cluster a",
        "docker compose -f docker-compose-workers.yml up -d worker9",
        "docker build --build-arg EXTRAS=distribute .",
        "kubectl apply -k deploy/kubernets",
        "kubectl -n doc-classify exec deployment/worker -- doc-classify stats",
        'task \'["export", "--out", "x.csv"]\'',
        "pip install doc-classify[object]",
        "pip install '.[datasets]'",
    ],
)
def test_a_mistake_in_a_command_that_is_not_run_is_found(line: str):
    with pytest.raises(AssertionError):
        check(line)


def test_kinds_of_failures_and_names_of_findings_are_real():
    text = (ROOT / "TROUBLESHOOTING.md").read_text("utf-8")
    kinds = set(_kinds(DocClassifyError))
    section = text.split("## Documents fail")[1].split("## ")[0]
    named = set(re.findall(r"`([a-z_]+)`", section)) - {"time_limit", "memory_limit_mb"}
    assert named and named <= kinds
    names = {finding.name for finding in examine(load_settings())}
    # Those that only show themselves with an LLM, or with a broker and workers.
    names |= {"LLM server", "LLM speed", "workers", "messages", "connections"}
    source = "".join(
        path.read_text("utf-8") for path in (ROOT / "src/doc_classify/doctor").glob("*.py")
    )
    assert all(f'"{name}"' in source for name in names)
    table = text.split("| symptom")[1].split("## ")[0]
    for row in re.findall(r"`doctor` \(([^)]*)\)", table):
        assert set(re.findall(r"`([^`]+)`", row)) <= names, row


def _kinds(error: type[DocClassifyError]) -> Iterator[str]:
    yield error.kind
    for one in error.__subclasses__():
        yield from _kinds(one)


def test_links_lead_somewhere():
    for guide in GUIDES:
        path = ROOT / guide
        text = path.read_text("utf-8")
        anchors = {
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        for target in re.findall(r"\]\(([^)]+)\)", text):
            if target.startswith("#"):
                assert target[1:] in anchors, target
            elif not target.startswith("https://"):
                assert (path.parent / target.split("#")[0]).exists(), target


def test_the_guide_names_the_sizes_that_the_templates_make():
    text = (ROOT / "DEPLOYMENT_GUIDE_PARALLEL.md").read_text("utf-8")
    machines, servers = (template(name)["Mappings"]["Sizes"] for name in ("workers", "data"))
    for size, found in machines.items():
        how = "on demand" if found["OnDemandPercent"] else "spot"
        workers = f"up to {found['Machines']} {found['Type']}, {how}"
        services = f"{servers[size]['Database']} | {servers[size]['Broker']}"
        assert f"| `{size}` | {workers} | {services} |" in text
    default = template("workers")["Parameters"]["ChunksPerMachine"]["Default"]
    assert f"{default} unfinished chunks (`ChunksPerMachine`)" in text
    for name in ("network", "data", "llm", "workers"):
        assert f"| `{name}.yaml` |" in text
