"""Documents in object stores: ``s3://bucket/prefix``, and likewise ``gs://`` and ``az://``.

Credentials and addresses of the stores come from the environment alone (``AWS_*``, ``GOOGLE_*``,
``AZURE_*``). Keys are hostile: none of their characters ever becomes part of a local path. The
URI of an object is its key percent-encoded, so that any key can be had back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from doc_classify.discovery.names import Skipped, file_skip_reason, folder_skip_reason
from doc_classify.discovery.object_faults import Kind, fault_of
from doc_classify.errors import (
    ConfigurationError,
    DocClassifyError,
    MissingDependencyError,
    SourceChangedError,
    SourceUnreadableError,
    StorageError,
)
from doc_classify.records import Rejected, Source

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

    from doc_classify.discovery.walking import Found, StopSignal

_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")
_FLAW = re.compile(r"(?P<control>[\x00-\x1f\x7f])|(?<=/)/|(?:^|(?<=/))\.{1,2}(?=/|$)")
"""What ``obstore`` takes for no path: a control character, an empty part, "." or ".."."""
_NAMED_IN_ERROR = re.compile(r'\bpath: "((?:[^"\\]|\\.)*)"')
_RUST_ESCAPE = re.compile(r"\\(?:u\{([0-9a-f]+)\}|(.))")
_PAGE = 1000
_CHUNK = 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 10**9
_STOP_EVERY = 1024

_ENVIRONMENT = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
"""What the variables begin with that say who we are and where the store is."""
_TIMEOUT = "10m"
"""Of a whole download."""
_CLIENT_SWITCHES = ("allow_http", "allow_invalid_certificates")
_CLIENT_VALUES = (
    "connect_timeout",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "root_certificate",
    "timeout",
)
RETRIES = {"max_retries": 5, "retry_timeout": timedelta(minutes=1)}


@dataclass(frozen=True, slots=True)
class Fetched:
    """The local copy of an object. Whoever asked for it deletes it."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class _Place:
    """A bucket, and a key or a prefix in it; ``key`` is empty for the bucket itself."""

    scheme: str
    bucket: str
    key: str
    is_folder: bool

    def uri(self, key: str) -> str:
        return f"{self.scheme}://{self.bucket}/{quote(key, safe='/')}"

    @property
    def shown(self) -> str:
        return self.uri(self.key)


def check_url(url: str) -> str:
    """The URL of an object or a prefix as it is stored: percent-encoded.

    Raises:
        ConfigurationError: it is none.
    """
    place = _parse(url)
    return place.shown + ("/" if place.is_folder and place.key else "")


def walk_objects(url: str, *, recursive: bool = True) -> Iterator[Found]:
    """Find the documents under a prefix, or the one object of that name.

    Names are judged as in :func:`~doc_classify.discovery.walk`; the empty objects that some
    programs put where a folder would be are no documents and not reported. The listing is read
    page by page while the walk goes on.

    Raises:
        ConfigurationError: at once: there is nothing of that name, or no access to it. The
            message names the URL.
        SourceUnreadableError: the store does not answer; this can happen at any step.
    """
    place = _parse(url)
    store = _open(place)
    entries = _translated(place, _entries(store, place, recursive))
    first = next(entries, None)
    single = None if place.is_folder else _single(store, place, anything_else=first is not None)
    if place.key and first is None and single is None:
        raise ConfigurationError(f"there is nothing at {place.shown}")
    found: Iterator[Found] = iter(())
    if first is not None:
        found = _judged(store, place, chain((first,), entries))
    return found if single is None else chain((_source(place, single),), found)


def count_objects(url: str, *, recursive: bool = True, stop: StopSignal | None = None) -> int:
    """About how many documents :func:`walk_objects` would give, for a progress bar.

    Raises:
        ConfigurationError, SourceUnreadableError: as there.
    """
    place = _parse(url)
    entries = _translated(place, _entries(_open(place), place, recursive))
    total = 0
    for number, found in enumerate(_judged(None, place, entries)):
        if stop is not None and number % _STOP_EVERY == 0 and stop.is_set():
            break
        total += isinstance(found, Source)
    return total


def look_at(url: str) -> Source | Rejected:
    """What stands at the URL of one object now.

    Raises:
        ConfigurationError: the URL is none.
    """
    place = _parse(url)
    try:
        return _source(place, _obstore().head(_open(place), place.key))
    except _errors() as error:
        fault = fault_of(error)
        if fault.kind is Kind.MISSING:
            return Rejected(place.shown, "vanished", "the object is not there (any more)")
        reason = f"the object cannot be read: {fault.reason}"
        return Rejected(place.shown, SourceUnreadableError.kind, reason)


