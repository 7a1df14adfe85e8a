"""Keys and passwords struck out of what people get to see.

Servers and libraries repeat in their errors what they were sent: a key, a password, the path of an
address with a key in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from yarl import URL

_SHORTEST = 8
"""Characters from which on a secret can be told from any other text."""
_STRUCK = "***"
_WORD = re.compile(r"[0-9A-Za-z]+")
_LONG_WORD = 12
_PREFIXES = ("sk-", "sk_", "pk-", "pk_", "key-", "key_", "token-", "token_")


def forms_of(secrets: Iterable[str]) -> tuple[str, ...]:
    """Every way in which a text may spell the secrets; those too short to be told are left out."""
    forms = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            spelt = json.dumps(secret)[1:-1]
            forms |= {secret, spelt, spelt.replace("/", "\\/"), quote(secret, safe="")}
    return tuple(sorted(forms, key=len, reverse=True))


def struck(text: str, forms: Iterable[str]) -> str:
    """The text without the secrets, of which :func:`forms_of` gave the forms."""
    for form in forms:
        text = text.replace(form, _STRUCK)
    return text


def secrets_of(url: URL) -> list[str]:
    """The secrets in an address: user and password, and what in its path looks like a key."""
    named = [part for part in (url.user, url.password, url.raw_user, url.raw_password) if part]
    return named + [part for part in (*url.raw_parts, *url.parts) if _is_like_a_key(part)]


def _is_like_a_key(part: str) -> bool:
    """Whether a part of a path is a key: names are made of words, keys of letters and digits."""
    if part.casefold().startswith(_PREFIXES):
        return True
    return any(
        len(word) >= _LONG_WORD and not word.isalpha() and not word.isdigit()
        for word in _WORD.findall(part)
    )
