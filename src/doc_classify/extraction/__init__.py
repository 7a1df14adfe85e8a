"""Turning documents into text, one module per family of formats."""

from doc_classify.extraction.base import Document
from doc_classify.extraction.reading import extract
from doc_classify.extraction.registry import supported_media_types

__all__ = ["Document", "extract", "supported_media_types"]
