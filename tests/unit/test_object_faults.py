"""Errors of object stores, told without what must not be told."""

from __future__ import annotations

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from doc_classify.discovery.object_faults import Kind, fault_of

AZURE = (
    "Generic MicrosoftAzure error: Error performing GET "
    "https://acct.blob.core.windows.net/c?comp=list&sv=2020&sig=TOPSECRET in 1ms - Server returned "
    "non-2xx status code: 403 Forbidden: <Error><Code>AuthenticationFailed</Code>"
    "<Message>sig=TOPSECRET</Message></Error>"
)
REDIRECT = (
    "Generic S3 error: Error performing list request: Received redirect without LOCATION, this "
    "normally indicates an incorrectly configured region"
)
NOT_SIGNED = (
    "Generic GCS error: Error performing POST http://metadata.google.internal/token in 1ms, after "
    "10 retries, max_retries: 10, retry_timeout: 180s  - HTTP error: error sending request"
)
CUT_OFF = (
    "Generic S3 error: Error performing GET https://me:TOPSECRET@host:9000/b/k in 2s - HTTP error: "
    "request or response body error\n\nDebug source:\nHttpError { kind: Decode }"
)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (PermissionDeniedError(AZURE), Kind.DENIED, "access denied (AuthenticationFailed)"),
        (GenericError(AZURE.replace("403 Forbidden", "500 Oh")), Kind.AWAY, "answered 500 Oh"),
        (GenericError(AZURE.replace("403 Forbidden", "400 Oh")), Kind.SETUP, "answered 400 Oh"),
        (GenericError(AZURE.replace("403", "429")), Kind.AWAY, "429"),
        (GenericError(REDIRECT), Kind.SETUP, "AWS_REGION"),
        (GenericError(NOT_SIGNED), Kind.SETUP, "no credentials were found"),
        (GenericError(CUT_OFF), Kind.AWAY, "no answer from host:9000: the request broke off"),
        (FileNotFoundError("Object at location k not found"), Kind.MISSING, "not found"),
        (GenericError("odd: https://u:TOPSECRET@h/x?sig=TOPSECRET hm"), Kind.SETUP, "odd: ... hm"),
        (GenericError("bad key TOPSECRET\nmore TOPSECRET"), Kind.SETUP, "bad key ***"),
        (GenericError("red \x1b[31m"), Kind.SETUP, "red \\x1b[31m"),
    ],
)
def test_a_fault_is_told_by_its_kind_and_without_secrets(error, kind, words, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "TOPSECRET")
    fault = fault_of(error)
    assert fault.kind is kind
    assert words in fault.reason
    assert "TOPSECRET" not in fault.reason
    assert "\n" not in fault.reason
