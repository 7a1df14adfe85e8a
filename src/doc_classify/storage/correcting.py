"""Which corrections hold for a set of categories.

A correction says that a document belongs to one of the categories that a person could choose
from. It has nothing to do with descriptions, with the classifier or with a run, and so outlives a
change of them. Under the same set of names it holds as it is. It also holds where categories were
added to that set or taken out of it, as long as its own category is still there: with one
exception, since what was ``other`` may belong to a category that was added. For any other set the
names may mean something else, and it does not hold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Subquery,
    and_,
    exists,
    func,
    not_,
    or_,
    select,
)

from doc_classify.storage.schema import corrections
from doc_classify.taxonomy import OTHER


def names_key(names: Iterable[str]) -> str:
    """The key of a set of category names, whatever their order."""
    return hashlib.sha256(names_text(names).encode()).hexdigest()[:16]


def names_text(names: Iterable[str]) -> str:
    """The stored form of such a set."""
    return json.dumps(sorted(set(names)))


def holding(connection: Connection, names: Iterable[str]) -> Subquery:
    """At most one correction for each document: that which holds for a set of categories.

    One made for this very set comes before those for others, then the newest.
    """
    wanted = set(names)
    own = names_key(wanted)
    wider, narrower = [], []
    sets = select(corrections.c.names_key, corrections.c.names).distinct()
    for key, text in connection.execute(sets):
        if (stored := set(json.loads(text))) > wanted:
            wider.append(key)
        elif stored < wanted:
            narrower.append(key)

    def holds(one: FromClause) -> ColumnElement[bool]:
        return or_(
            one.c.names_key == own,
            and_(one.c.names_key.in_(wider), one.c.category.in_(sorted(wanted))),
            and_(one.c.names_key.in_(narrower), func.lower(one.c.category) != OTHER),
        )

    # No window function: with this, a database need only look at the documents that it is at.
    mine, other = corrections.alias("mine"), corrections.alias("other")
    better = exists().where(
        other.c.document_id == mine.c.document_id,
        holds(other),
        or_(
            other.c.names_key == own,
            other.c.at > mine.c.at,
            and_(other.c.at == mine.c.at, other.c.names_key > mine.c.names_key),
        ),
    )
    return (
        select(mine)
        .where(holds(mine), or_(mine.c.names_key == own, not_(better)))
        .subquery("holding")
    )
