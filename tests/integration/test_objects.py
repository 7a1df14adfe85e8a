"""Object stores: listing, copies, and whole runs, against a server that speaks S3."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import tracemalloc
from pathlib import Path

import obstore
import pytest
from obstore.store import LocalStore, MemoryStore
from tests.doubles.object_store import ObjectStore

from doc_classify.discovery import Skipped, count, objects, of_paths, walk
from doc_classify.errors import (
    ConfigurationError,
    MissingDependencyError,
    SourceChangedError,
    SourceUnreadableError,
)
from doc_classify.records import Rejected, Source

SECRETS = ("AKIDEXAMPLE", "not-to-be-seen")


def uris(found) -> list[str]:
    return [one.uri for one in found if isinstance(one, Source)]


def only(url: str) -> Source:
    [found] = walk(url)
    assert isinstance(found, Source)
    return found


@pytest.fixture
def bucket(s3: ObjectStore, request: pytest.FixtureRequest) -> str:
    """The name of a bucket of the test's own."""
    name = "b" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    s3.put(name, {})
    return name


# --- listing ------------------------------------------------------------------------------------


def test_a_prefix_is_walked_like_a_folder(s3, bucket):
    s3.put(
        bucket,
        {
            "docs/a.txt": b"a",
            "docs/sub/b.txt": b"bb",
            "docs/.hidden": b"x",
            "docs/.git/config": b"x",
            "docs/.git/objects/1": b"x",
            "docs/~$lock.docx": b"x",
            "docs/sub/Thumbs.db": b"x",
            "docs2/no.txt": b"x",
            "top.txt": b"x",
        },
    )
    root = f"s3://{bucket}"
    found = [*walk(f"{root}/docs")]
    assert uris(found) == [f"{root}/docs/a.txt", f"{root}/docs/sub/b.txt"]
    assert {(one.uri, one.reason) for one in found if isinstance(one, Skipped)} == {
        (f"{root}/docs/.hidden", "hidden"),
        (f"{root}/docs/.git", "hidden"),
        (f"{root}/docs/~%24lock.docx", "temporary"),
        (f"{root}/docs/sub/Thumbs.db", "system"),
    }
    assert [*walk(f"{root}/docs/")] == found
    assert count(f"{root}/docs") == 2
    assert uris(walk(f"{root}/docs", recursive=False)) == [f"{root}/docs/a.txt"]
    assert len(uris(walk(root))) == 4
    assert only(f"{root}/docs/a.txt") == found[2] or only(f"{root}/docs/a.txt").size == 1


def test_an_object_named_on_purpose_is_taken_whatever_its_name(s3, bucket):
    s3.put(bucket, {".hidden.txt": b"a", "x": b"1", "x/y": b"2"})
    assert uris(walk(f"s3://{bucket}/.hidden.txt")) == [f"s3://{bucket}/.hidden.txt"]
    assert uris(walk(f"s3://{bucket}/x")) == [f"s3://{bucket}/x", f"s3://{bucket}/x/y"]
    assert uris(walk(f"s3://{bucket}/x/")) == [f"s3://{bucket}/x/y"]


def test_markers_of_folders_are_no_documents(s3, bucket):
    s3.put(
        bucket,
        {"d/": b"", "d/a": b"1", "empty/": b"", "d/nothing": b"", "e_$folder$": b"", "z/": b""},
    )
    assert uris(walk(f"s3://{bucket}")) == [f"s3://{bucket}/d/a", f"s3://{bucket}/d/nothing"]
    assert [*walk(f"s3://{bucket}/z")] == []
    assert [method for method, _ in s3.requests].count("GET") == len(s3.requests) - 5


@pytest.mark.parametrize(
    "key",
    [
        "a b",
        "ä/ö ü.pdf",
        "100%.txt",
        "%41",
        "a%2Fb",
        "q?x=1#f",
        "back\\slash",
        "日本/語",
        "a+b&c",
        "~x",
    ],
)
def test_any_name_can_be_had_back(s3, bucket, key):
    s3.put(bucket, {f"in/{key}": b"content"})
    source = only(f"s3://{bucket}/in")
    assert source.uri.isascii()
    assert " " not in source.uri
    assert objects.look_at(source.uri) == source
    assert only(source.uri) == source
    assert objects.hash_object(source) == hashlib.sha256(b"content").hexdigest()


