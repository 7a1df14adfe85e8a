"""What an object store's error means, said without anything that could be a secret.

The texts of the errors hold whole requests and answers, with signatures in addresses and names of
keys in between. So what is passed on is put together from the few words that help: the status,
the store's own word for it, the host.
"""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass

from doc_classify.terminal import one_line

_STATUS = re.compile(r"status code: (\d{3}) ?([A-Za-z ]*)")
_CODE = re.compile(r'<Code>(\w+)</Code>|"reason": ?"(\w+)"')
_HOST = re.compile(r"https?://(?:[^/\s@]*@)?([^/\s?#,)]+)")
_SYSTEM_MESSAGE = re.compile(r'message: "([\w ,()]+)"')
_PREFIX = re.compile(r"^Generic \w+ error: |Error performing .*?(?: - |$)")
_ADDRESS = re.compile(r"\w+://\S+")
_METADATA_SERVICES = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
_ENVIRONMENT = ("AWS_", "AZURE_", "GOOGLE_")
_SECRET = re.compile(r"KEY|SECRET|TOKEN|PASS|CREDENTIAL|SAS|ACCOUNT_JSON")


class Kind(enum.Enum):
    """Who can do something about it."""

    MISSING = "missing"
    DENIED = "denied"
    SETUP = "setup"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of a store: what kind, and why, for a person."""

    kind: Kind
    reason: str


def fault_of(error: Exception) -> Fault:
    """Tell the kind of an error that ``obstore`` has raised."""
    text = str(error)
    name = type(error).__name__
    if any(service in text for service in _METADATA_SERVICES):
        return Fault(Kind.SETUP, "no credentials were found in the environment")
    status, phrase, code = _answer(text)
    if isinstance(error, FileNotFoundError) or status == 404:
        return Fault(Kind.MISSING, code or "not found")
    if name in ("PermissionDeniedError", "UnauthenticatedError") or status in (401, 403):
        return Fault(Kind.DENIED, f"access denied ({code or status or 'no reason given'})")
    if "URL scheme is not allowed" in text or "BadScheme" in text:
        reason = "the endpoint is plain http://, which has to be allowed: AWS_ALLOW_HTTP=true"
        return Fault(Kind.SETUP, reason)
    if status is not None:
        reason = f"the store answered {status} {phrase}".rstrip() + (f" ({code})" if code else "")
        return Fault(Kind.AWAY if status >= 500 or status in (408, 429) else Kind.SETUP, reason)
    if "redirect" in text.lower():
        return Fault(Kind.SETUP, "the store sends us elsewhere: is AWS_REGION that of the bucket?")
    if "HttpError" in text:
        return Fault(Kind.AWAY, _unreachable(text))
    return Fault(Kind.SETUP, _safe(text) or name)


def _answer(text: str) -> tuple[int | None, str, str]:
    status = _STATUS.search(text)
    code = _CODE.search(text)
    word = (code[1] or code[2]) if code else ""
    return (int(status[1]), status[2].strip(), word) if status else (None, "", word)


def _unreachable(text: str) -> str:
    host = _HOST.search(text)
    said = _SYSTEM_MESSAGE.findall(text)
    why = said[-1] if said else "it took too long" if "Timeout" in text else "the request broke off"
    return f"no answer from {host[1]}: {why}" if host else f"no answer: {why}"


def _safe(text: str) -> str:
    """The first line of an unknown error, without addresses and without what is secret."""
    line = _ADDRESS.sub("...", _PREFIX.sub("", text.partition("\n")[0]))
    for name, value in os.environ.items():
        if name.startswith(_ENVIRONMENT) and _SECRET.search(name) and len(value) > 3:
            line = line.replace(value, "***")
    return one_line(line)[:200]
