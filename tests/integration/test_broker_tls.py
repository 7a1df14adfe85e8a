"""The broker over TLS: encrypted to whom it says it is, or not at all."""

from __future__ import annotations

import datetime
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.doubles.site import Site

from conftest import CeleryWorker, _redis_program, fresh_database, wait_until
from doc_classify.celery_tasks import queue_length, verified
from doc_classify.errors import BrokerError
from doc_classify.settings import load_settings

PASSWORD = "with/and@and:in it"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that only who is given it trusts, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a Redis that speaks TLS only and wants a password; its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    public, private = certificate(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [_redis_program(), "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1"]
    command += ["--tls-cert-file", str(public), "--tls-key-file", str(private)]
    command += ["--tls-auth-clients", "no", "--requirepass", PASSWORD, "--save", ""]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    def answers() -> bool:
        if server.poll() is not None:
            pytest.skip(f"this Redis has no TLS: {(folder / 'log').read_text()[-200:]}")
        try:
            with redis.Redis(
                "127.0.0.1", port, password=PASSWORD, ssl=True, ssl_ca_certs=str(public)
            ) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False

    try:
        wait_until(answers, "Redis answers")
        yield f"rediss://:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/0", public
    finally:
        server.terminate()
        server.wait(20)


def length(url: str) -> int:
    return queue_length(load_settings(celery_broker_url=url))


def test_a_server_that_nobody_vouches_for_is_refused(trusted: tuple[str, Path]):
    url, _ = trusted
    with pytest.raises(BrokerError, match="CERTIFICATE_VERIFY_FAILED") as raised:
        length(url)
    assert quote(PASSWORD, safe="") not in str(raised.value)


def test_a_server_with_a_certificate_of_its_own_is_named(trusted: tuple[str, Path]):
    url, public = trusted
    assert length(f"{url}?ssl_ca_certs={public}") == 0
    assert length(f"{url}?ssl_cert_reqs=none") == 0  # said so, meant so


def test_a_certificate_of_another_name_is_refused(trusted: tuple[str, Path]):
    url, public = trusted
    with pytest.raises(BrokerError, match="CERTIFICATE_VERIFY_FAILED"):
        length(f"{url.replace('127.0.0.1', 'localhost')}?ssl_ca_certs={public}")


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("redis://h/0", "redis://h/0"),
        ("rediss://h/0", "rediss://h/0?ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_ca_certs=/c", "rediss://h/0?ssl_ca_certs=/c&ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_cert_reqs=optional", "rediss://h/0?ssl_cert_reqs=optional"),
    ],
)
def test_the_check_is_asked_for_unless_the_address_says_how(given: str, used: str):
    assert verified(given) == used == verified(used)


@pytest.fixture
def tls_site(trusted: tuple[str, Path], postgres_url: str, tmp_path: Path) -> Site:
    url, public = trusted
    return Site(fresh_database(postgres_url), f"{url}?ssl_ca_certs={public}", tmp_path)


def test_a_run_is_done_over_tls(tls_site: Site):
    worker = CeleryWorker("tls", tls_site.environment, tls_site.root / "log", concurrency=1)
    try:
        worker.wait_until_ready()
        run_id = tls_site.submit(tls_site.folder(12))
        tls_site.wait(run_id)
        tls_site.settled(run_id, 12)
        assert "insecure" not in worker.said()
    finally:
        worker.end()