def test_keys_that_are_no_paths_are_reported_and_hide_nothing_more_than_they_must(s3, bucket):
    s3.put(
        bucket,
        {
            "a/one": b"1",
            "a//two": b"1",
            "a//twin": b"1",
            "a/three": b"1",
            "a/0": b"1",
            "b/../passwd": b"1",
            "b/x": b"1",
            "c/four\x01": b"1",
            "c/five": b"1",
            "c/four ": b"1",
            "d": b"1",
        },
    )
    found = [*walk(f"s3://{bucket}")]
    assert {one.uri.partition(bucket)[2] for one in found if isinstance(one, Rejected)} == {
        "/a//twin",
        "/b/../passwd",
        "/c/four%01",
    }
    assert all(one.kind == "unreadable" for one in found if isinstance(one, Rejected))
    assert [uri.partition(bucket)[2] for uri in uris(found)] == [
        "/a/0",
        "/a/one",
        "/a/three",
        "/b/x",
        "/c/four%20",
        "/d",
    ]
    assert uris(walk(f"s3://{bucket}/a", recursive=False)) == [
        f"s3://{bucket}/a/{name}" for name in ("0", "one", "three")
    ]
    messages = "".join(one.message for one in found if isinstance(one, Rejected))
    # "c/five" stands beside the key with the control character, and cannot be listed.
    assert f"objects between s3://{bucket}/b/..0 and it may be missing" in messages


def test_a_listing_is_lazy_and_keeps_nothing(s3, bucket, monkeypatch):
    """20,000 objects, which a store in memory has, so that only our own memory is measured."""
    store = MemoryStore()
    for number in range(20_000):
        store.put(f"docs/{number:05}/{'n' * 40}.txt", b"x")
    monkeypatch.setattr(objects, "_store", lambda _scheme, _bucket: store)
    found = walk("s3://any/docs")
    next(found)
    tracemalloc.start()
    try:
        seen = 1 + sum(1 for _ in found)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == 20_000
    assert peak < 3_000_000
    stop = threading.Event()
    stop.set()
    assert count("s3://any/docs", stop=stop) == 0


def test_pages_are_asked_for_as_they_are_needed(s3, bucket):
    s3.put(bucket, {f"{number:04}": b"x" for number in range(1100)})
    found = walk(f"s3://{bucket}")
    next(found)
    assert len(s3.requests) <= 2
    assert len([*found]) == 1099


def test_what_is_not_there_is_said_at_once(s3, bucket):
    with pytest.raises(ConfigurationError, match=f"nothing at s3://{bucket}/nowhere"):
        walk(f"s3://{bucket}/nowhere")
    with pytest.raises(ConfigurationError, match="there is no bucket s3://not-there/"):
        walk("s3://not-there/x")
    assert [*walk(f"s3://{bucket}")] == []


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3:///key", "s3://id:secret@bucket/key", "s3://b/a//b", "s3://b/../x", "s3://b/%ff"],
)
def test_urls_that_are_none(url):
    with pytest.raises(ConfigurationError) as caught:
        walk(url)
    assert "secret" not in str(caught.value)


def test_a_store_without_us(s3, bucket, monkeypatch):
    """Refused, no credentials, away, failing: by kind, and without a secret in the message."""
    s3.put(bucket, {"a": b"1"})
    url = f"s3://{bucket}/"

    def error(kind: type[Exception]) -> str:
        objects._store.cache_clear()
        with pytest.raises(kind) as caught:
            [*walk(url)]
        text = str(caught.value)
        assert bucket in text
        assert not any(secret in text for secret in SECRETS)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        return text

    s3.fault = lambda _method, _path: (403, "SignatureDoesNotMatch")
    assert "access denied (SignatureDoesNotMatch)" in error(ConfigurationError)
    s3.fault = lambda _method, _path: (503, "SlowDown")
    assert "answered 503 Service Unavailable (SlowDown)" in error(SourceUnreadableError)
    s3.reset()
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    assert "AWS_ALLOW_HTTP=true" in error(ConfigurationError)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:pass@127.0.0.1:1")
    assert "no answer from 127.0.0.1:1: Connection refused" in error(SourceUnreadableError)


def test_a_page_that_fails_in_the_middle_ends_the_walk(s3, bucket):
    s3.put(bucket, {f"{number:04}": b"x" for number in range(2100)})
    found = walk(f"s3://{bucket}")
    next(found)
    s3.fault = lambda _method, _path: (503, "InternalError")
    with pytest.raises(SourceUnreadableError, match="cannot list"):
        list(found)


def test_without_the_extra_it_is_named(monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.partition(".")[0] == "obstore":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    objects._store.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"doc-classify\[objects\]"):
        walk("s3://bucket/x")


