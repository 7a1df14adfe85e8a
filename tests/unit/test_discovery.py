"""Discovery: the walk, what it takes, rejects and skips, and the streamed hash."""

import errno
import hashlib
import os
import socket
import subprocess
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from doc_classify.discovery import Skipped, count, hash_file, of_paths, walk
from doc_classify.discovery import walking as walking_module
from doc_classify.errors import ConfigurationError, SourceChangedError, SourceUnreadableError
from doc_classify.records import Rejected, Source, path_to_uri, uri_to_path


def names(found):
    return [os.path.basename(uri_to_path(one.uri)) for one in found]


def kinds(root, **options):
    """{path below root: Source | kind | reason}."""
    return {
        os.path.relpath(uri_to_path(one.uri), root): one.kind
        if isinstance(one, Rejected)
        else one.reason
        if isinstance(one, Skipped)
        else "source"
        for one in walk(root, **options)
    }


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files_first_then_folders_sorted(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/b/c.txt", "Z.txt", "ä.txt", "c/d.txt", "a.txt"):
        write(tmp_path / name)
    found = [os.path.relpath(uri_to_path(one.uri), tmp_path) for one in walk(tmp_path)]
    assert found == ["Z.txt", "a.txt", "b.txt", "ä.txt", "a/z.txt", "a/b/c.txt", "c/d.txt"]
    assert count(tmp_path) == 7


def test_source_carries_size_and_time(tmp_path):
    path = write(tmp_path / "a b%.txt", "hello")
    os.utime(path, ns=(5, 1_700_000_000_123_456_789))
    [found] = walk(tmp_path)
    assert found == Source(path_to_uri(path), 5, 1_700_000_000_123_456_789)


def test_not_recursive(tmp_path):
    write(tmp_path / "a.txt")
    write(tmp_path / "sub/b.txt")
    assert names(walk(tmp_path, recursive=False)) == ["a.txt"]
    assert count(tmp_path, recursive=False) == 1


def test_relative_root_becomes_absolute(tmp_path, monkeypatch):
    write(tmp_path / "sub/a.txt")
    monkeypatch.chdir(tmp_path / "sub")
    for root in (Path("."), Path("../sub")):
        [found] = walk(root)
        assert uri_to_path(found.uri) == str(tmp_path / "sub/a.txt")


def test_hidden_temporary_and_system_names_are_skipped(tmp_path):
    expected = {
        ".hidden.txt": "hidden",
        ".git": "hidden",
        "~$report.docx": "temporary",
        "~WRL0001.tmp": "temporary",
        ".~lock.report.odt#": "temporary",
        "x.TMP": "temporary",
        "x.part": "temporary",
        "x.crdownload": "temporary",
        "notes.txt~": "temporary",
        "#notes#": "temporary",
        "Thumbs.db": "system",
        "desktop.ini": "system",
        ".DS_Store": "system",
        "__MACOSX": "system",
        "report.docx": "source",
        "~notes.txt": "source",
        "#1 list.txt": "source",
        "party.txt": "source",
        "a.part.txt": "source",
    }
    for name in expected:
        if name in {".git", "__MACOSX"}:
            write(tmp_path / name / "one.txt")
            write(tmp_path / name / "deep/two.txt")
        else:
            write(tmp_path / name)
    assert kinds(tmp_path) == expected
    assert count(tmp_path) == 5


def test_links(tmp_path):
    root = tmp_path / "root"
    inside = write(root / "sub/inside.txt", "inside")
    outside = write(tmp_path / "root-outside/secret.txt")
    (root / "to_inside").symlink_to("sub/inside.txt")
    (root / "to_link").symlink_to("to_inside")
    (root / "to_outside").symlink_to(outside)
    (root / "to_outside_folder").symlink_to(outside.parent)
    (root / "dangling").symlink_to("nothing")
    (root / "through_file").symlink_to("sub/inside.txt/x")
    (root / "to_folder").symlink_to("sub")
    (root / "sub/up").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "ping").symlink_to("pong")
    (root / "pong").symlink_to("ping")
    assert kinds(root) == {
        "to_inside": "source",
        "to_link": "source",
        "to_outside": "link_outside",
        "to_outside_folder": "link_outside",
        "dangling": "link_broken",
        "through_file": "link_broken",
        "to_folder": "link_to_folder",
        "self": "link_broken",
        "ping": "link_broken",
        "pong": "link_broken",
        "sub/inside.txt": "source",
        "sub/up": "link_to_folder",
    }
    assert count(root) == 3
    by_name = {names([one])[0]: one for one in walk(root)}
    assert by_name["to_inside"].size == inside.stat().st_size
    assert hash_file(by_name["to_inside"]) == hash_file(by_name["inside.txt"])
    assert "secret.txt" in by_name["to_outside"].message


