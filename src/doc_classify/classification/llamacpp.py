"""Running a language model from a GGUF file, with no server to set up.

The engine is a process of its own (:mod:`.llamacpp_server`): a fault of its native code ends that
process alone, and it is started again. It serves OpenAI's protocol on the loopback interface, to
whoever has the key that it is told through its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import sys
import threading
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from doc_classify.classification.chat import ChatReply, ChatRequest, ServerFacts
from doc_classify.classification.llamacpp_server import EngineConfig
from doc_classify.classification.openai import OpenAIBackend
from doc_classify.errors import (
    ConfigurationError,
    MissingDependencyError,
    ServerBusyError,
    ServerError,
    ServerSetupError,
)
from doc_classify.settings import Settings
from doc_classify.terminal import one_line, shown_path

_PACKAGE = "xllamacpp"
_STOP_SECONDS = 5.0
_DEATH_SECONDS = 1.0
"""How long the end of a process may take to show after its connections broke."""
_READ_AT_ONCE = 4 * 1024 * 1024
_STDERR_KEPT = 2_000
_PART = re.compile(r"(.+)-00001-of-(\d{5})\.gguf", re.DOTALL)

_COMMAND = (
    sys.executable,
    "-P",  # the working directory may hold hostile .py files
    *("-m", "doc_classify.classification.llamacpp_server"),
)

_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
_INHERITED_PREFIXES = (
    *("LC_", "LD_LIBRARY_", "DYLD_", "OMP_"),
    *("CUDA_", "NVIDIA_", "HIP_", "HSA_", "ROCR_", "VK_", "GGML_"),  # which GPUs, and how
)
"""Variables that the engine gets to see: no database address, no keys."""


class LlamaCppBackend:
    """A GGUF file, run by llama.cpp in a process of its own; a :class:`~.chat.ChatBackend`.

    Args:
        model_path: the file.
        context: tokens that prompt and answer may have together.
        parallel: requests that the engine works on at a time, each with a context of its own.
        threads: threads of the engine, None for as many as it finds best.
        gpu_layers: layers of the model in GPU memory, -1 for as many as fit.
        timeout: seconds until an answer must be complete, and until the model must be loaded.

    Raises:
        MissingDependencyError: the engine is not installed.
        ConfigurationError: there is no such file.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        context: int,
        parallel: int,
        threads: int | None,
        gpu_layers: int,
        timeout: float,
    ) -> None:
        if find_spec(_PACKAGE) is None:
            raise MissingDependencyError(_PACKAGE, "llamacpp", "run a GGUF model without a server")
        if not model_path.is_file():
            raise ConfigurationError(f"there is no model file {shown_path(model_path)}")
        self._path = model_path.absolute()
        self._config = EngineConfig(str(self._path), context, parallel, threads, gpu_layers, "")
        self._timeout = timeout
        self._engine: _Engine | None = None
        self._server: OpenAIBackend | None = None
        self._restarting = asyncio.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> LlamaCppBackend:
        """The back end that the settings name.

        Raises:
            ConfigurationError: no file is given, or there is none at that place.
            MissingDependencyError: the engine is not installed.
        """
        if settings.llamacpp_model is None:
            raise ConfigurationError(
                "the classifier llamacpp needs a model: give --model FILE.gguf"
            )
        return cls(
            settings.llamacpp_model,
            context=settings.llm_context,
            parallel=settings.llamacpp_parallel,
            threads=settings.llamacpp_threads,
            gpu_layers=settings.llamacpp_gpu_layers,
            timeout=settings.llm_timeout,
        )

    @property
    def name(self) -> str:
        """Short name as in ``--classifier``."""
        return "llamacpp"

    async def open(self) -> ServerFacts:
        """Load the model and find out what it can do; meanwhile its file is hashed.

        Raises:
            ServerSetupError: the model cannot be loaded or the engine not started; says why.
            ServerError: the engine died while it was asked, or the model cannot be read.
        """
        if self._server is not None:
            await self.close()
        hashing = _Hashing(self._path)
        digest = asyncio.create_task(hashing.digest())
        try:
            config = self._keyed()
            self._engine = engine = _Engine(config)
            self._server = server = OpenAIBackend(
                await engine.start(self._timeout),
                api_key=config.api_key,
                context=config.context,
                timeout=self._timeout,
                trust_env=False,
            )
            try:
                facts = await server.open()
            except ServerError as error:
                raise await self._explained(engine, error) from error
            weights = await digest
        except BaseException:
            await self.close()
            raise
        finally:
            hashing.stop()
            await asyncio.gather(digest, return_exceptions=True)
        return replace(
            facts,
            address="this machine",
            model=shown_path(self._path.name),
            # The file says all about the model, and the dialect how it is asked; what else the
            # engine tells is of this machine.
            version=f"{weights} {server.dialect.fingerprint}",
            on_gpu=0.0 if config.gpu_layers == 0 else None,
            server=f"llama.cpp ({_PACKAGE} {_package_version()})",
        )

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Ask one question; see :meth:`~.chat.ChatBackend.chat` for the errors.

        Raises:
            ServerError: also when the engine has died; :meth:`alive` starts it again.
        """
        server, engine = self._opened()
        if not engine.running:  # whoever serves at its port now is to see no document
            raise ServerError(await engine.death() or "the engine llama.cpp is not there")
        try:
            return await server.chat(request)
        except ServerBusyError:
            raise
        except ServerError as error:
            raise await self._explained(engine, error) from error

    async def alive(self) -> None:
        """Ask the engine whether it is there; start it again where it has died.

        Raises:
            ServerError: it does not answer.
            ServerSetupError: it cannot be started again; says why.
        """
        async with self._restarting:
            server, engine = self._opened()
            try:
                if engine.running:
                    await server.alive()
                    return
            except ServerError:
                if await engine.death() is None:
                    raise
            await engine.stop()
            config = self._keyed()
            self._engine = engine = _Engine(config)
            await server.move(await engine.start(self._timeout), config.api_key)
            await server.alive()

    async def close(self) -> None:
        """End the engine, whatever it is doing. Safe to call twice."""
        server, self._server = self._server, None
        engine, self._engine = self._engine, None
        if server is not None:
            await server.close()
        if engine is not None:
            await engine.stop()

    def _opened(self) -> tuple[OpenAIBackend, _Engine]:
        if self._server is None or self._engine is None:
            raise ServerError("the engine is closed")
        return self._server, self._engine

    def _keyed(self) -> EngineConfig:
        return replace(self._config, api_key=secrets.token_urlsafe(32))

    async def _explained(self, engine: _Engine, error: ServerError) -> ServerError:
        """The same error, unless the engine's death is behind it."""
        death = await engine.death()
        return error if death is None else ServerError(death)


