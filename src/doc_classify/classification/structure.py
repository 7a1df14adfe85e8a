"""Evidence that is in a document's form rather than its words.

Every pattern is bounded and matches without nested repetition, and lines are looked at one by
one, so that the time is linear in the text whatever it holds.
"""

from __future__ import annotations

import math
import re

from doc_classify.classification.words import Words, fold, words

MAX_LINES = 400
_HEADING_CHARACTERS = 60
_NAMING_LINES, _NAMING_WORDS = 12, 7
_TOP_LINES = 30

# Patterns begin with a character or a class of them, which lets the engine skip to candidates.
_IN_TEXT: dict[str, tuple[str, re.Pattern[str]]] = {
    "amounts of money": ("0123456789", re.compile(r"\d[.,]\d\d(?![\d.,%])|[$€£¥₹] ?\d")),
    "percentages": ("%", re.compile(r"\d ?%")),
    "citations": (
        "[(",
        re.compile(
            r"\[\d{1,3}(?:[,–-] ?\d{1,3}){0,5}\]|\([A-Z][^()\d]{1,40}\b(?:19|20)\d\d[a-z]?\)"
        ),
    ),
    "measured quantities": (
        "0123456789",
        re.compile(
            r"\d ?(?:mg|µg|μg|ug|ml|µl|μl|mM|µM|nm|kg|°C|° C|kHz|MHz|ppm|wt%|mmol)\b"
            r"|±|[pP] ?[<=>] ?0?\.\d"
        ),
    ),
    "quotations": ('"“', re.compile(r"[\"“][^\"”\n]{20,300}[\"”]")),
    "blanks to fill in": ("_☐☑□[", re.compile(r"_{4,400}|[☐☑□]|\[ ?\]")),
}
"""By name: characters of which one must be there, and the pattern."""

