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

from sqlalchemy import Connection, Subquery, and_, case, func, or_, select

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
    column = corrections.c
    ranked = select(
        *column,
        func.row_number()
        .over(
            partition_by=column.document_id,
            order_by=(case((column.names_key == own, 0), else_=1), column.at.desc()),
        )
        .label("rank"),
    ).where(
        or_(
            column.names_key == own,
            and_(column.names_key.in_(wider), column.category.in_(sorted(wanted))),
            and_(column.names_key.in_(narrower), func.lower(column.category) != OTHER),
        )
    )
    found = ranked.subquery()
    return select(found).where(found.c.rank == 1).subquery("holding")
