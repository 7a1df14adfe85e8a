"""Finding documents: a lazy walk and a streamed hash, on disk and in object stores."""

from doc_classify.discovery.hashing import hash_file
from doc_classify.discovery.names import Skipped
from doc_classify.discovery.walking import (
    Found,
    StopSignal,
    count,
    location,
    look_at,
    of_paths,
    of_uri,
    walk,
)

__all__ = [
    "Found",
    "Skipped",
    "StopSignal",
    "count",
    "hash_file",
    "location",
    "look_at",
    "of_paths",
    "of_uri",
    "walk",
]
