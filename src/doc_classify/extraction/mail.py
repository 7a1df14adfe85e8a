"""E-mail: single messages, mailboxes (a message is a page) and Outlook messages."""

from __future__ import annotations

import mmap
import re
from array import array
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from email.message import EmailMessage, Message
from functools import partial
from typing import Any, ClassVar, TypeVar, cast

from doc_classify.errors import DamagedError, DocClassifyError, LimitExceededError
from doc_classify.extraction.base import Document
from doc_classify.extraction.compressed_rtf import unpack_rtf
from doc_classify.extraction.decoding import decode
from doc_classify.extraction.mail_parts import Mail, as_text, read_attachments
from doc_classify.extraction.options import ExtractionOptions
from doc_classify.extraction.rtf import rtf_text
from doc_classify.extraction.web import html_text
from doc_classify.records import Extraction, Page, Problem

_EML = "message/rfc822"
_MBOX = "application/mbox"
_MSG = "application/vnd.ms-outlook"
_HEADER_LENGTH = 4_000
_DEPTH = 50
_RICH_TEXT = 0x1009  # PidTagRtfCompressed, [MS-OXPROPS] 2.944
_MOST_RICH_TEXT = 2_000_000
_MOST_MESSAGES = 1_000_000
_SEPARATOR = re.compile(rb"From ([^\n]{1,600})\n")
_CLOCK = re.compile(rb"\d\d:\d\d")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
T = TypeVar("T")


