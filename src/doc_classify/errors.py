"""Every error that doc-classify raises on purpose.

::

    DocClassifyError
    ├── ConfigurationError            the request cannot be carried out as stated (exit code 2)
    │   └── MissingDependencyError    an optional package is not installed; names the extra
    ├── TransientError                trying again later can help
    │   ├── SourceChangedError        the file vanished or changed while it was read
    │   ├── SourceUnreadableError     permission denied, I/O error, ...
    │   ├── StorageError              database locked, full, read-only or away (exit code 3)
    │   ├── BrokerError               the message broker is away (exit code 3)
    │   └── ServerError               the LLM server does not answer, or not as it should
    │       └── ServerBusyError       it has too much to do (429, 503)
    ├── CannotGoOnError               the run has to stop; what is done is stored (exit code 3)
    │   ├── ServerSetupError          model missing, key refused, quota used up, server gone
    │   │   └── SickModelError        the model gives no document a category
    │   ├── BudgetReachedError        --max-llm-calls or --max-cost
    │   ├── HopelessError             a cascade would save nothing, and was told to stop then
    │   └── LotTakenError             another process works on the same documents
    └── PermanentError                trying again cannot help
        ├── ClassificationError       the text was read, but has no category
        │   ├── InvalidAnswerError    the LLM answered with something that is no category
        │   ├── ContextExceededError  the document does not fit into the LLM's context
        │   └── RefusedError          the LLM or its server refused this document
        └── ExtractionError           the document itself is at fault
            ├── UnsupportedTypeError  no extractor for this type of file
            ├── EmptyDocumentError    zero bytes
            ├── EncryptedError        a password is needed
            ├── DamagedError          truncated, malformed, not what it claims to be
            ├── LimitExceededError    zip bomb, too many pixels, nested too deep, ...
            ├── NoTextError           the document holds no text that could be classified
            ├── TimeLimitError        extraction took longer than the limit
            ├── WorkerCrashError      the parser died on this document
            └── OutOfMemoryError      the parser asked for more memory than the limit

The type says whether a retry can help; ``kind`` is the short stable word that is stored with a
failed document and that ``doc-classify retry --error KIND`` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from doc_classify.records import Usage


class DocClassifyError(Exception):
    """Base of all errors of this package."""

    kind: ClassVar[str] = "error"


class ConfigurationError(DocClassifyError):
    """The settings or arguments cannot be used as they are."""

    kind = "configuration"


class MissingDependencyError(ConfigurationError):
    """A package that this request needs is not installed.

    Args:
        package: the distribution that is missing.
        extra: the extra of ``doc-classify`` that brings it.
        purpose: what it is needed for, as the end of "needed to ...".
    """

    kind = "missing_dependency"

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{package} is needed to {purpose}; install it with: "
            f"pip install 'doc-classify[{extra}]'"
        )
        self.package = package
        self.extra = extra


class TransientError(DocClassifyError):
    """A fault of the surroundings: the same document may succeed later."""

    kind = "transient"


class SourceChangedError(TransientError):
    """The file vanished, or its bytes changed, between being listed and being read."""

    kind = "changed"


class SourceUnreadableError(TransientError):
    """The operating system refused to open or read the file."""

    kind = "unreadable"


class StorageError(TransientError):
    """The database cannot take or give data: full, read-only, locked, unreachable."""

    kind = "storage"


class BrokerError(TransientError):
    """The message broker cannot take or give messages."""

    kind = "broker"


class ServerError(TransientError):
    """The LLM server cannot be reached, breaks off, or answers with a fault of its own.

    Args:
        message: what happened.
        unreachable: not even a connection could be made.
        timed_out: the answer was not complete in time.
    """

    kind = "server"

    def __init__(self, message: str, *, unreachable: bool = False, timed_out: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable
        self.timed_out = timed_out


class ServerBusyError(ServerError):
    """The server has more to do than it takes.

    Args:
        message: what it said.
        retry_after: seconds that it asks us to wait, None where it does not say.
    """

    kind = "server_busy"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CannotGoOnError(DocClassifyError):
    """A run cannot go on, through no document's fault. What it has done is stored."""

    kind = "stopped"


