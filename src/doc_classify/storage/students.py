"""The students of cascades: models that are kept with what they decided."""

from __future__ import annotations

import hashlib

from sqlalchemy import select

from doc_classify.errors import StorageError
from doc_classify.storage.rows import now, upsert
from doc_classify.storage.schema import students
from doc_classify.storage.store import SqlStore


class Students:
    """Students in the database of a store. Every method raises what the store's methods raise."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def put(self, data: bytes) -> str:
        """Keep a student; returns its version, which is the SHA-256 of its bytes."""
        version = hashlib.sha256(data).hexdigest()
        row = {"version": version, "data": data, "created": now()}
        self._store.write(
            lambda connection: upsert(connection, students, [row], key=("version",), replace=False)
        )
        return version

    def get(self, version: str) -> bytes:
        """The bytes of a student.

        Raises:
            StorageError: it is not there, or not what it was.
        """
        query = select(students.c.data).where(students.c.version == version)
        data = self._store.read(lambda connection: connection.execute(query).scalar_one_or_none())
        if data is None or hashlib.sha256(data).hexdigest() != version:
            raise StorageError(f"the student {version[:12]} of the cascade is missing or damaged")
        return bytes(data)