class MailExtractor:
    """Reads headers, the body and the names of attachments; their text on request."""

    name: ClassVar[str] = "mail"
    media_types: ClassVar[frozenset[str]] = frozenset({_EML, _MBOX, _MSG})
    extra: ClassVar[str | None] = None

    def extract(self, document: Document, options: ExtractionOptions) -> Extraction:
        """Read a message, or the selected messages of a mailbox."""
        if document.media_type == _MBOX:
            return self._mailbox(document, options)
        if len(document.data) > options.max_unpacked_bytes:
            raise LimitExceededError(f"over {options.max_unpacked_bytes // 10**6} MB")
        mail = _outlook(document.data) if document.media_type == _MSG else _parse(document.data)
        problems = list(mail.problems)
        text = as_text(mail) + read_attachments(mail, options, problems)
        return Extraction(
            media_type=document.media_type,
            pages=(Page(1, text),),
            engine=self.name,
            title=mail.headers.get("Subject"),
            author=mail.headers.get("From"),
            created=mail.sent.isoformat() if mail.sent else None,
            attachments=tuple(name for name, _ in mail.attachments),
            problems=tuple(problems),
        )

    def _mailbox(self, document: Document, options: ExtractionOptions) -> Extraction:
        problems: list[Problem] = []
        pages: list[Page] = []
        names: list[str] = []
        left = options.max_characters * 4
        with (
            document.path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            spans = _Spans(data)
            for index in options.pages.indices(len(spans)):
                if left <= 0:
                    break
                start, end = spans[index]
                try:
                    mail = _parse(_message_bytes(data, start, end, options))
                    text = as_text(mail) + read_attachments(mail, options, problems)
                except DocClassifyError as error:
                    problems.append(Problem(error.kind, f"message {index + 1}: {error}", index + 1))
                    continue
                problems += [replace(problem, page=index + 1) for problem in mail.problems]
                left -= len(text)
                names += [name for name, _ in mail.attachments]
                pages.append(Page(index + 1, text))
        if problems and not pages:
            raise DamagedError(problems[0].message)
        return Extraction(
            media_type=document.media_type,
            pages=tuple(pages),
            engine=self.name,
            page_count=len(spans) if spans.complete else None,
            attachments=tuple(names),
            problems=tuple(problems),
            truncated=left <= 0 or not spans.complete,
        )


class _Spans:
    """Where the messages of a mailbox begin and end, the lines between them left out.

    The format has no standard: RFC 4155 describes what is common. A line that begins a message
    follows an empty one and bears a time; a mailbox that is cut open may lack the first.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self._edges = array("Q")  # millions of messages fit
        self.complete = True
        at = 0 if data[:5] == b"From " else _next_line(data, 0)
        while at >= 0:
            match = _SEPARATOR.match(data, at)
            if match and _CLOCK.search(match[1]):
                if len(self) == _MOST_MESSAGES:
                    self.complete = False
                    break
                self._edges.extend((match.start(), match.end()))
                at = match.end() - 1
            at = _next_line(data, at)
        self._edges.append(len(data) if self.complete else at)

    def __len__(self) -> int:
        return len(self._edges) // 2

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self._edges[2 * index + 1], self._edges[2 * index + 2]


def _next_line(data: mmap.mmap, at: int) -> int:
    """The next ``From`` that follows an empty line, -1 where there is none."""
    while (at := data.find(b"\nFrom ", at)) >= 0:
        at += 1
        if at >= 2 and data[at - 2] in b"\r\n" and (data[at - 2] != 13 or data[at - 3] == 10):
            return at
    return -1


def _message_bytes(data: mmap.mmap, start: int, end: int, options: ExtractionOptions) -> bytes:
    if end - start > options.max_unpacked_bytes:
        raise LimitExceededError(f"over {options.max_unpacked_bytes // 10**6} MB")
    return _QUOTED_FROM.sub(rb"\1", data[start:end])


def _parse(data: bytes) -> Mail:
    from email import message_from_bytes, policy

    try:
        message = message_from_bytes(data, policy=policy.default)
    except RecursionError as error:
        raise LimitExceededError("a message in a message, too many times over") from error
    mail = Mail(headers=_headers(message))
    sent = _header(message, "Date")
    if sent:
        mail.sent = _quietly(lambda: _date(sent))
    _walk(message, mail, 0)
    return mail


def _headers(message: Message) -> dict[str, str]:
    found = {}
    for name in ("From", "To", "Cc", "Date", "Subject"):
        value = _header(message, name)
        if value:
            found[name] = value
    return found


def _header(message: Message, name: str) -> str:
    """A header, decoded; cut first, for decoding takes time that grows with the square."""
    for key, raw in message.raw_items():
        if key.lower() == name.lower():
            return _decoded(name, str(raw)[:_HEADER_LENGTH])
    return ""


def _decoded(name: str, value: str) -> str:
    from email import policy

    decoded = _quietly(lambda: str(policy.default.header_fetch_parse(name, value)))
    return " ".join((decoded if decoded is not None else value).split())


def _walk(part: EmailMessage, mail: Mail, depth: int) -> None:
    """Collect bodies and attachments."""
    if depth > _DEPTH:
        mail.problems.append(Problem("limit_exceeded", "message parts nested too deeply"))
        return
    kind = part.get_content_type()
    if part.is_multipart() and kind.startswith("multipart/"):
        parts = [p for p in part.get_payload() if isinstance(p, Message)]
        if kind == "multipart/alternative":
            parts = _preferred(cast(list[EmailMessage], parts), mail)
        for inner in parts:
            _walk(cast(EmailMessage, inner), mail, depth + 1)
        return
    name = _quietly(part.get_filename)
    disposition = _quietly(part.get_content_disposition)
    if kind == _EML:
        inner_message = part.get_payload(0) if part.is_multipart() else part
        subject = _header(cast(Message, inner_message), "Subject")
        mail.attachments.append((name or subject or "message", _message_reader(part)))
    elif name or disposition == "attachment" or not kind.startswith("text/"):
        mail.attachments.append((name or f"unnamed ({kind})", lambda: _payload(part)))
    else:
        mail.bodies.append(_body(part, mail))


def _preferred(parts: list[EmailMessage], mail: Mail) -> list[Message]:
    """Of parts that say the same: the plain one if it says anything, else the last text."""
    others: list[Message] = []
    for part in parts:
        if part.get_content_type() == "text/plain" and _body(part, mail).strip():
            return [part]
        if not part.get_content_type().startswith("text/plain"):
            others.append(part)
    return others[-1:]


def _body(part: EmailMessage, mail: Mail) -> str:
    data = _recorded(mail, "a body", lambda: _payload(part)) or b""
    if part.get_content_type() == "text/html":
        return _html(data, mail)
    return decode(data, _quietly(part.get_content_charset))


def _payload(part: Message) -> bytes:
    """The bytes of a part.

    Raises:
        DamagedError: its transfer encoding cannot be undone.
    """
    try:
        payload = part.get_payload(decode=True)
    except MemoryError:
        raise
    except Exception as error:
        raise DamagedError(f"its encoding cannot be undone: {error}") from error
    return payload if isinstance(payload, bytes) else b""


def _message_reader(part: EmailMessage) -> Callable[[], bytes]:
    def read() -> bytes:
        inner = part.get_payload(0) if part.is_multipart() else part
        return cast(Message, inner).as_bytes()

    return read


def _date(text: str) -> datetime:
    from email.utils import parsedate_to_datetime

    return parsedate_to_datetime(text)


def _outlook(data: bytes) -> Mail:
    from oxmsg import Message as OutlookMessage

    message = OutlookMessage.load(data)
    mail = Mail(headers={})
    people = _recorded(mail, "the recipients", lambda: [_person(r) for r in message.recipients])
    sender = _recorded(mail, "the sender", lambda: message.sender)
    sent = _recorded(mail, "the date", lambda: message.sent_date)
    headers = {
        "From": _decoded("From", (sender or "")[:_HEADER_LENGTH]),
        "To": ", ".join(filter(None, people or ()))[:_HEADER_LENGTH],
        "Date": sent.isoformat(" ") if sent else "",
        "Subject": _recorded(mail, "the subject", lambda: message.subject) or "",
    }
    mail.headers = {name: value for name, value in headers.items() if value}
    mail.sent = sent
    mail.bodies.append(_outlook_body(message, mail))
    for attachment in _recorded(mail, "the list of attachments", lambda: message.attachments) or ():
        name = _quietly(partial(getattr, attachment, "file_name"))
        mail.attachments.append((name or "unnamed", partial(_attached, attachment)))
    return mail


def _outlook_body(message: Any, mail: Mail) -> str:
    """The plain body, else HTML, else rich text: Outlook need not keep more than one."""
    body: str | None = _recorded(mail, "the plain body", lambda: message.body)
    if body and body.strip():
        return body
    html = _recorded(mail, "the HTML body", lambda: message.html_body)
    if html:
        return _html(html.encode("utf-8", "replace"), mail)
    properties = message.properties
    packed = _recorded(mail, "the rich text", lambda: properties.binary_prop_value(_RICH_TEXT))
    if not packed:
        return ""
    try:
        return rtf_text(unpack_rtf(packed, _MOST_RICH_TEXT))
    except DamagedError as error:
        mail.problems.append(Problem(error.kind, str(error)))
        return ""


def _html(data: bytes, mail: Mail) -> str:
    text, cut = html_text(data)
    if cut:
        mail.problems.append(Problem("limit_exceeded", "only the beginning of the body was read"))
    return text


def _attached(attachment: Any) -> bytes:
    return attachment.file_bytes or b""


def _person(recipient: Any) -> str:
    address = recipient.email_address
    name = _decoded("To", str(recipient.name or ""))
    return f"{name} <{address}>" if address and address != name else name


def _recorded(mail: Mail, what: str, read: Callable[[], T]) -> T | None:
    """What ``read`` gives; where it fails, None, and the mail has a problem."""
    try:
        return read()
    except MemoryError:
        raise
    except Exception as error:  # the engines raise whatever a broken message sets off
        kind = error.kind if isinstance(error, DocClassifyError) else DamagedError.kind
        problem = Problem(kind, f"{what} cannot be read: {str(error) or type(error).__name__}")
        if problem not in mail.problems:
            mail.problems.append(problem)
        return None


def _quietly(read: Callable[[], T]) -> T | None:
    """What ``read`` gives, None where the message is too broken for it.

    For what has another form to fall back on (a header as it stands, a charset that is guessed),
    so that no text is lost; everything else goes through :func:`_recorded`.
    """
    try:
        return read()
    except (MemoryError, DocClassifyError):
        raise
    except Exception:
        return None
