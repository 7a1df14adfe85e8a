"""JSON over HTTP: what the chat back ends stand on."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import pytest

from doc_classify.classification import http
from doc_classify.classification.http import Answer, JsonClient, count, expect, raise_for
from doc_classify.errors import (
    ConfigurationError,
    RefusedError,
    ServerBusyError,
    ServerError,
    ServerSetupError,
)

Result = TypeVar("Result")


class Server:
    """Takes requests apart and sends back bytes, to be as rude as no library lets one be."""

    def __init__(self, reply: bytes, *, then_wait: float = 0.0, endless: bytes = b"") -> None:
        self.reply, self.then_wait, self.endless = reply, then_wait, endless
        self.requests: list[bytes] = []
        self.sent = 0
        self.working: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.working.add(asyncio.current_task())
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        finally:
            if self.endless:
                writer.transport.abort()
            else:
                writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        self.requests.append(head + await reader.readexactly(sum(lengths)))
        writer.write(self.reply)
        await writer.drain()
        while self.endless and not writer.is_closing():
            writer.write(self.endless)
            self.sent += len(self.endless)
            await writer.drain()
        await asyncio.sleep(self.then_wait)


@contextlib.asynccontextmanager
async def listening(server: Server) -> AsyncIterator[str]:
    """The address, without scheme, at which the server listens."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in server.working:
            task.cancel()
        await asyncio.gather(*server.working, return_exceptions=True)


def with_client(
    server: Server,
    what: Callable[[JsonClient], Awaitable[Result]],
    *,
    user: str = "",
    timeout: float = 5,
    **options: Any,
) -> Result:
    async def run() -> Result:
        async with (
            listening(server) as place,
            JsonClient(f"http://{user}{place}", timeout=timeout, **options) as client,
        ):
            return await what(client)

    return asyncio.run(run())


def asked(server: Server, body: object = None, **options: Any) -> Answer:
    return with_client(server, lambda client: client.request("POST", "/x", body), **options)


def response(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# Answers.


def test_json_goes_out_and_comes_back() -> None:
    server = Server(response(b'{"a": [1, "\xc3\xa9"]}'))
    answer = asked(server, {"text": "é \ud800"}, headers={"Authorization": "Bearer key"})
    assert (answer.status, answer.data, answer.retry_after) == (200, {"a": [1, "é"]}, None)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x HTTP/1.1")
    assert b"Authorization: Bearer key" in head
    assert b"application/json" in head
    assert body == b'{"text":"\\u00e9 \\ud800"}'


@pytest.mark.parametrize(
    "body", [b"", b"<html></html>", b'{"a":', b"[" * 100_000, b"\xff\xfe\xfa", b"1" * 5_000]
)
def test_what_is_no_json_is_none_of_it_and_no_error(body: bytes) -> None:
    answer = asked(Server(response(body)))
    assert answer.data is None
    assert len(answer.text) <= 2_000
    assert "HTTP 200" in answer.message
    assert len(answer.message) <= 400


def test_a_redirect_is_not_followed() -> None:
    server = Server(response(b"", "Location: /elsewhere", status="307 Temporary Redirect"))
    answer = asked(server, {"a": 1})
    assert answer.status == 307
    assert len(server.requests) == 1
    with pytest.raises(ServerSetupError):
        raise_for(answer, "http://host")


def test_cookies_are_not_kept() -> None:
    server = Server(response(b"{}", "Set-Cookie: a=b"))

    async def twice(client: JsonClient) -> None:
        await client.request("GET", "/")
        await client.request("GET", "/")

    with_client(server, twice)
    assert all(b"cookie" not in request.lower() for request in server.requests)


@pytest.mark.parametrize(
    ("data", "text", "message"),
    [
        ({"error": "no such model"}, "", "HTTP 400: no such model"),
        ({"error": {"message": "bad key", "code": 1}}, "", "HTTP 400: bad key"),
        ({"detail": "not found"}, "", "HTTP 400: not found"),
        ({"message": "gone"}, "", "HTTP 400: gone"),
        ({"error": {"message": ["x"]}}, "raw", "HTTP 400: raw"),
        ({"error": None}, "raw", "HTTP 400: raw"),
        ([], "  ", "HTTP 400: no reason given"),
        (None, "two\nlines \x1b[31m", "HTTP 400: two lines \\x1b[31m"),
    ],
)
def test_the_message_is_what_the_server_says(data: Any, text: str, message: str) -> None:
    assert Answer(400, data, text).message == message


# Bounds.


def test_a_body_too_large_is_given_up_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_BODY", 1_000_000)
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    server = Server(head, endless=b"x" * 65_536)
    with pytest.raises(ServerError, match="longer than 1 MB"):
        asked(server)
    assert server.sent < 50_000_000


def test_a_body_that_unpacks_to_too_much_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_BODY", 1_000_000)
    bomb = gzip.compress(b"0" * 50_000_000)
    with pytest.raises(ServerError, match="longer than 1 MB"):
        asked(Server(response(bomb, "Content-Encoding: gzip")))


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"half": ',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
def test_a_connection_cut_or_no_http_is_a_passing_fault(reply: bytes) -> None:
    with pytest.raises(ServerError, match="no answer from http://127") as caught:
        asked(Server(reply))
    assert type(caught.value) is ServerError
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reply", [b"", b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"half"'])
def test_an_answer_is_waited_for_as_long_as_was_said(reply: bytes) -> None:
    start = time.monotonic()
    with pytest.raises(ServerError, match=r"did not answer within 0\.3 s"):
        asked(Server(reply, then_wait=5), timeout=0.3)
    assert time.monotonic() - start < 3


def test_one_request_may_have_a_timeout_of_its_own() -> None:
    with pytest.raises(ServerError, match=r"within 0\.2 s"):
        with_client(
            Server(b"", then_wait=5), lambda client: client.request("GET", "/", timeout=0.2)
        )


def test_nobody_there_is_a_passing_fault() -> None:
    async def run() -> None:
        async with listening(Server(b"")) as place:
            pass
        async with JsonClient(f"http://{place}", timeout=5) as client:
            await client.request("GET", "/")

    with pytest.raises(ServerError, match="no answer from"):
        asyncio.run(run())


def test_closing_twice_and_using_it_again_are_safe() -> None:
    async def run(client: JsonClient) -> Any:
        await client.request("GET", "/")
        await client.close()
        await client.close()
        return (await client.request("GET", "/")).data

    assert with_client(Server(response(b"7")), run) == 7


def test_proxies_of_the_environment_count_only_where_they_should(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert asked(Server(response(b"7"))).data == 7
    with pytest.raises(ServerError):
        asked(Server(response(b"7")), trust_env=True)


# Addresses.


def test_user_and_password_are_sent_and_never_shown() -> None:
    server = Server(response(b"{}"))

    async def run(client: JsonClient) -> str:
        await client.request("GET", "/")
        assert "cret" not in repr(vars(client)["address"])
        return client.address

    address = with_client(server, run, user="me:s%2Fcret%C3%A9@")
    assert "me" not in address
    assert b"Authorization: Basic bWU6cy9jcmV0w6k=" in server.requests[0]
    failed = Server(b"", then_wait=5)
    with pytest.raises(ServerError) as caught:
        asked(failed, user="me:secret@", timeout=0.2)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "ftp://me:secret@host",
        "host:80",
        "http://",
        "http://me:secret@host:99999",
        "http://me:secret@host:port",
        "http://me:secret@[::",
        "http://me:secret@host/v1?key=secret",
        "http://me:secret@host/v1#secret",
        "me:secret@host",
    ],
)
def test_an_address_that_cannot_be_used_is_told_without_its_password(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        JsonClient(address, timeout=1)
    assert "secret" not in str(caught.value)


# Errors.


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, ServerSetupError),
        (400, RefusedError),
        (401, ServerSetupError),
        (402, ServerSetupError),
        (403, ServerSetupError),
        (404, ServerSetupError),
        (405, ServerSetupError),
        (408, ServerError),
        (413, RefusedError),
        (422, RefusedError),
        (425, ServerError),
        (429, ServerBusyError),
        (500, ServerError),
        (502, ServerError),
        (503, ServerBusyError),
        (504, ServerError),
        (529, ServerError),
    ],
)
def test_every_status_has_its_error(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"http://host: HTTP {status}: boom") as caught:
        raise_for(Answer(status, {"error": "boom"}, ""), "http://host")
    assert type(caught.value) is kind


