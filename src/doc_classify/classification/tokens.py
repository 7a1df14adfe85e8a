"""How many tokens a text has, without the model's tokenizer: an estimate that errs upwards.

Servers keep their tokenizers to themselves, so a prompt is fitted to the context by this and then
checked against the server's own count. It must depend on the text alone, so that a document's
prompt, and with it the answer, is the same in every run.
"""

from __future__ import annotations

import re
import string
from bisect import bisect_right
from itertools import accumulate

_RUNS = "|".join(f"{re.escape(sign)}{{4,}}" for sign in string.punctuation)
_PIECE = re.compile(
    r"[A-Za-z]+"
    r"|[0-9]+"
    r"|\n+"
    r"|[^\S\n]+"
    r"|[\u00c0-\u05ff\u1e00-\u1fff]+"  # Latin with marks, Greek, Cyrillic, Hebrew ...
    rf"|{_RUNS}"  # a rule drawn with dashes or dots
    r"|."
)
"""The text falls into these from end to end."""
_MOST_CHARACTERS = 8
"""Characters that a token has at most, on average over any text worth reading."""
_MOST_REMEMBERED = 20_000
_LONGEST_REMEMBERED = 24


class _Costs(dict[str, int]):
    """Estimated tokens of pieces; those met before are remembered."""

    def __missing__(self, piece: str) -> int:
        cost = _cost(piece)
        if len(piece) <= _LONGEST_REMEMBERED:
            if len(self) >= _MOST_REMEMBERED:
                self.clear()
            self[piece] = cost
        return cost


_cost_of = _Costs().__getitem__


def estimated_tokens(text: str) -> int:
    """An upper estimate of the tokens that a model's tokenizer makes of the text."""
    return sum(map(_cost_of, _PIECE.findall(text)))


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
    pieces = _PIECE.findall(text[:reach])
    spent = list(accumulate(map(_cost_of, pieces)))
    if len(text) <= reach and (not spent or spent[-1] <= budget):
        return text
    head_budget = int(budget * head_share)
    head = "".join(pieces[: bisect_right(spent, head_budget)])
    return head.rstrip() + gap + _tail(text, budget - head_budget)


def _tail(text: str, budget: int) -> str:
    """The longest end that is estimated at ``budget`` tokens or fewer."""
    part = text[-budget * _MOST_CHARACTERS :]
    pieces = _PIECE.findall(part)
    kept = bisect_right(list(accumulate(map(_cost_of, reversed(pieces)))), budget)
    return part if kept == len(pieces) else "".join(pieces[len(pieces) - kept :]).lstrip()


def _cost(piece: str) -> int:
    """Estimated tokens of one piece."""
    size, first = len(piece), piece[0]
    if first.isspace():
        if first == "\n":
            return 1
        return 0 if size == 1 else -(-size // 4)  # one blank goes with the word behind it
    if first.isascii():
        if first.isalpha():
            return 1 if size <= 6 else -(-size // 4)
        if first.isdigit():
            return size  # some tokenizers have one token a digit
        return -(-size // 4)
    if "\u00c0" <= first <= "\u05ff" or "\u1e00" <= first <= "\u1fff":
        return -(-size // 2)
    # Arabic, Indic and Thai letters, and those of Chinese, Japanese and Korean; the rest is rare,
    # and spelt byte by byte.
    return 1 if first < "\u1000" or "\u3000" <= first <= "\ud7ff" else 3