def test_root_may_be_a_link_or_a_file_or_hidden(tmp_path):
    file = write(tmp_path / ".real/a.txt")
    (tmp_path / "link").symlink_to(".real")
    [found] = walk(tmp_path / "link")
    assert uri_to_path(found.uri) == str(tmp_path / "link/a.txt")
    (tmp_path / ".real/l.txt").symlink_to("a.txt")
    assert kinds(tmp_path / "link") == {"a.txt": "source", "l.txt": "source"}
    [found] = walk(file)
    assert isinstance(found, Source)
    assert count(file) == 1
    hidden = write(tmp_path / ".hidden.txt")
    assert [type(one) for one in walk(hidden)] == [Source]


def test_what_is_no_file_is_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link_to_pipe").symlink_to("pipe")
    server = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    try:
        os.chdir(tmp_path)  # the address of a socket may have 107 bytes only
        server.bind("socket")
    finally:
        os.chdir(here)
        server.close()
    assert kinds(tmp_path) == dict.fromkeys(("pipe", "link_to_pipe", "socket"), "not_a_file")
    assert count(tmp_path) == 0
    assert "named pipe" in next(iter(walk(tmp_path))).message


def test_root_that_cannot_be_walked_is_said_at_once(tmp_path, monkeypatch):
    for function in (walk, count):
        with pytest.raises(ConfigurationError, match="nowhere does not exist"):
            function(tmp_path / "nowhere")
        with pytest.raises(ConfigurationError, match="neither a file nor a folder"):
            function(Path("/dev/null"))
        with pytest.raises(ConfigurationError, match="cannot be read"):
            function(Path("a\0b"))
    monkeypatch.setattr(os, "access", lambda *args, **kwargs: False)
    with pytest.raises(ConfigurationError, match="may not be read"):
        walk(tmp_path)
    with pytest.raises(ConfigurationError, match="may not be read"):
        walk(write(tmp_path / "a.txt"))


def test_unreadable_folder_and_file_cost_themselves_alone(tmp_path, monkeypatch):
    write(tmp_path / "a.txt")
    write(tmp_path / "bad.txt")
    write(tmp_path / "locked/b.txt")
    write(tmp_path / "z/c.txt")
    real_open, real_stat = os.open, os.stat

    def refuse_open(path, *args, **kwargs):
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real_open(path, *args, **kwargs)

    def refuse_stat(path, *args, **kwargs):
        if path == "bad.txt":
            raise OSError(errno.EIO, "Input/output error", path)
        return real_stat(path, *args, **kwargs)

    monkeypatch.setattr(walking_module.os, "open", refuse_open)
    monkeypatch.setattr(walking_module.os, "stat", refuse_stat)
    assert kinds(tmp_path) == {
        "a.txt": "source",
        "bad.txt": "unreadable",
        "locked": "unreadable",
        "z/c.txt": "source",
    }
    messages = [one.message for one in walk(tmp_path) if isinstance(one, Rejected)]
    assert "Input/output error" in messages[0]
    assert "the folder cannot be read: Permission denied" in messages[1]


def test_what_vanishes_during_the_walk_is_reported(tmp_path):
    for name in ("a.txt", "b.txt", "gone/x.txt", "stays/y.txt"):
        write(tmp_path / name)
    steps = walk(tmp_path)
    first = next(steps)
    (tmp_path / "b.txt").unlink()
    (tmp_path / "gone/x.txt").unlink()
    (tmp_path / "gone").rmdir()
    rest = list(steps)
    assert isinstance(first, Source)
    assert [type(one) for one in rest] == [Rejected, Rejected, Source]
    assert [one.kind for one in rest[:2]] == ["vanished", "vanished"]


def test_folder_swapped_for_a_link_is_not_entered(tmp_path):
    root = tmp_path / "root"
    write(root / "a.txt")
    write(root / "sub/b.txt")
    write(tmp_path / "elsewhere/secret.txt")
    steps = walk(root)
    next(steps)
    (root / "sub").rename(tmp_path / "moved")
    (root / "sub").symlink_to(tmp_path / "elsewhere")
    [rest] = steps
    assert isinstance(rest, Rejected)
    assert rest.kind == "unreadable"


@pytest.mark.parametrize(
    "name",
    [
        b"line\nbreak.txt",
        b"latin-\xe9.txt",
        b"\xff\xfe",
        b"x" * 246 + b".txt",
        "漢字 🙂.txt".encode(),
        b"100%.txt",
        b"tab\tand\x1bescape",
    ],
)
def test_any_name_works(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"content")
    [found] = walk(tmp_path)
    assert found.uri.isascii()
    assert os.fsencode(uri_to_path(found.uri)) == path
    assert hash_file(found) == hashlib.sha256(b"content").hexdigest()
    assert [*of_paths([os.fsdecode(path)])] == [found]


