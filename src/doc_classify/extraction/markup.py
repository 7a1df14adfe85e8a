"""Text out of XML: a hardened streaming parser that collects what a dialect calls text.

Nothing is fetched, no entity is expanded and no tree is built: memory depends on the text kept,
not on the document. Reading ends as soon as enough text has been collected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from doc_classify.errors import DamagedError, LimitExceededError


class Role(Enum):
    """What an element means to a reader of text."""

    IGNORED = auto()
    SKIP = auto()
    """Nothing inside it is read."""
    TEXT = auto()
    """Character data inside it is text."""
    PARAGRAPH = auto()
    """A line of its own."""
    BLOCK = auto()
    """Holds lines of its own amid the text around it."""
    ROW = auto()
    CELL = auto()
    TAB = auto()
    BREAK = auto()
    SPACES = auto()
    HYPHEN = auto()
    PAGE = auto()
    """Begins another page."""
    ONLY = auto()
    """Where a dialect has such elements, text outside of them is not read."""


@dataclass(frozen=True)
class Dialect:
    """Roles by local name, or by ``{namespace}name``, which prevails.

    ``paragraph_is_text``: character data of paragraphs is text.
    """

    roles: Mapping[str, Role]
    paragraph_is_text: bool = False
    everything_is_text: bool = False
    only: bool = False


class DoctypeError(LimitExceededError):
    """There is a document type definition where none was expected."""


class _EnoughError(Exception):
    """Raised inside the parser to stop it; never leaves this module."""


@dataclass
class Collected:
    """Text by page. ``damage`` says where the XML broke off, None where it was whole."""

    pages: list[str] = field(default_factory=list)
    truncated: bool = False
    damage: str | None = None

    @property
    def text(self) -> str:
        """The text of all pages."""
        return "\n".join(self.pages)


def collect(
    chunks: Iterable[bytes],
    dialect: Dialect,
    *,
    max_characters: int,
    max_depth: int,
) -> Collected:
    """Read XML that arrives in pieces.

    Raises:
        DoctypeError: there is a document type definition, which could declare entities.
        LimitExceededError: nested deeper than ``max_depth``, or a limit of the pieces' source.
        EncryptedError: from the pieces' source.
    """
    from lxml import etree

    target = _Target(dialect, max_characters, max_depth)
    receiver: Any = target  # its methods are a subset of the stubs' protocol
    parser = etree.XMLParser(
        target=receiver,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=True,  # long texts are fine; depth is ours to limit
        remove_comments=True,
        remove_pis=True,
    )
    found = Collected()
    try:
        for chunk in chunks:
            parser.feed(chunk)
        parser.close()
    except _EnoughError:
        found.truncated = True
    except etree.LxmlError as error:
        found.damage = str(error)[:200] or "not well-formed"
    except DamagedError as error:
        found.damage = str(error)
    found.pages = target.finish()
    return found


def parse_tree(data: bytes) -> Any:
    """The tree of a small part. Entities stay unexpanded, nesting stays under libxml2's limit.

    Raises:
        DamagedError: not well-formed.
        LimitExceededError: nested too deeply, or entities that expand without end.
    """
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(data, parser)
    except (etree.LxmlError, ValueError) as error:
        message = str(error)[:200]
        if "amplification" in message or "Excessive depth" in message:
            raise LimitExceededError(f"XML beyond safe limits: {message}") from error
        raise DamagedError(f"broken XML: {message}") from error


class _Target:
    """Receives the parser's events."""

    def __init__(self, dialect: Dialect, max_characters: int, max_depth: int) -> None:
        self._dialect = dialect
        self._roles: dict[str, Role] = {}
        self._left = max_characters
        self._max_depth = max_depth
        self._depth = 0
        self._skipping = 0
        self._capturing = 1 if dialect.everything_is_text else 0
        self._inside = 0 if dialect.only else 1
        self._cells = 0
        self._cell_has_text = False
        self._rows: list[bool] = []
        self._page: list[str] = []
        self._pages: list[list[str]] = [self._page]
        self._paged = False

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise DoctypeError("XML with a document type definition")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        if self._depth > self._max_depth:
            raise LimitExceededError(f"XML nested more than {self._max_depth} elements deep")
        if self._skipping:
            self._skipping += 1
            return
        if self._dialect.everything_is_text and self._cell_has_text:
            self._put(" ")
        role = self._role(tag)
        if role is Role.IGNORED:
            return
        if role is Role.SKIP or attributes.get("type") == "slidenum":
            self._skipping = 1
        elif role is Role.TEXT:
            self._capturing += 1
        elif role is Role.PARAGRAPH:
            if self._cells and self._cell_has_text:
                self._put(" ")
            self._capturing += self._dialect.paragraph_is_text
        elif role is Role.ONLY:
            self._inside += 1
        else:
            self._start_layout(role, attributes)

    def _start_layout(self, role: Role, attributes: Mapping[str, str]) -> None:
        if role is Role.BLOCK:
            self._put("\n" if not self._cells else " ")
        elif role is Role.ROW:
            self._rows.append(False)
        elif role is Role.CELL:
            if self._rows:
                if self._rows[-1]:
                    self._put("\t")
                self._rows[-1] = True
            self._cells += 1
            self._cell_has_text = False
        elif role is Role.TAB:
            self._put("\t")
        elif role is Role.BREAK:
            self._put("\n" if not self._cells else " ")
        elif role is Role.HYPHEN:
            self._put("-")
        elif role is Role.SPACES:
            count = next((v for k, v in attributes.items() if k.endswith("}c")), "1")
            self._put(" " * min(100, int(count) if count.isdecimal() else 1))
        elif role is Role.PAGE:
            if self._paged:
                self._page = []
                self._pages.append(self._page)
            self._paged = True

    def end(self, tag: str) -> None:
        self._depth -= 1
        if self._skipping:
            self._skipping -= 1
            return
        role = self._roles[tag]
        if self._dialect.everything_is_text and self._cell_has_text:
            self._put("\n")
            self._cell_has_text = False
        if role is Role.IGNORED:
            return
        if role is Role.TEXT:
            self._capturing -= 1
        elif role is Role.PARAGRAPH:
            self._capturing -= self._dialect.paragraph_is_text
            if not self._cells:
                self._put("\n")
        elif role is Role.ONLY:
            self._inside -= 1
        elif role is Role.BLOCK:
            self._put("\n" if not self._cells else " ")
        elif role is Role.CELL:
            self._cells -= 1
        elif role is Role.ROW:
            self._rows.pop()
            self._put("\n" if not self._cells else " ")

    def data(self, text: str) -> None:
        if self._capturing and not self._skipping and self._inside:
            self._cell_has_text = True
            self._put(text)

    def close(self) -> None:
        return None

    def finish(self) -> list[str]:
        return ["".join(page) for page in self._pages]

    def _put(self, text: str) -> None:
        if self._inside:
            self._left -= len(text)
            self._page.append(text)
            if self._left < 0:
                raise _EnoughError

    def _role(self, tag: str) -> Role:
        role = self._roles.get(tag)
        if role is None:
            roles = self._dialect.roles
            role = roles.get(tag) or roles.get(tag.rpartition("}")[2], Role.IGNORED)
            if len(self._roles) < 10_000:
                self._roles[tag] = role
            else:
                raise LimitExceededError("XML with too many kinds of elements")
        return role