def object_name(url: str) -> str:
    """The last part of an object's key."""
    return _parse(url).key.rpartition("/")[2]


def hash_object(source: Source, stopping: StopSignal | None = None) -> str:
    """SHA-256 of an object's bytes, which are kept nowhere.

    Raises:
        SourceChangedError, SourceUnreadableError: as in :func:`fetch`.
    """
    return _download(source, lambda _data: None, stopping)


def fetch(source: Source, folder: Path, stopping: StopSignal | None = None) -> Fetched:
    """Copy an object into ``folder``, under a name that has nothing of its key.

    Only its owner may read the copy. When it fails, nothing is left behind.

    Raises:
        SourceChangedError: the object vanished, or is not the one that was listed.
        SourceUnreadableError: the store would not give it, or there is no room for it.
    """
    path = folder / secrets.token_hex(16)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                sha256 = _download(source, file.write, stopping)
        except BaseException:
            path.unlink()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise SourceUnreadableError(f"cannot keep a copy of {source.uri}: {reason}") from error
    return Fetched(path, sha256)


@contextlib.contextmanager
def fetched(source: Source) -> Iterator[Fetched]:
    """A copy of an object for as long as the context lasts; raises as :func:`fetch` does."""
    with tempfile.TemporaryDirectory(prefix="doc-classify-") as folder:
        yield fetch(source, Path(folder))


def upload(path: Path, url: str) -> None:
    """Put a file into a store, in place of what is there under that name.

    The object appears whole or not at all.

    Raises:
        ConfigurationError: the URL names no object, or there is no right to write it.
        StorageError: the store does not answer, or the file cannot be read.
    """
    place = _parse(url)
    if place.is_folder:
        raise ConfigurationError(f"{place.shown} names no object to write")
    try:
        _obstore().put(_open(place), place.key, path)
    except _errors() as error:
        fault = fault_of(error)
        kind = StorageError if fault.kind is Kind.AWAY else ConfigurationError
        raise kind(f"cannot write {place.shown}: {fault.reason}") from None


# --- one object ---------------------------------------------------------------------------------


def _download(source: Source, write: Callable[[bytes], object], stopping: StopSignal | None) -> str:
    place = _parse(source.uri)
    digest = hashlib.sha256()
    chunks = _chunks(source, place)
    received = 0
    for data in chunks:
        if stopping is not None and stopping.is_set():
            raise SourceUnreadableError("the run was stopped")
        received += len(data)
        if received > source.size:
            break
        digest.update(data)
        write(data)
    if received != source.size:
        raise SourceChangedError(
            f"{source.uri} changed after it was listed: {source.size} bytes then, "
            f"{'more' if received > source.size else received} now"
        )
    return digest.hexdigest()


def _chunks(source: Source, place: _Place) -> Iterator[bytes]:
    """The bytes of an object that is still the one that was listed."""
    try:
        result = _obstore().get(_open(place), place.key)
        now = _source(place, result.meta)
        if now.size != source.size:
            raise SourceChangedError(
                f"{source.uri} changed after it was listed: {source.size} bytes then, "
                f"{now.size} now"
            )
        # A listing may know fractions of a second, the header of an object never does.
        if now.mtime_ns // _SECOND != source.mtime_ns // _SECOND:
            raise SourceChangedError(f"{source.uri} changed after it was listed: it was written to")
        yield from result.stream(min_chunk_size=_CHUNK)
    except _errors() as error:
        fault = fault_of(error)
        if fault.kind is Kind.MISSING:
            raise SourceChangedError(f"{source.uri} vanished after it was listed") from None
        raise SourceUnreadableError(f"cannot read {source.uri}: {fault.reason}") from None


def _single(store: ObjectStore, place: _Place, *, anything_else: bool) -> ObjectMeta | None:
    """The object that has exactly the name that was given, if it is a document."""
    try:
        meta: ObjectMeta = _obstore().head(store, place.key)
    except _errors() as error:
        fault = fault_of(error)
        # Whoever may only list need not be able to tell.
        if fault.kind is Kind.MISSING or anything_else:
            return None
        raise _listing_error(place, error) from None
    return None if anything_else and not meta["size"] else meta


