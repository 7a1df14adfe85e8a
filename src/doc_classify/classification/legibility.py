"""Whether a text can be judged at all: is it made of words, and in a language of the categories?

Both are guesses from what is cheap to look at, and only reasons to have a person look: a noisy or
foreign document is still sorted by the evidence that was found in it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from doc_classify.classification.explaining import Check
from doc_classify.classification.words import Words, unspaced, words

FEWEST_WORDS = 15
MOST_NOISE = 0.25
"""Share of words that are none, above which a text is called noise. Of real scans hardly one has
so many; of texts in which every fifth letter was replaced at random most have."""
_VOWEL = re.compile("[aeiouy]")
_IDENTIFIER = 12
"""Letters mixed with digits that are as long as this are identifiers and hashes, not noise."""
_SCRIPT_SHARE = 0.5
_LETTERS = 1_000
_LEAST_FUNCTION_WORDS, _CLEARLY = 0.06, 2.0
_FEW_WORDS = 6

_FUNCTION_WORDS = {
    "English": "the of and to in is that for it as was with be by on not this are or from at "
    "which but have an had they you were all we has there if will would who their",
    "German": "der die das und zu den ist nicht von mit sich des auf fur im dem ein eine auch es "
    "an als nach wie oder aus bei sind wird durch wurde uber einer werden",
    "French": "le la les de des et est un une du que pour dans qui sur pas au par plus avec ce "
    "cette sont ou aux ont nous vous ne se il elle leur",
    "Spanish": "el la los las de y que en un una por con para no se del al es su lo como mas "
    "pero sus este esta son fue entre ser ha",
    "Italian": "il lo la gli le di e che un una per con non si del della dei delle al alla nel "
    "nella sono come piu anche da questo questa ha",
    "Portuguese": "o os as de e que em um uma por com para nao se do da dos das no na ao pela "
    "pelo mais como foi sao seu sua ou",
    "Dutch": "de het een en van ik te dat die in op is voor met niet zijn aan er om ook als bij "
    "door uit naar over maar worden wordt deze of",
}
_KNOWN = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}


def noise(seen: Sequence[str]) -> float:
    """Share of a text's words that look like the work of a bad scan, 0 to 1.

    Those are letters mixed with digits, single letters, and words without a vowel. Only words in
    Latin letters are judged; 0 where there are few of them.
    """
    judged = junk = 0
    for word, number in Counter(seen).items():
        if not word.isascii() or word.isdigit():
            continue
        judged += number
        if not word.isalpha():
            if len(word) < _IDENTIFIER:
                junk += number
        elif (len(word) == 1 and word not in "aio") or (len(word) > 3 and not _VOWEL.search(word)):
            junk += number
    return junk / judged if judged >= _FEW_WORDS and 2 * judged >= len(seen) else 0.0


def legibility_checks(seen: Words) -> tuple[Check, Check]:
    """That there are words enough, and that they are words."""
    return (
        Check("words", len(seen.body), FEWEST_WORDS, "there are few words"),
        Check(
            "share of words that are none",
            round(noise(seen.body), 3),
            MOST_NOISE,
            "much of it does not look like words",
            most=True,
        ),
    )


class Languages:
    """The scripts and languages that some words are written in.

    Args:
        texts: what categories are known by.
        several: they are known in several languages, so that only the script can be strange.
    """

    def __init__(self, texts: Iterable[str], *, several: bool = False) -> None:
        whole = " ".join(texts)
        self._scripts = set(_scripts(whole))
        self._language = None if several else _language(words(whole))

    def stranger(self, text: str, seen: Sequence[str]) -> str | None:
        """The script or language of a document that these words are not in; None if unknown."""
        scripts = _scripts(text[:_LETTERS])
        total = sum(scripts.values())
        if total and self._scripts:
            script, letters = scripts.most_common(1)[0]
            if letters > _SCRIPT_SHARE * total and script not in self._scripts:
                return f"{script.capitalize()} letters"
        if self._language and (language := _language(seen)) not in (None, self._language):
            return language
        return None


def _scripts(text: str) -> Counter[str]:
    """Letters of each script, by the first word of their names; 1 where there is but one script."""
    if text.isascii():
        return Counter({"LATIN": 1} if _LETTER.search(text) else {})
    counted: Counter[str] = Counter()
    for char, number in Counter(text).items():
        if char.isalpha():
            script = "LATIN" if char.isascii() else unicodedata.name(char, "UNKNOWN").split()[0]
            counted["CJK" if unspaced(char) and script in _EAST_ASIAN else script] += number
    return counted


_LETTER = re.compile("[A-Za-z]")
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA"})


def _language(seen: Sequence[str]) -> str | None:
    """The language whose function words are by far the most frequent ones."""
    if len(seen) < _FEW_WORDS:
        return None
    counted = Counter(seen)
    shares = sorted(
        ((sum(counted[word] for word in known), name) for name, known in _KNOWN.items()),
        reverse=True,
    )
    (most, language), (second, _) = shares[:2]
    return (
        language
        if most >= _LEAST_FUNCTION_WORDS * len(seen) and most >= _CLEARLY * second
        else None
    )
