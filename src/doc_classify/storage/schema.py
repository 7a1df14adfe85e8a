"""The tables of the ledger; :mod:`doc_classify.storage.base` says what they mean.

A change here needs a new revision under ``migrations/versions``.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite only numbers rows by itself where the key is a plain INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

documents = Table(
    "documents",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("id", _Id, primary_key=True),
    # A URI may be longer than an index entry can be, so its digest is the key.
    Column("uri_digest", LargeBinary(16), nullable=False, unique=True),
    Column("uri", Text, nullable=False),
    Column("size", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("document_id", _Id, ForeignKey("documents.id")),
)

extractions = Table(
    "extractions",
    metadata,
    Column("document_id", _Id, ForeignKey("documents.id"), primary_key=True),
    Column("extraction_key", String(16), primary_key=True),
    Column("media_type", Text),
    Column("engine", Text),
    Column("page_count", Integer),
    Column("pages_read", Integer),
    Column("ocr_pages", Integer),
    Column("title", Text),
    Column("author", Text),
    Column("created", Text),
    Column("modified", Text),
    Column("language", Text),
    Column("attachments", JSON),
    Column("problems", JSON),
    Column("truncated", Boolean),
    Column("error_kind", Text),
    Column("error_message", Text),
)

texts = Table(
    "texts",
    metadata,
    Column("document_id", _Id, ForeignKey("documents.id"), primary_key=True),
    Column("extraction_key", String(16), primary_key=True),
    # [[number, text, ocr], ...]; apart from the extractions so that listings stay fast.
    Column("pages", Text, nullable=False),
)

results = Table(
    "results",
    metadata,
    Column("document_id", _Id, ForeignKey("documents.id"), primary_key=True),
    Column("fingerprint", String(16), primary_key=True),
    Column("run_id", String(32), nullable=False),
    Column("classifier", Text),
    Column("extraction_key", String(16), nullable=False),
    Column("category", Text),
    Column("score", Float),
    Column("confidence", Float),
    Column("scores", JSON),
    Column("needs_review", Boolean, nullable=False),
    Column("reasoning", Text),
    Column("error_kind", Text),
    Column("error_message", Text),
    Column("crashes", Integer, nullable=False),
    Column("extract_seconds", Float),
    Column("classify_seconds", Float),
    # What an LLM was asked for it; empty where none was.
    Column("llm_calls", Integer),
    Column("prompt_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("processed_at", String(32), nullable=False),
)

COUNTERS = (
    "seen",
    "classified",
    "failed",
    "duplicates",
    "already_done",
    "already_failed",
    "unsupported",
    "skipped",
    "with_problems",
    "needs_review",
    "pages",
    "ocr_pages",
    "bytes",
    "llm_calls",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
)
"""Columns of ``runs`` that are fields of :class:`~doc_classify.records.RunStats`."""

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("message", Text),
    Column("spec", JSON, nullable=False),
    Column("fingerprint", String(16), nullable=False),
    Column("started", String(32), nullable=False),
    Column("heartbeat", String(32), nullable=False),
    Column("finished", String(32)),
    Column("seconds", Float, nullable=False),
    Column("extract_seconds", Float, nullable=False),
    Column("classify_seconds", Float, nullable=False),
    # Of a distributed run: files handed to its chunks so far, and chunks made and done.
    Column("submitted", BigInteger, nullable=False, default=0),
    Column("chunks", Integer, nullable=False, default=0),
    Column("chunks_done", Integer, nullable=False, default=0),
    *(Column(name, BigInteger, nullable=False) for name in COUNTERS),
)

chunks = Table(
    "chunks",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    # [[uri, size, mtime_ns], ...]: a row for each of half a million files would cost far more.
    Column("entries", Text, nullable=False),
    Column("files", Integer, nullable=False),
    # Of a cascade, whose documents are listed first: what is to be done in place of that.
    Column("job", String(16)),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("holder", Text),
    # Seconds since the epoch, by the database's clock: those of the machines differ.
    Column("lease_until", Float),
    Column("sent_at", Float),
    Index(None, "state", "lease_until"),
)

run_files = Table(
    "run_files",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id"), primary_key=True),
    Column("file_id", _Id, ForeignKey("files.id"), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("document_id", _Id, ForeignKey("documents.id")),
    Column("first_file_id", _Id, ForeignKey("files.id")),
    Column("error_kind", Text),
    Column("error_message", Text),
    Index(None, "run_id", "document_id"),
    Index(None, "run_id", "status"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("document_id", _Id, ForeignKey("documents.id"), nullable=False),
    Column("fingerprint", String(16), nullable=False),
    Column("run_id", String(32), nullable=False),
    Column("worker", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Index(None, "document_id", "fingerprint"),
)

students = Table(
    "students",
    metadata,
    # SHA-256 of the bytes, in hex.
    Column("version", String(64), primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("created", String(32), nullable=False),
)

lots = Table(
    "lots",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("fingerprint", String(16), nullable=False),
    Column("teacher_fingerprint", String(16), nullable=False),
    Column("run_id", String(32), nullable=False),
    Column("source", Text, nullable=False),
    Column("forced", Boolean, nullable=False),
    # Of the order in which documents are drawn; nobody may know it before they are listed.
    Column("seed", LargeBinary(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("population", BigInteger, nullable=False),
    Column("known", BigInteger, nullable=False),
    Column("calls", BigInteger, nullable=False),
    # What was decided, step by step, and the certificate.
    Column("journal", JSON, nullable=False),
    # Grows with each change of the journal: who did not see the last one may not write the next.
    Column("revision", Integer, nullable=False),
    Column("created", String(32), nullable=False),
    Index(None, "fingerprint", "state"),
)

lot_documents = Table(
    "lot_documents",
    metadata,
    Column("lot_id", _Id, ForeignKey("lots.id"), primary_key=True),
    Column("document_id", _Id, ForeignKey("documents.id"), primary_key=True),
    Column("file_id", _Id, ForeignKey("files.id"), nullable=False),
    # Why it was drawn, and by which draw; empty: it was not.
    Column("role", String(16)),
    Column("stage", Integer),
    # Of drawn documents: what the LLM said, or why it did not; what the student said, how surely;
    # what the LLM said when it was asked again.
    Column("label", Text),
    Column("failure", Text),
    Column("guess", Text),
    Column("score", Float),
    Column("again", Text),
    Index(None, "lot_id", "role", "stage"),
)

answered_texts = Table(
    "answered_texts",
    metadata,
    # Of the LLM alone; a text that several documents have is asked about once.
    Column("fingerprint", String(16), primary_key=True),
    Column("digest", LargeBinary(16), primary_key=True),
    Column("document_id", _Id, ForeignKey("documents.id"), nullable=False),
)

corrections = Table(
    "corrections",
    metadata,
    Column("document_id", _Id, ForeignKey("documents.id"), primary_key=True),
    # Of the set of category names that the category was chosen among (correcting.names_key).
    Column("names_key", String(16), primary_key=True),
    Column("names", Text, nullable=False),  # as JSON
    Column("category", Text, nullable=False),
    Column("previous", Text),
    Column("run_id", String(32), nullable=False),
    Column("author", Text),
    Column("note", Text),
    Column("at", String(32), nullable=False),
    Index(None, "names_key"),
)
