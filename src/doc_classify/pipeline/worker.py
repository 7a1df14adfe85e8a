"""The worker process: reads one document after the other and answers in a line.

It also classifies, where the classifier is one that runs in a worker.

Started by :mod:`doc_classify.pipeline.isolation` as a plain subprocess. It holds nothing that
matters, so it may crash or be killed at any moment; it has no database, no secrets in its
environment, and limits on its memory.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO

from doc_classify.classification import Classifier, ClassifierInput, make_classifier
from doc_classify.errors import (
    DocClassifyError,
    OutOfMemoryError,
    SourceChangedError,
    SourceUnreadableError,
)
from doc_classify.extraction import Document, extract
from doc_classify.orphans import die_with_parent
from doc_classify.pipeline.messages import Reply, Request, WorkerConfig
from doc_classify.records import Extraction, Failure, Source, Timings, document_name, uri_to_path
from doc_classify.sniffing import sniff

READY = b"ready\n"
_ORPHAN_GRACE = 10.0
"""Seconds past the time limit after which a worker whose parent is gone kills itself."""


def main() -> int:
    """Serve requests from standard input until it ends."""
    # Native libraries print to file descriptor 1; only our own lines may reach the parent.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()  # where the kernel cannot do it, the alarm does
    config = WorkerConfig.decode(requests.readline())
    _limit(config)
    classifier: Classifier | None = None
    if config.student is not None:
        from doc_classify.classification.student import StudentClassifier

        classifier = StudentClassifier.from_file(Path(config.student))
    elif config.classifier is not None:
        classifier = make_classifier(config.classifier, config.taxonomy, config.model)
    replies.write(READY)
    replies.flush()
    with contextlib.suppress(BrokenPipeError):  # the parent went away: nobody left to tell
        _serve(requests, replies, config, classifier)
    return 0


def _serve(
    requests: BinaryIO, replies: BinaryIO, config: WorkerConfig, classifier: Classifier | None
) -> None:
    for line in requests:
        signal.setitimer(signal.ITIMER_REAL, config.time_limit + _ORPHAN_GRACE)
        reply = _answer(Request.decode(line), config, classifier)
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(reply.encode())
        replies.flush()


def _answer(request: Request, config: WorkerConfig, classifier: Classifier | None) -> Reply:
    name = document_name(request.source.uri)
    begun, started = time.perf_counter(), time.process_time()
    extract_seconds = 0.0
    extraction = request.extraction
    classification = failure = None
    try:
        if extraction is None:
            extraction = _read(request.copy or request.source, name, config)
        extract_seconds = time.process_time() - started
        if classifier:
            classification = classifier.classify(
                ClassifierInput.of(extraction, name), include_reasoning=config.include_reasoning
            )
    except DocClassifyError as error:
        failure = Failure(error.kind, str(error))
    except MemoryError:
        failure = Failure(
            OutOfMemoryError.kind, f"needed more than {config.memory_limit // 10**6} MB of memory"
        )
    total = time.process_time() - started
    if failure and extraction is None:
        extract_seconds = total
    return Reply(
        number=request.number,
        classification=classification,
        failure=failure,
        extraction=None if request.extraction is not None else extraction,
        timings=Timings(
            extract=extract_seconds,
            classify=total - extract_seconds,
            busy=time.perf_counter() - begun,
        ),
        resident=_resident(),
    )


def _read(source: Source, name: str, config: WorkerConfig) -> Extraction:
    """Extract, making sure that the bytes read are those that were hashed."""
    path = Path(uri_to_path(source.uri))
    _check_unchanged(source, path)
    try:
        media_type = sniff(path, name)
        return extract(Document(path=path, name=name, media_type=media_type), config.options)
    except OSError as error:
        raise SourceUnreadableError(f"cannot read the file: {error.strerror or error}") from error
    finally:
        _check_unchanged(source, path)


def _check_unchanged(source: Source, path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise SourceChangedError("the file vanished before it was read") from error
    except OSError as error:
        raise SourceUnreadableError(f"cannot read the file: {error.strerror or error}") from error
    if (status.st_size, status.st_mtime_ns) != (source.size, source.mtime_ns):
        raise SourceChangedError("the file changed while it was being read")


def _limit(config: WorkerConfig) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS accepts the call and then refuses allocations at random
        resource.setrlimit(resource.RLIMIT_AS, (config.memory_limit, config.memory_limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _resident() -> int:
    """Resident memory of this process in bytes; 0 where there is no /proc."""
    try:
        pages = Path("/proc/self/statm").read_bytes().split()[1]
        return int(pages) * resource.getpagesize()
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
