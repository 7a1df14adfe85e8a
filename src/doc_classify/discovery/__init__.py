"""Finding documents: a lazy walk and a streamed hash."""

from doc_classify.discovery.hashing import hash_file
from doc_classify.discovery.names import Skipped
from doc_classify.discovery.walking import Found, StopSignal, count, of_paths, walk

__all__ = ["Found", "Skipped", "StopSignal", "count", "hash_file", "of_paths", "walk"]
