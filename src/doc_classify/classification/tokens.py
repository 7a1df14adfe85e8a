"""How many tokens a text has, without the model's tokenizer: an estimate that errs upwards.

Servers keep their tokenizers to themselves, so a prompt is fitted to the context by this and then
checked against the server's own count. It must depend on the text alone, so that a document's
prompt, and with it the answer, is the same in every run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_PIECE = re.compile(
    r"(?P<word>[A-Za-z]+)"
    r"|(?P<digits>[0-9]+)"
    r"|(?P<break>\n+)"
    r"|(?P<blank>[^\S\n]{2,})"
    r"|(?P<one>[^\S\n])"
    r"|(?P<letters>[\u00c0-\u05ff\u1e00-\u1fff]+)"  # Latin with marks, Greek, Cyrillic, Hebrew ...
    r"|(?P<run>([!-/:-@\[-`{-~])\8{3,})"  # a rule drawn with dashes or dots
    r"|(?P<sign>[!-/:-@\[-`{-~])"
    r"|(?P<other>.)"
)
_MOST_CHARACTERS = 8
"""Characters that a token has at most, on average over any text worth reading."""


def estimated_tokens(text: str) -> int:
    """An upper estimate of the tokens that a model's tokenizer makes of the text."""
    return sum(cost for _, cost in _pieces(text))


def fewest_tokens(text: str) -> int:
    """A lower bound: byte-pair tokenizers do not join words across blanks.

    A server that counts fewer has not seen all of the text.
    """
    return len(text.split())


def excerpt(text: str, budget: int, *, head_share: float, gap: str) -> str:
    """All of the text if it is estimated at ``budget`` tokens or fewer, else its head and tail.

    Args:
        text: the text.
        budget: tokens.
        head_share: share of the budget that goes to the beginning, 0 to 1.
        gap: stands between head and tail.
    """
    reach = budget * _MOST_CHARACTERS
    head_budget = int(budget * head_share)
    spent = head_end = 0
    for end, cost in _pieces(text[:reach]):
        spent += cost
        if spent <= head_budget:
            head_end = end
        if spent > budget:
            break
    else:
        if len(text) <= reach:
            return text
    return text[:head_end].rstrip() + gap + _tail(text, budget - head_budget)


def _tail(text: str, budget: int) -> str:
    """The longest end that is estimated at ``budget`` tokens or fewer."""
    part = text[-budget * _MOST_CHARACTERS :]
    pieces = list(_pieces(part))
    spent = 0
    for end, cost in reversed(pieces):
        spent += cost
        if spent > budget:
            return part[end:].lstrip()
    return part


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    """(end, estimated tokens) of each piece of the text, in order."""
    for match in _PIECE.finditer(text):
        size = match.end() - match.start()
        kind = match.lastgroup
        if kind == "word":
            cost = 1 if size <= 6 else -(-size // 4)
        elif kind == "digits":
            cost = size  # some tokenizers have one token a digit
        elif kind == "letters":
            cost = -(-size // 2)
        elif kind in ("run", "blank"):
            cost = -(-size // 4)
        elif kind == "one":
            cost = 0  # goes with the word behind it
        elif kind == "other":
            cost = 1 if match.group() < "\u2000" or "\u3000" <= match.group() <= "\ud7ff" else 3
        else:
            cost = 1
        yield match.end(), cost
