"""The import path of the guide; run from the root of the repository."""

from doc_classify import AsyncBatchProcessor as AsyncBatchProcessor