_LINE = re.compile(
    r"""[ \t>*|#]{0,40}(?:
    (?P<message>(?:from|to|cc|bcc|subject|sent|date|re|attn|attention|von|an|betreff|de|à|objet
        |para|asunto|oggetto)[ \t*]{0,12}[:;]
        |(?-i:TO|FROM|SUBJECT|DATE|CC)(?:[.,]|[ ]{0,12}$|[ ]{2}|[ ][A-Z]))
    |(?P<date>(?:[\w.-]{2,20},?\ )?(?:
        (?:january|february|march|april|may|june|july|august|september|october|november|december
        |jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.?\ \d{1,2},?\ (?:19|20)\d\d
        |\d{1,2}(?:st|nd|rd|th|\.)?(?:\ de)?\ [a-zäéû]{3,10}\.?(?:\ de)?\ (?:19|20)\d\d
        |\d{1,2}[./-]\d{1,2}[./-](?:19|20)?\d\d)$)
    |(?P<salutation>(?:dear|gentlemen|ladies\ and\ gentlemen|to\ whom\ it\ may\ concern
        |sehr\ geehrte[rs]?|liebe[rs]?|guten\ tag|hallo|cher|ch[eè]re|madame|monsieur|bonjour
        |estimad[oa]s?|muy\ señor(?:es)?|querid[oa]|gentile|egregio|spettabile|caro|hi|hello)\b
        .{0,50}$)
    |(?P<closing>(?:(?:yours\ )?(?:very\ )?(?:sincerely|truly|faithfully|respectfully)(?:\ yours)?
        |(?:(?:best|kind|kindest|warm|warmest)\ )?regards|best\ wishes|many\ thanks|cordially
        |mit\ (?:freundlichen|besten|herzlichen)\ gr(?:ü|ue|u)(?:ß|ss)en
        |(?:freundliche|viele|beste)\ gr(?:ü|ue)(?:ß|ss)e|cordialement|salutations|bien\ à\ vous
        |atentamente|(?:un\ cordial\ saludo|saludos)(?:\ cordiales)?|cordiali\ saluti
        |distinti\ saluti)\b[ \t,.!]{0,10}$)
    |(?P<total>(?:sub-?\ ?total|(?:grand|net|gross)\ total|total|(?:amount|balance)\ due
        |(?:zwischen|gesamt)?summe|gesamtbetrag|(?:rechnungs|brutto|netto|end)betrag|montant
        |importe|totale|imponibile|vat|gst|tax|mwst|ust|tva|iva)\b[^\d]{0,60}\d)
    |(?P<clause>\d{1,2}\.\d{1,2}\.?\d{0,2}\b[^%]|\(?[a-hivx]{1,4}\)|article\ [\divx]{1,4}\b
        |section\ \d{1,3}\b|§\ ?\d{1,3}|clause\ \d{1,2}\b|\d{1,2}\.\ [a-z])
    |(?P<code>\#include|import\ [\w.]{1,60}$|from\ [\w.]{1,60}\ import|def\ \w{1,60}\(
        |public\ (?:static|class|void)|return\b.{0,80};$|\}|</?[a-z]{1,12}>|\$\ \w
        |<\?php|function\ \w{1,40}\()
    |(?P<address>(?:[a-z]{1,2}-)?\d{5}\ [a-zäöüé]{3,30}$)
    |(?P<copies>(?:enc(?:l(?:osures?)?)?|attachments?|anlagen?|c\.c\.|cc|pièces?\ jointes?)\b
        .{0,30}$)
    |(?P<byline>(?:by|von|par)\ (?-i:[A-Z][\w.'-]{1,20}\ [A-Z][\w.'\ -]{1,30})$)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_POSTCODE = re.compile(r"\b(?:[A-Z]{2} {1,2}\d{5}(?:-\d{4})?|[A-Z]{1,2}\d[\dA-Z]? \d[A-Z]{2})$")
_REPLY = re.compile(r"[ \t]{0,8}>|[^\n]{1,100}\b(?:writes|wrote|schrieb|écrit):[ \t]*$")
_NUMBER = re.compile(r"\d[\d.,]{0,14}")

_LINE_NAMES = {
    "clause": "numbered clauses",
    "total": "lines of a total",
    "code": "lines of program code",
    "byline": "the author's name in a line",
    "closing": "a closing formula",
    "salutation": "a salutation",
    "date": "a date in a line of its own",
    "address": "postal addresses",
    "copies": "a note of enclosures or copies",
}
_ONLY_AT_TOP = frozenset({"date", "address", "message"})
_HEADERS, _COLUMNS = "header lines of a message", "columns of numbers"
_FIELDS, _REPLIES = "fields without content", "a quoted message"
_PERSONAL = "somebody writing of himself"
NAMES = (
    frozenset(_IN_TEXT)
    | frozenset(_LINE_NAMES.values())
    | {
        _HEADERS,
        _COLUMNS,
        _FIELDS,
        _REPLIES,
        _PERSONAL,
    }
)
"""All that :func:`structures` can find; the lexicon says what each weighs."""

_AT_ONCE = frozenset(_LINE_NAMES[name] for name in ("closing", "salutation", "date", "copies"))
_FULL = 8
_FULL_HEADERS = 3
_FULL_PERSONAL = 0.03
"""Occurrences (or share of the words) at which a structure counts in full."""
_MOST = 1.5
_COLUMNS_FROM = 3
_FIELD_CHARACTERS = 40
_MAIL_TYPES = ("message/rfc822", "application/mbox", "application/vnd.ms-outlook")
_IN_MAIL = 0.4
"""What the header lines count in a file of mail, which has them whatever it brings."""
_FIRST_PERSON = {"i", "my", "me", "ich", "mir", "mein", "meine", "je", "mon", "ma", "yo", "mi"}


def structures(lines: list[str], seen: Words, media_type: str = "") -> dict[str, float]:
    """How strongly each structure is there: 1 is in full, 1.5 at most."""
    found: dict[str, float] = {}
    for name, (needed, pattern) in _IN_TEXT.items():
        if any(character in seen.sample for character in needed):
            _count(found, name, len(pattern.findall(seen.sample)))
    headers: set[str] = set()
    for at, line in enumerate(lines):
        if match := _LINE.match(line):
            what = str(match.lastgroup)
            if what in _ONLY_AT_TOP and at >= _TOP_LINES:
                pass
            elif what == "message":
                headers.add(line[:2].lower())
            else:
                _count(found, _LINE_NAMES[what])
        elif at < _TOP_LINES and len(line) <= _HEADING_CHARACTERS and _POSTCODE.search(line):
            _count(found, _LINE_NAMES["address"])
        if line[-1] in ":_" and 2 < len(line) <= _FIELD_CHARACTERS:
            _count(found, _FIELDS)
        elif ">" in line[:2] or (line[-1] == ":" and _REPLY.match(line)):
            _count(found, _REPLIES)
        elif len(_NUMBER.findall(line)) >= _COLUMNS_FROM:
            _count(found, _COLUMNS)
    for name, number in found.items():
        full = 1.0 if name in _AT_ONCE else math.log1p(number) / math.log1p(_FULL)
        found[name] = min(_MOST, full)
    if len(headers) > 1:
        factor = _IN_MAIL if media_type in _MAIL_TYPES else 1.0
        found[_HEADERS] = factor * min(_MOST, len(headers) / _FULL_HEADERS)
    personal = _FIRST_PERSON.intersection(seen.body)
    if (number := sum(map(seen.body.count, personal))) > 1:
        found[_PERSONAL] = min(_MOST, number / len(seen.body) / _FULL_PERSONAL)
    return found


def _count(found: dict[str, float], name: str, number: int = 1) -> None:
    if number:
        found[name] = found.get(name, 0) + number


def lines_of(text: str) -> list[str]:
    """The lines that are not empty, without space at the ends, bounded in number and length."""
    lines: list[str] = []
    for line in text.splitlines():
        if line := line[:300].strip():
            lines.append(line)
            if len(lines) == MAX_LINES:
                break
    return lines


def headings(lines: list[str]) -> list[str]:
    """Lines short enough to be a heading, without numbering, marks and case."""
    return [fold(line.strip(_MARGINS)) for line in lines if len(line) <= _HEADING_CHARACTERS]


_MARGINS = " \t#*:.-–—|=_0123456789"


def namings(lines: list[str]) -> list[list[str]]:
    """The words of the short lines among the first, which may name what the document is."""
    found = []
    for line in lines[:_NAMING_LINES]:
        if len(line) <= _HEADING_CHARACTERS and not _MESSAGE.match(line):
            in_line = [word for word in words(line) if not word.isdigit()]
            if 0 < len(in_line) <= _NAMING_WORDS:
                found.append(in_line)
    return found


_MESSAGE = re.compile(
    r"(?:from|to|cc|bcc|subject|sent|date|re|attn|von|an|betreff|de|à|objet|para|asunto|oggetto)"
    r"[ \t]{0,12}[:;]",
    re.IGNORECASE,
)
