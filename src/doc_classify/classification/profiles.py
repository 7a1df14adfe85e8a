"""What a taxonomy's categories are looked for by: kinds of documents, and the user's own words."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from doc_classify.classification.lexicon import Kind, Lexicon, normalised
from doc_classify.classification.words import stem, unspaced, words
from doc_classify.taxonomy import DEFAULT_TAXONOMY, OTHER, Category, Taxonomy

NAME, KEYWORD, DESCRIPTION, EXAMPLE = 6.0, 5.0, 3.5, 1.0
"""Weights of the words of a category that the user describes, by where they stand."""
_PARTLY_NAMED = 0.7
"""How much of a kind's cues a category takes that bears its name among other words."""
_EXAMPLE_WORDS = 200

_STOP_WORDS = frozenset(
    " ".join(
        (
            "a about all also am an and any are as at be been but by can could did do does etc for",
            "from had has have he her his how i if in into is it its may me more most must my no",
            "not of on one only or other our out over own she should so some such than that the",
            "their them then there these they this those through to too under up upon us was we",
            "nor were what when where which who whom whose why will with within without",
            "would you your document documents file files text texts thing things kind kinds",
            "type types various whatever everything anything something general misc",
            "miscellaneous category categories related including include includes like",
            "concerning regarding between among",
            "der die das und oder fur mit von zu den dem des ein eine einer im in auf bei aus als",
            "le la les un une et ou de du des pour avec dans sur par au aux en",
            "el los las y o con para por una del al sobre il lo gli e di da per una su nel",
        )
    ).split()
)


@dataclass(slots=True)
class Profile:
    """How one category is recognised.

    Attributes:
        kinds: kinds of documents with the share of their cues that counts.
        terms: words of the user's, with their weights.
        phrases: keywords of more than one word.
        topical: the category is known by the user's words alone.
    """

    kinds: list[tuple[Kind, float]] = field(default_factory=list)
    terms: dict[str, float] = field(default_factory=dict)
    phrases: list[str] = field(default_factory=list)

    @property
    def topical(self) -> bool:
        """Whether it is known by the user's words alone."""
        return not self.kinds


def profiles(taxonomy: Taxonomy, lexicon: Lexicon) -> list[Profile]:
    """The profile of each category, in the taxonomy's order; that of ``other`` is empty."""
    result = [_profile(category, lexicon) for category in taxonomy.categories]
    # Beside "receipts", "invoices" are not receipts too.
    single = [profile.kinds[0][0] for profile in result if len(profile.kinds) == 1]
    for profile in result:
        if len(profile.kinds) > 1:
            kept = [(kind, share) for kind, share in profile.kinds if kind not in single]
            profile.kinds = kept or profile.kinds
    # A word that many of the categories share says less.
    shared = Counter(stem(term) for profile in result for term in profile.terms)
    described = sum(bool(profile.terms) for profile in result)
    for profile in result:
        for term in list(profile.terms):
            rarity = math.log((1 + described) / shared[stem(term)]) / math.log(1 + described)
            profile.terms[term] *= rarity
    return result


def mostly_kinds(taxonomy: Taxonomy, lexicon: Lexicon) -> bool:
    """Whether at least half of the categories, ``other`` aside, are kinds of documents.

    A kind brings many cues of its own, so that much is known of it beforehand; a topic is known by
    the few words that the user gave.
    """
    known = [
        profile
        for category, profile in zip(taxonomy.categories, profiles(taxonomy, lexicon), strict=True)
        if not is_other(category.name)
    ]
    return sum(profile.topical for profile in known) * 2 <= len(known)


def is_other(name: str) -> bool:
    """Whether a category is what is left, however its name is capitalised."""
    return name.casefold() == OTHER


def _profile(category: Category, lexicon: Lexicon) -> Profile:
    if is_other(category.name):
        return Profile()
    profile = Profile(kinds=_kinds(category.name, lexicon))
    defaults = {known.name: known for known in DEFAULT_TAXONOMY.categories}
    by_default = defaults.get(category.name.casefold())
    examples = [word for text in category.examples for word in words(text)[:_EXAMPLE_WORDS]]
    sources = [(examples, EXAMPLE)]
    if by_default is None or category.description not in ("", by_default.description):
        sources.append((words(category.description), DESCRIPTION))
    for keyword in category.keywords:
        parts = words(keyword)
        if len(parts) > 1 and not unspaced(parts[0]):
            profile.phrases.append(" ".join(parts))
        sources.append((parts, KEYWORD if len(parts) == 1 else DESCRIPTION))
    if by_default is None:
        sources.append((words(category.name), NAME))
    for found, weight in sources:
        for word in found:
            if word not in _STOP_WORDS and (len(word) > 1 or not word.isascii()):
                profile.terms[word] = max(weight, profile.terms.get(word, 0.0))
    return profile


def _kinds(name: str, lexicon: Lexicon) -> list[tuple[Kind, float]]:
    """The kinds of a default category; those that bear the name, or a word of it."""
    if own := lexicon.of_category(name.casefold()):
        return [(kind, 1.0) for kind in own]
    whole = normalised(name.replace("_", " "))
    if named := lexicon.named(whole):
        return [(kind, 1.0) for kind in named]
    partly = {kind.name: kind for word in whole.split() for kind in lexicon.named(word)}
    return [(kind, _PARTLY_NAMED) for kind in partly.values()]
