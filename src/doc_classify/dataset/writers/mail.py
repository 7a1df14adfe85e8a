"""E-mail: single messages and mailboxes."""

from __future__ import annotations

import random
import re
from datetime import UTC, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, formataddr

from doc_classify.dataset.grammar import pick
from doc_classify.dataset.model import Content
from doc_classify.dataset.writers.text import plain
from doc_classify.dataset.writers.web import body

_UNSAFE = re.compile(r"[^\w.-]+")


def _message(content: Content, rng: random.Random, minutes: int = 0) -> EmailMessage:
    message = EmailMessage()
    when = content.written.replace(tzinfo=UTC) + timedelta(minutes=minutes)
    message["From"] = formataddr(content.sender)
    message["To"] = formataddr(content.recipient)
    message["Subject"] = content.title
    message["Date"] = format_datetime(when)
    domain = content.sender[1].partition("@")[2]
    message["Message-ID"] = f"<{rng.getrandbits(64):016x}@{domain}>"
    encoding = pick(rng, ("quoted-printable", "8bit", "base64"))
    # The title stands in the subject; the text need not repeat it.
    message.set_content(plain(content, title=False), cte=encoding)
    if rng.random() < 0.4:
        page = f"<html><body>{body(content)}</body></html>"
        message.add_alternative(page, subtype="html", cte="quoted-printable")
    return message


def _attach(message: EmailMessage, content: Content, rng: random.Random) -> None:
    name = _UNSAFE.sub("_", content.reference)
    if rng.random() < 0.5:
        message.add_attachment(plain(content).encode(), "text", "plain", filename=f"{name}.txt")
        return
    from doc_classify.dataset.writers.pdf import write_pdf

    data, _ = write_pdf(content, rng)
    message.add_attachment(data, "application", "pdf", filename=f"{name}.pdf")


def _seal(message: EmailMessage, rng: random.Random) -> bytes:
    for part in message.walk():
        if part.is_multipart():  # else the library would draw a boundary of its own
            part.set_boundary(f"=_{rng.getrandbits(96):024x}")
    return message.as_bytes(policy=SMTP)


def write_eml(content: Content, rng: random.Random) -> tuple[bytes, None]:
    """A message, sometimes with an attachment."""
    message = _message(content, rng)
    if rng.random() < 0.3:
        _attach(message, content, rng)
    return _seal(message, rng), None


def write_mbox(content: Content, rng: random.Random) -> tuple[bytes, int]:
    """A mailbox, and its number of messages: the document, then short answers to it."""
    messages = [_message(content, rng)]
    for number in range(1, rng.randint(2, 4)):
        answer = EmailMessage()
        one, other = content.sender, content.recipient
        answer["From"] = formataddr(other if number % 2 else one)
        answer["To"] = formataddr(one if number % 2 else other)
        answer["Subject"] = f"Re: {content.title}"
        when = content.written.replace(tzinfo=UTC) + timedelta(hours=number, minutes=7)
        answer["Date"] = format_datetime(when)
        first = next(iter(content.lines()), "")[:200]
        answer.set_content(f"{pick(rng, _ANSWERS[content.language])}\n\n> {first}\n")
        messages.append(answer)
    out = []
    for message in messages:
        head = f"From {content.sender[1]} {content.written:%a %b %d %H:%M:%S %Y}\n".encode()
        text = _seal(message, rng).replace(b"\r\n", b"\n")
        out.append(head + re.sub(rb"(?m)^(>*From )", rb">\1", text) + b"\n")
    return b"".join(out), len(messages)


_ANSWERS = {
    "en": (
        "Thanks, received.",
        "Noted.",
        "Will look at it tomorrow.",
        "Could you resend page two?",
    ),
    "de": ("Danke, ist angekommen.", "Ich sehe es mir morgen an.", "Zur Kenntnis genommen."),
    "fr": ("Merci, bien reçu.", "Je regarde demain.", "C'est noté."),
}
