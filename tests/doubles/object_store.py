"""Moto's S3 server in this process, with a record of what it was asked and faults on demand."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import boto3
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.models import botocore_stubber
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_BACKEND = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
_REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 503: "Service Unavailable"}


@dataclass
class ObjectStore:
    """The server: its address, its content, and what it does wrong.

    Attributes:
        requests: (method, bucket and key) of everything it was asked, not by :meth:`put`.
        fault: called with method and path; a status and a code to answer with, or None.
    """

    address: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    fault: Callable[[str, str], tuple[int, str] | None] = lambda _method, _path: None
    before: Callable[[str, str], None] = lambda _method, _path: None

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.address,
            region_name="us-east-1",
            aws_access_key_id="tester",
            aws_secret_access_key="tester",
        )

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Make the bucket if need be, and put objects into it."""
        client = self.client
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=bucket)
        for key, body in objects.items():
            _BACKEND.put_object(bucket, key, body)  # ten times as fast as asking the server
        self.requests.clear()

    def touch(self, bucket: str, key: str, when: datetime) -> None:
        """Have an object be as old as that."""
        _BACKEND.get_object(bucket, key).last_modified = when.replace(tzinfo=None)

    def gets(self) -> list[str]:
        """The objects whose bytes were asked for."""
        return [path for method, path in self.requests if method == "GET" and "/" in path]

    def reset(self) -> None:
        self.fault = lambda _method, _path: None
        self.before = lambda _method, _path: None
        self.requests.clear()


@contextlib.contextmanager
def serve() -> Iterator[ObjectStore]:
    """Start the server on a free port."""
    botocore_stubber.enabled = False  # our own client shall really connect
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = ObjectStore()
    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].strip("/")
        if "boto" not in environ.get("HTTP_USER_AGENT", "").lower():
            store.requests.append((method, path))
            store.before(method, path)
            if fault := store.fault(method, path):
                status, code = fault
                body = (
                    f"<Error><Code>{code}</Code><Message>m</Message>"
                    "<AWSAccessKeyId>AKIDEXAMPLE</AWSAccessKeyId></Error>"
                ).encode()
                line = f"{status} {_REASONS[status]}"
                start_response(line, [("Content-Length", str(len(body)))])
                return [body if method != "HEAD" else b""]
        result: Iterable[bytes] = moto(environ, start_response)
        return result

    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    store.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