def test_a_list_of_files_may_name_objects(s3, bucket, tmp_path):
    s3.put(bucket, {"a.txt": b"a", ".b": b"b"})
    (tmp_path / "c.txt").write_text("c")
    given = [f"s3://{bucket}/a.txt", tmp_path / "c.txt", f"s3://{bucket}/.b", f"s3://{bucket}/no"]
    a, c, b, no = of_paths(given)
    assert a == only(f"s3://{bucket}/a.txt")
    assert isinstance(c, Source)
    assert b == Skipped(f"s3://{bucket}/.b", "hidden")
    assert isinstance(no, Rejected)
    assert no.kind == "vanished"
    s3.fault = lambda _method, _path: (403, "AccessDenied")
    [denied] = of_paths([f"s3://{bucket}/a.txt"])
    assert isinstance(denied, Rejected)
    assert (denied.kind, "access denied" in denied.message) == ("unreadable", True)


# --- fetching -----------------------------------------------------------------------------------


def test_a_copy_is_private_and_has_no_name_of_its_key(s3, bucket, tmp_path):
    data = os.urandom(3_000_000)
    s3.put(bucket, {"a/b/x..%2f..%2fetc.txt": data})
    fetched = objects.fetch(only(f"s3://{bucket}"), tmp_path)
    assert fetched.path.parent == tmp_path
    assert fetched.path.name.isalnum()
    assert stat.S_IMODE(fetched.path.stat().st_mode) == 0o600
    assert fetched.path.read_bytes() == data
    assert fetched.sha256 == hashlib.sha256(data).hexdigest()


def test_an_object_that_is_not_what_was_listed(s3, bucket, tmp_path):
    s3.put(bucket, {"a": b"12345"})
    listed = only(f"s3://{bucket}")
    older = Source(listed.uri, listed.size, listed.mtime_ns - 2 * 10**9)
    with pytest.raises(SourceChangedError, match="was written to"):
        objects.fetch(older, tmp_path)
    s3.put(bucket, {"a": b"123456"})
    with pytest.raises(SourceChangedError, match="5 bytes then, 6 now"):
        objects.fetch(listed, tmp_path)
    s3.client.delete_object(Bucket=bucket, Key="a")
    with pytest.raises(SourceChangedError, match="vanished"):
        objects.fetch(listed, tmp_path)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [((403, "AccessDenied"), "access denied"), ((503, "SlowDown"), "answered 503")],
)
def test_a_store_that_does_not_give_an_object(s3, bucket, tmp_path, fault, message):
    s3.put(bucket, {"a": b"12345"})
    listed = only(f"s3://{bucket}")
    s3.requests.clear()
    s3.fault = lambda _method, _path: fault
    with pytest.raises(SourceUnreadableError, match=message) as caught:
        objects.fetch(listed, tmp_path)
    assert listed.uri in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)
    assert len(s3.requests) == (2 if fault[0] == 503 else 1)
    assert [*tmp_path.iterdir()] == []


def test_a_fault_that_passes_is_not_seen(s3, bucket, tmp_path):
    s3.put(bucket, {"a": b"12345"})
    listed = only(f"s3://{bucket}")
    faults = iter([(503, "SlowDown")])
    s3.fault = lambda _method, _path: next(faults, None)
    assert objects.fetch(listed, tmp_path).path.read_bytes() == b"12345"


def test_no_room_for_a_copy(s3, bucket, tmp_path):
    s3.put(bucket, {"a": b"12345"})
    with pytest.raises(SourceUnreadableError, match="cannot keep a copy"):
        objects.fetch(only(f"s3://{bucket}"), tmp_path / "missing")


def test_a_fetch_is_stopped(s3, bucket, tmp_path):
    s3.put(bucket, {"a": b"12345"})
    stop = threading.Event()
    stop.set()
    with pytest.raises(SourceUnreadableError, match="stopped"):
        objects.fetch(only(f"s3://{bucket}"), tmp_path, stop)
    assert [*tmp_path.iterdir()] == []


def test_any_store_of_the_library_will_do(s3, tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    (tmp_path / "copies").mkdir()
    store = LocalStore(tmp_path / "store")
    obstore.put(store, "docs/a.txt", b"hello")
    monkeypatch.setattr(objects, "_store", lambda _scheme, _bucket: store)
    for scheme in ("gs", "az"):
        source = only(f"{scheme}://any/docs")
        assert source.uri == f"{scheme}://any/docs/a.txt"
        copy = objects.fetch(source, Path(tmp_path / "copies"))
        assert copy.path.read_bytes() == b"hello"
