"""Where a setting's value comes from, and what is said when it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from doc_classify.cli import cli
from doc_classify.errors import ConfigurationError
from doc_classify.runners.parallel import ParallelDocumentProcessor
from doc_classify.settings import (
    CONFIG_FILE,
    Settings,
    environment_variable,
    load_settings,
    load_settings_with_origins,
)
from doc_classify.taxonomy import DEFAULT_TAXONOMY


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a configuration, an environment without settings."""
    for field in Settings.model_fields:
        monkeypatch.delenv(environment_variable(field), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(here: Path, text: str) -> Path:
    path = here / CONFIG_FILE
    path.write_text(text, "utf-8")
    return path


def test_defaults():
    settings, origins = load_settings_with_origins()
    assert settings.database_url == "sqlite:///doc-classify.db"
    assert settings.make_taxonomy() == DEFAULT_TAXONOMY
    assert settings.worker_count >= 1
    assert set(origins.values()) == {"default"}
    assert set(origins) == set(Settings.model_fields)


def test_option_beats_environment_beats_file_beats_default(here, monkeypatch):
    write(here, "chunk_size = 2\nbatch_size = 3\nworkers = 4\n")
    monkeypatch.setenv("DOC_CLASSIFY_BATCH_SIZE", "30")
    monkeypatch.setenv("DOC_CLASSIFY_WORKERS", "40")
    settings, origins = load_settings_with_origins(workers=400)
    assert (settings.time_limit, settings.chunk_size) == (120.0, 2)
    assert (settings.batch_size, settings.workers) == (30, 400)
    assert origins["time_limit"] == "default"
    assert origins["chunk_size"] == "file"
    assert origins["batch_size"] == "environment"
    assert origins["workers"] == "option"


def test_an_option_that_is_none_was_not_given(monkeypatch):
    monkeypatch.setenv("DOC_CLASSIFY_WORKERS", "3")
    settings, origins = load_settings_with_origins(workers=None, ocr=None)
    assert settings.workers == 3
    assert origins["workers"] == "environment"
    assert origins["ocr"] == "default"


def test_an_option_that_is_false_was_given(here):
    write(here, "ocr = true")
    assert load_settings(ocr=False).ocr is False


@pytest.mark.parametrize(
    ("variable", "field", "value"),
    [
        ("DATABASE_URL", "database_url", "postgresql://a@b/c"),
        ("OLLAMA_HOST", "ollama_host", "http://elsewhere:1"),
        ("OLLAMA_MODEL", "ollama_model", "some-model"),
        ("CATEGORIES", "categories", "a,b"),
        ("CELERY_BROKER_URL", "celery_broker_url", "redis://elsewhere/1"),
        ("DOC_CLASSIFY_PAGES", "pages", "all"),
    ],
)
def test_environment_variables(variable, field, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    assert environment_variable(field) == variable
    assert getattr(load_settings(), field) == value


@pytest.mark.parametrize("field", list(Settings.model_fields))
def test_a_blank_variable_is_not_set(field, here, monkeypatch):
    monkeypatch.setenv(environment_variable(field), "")
    settings, origins = load_settings_with_origins()
    assert settings == Settings()
    assert origins[field] == "default"


def test_a_blank_variable_leaves_what_the_file_says(here, monkeypatch):
    write(here, 'categories = "a,b"')
    monkeypatch.setenv("CATEGORIES", "")
    assert load_settings().make_taxonomy().names == ("a", "b")


def test_blank_in_the_file_means_unset(here):
    write(here, 'workers = ""\ncategories = ""\ntaxonomy = "mine.toml"\n')
    settings, origins = load_settings_with_origins()
    assert (settings.workers, settings.categories) == (None, None)
    assert settings.taxonomy == Path("mine.toml")
    assert origins["categories"] == origins["workers"] == "default"


@pytest.mark.parametrize(
    ("file", "variable", "options", "message"),
    [
        ("workers = 0", None, {}, f"workers ({CONFIG_FILE}): "),
        ("", ("DOC_CLASSIFY_WORKERS", "many"), {}, "workers (DOC_CLASSIFY_WORKERS): "),
        ("workers = 2", ("DOC_CLASSIFY_WORKERS", "0"), {}, "workers (DOC_CLASSIFY_WORKERS): "),
        ("", None, {"chunk_size": 0}, "chunk_size (option): "),
        ("colour = 'red'", None, {}, f"colour ({CONFIG_FILE}): there is no such setting"),
        ("ocr_languages = '../eng'", None, {}, f"ocr_languages ({CONFIG_FILE}): "),
        ("workers = ", None, {}, f"cannot read {CONFIG_FILE}: "),
    ],
)
def test_messages_name_the_setting_and_where_it_is_from(
    file, variable, options, message, here, monkeypatch
):
    write(here, file)
    if variable:
        monkeypatch.setenv(*variable)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_named_at_once(here):
    write(here, "workers = 0\nchunk_size = 0\n")
    with pytest.raises(ConfigurationError, match=r"workers.*chunk_size"):
        load_settings()


def test_a_file_that_is_not_utf8_is_a_configuration_error(here):
    (here / CONFIG_FILE).write_bytes(b'pages = "\xff"')
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_settings()


def test_the_stronger_source_names_the_categories(here, monkeypatch):
    (here / "mine.toml").write_text('categories = ["x", "y"]')
    write(here, 'taxonomy = "mine.toml"')
    assert load_settings().make_taxonomy().names == ("x", "y")
    monkeypatch.setenv("CATEGORIES", "a,b")
    settings, origins = load_settings_with_origins()
    assert settings.make_taxonomy().names == ("a", "b")
    assert (origins["categories"], origins["taxonomy"]) == ("environment", "default")
    settings, origins = load_settings_with_origins(taxonomy=Path("mine.toml"))
    assert settings.make_taxonomy().names == ("x", "y")
    assert (origins["categories"], origins["taxonomy"]) == ("default", "option")


def test_two_taxonomies_from_one_source_are_refused(here):
    write(here, 'taxonomy = "mine.toml"\ncategories = "a,b"')
    with pytest.raises(ConfigurationError, match=r"both set \(file\)"):
        load_settings()


def test_categories_may_be_a_list_in_the_file(here):
    write(here, 'categories = ["a", "b"]')
    assert load_settings().make_taxonomy().names == ("a", "b")


@settings_of_hypothesis(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), st.text(max_size=5)))
def test_any_option_gives_settings_or_a_configuration_error(options):
    try:
        load_settings(**options)
    except ConfigurationError as error:
        assert any(name in str(error) for name in options)


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().workers = 3


@pytest.mark.parametrize("given", [{"num_workers": 0}, {"chunk_size": -1}])
def test_the_processor_refuses_what_cannot_be_used(given):
    with pytest.raises(ConfigurationError, match=r"workers|chunk_size"):
        ParallelDocumentProcessor(**given)


def test_config_shows_no_passwords(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:hunter2@db.example/name")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:hunter2@broker.example:6379/0")
    monkeypatch.setenv("OLLAMA_HOST", "https://someone:hunter2@ollama.example")
    for options in ([], ["--json"]):
        result = CliRunner().invoke(cli, ["config", *options], standalone_mode=False)
        assert result.exception is None
        for host in ("db.example/name", "broker.example", "ollama.example"):
            assert host in result.output
        assert "hunter2" not in result.output
