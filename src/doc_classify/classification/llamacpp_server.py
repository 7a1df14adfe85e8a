"""The engine process: serves one language model over HTTP with the llama.cpp inside xllamacpp.

Run as ``python -m doc_classify.classification.llamacpp_server``. It reads one line of JSON from
standard input, see :class:`EngineConfig`, answers with one line, ``{"port": 40123}`` or
``{"error": "why not"}``, and serves on 127.0.0.1 until its standard input ends. A fault of the
native code ends this process alone; nothing that a stranger may not see is on its command line.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from doc_classify.orphans import die_with_parent

MISSING = "the engine llama.cpp is not installed: pip install 'doc-classify[llamacpp]'"
_FURTHER_CONNECTIONS = 64
_WARNINGS = 2  # how much llama.cpp logs: from 1, errors, to 5, everything
_FIRST_ERROR = re.compile(rb"^\S+ E (?:\w+ +)?\w+: (?:error loading model: )?(.+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the engine is to serve.

    ``context`` is the number of tokens of a prompt with its answer, for each of the ``parallel``
    requests at a time; ``threads`` is None for as many as the machine has cores; ``gpu_layers``
    is -1 for as many as fit.
    """

    model: str
    context: int
    parallel: int
    threads: int | None
    gpu_layers: int
    api_key: str

    def encode(self) -> bytes:
        """The configuration as a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> EngineConfig:
        """The configuration from a line."""
        return cls(**json.loads(line))


def main() -> int:
    """Start the engine, tell its port, and serve until standard input ends."""
    # Native libraries print to file descriptor 1; only our own line may reach the parent.
    reply = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()  # where the kernel cannot do it, standard input ends
    config = EngineConfig.decode(sys.stdin.buffer.readline())
    try:
        server = _start(config)
    except _NotStartedError as error:
        print(json.dumps({"error": str(error)}), file=reply, flush=True)
        return 1
    port = urlsplit(server.listening_address).port
    print(json.dumps({"port": port}), file=reply, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # the server would first finish what it has begun, and nobody is left to read it


class _NotStartedError(Exception):
    """The engine cannot serve; says why in one line."""


def _start(config: EngineConfig) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise _NotStartedError(MISSING) from error
    if not Path(config.model).is_file():
        raise _NotStartedError(f"there is no model file {config.model}")
    with _logged() as log:
        try:
            return xllamacpp.Server(_parameters(xllamacpp.CommonParams(), config))
        except (RuntimeError, ValueError) as error:
            reason = _reason(log()) or str(error)
    raise _NotStartedError(f"cannot load the model {config.model}: {reason}")


def _parameters(parameters: Any, config: EngineConfig) -> Any:
    parameters.model.path = config.model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0  # any free one
    parameters.api_keys = [config.api_key]
    parameters.ui = False
    parameters.endpoint_slots = False  # would show the documents that are being read
    parameters.verbosity = _WARNINGS
    # A connection has a thread as long as it is open. Further threads are started on demand, but of
    # many connections at once some would be overlooked, and wait until another one is closed.
    parameters.n_threads_http = config.parallel + _FURTHER_CONNECTIONS

    # Each slot has its own part of the context, and a prompt that is longer is refused, not cut.
    parameters.n_parallel = config.parallel
    parameters.n_ctx = config.context * config.parallel
    parameters.kv_unified = False
    parameters.ctx_shift = False
    # A slot keeps the instructions that all prompts begin with; whole documents never come again.
    parameters.cache_ram_mib = 0
    parameters.cache_idle_slots = False

    parameters.n_gpu_layers = config.gpu_layers
    parameters.fit_params = config.gpu_layers < 0
    if config.threads is not None:
        parameters.cpuparams.n_threads = config.threads
        parameters.cpuparams_batch.n_threads = config.threads
    return parameters


@contextmanager
def _logged() -> Iterator[Any]:
    """Collect what is written to standard error meanwhile, and write it there afterwards."""
    with tempfile.TemporaryFile() as log:

        def read() -> bytes:
            return os.pread(log.fileno(), 1 << 20, 0)

        terminal = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield read
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            sys.stderr.buffer.write(read())
            sys.stderr.flush()


def _reason(log: bytes) -> str:
    """Why the model was not loaded, from what llama.cpp logged; empty where it does not say."""
    found = _FIRST_ERROR.search(log)
    return found[1].decode(errors="replace").strip() if found else ""


if __name__ == "__main__":
    sys.exit(main())
