"""The back end that runs a GGUF file, with the real engine and a small model made here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from tests.engine import gguf_model
from tests.engine.server import engine

from doc_classify.classification import llamacpp
from doc_classify.classification.chat import ChatReply, ChatRequest
from doc_classify.classification.llamacpp import LlamaCppBackend
from doc_classify.classification.openai import OpenAIBackend
from doc_classify.classification.openai_probe import Dialect
from doc_classify.errors import (
    ConfigurationError,
    ContextExceededError,
    MissingDependencyError,
    ServerError,
    ServerSetupError,
)
from doc_classify.settings import Settings

pytest.importorskip("xllamacpp")

QUESTION = ChatRequest("Name the kind.", "invoice", max_tokens=4, logprobs=True)
SCHEMA = {
    "type": "object",
    "properties": {"category": {"type": "string", "enum": ["letter", "invoice"]}},
    "required": ["category"],
    "additionalProperties": False,
}
LONG = {"type": "object", "properties": {"a": {"type": "string", "minLength": 400}}}
LONG_ANSWER = ChatRequest(
    "Say something.",
    "invoice",
    440,
    schema=LONG | {"required": ["a"], "additionalProperties": False},
)

Result = TypeVar("Result")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.gguf"
    gguf_model.write_random(path, seed=1, words=["invoice", "letter", " kind"])
    return path


def backend_of(model: Path, **options: Any) -> LlamaCppBackend:
    usual = {"context": 512, "parallel": 2, "threads": 1, "gpu_layers": 0, "timeout": 60}
    return LlamaCppBackend(model, **(usual | options))


def use(
    backend: LlamaCppBackend | OpenAIBackend, work: Callable[[Any], Awaitable[Result]]
) -> Result:
    async def run() -> Result:
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(run())


def engines() -> list[psutil.Process]:
    """The engine processes that are ours."""
    return [
        child
        for child in psutil.Process().children()
        if "doc_classify.classification.llamacpp_server" in child.cmdline()
    ]


def test_a_model_is_run(model):
    async def work(backend: LlamaCppBackend) -> None:
        facts = await backend.open()
        assert facts.model == "random.gguf"
        weights, _, dialect = facts.version.partition(" ")
        assert weights == hashlib.sha256(model.read_bytes()).hexdigest()
        assert dialect == Dialect().fingerprint
        assert (facts.context, facts.on_gpu) == (512, 0.0)
        assert facts.logprobs and facts.schema and not facts.thinks
        assert facts.server.startswith("llama.cpp (xllamacpp ")
        assert backend.name == "llamacpp"

        reply = await backend.chat(QUESTION)
        assert reply.usage.calls == 1
        assert reply.usage.prompt_tokens > reply.usage.completion_tokens > 0
        assert 1 <= len(reply.tokens) <= reply.usage.completion_tokens  # bytes of a letter are one
        assert all(len(token.alternatives) >= 20 for token in reply.tokens)
        again = await backend.chat(QUESTION)
        assert again.usage.cached_tokens > 0
        assert again.text == reply.text

        in_json = await backend.chat(
            ChatRequest("Name the kind.", "invoice", max_tokens=200, schema=SCHEMA)
        )
        assert json.loads(in_json.text)["category"] in ("letter", "invoice")
        cut = await backend.chat(ChatRequest("Say something.", "invoice", max_tokens=2))
        assert cut.truncated and cut.usage.completion_tokens == 2
        await backend.alive()
        [process] = engines()
        await backend.close()
        assert not process.is_running()
        await backend.close()
        with pytest.raises(ServerError, match="closed"):
            await backend.chat(QUESTION)

    use(backend_of(model), work)


def test_a_prompt_that_is_too_long_is_refused_with_its_length(model):
    async def work(backend: LlamaCppBackend) -> ContextExceededError:
        await backend.open()
        with pytest.raises(ContextExceededError) as raised:
            await backend.chat(ChatRequest("s", "a" * 3000, max_tokens=4))
        return raised.value

    error = use(backend_of(model), work)
    assert error.limit == 512
    assert 3000 < error.tokens < 3100


def test_an_engine_that_dies_fails_its_requests_and_is_started_again(model):
    async def work(backend: LlamaCppBackend) -> None:
        await backend.open()
        before = await backend.chat(QUESTION)
        [process] = engines()
        waiting = [asyncio.create_task(backend.chat(LONG_ANSWER)) for _ in range(8)]
        await asyncio.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        failed = await asyncio.gather(*waiting, return_exceptions=True)
        died = [one for one in failed if not isinstance(one, ChatReply)]
        assert died
        for error in [*died, await _error(backend.chat(QUESTION))]:
            assert type(error) is ServerError
            assert "was killed (SIGKILL" in str(error)

        await asyncio.gather(backend.alive(), backend.alive(), backend.alive())
        [other] = engines()
        assert other.pid != process.pid
        assert (await backend.chat(QUESTION)).text == before.text

    use(backend_of(model), work)
    assert engines() == []


def test_whoever_takes_the_port_of_a_dead_engine_sees_no_document(model):
    async def work(backend: LlamaCppBackend) -> None:
        await backend.open()
        [process] = engines()
        port = int(backend._server.address.split(":")[2].split("/")[0])
        process.kill()
        while backend._engine.running:
            await asyncio.sleep(0.005)
        visits = []
        stranger = await asyncio.start_server(
            lambda *visit: visits.append(visit), "127.0.0.1", port
        )
        async with stranger:
            assert "was killed" in str(await _error(backend.chat(QUESTION)))
        assert visits == []

    use(backend_of(model), work)


async def _error(work: Awaitable[Any]) -> BaseException:
    with pytest.raises(ServerError) as raised:
        await work
    return raised.value


def test_a_model_that_is_none(tmp_path, model):
    path = tmp_path / "broken.gguf"
    path.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(ServerSetupError, match="cannot load the model"):
        use(backend_of(path), lambda backend: backend.open())
    assert engines() == []
    with pytest.raises(ConfigurationError, match="there is no model file"):
        backend_of(tmp_path / "missing.gguf")


def test_a_model_that_vanished_cannot_be_started_again(tmp_path, model):
    path = tmp_path / "model.gguf"
    path.write_bytes(model.read_bytes())

    async def work(backend: LlamaCppBackend) -> None:
        await backend.open()
        [process] = engines()
        process.kill()
        process.wait()
        path.unlink()
        with pytest.raises(ServerSetupError, match="there is no model file"):
            await backend.alive()

    use(backend_of(path), work)


def test_giving_up_while_the_model_is_loaded_leaves_nothing_behind(model):
    async def work(backend: LlamaCppBackend) -> None:
        opening = asyncio.create_task(backend.open())
        while not engines():
            await asyncio.sleep(0.005)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert engines() == []

    use(backend_of(model), work)


def test_an_engine_that_does_not_start_in_time(model, monkeypatch):
    monkeypatch.setattr(llamacpp, "_COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    started = time.monotonic()
    with pytest.raises(ServerSetupError, match=r"not loaded within 0\.2 s"):
        use(backend_of(model, timeout=0.2), lambda backend: backend.open())
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("raise SystemExit('no such luck')", "exited with code 1: no such luck"),
        ("import os; os.abort()", "died of SIGABRT"),
        ("print('nonsense')", "exited with code 0"),
        ('print(\'{"error": "out of memory"}\')', "out of memory"),
    ],
)
def test_an_engine_that_does_not_start(model, monkeypatch, program, says):
    monkeypatch.setattr(llamacpp, "_COMMAND", (sys.executable, "-c", program))
    with pytest.raises(ServerSetupError, match="llama.cpp cannot be used: .*" + says):
        use(backend_of(model), lambda backend: backend.open())


def test_the_engine_sees_no_secrets(model, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@host/db")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    async def work(backend: LlamaCppBackend) -> None:
        await backend.open()
        [process] = engines()
        seen = process.environ()
        assert not {"OPENAI_API_KEY", "DATABASE_URL"} & set(seen)
        assert "CUDA_VISIBLE_DEVICES" in seen
        command = " ".join(process.cmdline())
        sent = backend._server._client._headers["Authorization"]
        assert sent.removeprefix("Bearer ") not in command
        assert os.getsid(process.pid) == process.pid
        [address] = [one.laddr.ip for one in process.net_connections() if one.status == "LISTEN"]
        assert address == "127.0.0.1"
        stranger = OpenAIBackend(backend._server.address, context=512, timeout=5)
        with pytest.raises(ServerSetupError, match="401"):
            await stranger.open()
        await stranger.close()

    use(backend_of(model), work)


def test_the_engine_ends_with_a_parent_that_was_killed(model):
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from doc_classify.classification.llamacpp import LlamaCppBackend\n"
        "async def main():\n"
        "    backend = LlamaCppBackend(Path(sys.argv[1]), context=512, parallel=1, threads=1,"
        " gpu_layers=0, timeout=60)\n"
        "    await backend.open()\n"
        "    print(backend._engine._process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, model], stdout=subprocess.PIPE)
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone, _ = psutil.wait_procs([child], timeout=10)
    assert gone or child.status() == psutil.STATUS_ZOMBIE


def test_the_parts_of_a_model_count_all(tmp_path):
    parts = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, part in enumerate(parts):
        part.write_bytes(b"part" * (number + 1))
    found = asyncio.run(llamacpp._Hashing(parts[0]).digest())
    assert found == hashlib.sha256(b"part" * 3).hexdigest()
    parts[1].unlink()
    with pytest.raises(ServerError, match=r"m-00002-of-00002\.gguf: No such"):
        asyncio.run(llamacpp._Hashing(parts[0]).digest())


def test_the_settings_are_used(model):
    with pytest.raises(ConfigurationError, match=r"--model FILE\.gguf"):
        LlamaCppBackend.from_settings(Settings())
    chosen = Settings(
        llamacpp_model=model, llamacpp_parallel=3, llamacpp_threads=1, llm_context=600
    )
    facts = use(LlamaCppBackend.from_settings(chosen), lambda backend: backend.open())
    assert facts.context == 600


def test_without_the_package(model, monkeypatch):
    monkeypatch.setattr(llamacpp, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"doc-classify\[llamacpp\]"):
        backend_of(model)


def test_the_openai_back_end_finds_out_what_llama_cpp_can_do(model):
    async def work(backend: OpenAIBackend) -> None:
        facts = await backend.open()
        assert (facts.model, facts.context) == (str(model), 512)
        assert facts.logprobs and facts.schema and not facts.thinks
        assert facts.server.startswith("llama.cpp")
        assert (await backend.open()).version == facts.version
        reply = await backend.chat(QUESTION)
        assert 1 <= len(reply.tokens) <= reply.usage.completion_tokens  # bytes of a letter are one
        await backend.alive()

    with engine(model, parallel=2, context=512) as served:
        use(OpenAIBackend(served.base_url, api_key=served.api_key, context=4096, timeout=60), work)
