"""JSON over HTTP, the way the chat back ends need it: bounded, counted, and with plain errors."""

from __future__ import annotations

import json
import math
import os
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from doc_classify.classification.secrecy import forms_of, secrets_of, struck
from doc_classify.errors import (
    ConfigurationError,
    RefusedError,
    ServerBusyError,
    ServerError,
    ServerSetupError,
)
from doc_classify.terminal import one_line

_MAX_BODY = 8_000_000
"""Bytes of an answer; more is no chat server's."""
_MAX_RETRY_AFTER = 3600.0
_CONNECT_SECONDS = 10.0
_KEPT_BYTES, _KEPT_TEXT = 4_000, 2_000
_LONGEST_MESSAGE = 10_000
_FILTERS = ("content_filter", "content_policy_violation", "moderation_blocked")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server sent.

    Attributes:
        status: of HTTP.
        data: parsed JSON, None where the body is none.
        text: the body's beginning.
        retry_after: seconds that it asks us to wait.
        secrets: what must not be shown, in every form that it may have.
    """

    status: int
    data: Any
    text: str
    retry_after: float | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def message(self) -> str:
        """What the server says about an error, for a person, on one line."""
        data = self.data
        found: object = data
        if isinstance(data, Mapping):
            error = data.get("error", data.get("detail", data.get("message", "")))
            found = error.get("message", "") if isinstance(error, Mapping) else error
        text = found if isinstance(found, str) and found.strip() else self.text
        return self.shown(f"HTTP {self.status}: {text.strip() or 'no reason given'}")

    def shown(self, text: str) -> str:
        """A text from the server as a person may see it: on one line, without secrets."""
        return one_line(struck(text[:_LONGEST_MESSAGE], self.secrets))


class JsonClient:
    """A session with one server. Made in the event loop that uses it.

    Args:
        base_url: address, with user and password where basic authentication is wanted.
        timeout: seconds until an answer must be complete, time in the server's queue included.
        headers: sent with every request; may hold a key, hence never shown.
        trust_env: whether the proxy settings of the environment apply.
        secrets: what no message may show, besides the secrets in the address.

    Attributes:
        address: for a person, without secrets.

    Raises:
        ConfigurationError: the address cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        trust_env: bool = False,
        secrets: Iterable[str] = (),
    ) -> None:
        try:
            url = URL(base_url)
            self._root = str(url.with_user(None)).rstrip("/")
        except ValueError as error:
            raise ConfigurationError(f"the server's address cannot be used: {error}") from None
        self._secrets = forms_of([*secrets, *secrets_of(url)])
        self.address = self.shown(self._root)
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigurationError(
                f"the server's address must begin with http:// or https://, got {self.address!r}"
            )
        if url.query_string or url.fragment:
            raise ConfigurationError("the server's address must end before any ? or #")
        self._timeout = timeout
        self._headers = dict(headers or {})
        if url.user is not None:
            self._headers["Authorization"] = _basic(url)
        self._proxy = _proxy_for(url) if trust_env else None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> JsonClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def request(
        self, method: str, path: str, body: object = None, *, timeout: float | None = None
    ) -> Answer:
        """Send a request; returns the answer whatever its status.

        Raises:
            ServerError: no answer, or none that is complete in time.
        """
        limit = timeout or self._timeout
        try:
            async with self._opened().request(
                method,
                self._root + path,
                json=body,
                headers=self._headers,  # a session's own would go to the proxy as well
                allow_redirects=False,  # a key must not follow to another server
                **self._by_proxy(),
                timeout=aiohttp.ClientTimeout(total=limit, sock_connect=_CONNECT_SECONDS),
            ) as response:
                raw = await _read(response)
                return Answer(
                    response.status,
                    _parsed(raw),
                    self.shown(raw[:_KEPT_BYTES].decode("utf-8", "replace"))[:_KEPT_TEXT],
                    _retry_after(response.headers.get("Retry-After")),
                    self._secrets,
                )
        except aiohttp.ConnectionTimeoutError as error:
            reason = f"no connection to {self.address} in time"
            raise ServerError(reason, unreachable=True) from error
        except aiohttp.ClientConnectorError as error:
            # Its own message names the address once more, and what only programmers know.
            reason = error.os_error.strerror or str(error.os_error)
            if error.errno:
                reason = os.strerror(error.errno)
            reason = f"no answer from {self.address}: {one_line(reason)}"
            raise ServerError(reason, unreachable=True) from error
        except TimeoutError as error:
            reason = f"{self.address} did not answer within {limit:g} s"
            raise ServerError(reason, timed_out=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = one_line(self.shown(str(error) or type(error).__name__))
            raise ServerError(f"no answer from {self.address}: {reason}") from error

    def shown(self, text: str) -> str:
        """The text without the secrets."""
        return struck(text, self._secrets)

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _by_proxy(self) -> dict[str, Any]:
        if self._proxy is None:
            return {}
        if self._proxy.user is None:
            return {"proxy": self._proxy}
        headers = {"Authorization": _basic(self._proxy)}  # aiohttp gives it its proper name
        return {"proxy": self._proxy.with_user(None), "proxy_headers": headers}

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # whoever calls bounds the requests
                cookie_jar=aiohttp.DummyCookieJar(),
                json_serialize=_serialized,
            )
        return self._session


