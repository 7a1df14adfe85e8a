"""Bringing a database to the tables that this version of the program knows."""

from __future__ import annotations

from importlib import resources
from typing import Final

from sqlalchemy import Connection, Engine, inspect, text

from doc_classify.errors import ConfigurationError
from doc_classify.storage.engine import mask_url, reading, writing

HEAD: Final = "0005"
"""The newest revision in ``migrations/versions``; a test holds the two together."""


def upgrade(engine: Engine) -> None:
    """Create or migrate the tables; costs one query where they are up to date.

    Raises:
        ConfigurationError: a newer version of the program made this database.
        StorageError: the database cannot be used.
    """
    with reading(engine) as connection:
        if current_revision(connection) == HEAD:
            return
    # Imported here, since it takes longer than everything else that opening a database does.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    folder = str(resources.files(__package__) / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            # Two programs may open a fresh database at once; the second finds it made.
            connection.execute(text("SELECT pg_advisory_xact_lock(7305808869231650915)"))
        revision = current_revision(connection)
        if revision == HEAD:
            return
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if revision is not None and revision not in known:
            raise ConfigurationError(
                f"the database {mask_url(engine.url.render_as_string())} was made by a newer "
                f"version of doc-classify (revision {revision}): update the program"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current_revision(connection: Connection) -> str | None:
    """The revision of a database, None where it has no tables yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)
