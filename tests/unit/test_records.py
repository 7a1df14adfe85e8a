"""Paths of any bytes as addresses and as text; outcomes; counts."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doc_classify.records import (
    Classification,
    Failure,
    Outcome,
    RunStats,
    display_name,
    document_name,
    is_object_uri,
    path_to_uri,
    uri_to_path,
)

ANY_PATH = st.binary(max_size=60).map(lambda raw: b"/" + raw.replace(b"\0", b"x"))


@given(ANY_PATH)
def test_an_address_gives_back_any_path(raw):
    path = os.fsdecode(raw)
    uri = path_to_uri(path)
    assert uri.isascii()
    assert uri.isprintable()
    assert uri_to_path(uri) == path
    assert os.fsencode(uri_to_path(uri)) == raw


@given(ANY_PATH, ANY_PATH)
def test_different_paths_have_different_addresses(one, other):
    same = path_to_uri(os.fsdecode(one)) == path_to_uri(os.fsdecode(other))
    assert same == (one == other)


@given(ANY_PATH)
def test_a_name_to_show_is_one_printable_line_of_unicode(raw):
    path = os.fsdecode(raw)
    shown = display_name(path_to_uri(path))
    assert shown == display_name(path)
    assert shown.isprintable()
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"/a/b.txt", "/a/b.txt"),
        ("/Möbel & Co/50%.pdf".encode(), "/Möbel & Co/50%.pdf"),
        (b"/two\nlines", "/two\\nlines"),
        (b"/escape\x1b[31m", "/escape\\x1b[31m"),
        (b"/latin\xe4", "/latin\\xe4"),
        ("/right\u202eto-left".encode(), "/right\\u202eto-left"),
    ],
)
def test_names_to_show(raw, shown):
    assert display_name(path_to_uri(os.fsdecode(raw))) == shown


@pytest.mark.parametrize("uri", ["", "/plain/path", "http://host/file", "FILE:///a"])
def test_other_schemes_are_refused(uri):
    with pytest.raises(ValueError, match="not a file URI"):
        uri_to_path(uri)


def test_an_outcome_is_one_of_two():
    Outcome(1, 1, classification=Classification("a"))
    Outcome(1, 1, failure=Failure("damaged", "why"))
    with pytest.raises(ValueError, match="either"):
        Outcome(1, 1)
    with pytest.raises(ValueError, match="either"):
        Outcome(1, 1, classification=Classification("a"), failure=Failure("damaged", "why"))


def test_rates_of_an_empty_run():
    stats = RunStats()
    assert stats.pending == stats.processed == 0
    assert stats.documents_per_second == stats.pages_per_second == 0
    assert not stats.seconds_for(500_000)


def test_rates():
    stats = RunStats(
        seen=12, classified=8, failed=2, already_done=2, pages=30, total_processing_time=5.0
    )
    assert (stats.processed, stats.pending) == (10, 0)
    assert (stats.documents_per_second, stats.pages_per_second) == (2.0, 6.0)
    assert stats.seconds_for(100) == 50.0


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///d/a%20b.txt", "a b.txt"),
        ("file:///d/%FF%0A.txt", "\\xff\\n.txt"),
        ("s3://bucket/in/%C3%A4%2520.pdf", "ä%20.pdf"),
        ("az://bucket/%1B%5B31m", "\\x1b[31m"),
        ("gs://bucket/x%2Fy", "x/y"),
    ],
)
def test_the_bare_name_of_a_document(uri, name):
    assert document_name(uri) == name


def test_which_text_names_an_object():
    assert all(map(is_object_uri, ("s3://b/k", "gs://b", "az://c/")))
    assert not any(map(is_object_uri, ("s3:/b/k", "/s3://b", "file:///s3://b", "http://b", 7)))