class _Engine:
    """One process of the engine."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._stderr_task: asyncio.Task[None] | None = None
        self._stderr_tail = b""

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, limit: float) -> str:
        """Start the process; returns its address when it has loaded the model.

        Raises:
            ServerSetupError: it could not.
        """
        self._process = process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for us alone, who then end the engine in order
        )
        self._stderr_task = asyncio.create_task(self._drain_stderr(process))
        line = b""
        try:
            async with asyncio.timeout(limit):
                with contextlib.suppress(ConnectionError):  # what it said last may be there still
                    process.stdin.write(self._config.encode())  # type: ignore[union-attr]
                    await process.stdin.drain()  # type: ignore[union-attr]
                line = await process.stdout.readline()  # type: ignore[union-attr]
        except TimeoutError:
            await self.stop(0)
            raise ServerSetupError(f"the model was not loaded within {limit:g} s") from None
        except BaseException:
            await self.stop(0)
            raise
        told = _told(line)
        port = told.get("port")
        if isinstance(port, int):
            return f"http://127.0.0.1:{port}"
        reason = told.get("error") or await self.death() or "it did not say where it serves"
        await self.stop()
        raise ServerSetupError(one_line(f"llama.cpp cannot be used: {reason}"))

    async def death(self) -> str | None:
        """What the process died of; None where it lives."""
        process = self._process
        if process is None:
            return "the engine was stopped"
        try:
            async with asyncio.timeout(_DEATH_SECONDS):
                code = await process.wait()
        except TimeoutError:
            return None
        if self._stderr_task is not None:
            await asyncio.wait({self._stderr_task}, timeout=_DEATH_SECONDS)
        said = self._stderr_tail.decode("utf-8", "replace").strip().splitlines()
        detail = f": {said[-1]}" if said else ""
        if code == -signal.SIGKILL:
            reason = "was killed (SIGKILL: often the system running out of memory)"
        elif code < 0:
            reason = f"died of {_signal_name(-code)}"
        else:
            reason = f"exited with code {code}"
        return one_line(f"the engine llama.cpp {reason}{detail}")

    async def stop(self, patience: float = _STOP_SECONDS) -> None:
        """Let the process end by itself, or end it when it does not; safe to call twice."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(patience):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        if self._stderr_task is not None:
            self._stderr_task.cancel()
            await asyncio.wait({self._stderr_task})
        if process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                await process.stdin.wait_closed()
        # Without this the pipes linger until garbage collection and warn then.
        process._transport.close()  # type: ignore[attr-defined]

    async def _drain_stderr(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 (for the type checker: we asked for a pipe)
        while data := await process.stderr.read(4096):
            self._stderr_tail = (self._stderr_tail + data)[-_STDERR_KEPT:]


class _Hashing:
    """The hash of a model's file or files, made in a thread that can be told to stop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped = threading.Event()

    async def digest(self) -> str:
        """The SHA-256 of the file; of all of them in their order where the model is in parts.

        Raises:
            ServerError: a file cannot be read.
        """
        try:
            return await asyncio.to_thread(self._read)
        except OSError as error:
            path = shown_path(error.filename or self._path)
            raise ServerError(f"cannot read {path}: {error.strerror}") from error

    def stop(self) -> None:
        self._stopped.set()

    def _read(self) -> str:
        found = hashlib.sha256()
        for path in _parts(self._path):
            with path.open("rb", buffering=0) as file:
                while not self._stopped.is_set() and (read := file.read(_READ_AT_ONCE)):
                    found.update(read)
        return found.hexdigest()


def _parts(path: Path) -> list[Path]:
    """The files of a model, which llama.cpp finds by the name of the first of them."""
    named = _PART.fullmatch(path.name)
    if named is None:
        return [path]
    stem, count = named[1], named[2]
    return [
        path.with_name(f"{stem}-{number:05}-of-{count}.gguf") for number in range(1, int(count) + 1)
    ]


def _told(line: bytes) -> dict[str, object]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _package_version() -> str:
    try:
        return version(_PACKAGE)
    except PackageNotFoundError:
        return "of an unknown version"
