"""What the LLM classifier needs of a chat server, whatever its protocol.

A back end speaks one protocol (:mod:`.ollama`, :mod:`.openai`). It knows nothing of categories or
documents: it sends a system and a user message and hands back what the server said, counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from doc_classify.records import Usage


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question.

    Attributes:
        system: the system message, the same for every document, so that servers can cache it.
        user: the document and the question.
        max_tokens: tokens the answer may have.
        schema: JSON schema that the answer has to follow; None for free text.
        logprobs: ask for the log-probabilities of the answer's tokens and their alternatives.
    """

    system: str
    user: str
    max_tokens: int
    schema: Mapping[str, Any] | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Attributes:
        text: as the server spells it; a token that is part of a character may hold U+FFFD.
        logprob: natural logarithm of the model's probability for it.
        alternatives: (text, logprob) of the likeliest tokens at this place, this one included.
    """

    text: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the server answered.

    Attributes:
        text: the answer, without anything the model thought aloud before it.
        usage: tokens by the server's own count.
        tokens: the answer's tokens; empty where the server gives no log-probabilities.
        truncated: the answer ended because it reached ``max_tokens``.
        thought: the model spent tokens on thinking aloud.
    """

    text: str
    usage: Usage
    tokens: tuple[Token, ...] = ()
    truncated: bool = False
    thought: bool = False


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a back end found out about its server and model before the first document.

    Attributes:
        address: where it is, for a person, without user or password.
        model: the model's name as requests give it.
        version: changes whenever the model's answers may: a digest of its weights where the
            server tells one, else all that it tells of the model; and with what the back end has
            found out about how to ask it, as far as no other field here says so.
        context: tokens that prompt and answer may have together, None where the server does not
            say; never more than what the requests ask for.
        logprobs: it gives log-probabilities.
        schema: it follows a JSON schema.
        thinks: the model thinks aloud and cannot be kept from it.
        on_gpu: share of the model that is in GPU memory, 0 to 1, None where the server does not
            say.
        server: name and version of the server program, for a person.
        remote_host: where the server sends what it is asked, "" where it answers itself.
        notes: more for a person to know.
    """

    address: str
    model: str
    version: str
    context: int | None = None
    logprobs: bool = False
    schema: bool = False
    thinks: bool = False
    on_gpu: float | None = None
    server: str = ""
    remote_host: str = ""
    notes: tuple[str, ...] = ()


class ChatBackend(Protocol):
    """One server and one model. Belongs to the event loop that opened it."""

    @property
    def name(self) -> str:
        """Short name as in ``--classifier``."""
        ...

    async def open(self) -> ServerFacts:
        """Connect, make sure that the model is there, and find out what the server can do.

        Raises:
            ServerError: the server does not answer.
            ServerSetupError: it answers, but cannot be used: model missing, key refused. The
                message says what to do.
        """
        ...

    async def chat(self, request: ChatRequest) -> ChatReply:
        """Ask one question.

        Raises:
            ServerBusyError: it has too much to do.
            ServerError: it cannot be reached, broke off, took too long, or answered nonsense.
            ContextExceededError: the prompt is too long; ``tokens`` and ``limit`` where it says.
            RefusedError: it refuses this very request. As all errors about a document it has the
                server's counts in ``usage`` where there are any.
            ServerSetupError: it cannot be used any more: model gone, key refused, quota used up.
        """
        ...

    async def alive(self) -> None:
        """Ask the server, at next to no cost, whether it is there.

        Raises:
            ServerError: it is not.
            ServerSetupError: it is, but cannot be used.
        """
        ...

    async def close(self) -> None:
        """Give back connections and processes. Safe to call twice."""
        ...
