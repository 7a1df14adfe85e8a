"""Evidence that is in a document's form rather than its words.

Every pattern is matched line by line or character by character without nested repetition, so the
time is linear in the text whatever it holds.
"""

from __future__ import annotations

import re

_LINE = r"^[ \t]{0,8}"
_MESSAGE = r"(?:from|to|cc|subject|sent|re|date|an|von|betreff)[ \t]{0,4}:"
_SALUTATION = (
    r"(?:dear|sehr geehrte|liebe|cher|chère|estimad[oa]|gentile|hi|hello)\b.{0,60}[,:]?[ \t]*$"
)
_CLAUSE = (
    r"(?:\d{1,2}\.(?:\d{1,2}\.?)?|\([a-z]{1,3}\)|article [\divx]{1,4}|section \d{1,3}"
    r"|§ ?\d{1,3})[ \t]"
)
_MONEY = r"(?:[$€£¥]|\b(?:EUR|USD|GBP|CHF|RM)\b) ?\d|\b\d{1,9}[.,]\d\d(?!\d)"
_CITATION = (
    r"\[\d{1,3}(?:[,-] ?\d{1,3})?\]"
    r"|\([A-Z][a-z]{1,20}[^()]{0,30}(?:19|20)\d\d[a-z]?\)|\bet al\b"
)
_RULE = r"\b(?:must|is required to|are required to|may not)\b"

_LINES = re.IGNORECASE | re.MULTILINE

_PATTERNS: dict[str, tuple[re.Pattern[str], dict[str, float]]] = {
    "amounts of money": (re.compile(_MONEY), {"invoices": 2.0}),
    "header lines of a message": (re.compile(_LINE + _MESSAGE, _LINES), {"correspondence": 3.0}),
    "a salutation": (re.compile(_LINE + _SALUTATION, _LINES), {"correspondence": 4.0}),
    "numbered clauses": (
        re.compile(_LINE + _CLAUSE, _LINES),
        {"contracts": 1.5, "compliance": 1.0},
    ),
    "citations": (re.compile(_CITATION), {"research": 3.0}),
    "percentages": (re.compile(r"\d ?%"), {"reports": 1.5, "research": 0.5}),
    "obligations": (re.compile(r"\bshall\b", re.IGNORECASE), {"contracts": 2.0}),
    "rules": (re.compile(_RULE, re.IGNORECASE), {"compliance": 2.0}),
    "quotations": (re.compile(r"[\"“][^\"”\n]{20,300}[\"”]"), {"other": 2.0}),
}
"""What is looked for, and what it weighs for the default categories."""


def structures(text: str) -> list[tuple[str, int, dict[str, float]]]:
    """What was found: (description, how often, weight per category)."""
    found = []
    for description, (pattern, weights) in _PATTERNS.items():
        number = sum(1 for _ in pattern.finditer(text))
        if number:
            found.append((description, number, weights))
    return found
