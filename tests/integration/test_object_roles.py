"""Rights from the role of a machine, a task or a pod: nobody has a key to lose."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from doc_classify.discovery import objects
from doc_classify.records import Source

KEY = "AKIDROLE"
LISTING = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>archive</Name>
<Prefix></Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>
<Contents><Key>a.txt</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>
<ETag>"0"</ETag><Size>2</Size><StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"""


class Amazon(BaseHTTPRequestHandler):
    """A double of the services that hand out credentials, and of a bucket that wants them."""

    asked: list[tuple[str, str | None]]

    def do_PUT(self) -> None:
        self._answer(b"session")

    def do_GET(self) -> None:
        authorization = self.headers.get("Authorization")
        self.asked.append((self.path, authorization))
        if "list-type" in self.path:
            self._answer(LISTING)
        elif self.path == "/latest/meta-data/iam/security-credentials/":
            self._answer(b"reader")
        else:
            self._answer(
                json.dumps(
                    {
                        "Code": "Success",
                        "AccessKeyId": KEY,
                        "SecretAccessKey": "not-to-be-seen",
                        "Token": "token-of-the-session",
                        "Expiration": "2099-01-01T00:00:00Z",
                    }
                ).encode()
            )

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Its address, and what it was asked; the environment has no key."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    handler = type("Handler", (Amazon,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    clients = objects._store
    clients.cache_clear()
    yield address, handler.asked
    clients.cache_clear()
    server.shutdown()
    thread.join()
    server.server_close()


def listed(asked: list[tuple[str, str | None]]) -> str:
    """List the bucket; returns what the request was signed with."""
    (found,) = objects.walk_objects("s3://archive/")
    assert isinstance(found, Source) and found.uri == "s3://archive/a.txt"
    signature = asked[-1][1]
    assert signature is not None
    assert f"Credential={KEY}/" in signature and "x-amz-security-token" in signature
    return signature


def test_of_a_machine(amazon: tuple[str, list[tuple[str, str | None]]], monkeypatch):
    address, asked = amazon
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", address)
    listed(asked)
    assert asked[1][0] == "/latest/meta-data/iam/security-credentials/reader"


def test_of_a_task_of_ecs(amazon: tuple[str, list[tuple[str, str | None]]], monkeypatch):
    """Its address is fixed and not to be had here, so a proxy hears what it is asked."""
    address, asked = amazon
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/of-the-task")
    monkeypatch.setenv("AWS_PROXY_URL", address)
    listed(asked)
    assert asked[0][0] == "http://169.254.170.2/v2/credentials/of-the-task"


def test_of_a_pod_of_eks(
    amazon: tuple[str, list[tuple[str, str | None]]], monkeypatch, tmp_path: Path
):
    address, asked = amazon
    token = tmp_path / "token"
    token.write_text("token-of-the-pod")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{address}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    listed(asked)
    assert asked[0] == ("/v1/credentials", "token-of-the-pod")