def test_twenty_thousand_files_in_one_folder(tmp_path):
    for number in range(20_000):
        os.close(os.open(tmp_path / f"{number:05}.txt", os.O_CREAT | os.O_WRONLY))
    tracemalloc.start()
    try:
        seen = sum(isinstance(one, Source) for one in walk(tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == count(tmp_path) == 20_000
    assert peak < 8_000_000  # names only: 100,000 files stay below 40 MB


def test_walk_is_lazy(tmp_path):
    for folder in range(3):
        write(tmp_path / f"{folder}/a.txt")
    steps = walk(tmp_path)
    next(steps)
    write(tmp_path / "1/later.txt")
    assert len(list(steps)) == 3


def test_tree_as_deep_as_the_system_allows(tmp_path):
    here = os.getcwd()
    levels = 2_100
    try:
        os.chdir(tmp_path)
        for _ in range(levels):
            os.mkdir("d")
            os.chdir("d")
            with open("f", "w"):
                pass
    finally:
        os.chdir(here)
    try:
        found = list(walk(tmp_path))
        # A path has at most 4,095 bytes: what lies deeper is reported, not passed over.
        taken = [one for one in found if isinstance(one, Source)]
        assert len(taken) >= (4095 - len(os.fsencode(tmp_path))) // 2 - 1
        assert [one.kind for one in found if not isinstance(one, Source)] == ["unreadable"]
        assert "too long" in found[-1].message
        assert len(hash_file(taken[-2])) == 64
        assert count(tmp_path) == len(taken)
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # rmtree recurses


def test_count_stops_when_asked(tmp_path):
    for number in range(10):
        write(tmp_path / f"{number}/a.txt")
    stop = threading.Event()
    assert count(tmp_path, stop=stop) == 10
    stop.set()
    assert count(tmp_path, stop=stop) == 0


def test_of_paths_judges_each_file(tmp_path):
    file = write(tmp_path / "a.txt")
    hidden = write(tmp_path / ".b.txt")
    folder = tmp_path / "folder"
    folder.mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(file)
    dangling = tmp_path / "dangling"
    dangling.symlink_to("nothing")
    to_folder = tmp_path / "to_folder"
    to_folder.symlink_to("folder")
    paths = [file, str(hidden), folder, link, dangling, to_folder, tmp_path / "gone", "a\0b"]
    found = list(of_paths(paths))
    assert [type(one) for one in found] == [
        Source, Skipped, Rejected, Source, Rejected, Rejected, Rejected, Rejected,
    ]  # fmt: skip
    assert [one.kind for one in found if isinstance(one, Rejected)] == [
        "not_a_file", "link_broken", "link_to_folder", "vanished", "unreadable",
    ]  # fmt: skip
    assert list(of_paths([])) == []


def source_of(path: Path) -> Source:
    [found] = of_paths([path])
    assert isinstance(found, Source)
    return found


def test_hash_is_sha256_of_the_bytes(tmp_path):
    data = os.urandom(3_000_000)
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    assert hash_file(source_of(path)) == hashlib.sha256(data).hexdigest()
    assert hash_file(source_of(write(tmp_path / "empty", ""))) == hashlib.sha256().hexdigest()


def test_hash_notices_a_change_since_the_listing(tmp_path):
    path = write(tmp_path / "a\n.txt", "one")
    listed = source_of(path)
    path.write_text("other")
    with pytest.raises(SourceChangedError, match=r"a\\n\.txt changed.*3 bytes then, 5 now"):
        hash_file(listed)
    path.write_text("two")
    os.utime(path, ns=(0, listed.mtime_ns + 1))
    with pytest.raises(SourceChangedError, match="it was written to"):
        hash_file(listed)
    path.unlink()
    with pytest.raises(SourceChangedError, match="vanished"):
        hash_file(listed)


def test_hash_notices_a_file_that_grows_meanwhile(tmp_path, monkeypatch):
    path = write(tmp_path / "log.txt", "line\n" * 1000)
    listed = source_of(path)
    real = hashlib.file_digest

    def digest_while_growing(file, name):
        digest = real(file, name)
        with open(path, "a") as log:
            log.write("more\n")
        return digest

    monkeypatch.setattr(hashlib, "file_digest", digest_while_growing)
    with pytest.raises(SourceChangedError, match="changed"):
        hash_file(listed)


def test_hash_does_not_wait_for_a_pipe(tmp_path):
    path = write(tmp_path / "a.txt")
    listed = source_of(path)
    path.unlink()
    os.mkfifo(path)
    started = time.monotonic()
    with pytest.raises(SourceChangedError, match="not a file"):
        hash_file(listed)
    assert time.monotonic() - started < 1


def test_hash_says_why_a_file_cannot_be_read(tmp_path, monkeypatch):
    path = write(tmp_path / "a.txt")
    listed = source_of(path)

    def refuse(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceUnreadableError, match=r"a\.txt: Permission denied"):
        hash_file(listed)


def test_hash_of_a_link_swapped_for_another(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(write(tmp_path / "a.txt", "first"))
    listed = source_of(link)
    link.unlink()
    link.symlink_to(write(tmp_path / "b.txt", "something else"))
    with pytest.raises(SourceChangedError):
        hash_file(listed)
