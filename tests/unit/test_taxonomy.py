"""Taxonomies from names, files and data, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doc_classify.errors import ConfigurationError
from doc_classify.taxonomy import DEFAULT_TAXONOMY, Category, Taxonomy

NAMES = st.lists(
    st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable()).map(str.strip),
    min_size=2,
    max_size=8,
    unique_by=str.casefold,
).filter(all)


def test_known_names_bring_their_descriptions_and_others_none():
    taxonomy = Taxonomy.from_names([" invoices", "recipes "])
    assert taxonomy.names == ("invoices", "recipes")
    assert taxonomy.categories[0] == DEFAULT_TAXONOMY.categories[0]
    assert taxonomy.categories[1] == Category("recipes")


@given(NAMES)
def test_a_taxonomy_survives_its_json_form(names):
    taxonomy = Taxonomy.from_names(names)
    again = Taxonomy.from_dict(json.loads(json.dumps(taxonomy.to_dict())))
    assert again == taxonomy
    assert again.fingerprint == taxonomy.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        Category("b", "described"),
        Category("b", keywords=("word",)),
        Category("b", examples=("text",)),
        Category("c"),
    ],
)
def test_the_fingerprint_follows_whatever_a_classifier_sees(other):
    first = Taxonomy((Category("a"), Category("b")))
    assert Taxonomy((Category("a"), other)).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "at least two"),
        (["only"], "at least two"),
        (["a", "A"], "twice"),
        (["a", "Straße", "STRASSE"], "twice"),
        (["a", ""], "1 to 100 printable"),
        (["a", "b\nc"], "printable"),
        (["a", "b" * 101], "1 to 100"),
        ([str(number) for number in range(1001)], "at most 1000"),
    ],
)
def test_names_that_are_refused(names, message):
    with pytest.raises(ConfigurationError, match=message):
        Taxonomy.from_names(names)


def test_files(tmp_path):
    toml = tmp_path / "taxonomy.toml"
    toml.write_text(
        '[[categories]]\nname = "a"\ndescription = "Ä"\nkeywords = ["k"]\nexamples = ["e"]\n'
        '[[categories]]\nname = "other"\n',
        "utf-8",
    )
    taxonomy = Taxonomy.from_file(toml)
    assert taxonomy.categories == (Category("a", "Ä", ("k",), ("e",)), Category("other"))
    as_json = tmp_path / "taxonomy.JSON"
    as_json.write_text(json.dumps(taxonomy.to_dict()))
    assert Taxonomy.from_file(as_json) == taxonomy
    as_json.write_text(json.dumps(["a", "b"]))
    assert Taxonomy.from_file(as_json).names == ("a", "b")


def test_a_file_with_a_byte_order_mark(tmp_path):
    for name, text in (("t.toml", 'categories = ["a", "b"]'), ("t.json", '["a", "b"]')):
        (tmp_path / name).write_text(text, "utf-8-sig")
        assert Taxonomy.from_file(tmp_path / name).names == ("a", "b")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.toml", None, "cannot read the taxonomy"),
        ("latin.toml", b'categories = ["a", "\xe4"]', "cannot read the taxonomy"),
        ("broken.toml", b"categories = [", "is not valid"),
        ("broken.json", b"{", "is not valid"),
        ("deep.json", b"[" * 100_000, "is not valid"),
        ("text.json", b'"a,b"', "expected a list of 'categories'"),
        ("empty.toml", b"", "expected a list of 'categories'"),
        ("object.json", b'{"categories": {"a": 1}}', "expected a list of 'categories'"),
        ("number.json", b"[1, 2]", "needs a 'name'"),
        ("nameless.json", b'[{"description": "x"}, "b"]', "needs a 'name'"),
        ("typo.json", b'[{"name": "a", "keyword": ["x"]}, "b"]', "unknown fields ['keyword']"),
        ("list.json", b'[{"name": "a", "keywords": "x"}, "b"]', "must be a list of texts"),
        ("words.json", b'[{"name": "a", "examples": [1]}, "b"]', "must be a list of texts"),
        ("about.json", b'[{"name": "a", "description": 1}, "b"]', "must be text"),
    ],
)
def test_files_that_are_refused_are_named(name, content, message, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        Taxonomy.from_file(path)
    assert message in str(caught.value)
    if message not in ("at least two",):
        assert name in str(caught.value)


def test_a_folder_is_no_taxonomy(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot read the taxonomy"):
        Taxonomy.from_file(tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["categories", "name", "keywords", "description"]), inner
            )
        ),
    )
)
def test_any_data_gives_a_taxonomy_or_a_configuration_error(data):
    try:
        taxonomy = Taxonomy.from_dict(data)
    except ConfigurationError:
        return
    assert len(taxonomy.names) >= 2