class ServerSetupError(CannotGoOnError):
    """The LLM server cannot be used as it is, and waiting would not help."""

    kind = "server_setup"


class SickModelError(ServerSetupError):
    """The model gives no document a category, not even the plainest."""

    kind = "sick_model"


class BudgetReachedError(CannotGoOnError):
    """The run has spent what it was allowed to spend."""

    kind = "budget"


class HopelessError(CannotGoOnError):
    """The student of a cascade is no good: the LLM would have to answer for everything."""

    kind = "hopeless"


class LotTakenError(CannotGoOnError):
    """Another process has gone on with the lot of a cascade that this one worked on."""

    kind = "lot_taken"


class PermanentError(DocClassifyError):
    """A fault that will be the same however often it is tried."""

    kind = "permanent"


class ClassificationError(PermanentError):
    """The document was read, but no category was found for it.

    Attributes:
        usage: what the request that led to it has used, where the server told; None elsewhere.
    """

    kind = "classification"
    usage: Usage | None = None


class InvalidAnswerError(ClassificationError):
    """The LLM's answer names no category of the taxonomy, or several."""

    kind = "invalid_answer"


class ContextExceededError(ClassificationError):
    """The prompt does not fit into the LLM's context, or the server has cut it.

    Args:
        message: what the server said.
        tokens: length of the prompt by the server's count, None where it does not say.
        limit: tokens that the context has, None where it does not say.
    """

    kind = "context_exceeded"

    def __init__(self, message: str, tokens: int | None = None, limit: int | None = None) -> None:
        super().__init__(message)
        self.tokens = tokens
        self.limit = limit


class RefusedError(ClassificationError):
    """The LLM, or a filter in front of it, refused to answer about this document."""

    kind = "refused"


class ExtractionError(PermanentError):
    """The document could not be turned into text. The message says why, for its owner."""

    kind = "extraction"


class UnsupportedTypeError(ExtractionError):
    """No extractor takes files of this type."""

    kind = "unsupported"


class EmptyDocumentError(ExtractionError):
    """The file has no bytes at all."""

    kind = "empty"


class EncryptedError(ExtractionError):
    """The document is protected by a password that we do not have."""

    kind = "encrypted"


class DamagedError(ExtractionError):
    """The file is truncated, malformed, or not of the type that it claims to be."""

    kind = "damaged"


class LimitExceededError(ExtractionError):
    """Reading on would pass a safety limit (unpacked size, depth, pixels, cells)."""

    kind = "limit_exceeded"


class NoTextError(ExtractionError):
    """The document was read without fault, but holds no text."""

    kind = "no_text"


class TimeLimitError(ExtractionError):
    """Reading the document took longer than the time limit; its worker was killed."""

    kind = "timeout"


class WorkerCrashError(ExtractionError):
    """The worker process died while it was reading the document."""

    kind = "crash"


class OutOfMemoryError(ExtractionError):
    """Reading the document needed more memory than a worker may have."""

    kind = "out_of_memory"


_EXTRACTION_KINDS = frozenset(
    cls.kind
    for cls in (
        UnsupportedTypeError,
        EmptyDocumentError,
        EncryptedError,
        DamagedError,
        LimitExceededError,
        NoTextError,
        TimeLimitError,
        WorkerCrashError,
        OutOfMemoryError,
        ExtractionError,
    )
)
_PERMANENT_KINDS = _EXTRACTION_KINDS | {
    cls.kind
    for cls in (
        InvalidAnswerError,
        ContextExceededError,
        RefusedError,
        ClassificationError,
        PermanentError,
    )
}


def is_permanent(kind: str) -> bool:
    """Whether a recorded failure of this ``kind`` would be the same when tried again."""
    return kind in _PERMANENT_KINDS


def is_of_extraction(kind: str) -> bool:
    """Whether the failure is one of reading the document, which any classifier would meet."""
    return kind in _EXTRACTION_KINDS


def may_be_read_later(kind: str) -> bool:
    """Whether nobody could read the document this time, although it is still there."""
    return not is_permanent(kind) and kind != SourceChangedError.kind
