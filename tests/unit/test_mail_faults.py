"""Parts of a message that fail to be read are told of, and cost no other part anything."""

from email.message import Message

import pytest

from doc_classify.extraction import Document, extract
from doc_classify.extraction.options import ExtractionOptions

MAIL = b"""From: ann@example.org
Subject: figures
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=x

--x
Content-Type: text/plain

The first body.
--x
Content-Type: text/plain
Content-Transfer-Encoding: x-broken

The second body.
--x--
"""


class OutlookDouble:
    """A double of an Outlook message in which nothing but the subject can be read."""

    subject = "quarterly figures"
    properties = None

    def __getattr__(self, name):
        raise ValueError(f"no {name} here")


@pytest.fixture
def read(tmp_path):
    def read(data, media_type):
        path = tmp_path / "message"
        path.write_bytes(data)
        return extract(Document(path, path.name, media_type), ExtractionOptions())

    return read


@pytest.fixture
def broken_encoding(monkeypatch):
    """Parts in the encoding x-broken cannot be decoded."""
    whole = Message.get_payload

    def failing(self, i=None, decode=False):
        if decode and self["Content-Transfer-Encoding"] == "x-broken":
            raise ValueError("nonsense")
        return whole(self, i, decode)

    monkeypatch.setattr(Message, "get_payload", failing)


@pytest.mark.parametrize(
    ("data", "media_type", "page"),
    [
        (MAIL, "message/rfc822", None),
        (b"From ann@example.org Mon Jan  1 00:00:00 2024\n" + MAIL, "application/mbox", 1),
    ],
)
def test_a_body_that_cannot_be_decoded_is_a_problem(read, broken_encoding, data, media_type, page):
    found = read(data, media_type)
    assert "The first body." in found.text
    assert "second body" not in found.text
    (problem,) = found.problems
    assert problem.message == "a body cannot be read: its encoding cannot be undone: nonsense"
    assert problem.page == page


def test_what_fails_in_an_outlook_message_is_a_problem(read, monkeypatch):
    import oxmsg

    monkeypatch.setattr(oxmsg.Message, "load", lambda _data: OutlookDouble())
    found = read(b"any", "application/vnd.ms-outlook")
    assert "quarterly figures" in found.text
    told = " ".join(problem.message for problem in found.problems)
    for what in ("recipients", "sender", "date", "plain body", "HTML body", "rich text", "list of"):
        assert what in told