def _source(place: _Place, meta: ObjectMeta) -> Source:
    age = meta["last_modified"] - _EPOCH
    return Source(place.uri(meta["path"]), meta["size"], age // timedelta(microseconds=1) * 1000)


# --- listing ------------------------------------------------------------------------------------


def _judged(
    store: ObjectStore | None, place: _Place, entries: Iterable[ObjectMeta | Rejected]
) -> Iterator[Found]:
    """Judge what was listed by its name; without a store, doubtful empty objects pass."""
    start = len(place.key) + 1 if place.key else 0
    folder: str | None = None
    skipped = reported = None
    for entry in _without_markers(store, entries):
        if isinstance(entry, Rejected):
            yield entry
            continue
        path, _, name = entry["path"][start:].rpartition("/")
        if not name:  # stands for the prefix itself
            continue
        if path != folder:
            folder, skipped = path, _skipped_folder(path)
        if skipped is not None:
            if skipped != reported:
                reported = skipped
                yield Skipped(place.uri(entry["path"][:start] + skipped[0]), skipped[1])
        elif reason := file_skip_reason(name):
            yield Skipped(place.uri(entry["path"]), reason)
        else:
            yield _source(place, entry)


def _skipped_folder(path: str) -> tuple[str, str] | None:
    """The outermost folder on the way that is not entered, and why."""
    parts = path.split("/") if path else []
    for number, part in enumerate(parts, 1):
        if reason := folder_skip_reason(part):
            return "/".join(parts[:number]), reason
    return None


def _without_markers(
    store: ObjectStore | None, entries: Iterable[ObjectMeta | Rejected]
) -> Iterator[ObjectMeta | Rejected]:
    """Leave out the empty objects that stand for folders.

    ``folder/`` is listed as ``folder``, like an empty object of that name. It is followed by
    what is in the folder; where nothing is, only a question to the store can tell.
    """
    empty: ObjectMeta | None = None
    for entry in entries:
        if isinstance(entry, Rejected):
            yield entry
            continue
        if empty is not None and not entry["path"].startswith(empty["path"] + "/"):
            yield from _if_there(store, empty)
        empty = None
        if entry["size"]:
            yield entry
        elif not entry["path"].endswith("_$folder$"):
            empty = entry
    if empty is not None:
        yield from _if_there(store, empty)


def _if_there(store: ObjectStore | None, meta: ObjectMeta) -> Iterator[ObjectMeta]:
    if store is not None:
        try:
            _obstore().head(store, meta["path"])
        except FileNotFoundError:
            return
        except _errors():
            pass  # whatever it is will be met, and reported, when the object is read
    yield meta


def _entries(store: ObjectStore, place: _Place, recursive: bool) -> Iterator[ObjectMeta | Rejected]:
    if recursive:
        yield from _below(store, place, place.key)
        return
    try:
        yield from _obstore().list_with_delimiter(store, place.key or None)["objects"]
    except _obstore().exceptions.InvalidPathError:
        # One key that is no path must not hide its neighbours: everything is listed, then.
        start = len(place.key) + 1 if place.key else 0
        for entry in _below(store, place, place.key):
            if isinstance(entry, Rejected) or "/" not in entry["path"][start:]:
                yield entry


def _below(
    store: ObjectStore, place: _Place, prefix: str, behind: str | None = None
) -> Iterator[ObjectMeta | Rejected]:
    """All objects below a prefix, in the order of their keys, from ``behind`` on.

    ``obstore`` gives up a page of a listing for one key that is no path to it. What is in that
    page is then looked for folder by folder, and the listing goes on behind the key.
    """
    api = _obstore()
    last = behind or ""
    while True:
        try:
            for page in api.list(store, prefix or None, offset=behind, chunk_size=_PAGE):
                yield from page
                last = page[-1]["path"] if page else last
            return
        except api.exceptions.InvalidPathError as error:
            bad = _bad_key(error)
        flaw = bad and _FLAW.search(bad)
        if not bad or not flaw or bad <= last:
            yield _unlisted(place, prefix, bad)
            return
        yield from _beside(store, place, prefix, last, bad[: flaw.start()], bad)
        alike = place.uri(bad[: flaw.end()])
        first = f"between {place.uri(last)} and it" if last else "before it"
        yield Rejected(
            place.uri(bad),
            SourceUnreadableError.kind,
            f"the key is no path, so nothing whose URI begins with {alike} can be read; "
            f"objects {first} may be missing for the same reason",
        )
        last = behind = _next_key(bad, flaw)
        with contextlib.suppress(FileNotFoundError):
            yield api.head(store, behind)  # the listing begins after it


def _beside(
    store: ObjectStore, place: _Place, prefix: str, last: str, sound: str, bad: str
) -> Iterator[ObjectMeta | Rejected]:
    """The objects after ``last`` and before ``bad``, of which ``sound`` is the sound beginning.

    They are in the folders on the way to it, and in the folders beside that way.
    """
    api = _obstore()
    parts = sound.split("/")[:-1]
    for number in range(len(parts) + 1):
        folder = "/".join(parts[:number])
        if len(folder) < len(prefix):
            continue
        try:
            level = api.list_with_delimiter(store, folder or None)
        except api.exceptions.InvalidPathError:
            continue  # the folder that the key is in
        yield from (entry for entry in level["objects"] if last < entry["path"] < bad)
        for beside in level["common_prefixes"]:
            if not beside and not last:
                what = "keys that begin with a slash cannot be read"
                yield Rejected(place.uri("/"), SourceUnreadableError.kind, what)
            if len(beside) <= len(folder) or not f"{beside}/" < bad:
                continue
            if bad.startswith(f"{beside}/"):
                continue  # on the way
            inside = last.startswith(f"{beside}/")
            if not inside and f"{beside}/" < last:
                continue
            for entry in _below(store, place, beside, last if inside else None):
                if isinstance(entry, Rejected) or entry["path"] < bad:
                    yield entry


def _next_key(bad: str, flaw: re.Match[str]) -> str:
    """The first key that ``obstore`` takes behind all keys with this flaw in this place."""
    if control := flaw["control"]:
        return bad[: flaw.start()] + (" " if control < " " else "\x80")
    if flaw.group() == "/":
        return bad[: flaw.start()] + "0"  # which is the character after the slash
    return bad[: flaw.end()] + ("0" if flaw.end() < len(bad) else " ")


def _bad_key(error: Exception) -> str | None:
    """The key that an error is about; only the text of the error has it."""
    found = _NAMED_IN_ERROR.search(str(error))
    if not found:
        return None
    simple = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
    return _RUST_ESCAPE.sub(
        lambda m: chr(int(m[1], 16)) if m[1] else simple.get(m[2], m[2]), found[1]
    )


def _unlisted(place: _Place, prefix: str, bad: str | None) -> Rejected:
    which = f": {place.uri(bad)}" if bad else ""
    return Rejected(
        place.uri(bad or prefix),
        SourceUnreadableError.kind,
        f"the rest of {place.uri(prefix)} cannot be listed for a key that is no path{which}",
    )


def _translated(
    place: _Place, entries: Iterator[ObjectMeta | Rejected]
) -> Iterator[ObjectMeta | Rejected]:
    try:
        yield from entries
    except _errors() as error:
        raise _listing_error(place, error) from None


def _listing_error(place: _Place, error: Exception) -> DocClassifyError:
    fault = fault_of(error)
    if fault.kind is Kind.AWAY:
        return SourceUnreadableError(f"cannot list {place.shown}: {fault.reason}")
    if fault.kind is Kind.MISSING:
        return ConfigurationError(f"there is no bucket {place.uri('')}: {fault.reason}")
    return ConfigurationError(
        f"cannot list {place.shown}: {fault.reason}; credentials and address come from the "
        f"environment variables {_ENVIRONMENT[place.scheme]}*"
    )


# --- the store ----------------------------------------------------------------------------------


def _parse(url: str) -> _Place:
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        # Not repeated here: it may hold a password.
        raise ConfigurationError(
            f"{scheme}:// has to be followed by the name of a bucket; credentials come from the "
            "environment"
        )
    try:
        key = unquote(key, errors="strict")
        key.encode()
    except UnicodeError:
        raise ConfigurationError(f"a key in {scheme}://{bucket} is UTF-8") from None
    place = _Place(scheme, bucket, key.removesuffix("/"), not key or key.endswith("/"))
    if _FLAW.search(place.key) or place.key.startswith("/"):
        raise ConfigurationError(
            f"{place.shown} cannot be read: the key has control characters, empty parts or dots"
        )
    return place


def _open(place: _Place) -> ObjectStore:
    try:
        return _store(place.scheme, place.bucket)
    except _errors() as error:
        raise _listing_error(place, error) from None


@lru_cache(maxsize=16)
def _store(scheme: str, bucket: str) -> ObjectStore:
    """The client of a bucket, which keeps connections open; configured by the environment."""
    _obstore()
    from obstore.store import from_url

    # One option of the client that is given here, and all that the environment says is ignored.
    client: dict[str, str | bool] = {"timeout": _TIMEOUT}
    for name in _CLIENT_SWITCHES + _CLIENT_VALUES:
        if value := os.environ.get(_ENVIRONMENT[scheme] + name.upper()):
            is_switch = name in _CLIENT_SWITCHES
            client[name] = value.lower() in ("1", "on", "true", "yes") if is_switch else value
    options: dict[str, Any] = {"client_options": client, "retry_config": RETRIES}
    return from_url(f"{scheme}://{bucket}", **options)


def _obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        purpose = "reach an object store"
        raise MissingDependencyError("obstore", "objects", purpose) from error
    return obstore


def _errors() -> tuple[type[Exception], ...]:
    """What ``obstore`` raises, its own errors and those of Python that it uses."""
    return _obstore().exceptions.BaseError, FileNotFoundError, PermissionError, ValueError