@pytest.mark.parametrize("status", [200, 201, 204])
def test_success_raises_nothing(status: int) -> None:
    raise_for(Answer(status, None, ""), "http://host")


@pytest.mark.parametrize("field", ["code", "type"])
def test_a_quota_that_is_used_up_is_no_reason_to_wait(field: str) -> None:
    with pytest.raises(ServerSetupError):
        raise_for(Answer(429, {"error": {field: "insufficient_quota"}}, ""), "http://host")
    with pytest.raises(ServerBusyError):
        raise_for(Answer(429, {"error": "insufficient_quota"}, ""), "http://host")


def _date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        (" 7 ", 7.0),
        ("-3", 0.0),
        ("999999999", 3600.0),
        ("nan", None),
        ("inf", None),
        ("", None),
        ("soon", None),
        ("Wed, 99 Foo 2026 99:99:99 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 3600.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_retry_after_as_a_number_or_nonsense(value: str, seconds: float | None) -> None:
    busy = response(b"{}", f"Retry-After: {value}", status="503 Busy")
    answer = asked(Server(busy))
    assert answer.retry_after == seconds
    with pytest.raises(ServerBusyError) as caught:
        raise_for(answer, "http://host")
    assert caught.value.retry_after == seconds


def test_retry_after_as_a_date() -> None:
    later, past = _date(100), _date(-100)
    for value, least, most in [
        (later, 90, 100),
        (later.replace("GMT", "-0000"), 90, 100),
        (past, 0, 0),
    ]:
        answer = asked(Server(response(b"{}", f"Retry-After: {value}", status="429 Slow down")))
        assert answer.retry_after is not None
        assert least <= answer.retry_after <= most


# Parts of answers.


def test_a_part_of_the_wrong_type_is_a_fault_of_the_server() -> None:
    assert expect({"a": 1}, dict) == {"a": 1}
    assert expect(None, str, type(None)) is None
    assert expect(True, bool) is True
    for value, kind in [([], dict), (None, str), (True, int), ("1", int)]:
        with pytest.raises(ServerError, match=kind.__name__):
            expect(value, kind)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (7, 7),
        (7.0, 7),
        (0, 0),
        (-1, 0),
        (True, 0),
        ("7", 0),
        (None, 0),
        ([7], 0),
        (math.nan, 0),
        (math.inf, 0),
        (2**31, 0),
        (10**400, 0),
    ],
)
def test_counts_are_believed_only_where_they_make_sense(value: Any, number: int) -> None:
    assert count(value) == number
    assert count(json.loads(json.dumps(value))) == number