def raise_for(answer: Answer, address: str) -> None:
    """Raise what a status other than success means; 2xx raises nothing.

    Raises:
        ServerBusyError: 429 and 503.
        ServerSetupError: the key is refused (401, 403; 407: the proxy's), money is missing (402,
            a quota), the address is none of a chat server (404, 405) or leads elsewhere (3xx).
        RefusedError: the server takes exception to this very request (400, 413, 422 ...; 403 where
            a moderation says so).
        ServerError: everything else, which may pass.
    """
    status = answer.status
    if 200 <= status < 300:
        return
    said = f"{address}: {answer.message}"
    if status == 403 and _is_moderation(answer):
        raise RefusedError(said)
    if status in (401, 402, 403, 407) or (status == 429 and _is_quota(answer)):
        raise ServerSetupError(said)
    if status in (429, 503):
        raise ServerBusyError(said, answer.retry_after)
    if status in (404, 405) or 300 <= status < 400:
        raise ServerSetupError(f"{said} (is this the address of a chat server?)")
    if status in (408, 409, 425) or status >= 500:
        raise ServerError(said)
    raise RefusedError(said)


def expect(value: Any, *kinds: type) -> Any:
    """A part of a server's answer, of one of the types that it must have.

    Raises:
        ServerError: it is of another.
    """
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise ServerError(f"the server's answer has {type(value).__name__} in place of {wanted}")
    return value


def count(value: Any) -> int:
    """A number of tokens as a server gives it; 0 where it gives none or nonsense."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value < 2**31 else 0  # neither infinity nor NaN is


def _is_quota(answer: Answer) -> bool:
    """Whether a 429 says that waiting is no use (OpenAI: ``insufficient_quota``)."""
    error = _error(answer)
    return "insufficient_quota" in (error.get("code"), error.get("type"))


def _is_moderation(answer: Answer) -> bool:
    """Whether a 403 is about the document and not about the key (OpenRouter, gateways)."""
    error = _error(answer)
    metadata = error.get("metadata")
    if isinstance(metadata, Mapping) and {"reasons", "flagged_input"} & set(metadata):
        return True
    return error.get("code") in _FILTERS or error.get("type") in _FILTERS


def _error(answer: Answer) -> Mapping[str, Any]:
    error = answer.data.get("error") if isinstance(answer.data, Mapping) else None
    return error if isinstance(error, Mapping) else {}


def _basic(url: URL) -> str:
    """Value of the header that carries the user and password of an address."""
    user = f"{url.user or ''}:{url.password or ''}"
    return f"Basic {b64encode(user.encode()).decode()}"


def _proxy_for(url: URL) -> URL | None:
    """The proxy that the environment names for an address.

    Looked up once. aiohttp's ``trust_env`` would do so in a thread for every request, and would
    fail every request with a key where ~/.netrc has an entry for the server.
    """
    if proxy_bypass(f"{url.host}:{url.port}"):
        return None
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found:
        return None
    try:
        proxy = URL(found if "://" in found else f"http://{found}")
    except ValueError:
        raise ConfigurationError(f"the {url.scheme} proxy of the environment is no URL") from None
    return proxy


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(65536):
        size += len(part)
        if size > _MAX_BODY:
            raise ServerError(f"the server's answer is longer than {_MAX_BODY // 10**6} MB")
        parts.append(part)
    return b"".join(parts)


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from either form of the header (RFC 9110, section 10.2.3)."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            seconds = (at - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER) if math.isfinite(seconds) else None


def _serialized(body: object) -> str:
    # Escapes carry lone surrogates, which UTF-8 cannot.
    return json.dumps(body, ensure_ascii=True, separators=(",", ":"))
