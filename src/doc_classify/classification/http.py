"""JSON over HTTP, the way the chat back ends need it: bounded, counted, and with plain errors."""

from __future__ import annotations

import json
import math
import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

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


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server sent: ``data`` is parsed JSON, or None where the body is none."""

    status: int
    data: Any
    text: str
    retry_after: float | None = None

    @property
    def message(self) -> str:
        """What the server says about an error, for a person, on one line."""
        data = self.data
        found: object = data
        if isinstance(data, Mapping):
            error = data.get("error", data.get("detail", data.get("message", "")))
            found = error.get("message", "") if isinstance(error, Mapping) else error
        text = found if isinstance(found, str) and found.strip() else self.text
        return one_line(f"HTTP {self.status}: {text.strip() or 'no reason given'}")


class JsonClient:
    """A session with one server. Made in the event loop that uses it.

    Args:
        base_url: address, with user and password where basic authentication is wanted.
        timeout: seconds until an answer must be complete, time in the server's queue included.
        headers: sent with every request; may hold a key, hence never shown.
        trust_env: whether the proxy settings of the environment apply.

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
    ) -> None:
        try:
            url = URL(base_url)
            self.address = str(url.with_user(None)).rstrip("/")
        except ValueError as error:
            raise ConfigurationError(f"the server's address cannot be used: {error}") from None
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
                self.address + path,
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
                    raw[:2000].decode("utf-8", "replace"),
                    _retry_after(response.headers.get("Retry-After")),
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
            raise ServerError(f"{self.address} did not answer within {limit:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = one_line(str(error) or type(error).__name__)
            raise ServerError(f"no answer from {self.address}: {reason}") from error

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
        RefusedError: the server takes exception to this very request (400, 413, 422 ...).
        ServerError: everything else, which may pass.
    """
    status = answer.status
    if 200 <= status < 300:
        return
    said = f"{address}: {answer.message}"
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
    data = answer.data
    error = data.get("error") if isinstance(data, Mapping) else None
    if not isinstance(error, Mapping):
        return False
    return "insufficient_quota" in (error.get("code"), error.get("type"))


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
