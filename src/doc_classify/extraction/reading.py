"""Reading one document: the right extractor, its surprises contained, its text cleaned."""

from __future__ import annotations

import errno
import warnings
from dataclasses import replace

from doc_classify.errors import (
    ConfigurationError,
    DamagedError,
    DocClassifyError,
    EmptyDocumentError,
    MissingDependencyError,
    NoTextError,
    OutOfMemoryError,
    SourceUnreadableError,
    UnsupportedTypeError,
)
from doc_classify.extraction.base import Document, Extractor
from doc_classify.extraction.clean import (
    clean_language,
    clean_line,
    clean_names,
    clean_text,
    clean_time,
)
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.extraction.registry import extractors
from doc_classify.records import Extraction, Page, Problem
from doc_classify.sniffing import EMPTY, describe

_PROBLEMS = 100
_RAW_PER_CLEAN = 4
_UNREADABLE = frozenset(
    {
        errno.EACCES,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOENT,
        errno.EPERM,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


def extract(document: Document, options: ExtractionOptions) -> Extraction:
    """Read a document with the extractor of its media type and clean what it found.

    Raises:
        ExtractionError: the document is at fault; the message says why.
        TransientError: the file could not be read just now.
        ConfigurationError: the engine of this type is not installed.
    """
    if document.media_type == EMPTY:
        raise EmptyDocumentError("the file is empty: it has no bytes at all")
    extractor = extractors().get(document.media_type)
    if extractor is None:
        raise UnsupportedTypeError(
            f"no extractor for this type: {describe(document.media_type)} ({document.media_type})"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # engines warn about files; that is our errors' job
        raw = _contained(extractor, document, options)
    return _cleaned(raw, options)


def _contained(extractor: Extractor, document: Document, options: ExtractionOptions) -> Extraction:
    """Run an extractor so that only errors of this package leave it."""
    kind = describe(document.media_type)
    try:
        return extractor.extract(document, options)
    except (DocClassifyError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"reading this {kind} needs more memory than allowed") from error
    except ModuleNotFoundError as error:
        raise _missing(error, extractor, kind) from error
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise OutOfMemoryError(f"reading this {kind} needs more memory than allowed") from error
        if error.errno in _UNREADABLE:
            raise SourceUnreadableError(f"cannot read the file: {error.strerror}") from error
        raise _damaged(error, kind) from error
    except RecursionError as error:
        raise DamagedError(f"not a readable {kind}: it is nested too deeply") from error
    except BaseException as error:  # panics of Rust libraries are no Exception
        raise _damaged(error, kind) from error


def _damaged(error: BaseException, kind: str) -> DamagedError:
    try:
        detail = clean_line(str(error), 200)
    except Exception:  # an exception whose own text fails
        detail = None
    return DamagedError(f"not a readable {kind}: {detail or type(error).__name__}")


def _missing(error: ModuleNotFoundError, extractor: Extractor, kind: str) -> ConfigurationError:
    package = (error.name or "a package").partition(".")[0]
    if extractor.extra:
        return MissingDependencyError(package, extractor.extra, f"read a {kind}")
    return ConfigurationError(f"{package} is not installed; it is needed to read a {kind}")


def _cleaned(raw: Extraction, options: ExtractionOptions) -> Extraction:
    pages, truncated = _clean_pages(raw.pages, options.max_characters)
    if not any(page.text.strip() for page in pages):
        raise NoTextError(_nothing(raw, options))
    return replace(
        raw,
        pages=pages,
        truncated=raw.truncated or truncated,
        title=clean_line(raw.title),
        author=clean_line(raw.author),
        created=clean_time(raw.created),
        modified=clean_time(raw.modified),
        language=clean_language(raw.language),
        attachments=clean_names(raw.attachments),
        problems=_clean_problems(raw.problems),
    )


def _clean_problems(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    return tuple(
        replace(problem, message=clean_line(problem.message) or problem.kind)
        for problem in problems[:_PROBLEMS]
    )


def _clean_pages(pages: tuple[Page, ...], limit: int) -> tuple[tuple[Page, ...], bool]:
    """Pages of at most ``limit`` characters together; whether something was left out."""
    kept: list[Page] = []
    truncated = False
    for page in pages:
        # Cut before cleaning as well: the time spent is bounded by what can be kept.
        most = limit * _RAW_PER_CLEAN + 10_000
        text = clean_text(page.text[:most])
        if len(page.text) > most or len(text) > limit:
            truncated = True
            text = text[:limit].rstrip()
        limit -= len(text)
        if text or not truncated:
            kept.append(replace(page, text=text))
    return tuple(kept), truncated


def _nothing(raw: Extraction, options: ExtractionOptions) -> str:
    """Why there is no text, with what was tried to find some."""
    count = len(raw.pages)
    tried = f"read {count} {'page' if count == 1 else 'pages'} with {raw.engine}"
    if raw.page_count is not None and raw.page_count > count:
        tried += f" of {raw.page_count}"
    if raw.ocr_pages:
        tried += f", {raw.ocr_pages} by OCR ({options.ocr_languages})"
    elif not options.ocr and (raw.media_type.startswith("image/") or "pdf" in raw.media_type):
        tried += "; OCR is switched off"
    message = f"no text in this {describe(raw.media_type)}: {tried}"
    if raw.problems:
        message += f"; {clean_line(raw.problems[0].message, 200)}"
    return message
