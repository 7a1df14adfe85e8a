"""Forms of the XML Forms Architecture, whose pages PDF readers other than Adobe's cannot draw.

The file's only page asks to get another reader; labels and values are in XML beside it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

_MAX_PACKETS = 100
_MAX_BYTES = 20_000_000
_LABELS = frozenset({"text", "exData"})
"""Elements of a template that hold what is printed on the form."""


def form_text(pdf: Any) -> str:
    """Labels and values of a dynamic form, a line each; empty for any other document."""
    import pypdfium2.raw as raw

    if pdf.get_formtype() != raw.FORMTYPE_XFA_FULL:
        return ""
    lines: list[str] = []
    for name, content in _packets(pdf):
        if name in {"template", "datasets"}:
            lines += _lines(content, labels_only=name == "template")
    return "\n".join(lines)


def _packets(pdf: Any) -> Iterator[tuple[str, bytes]]:
    import pypdfium2.raw as raw

    for index in range(min(raw.FPDF_GetXFAPacketCount(pdf), _MAX_PACKETS)):
        size = raw.FPDF_GetXFAPacketName(pdf, index, None, 0)
        if not 0 < size < 100:
            continue
        name = ctypes.create_string_buffer(size)
        raw.FPDF_GetXFAPacketName(pdf, index, name, size)
        length = ctypes.c_ulong()
        if not raw.FPDF_GetXFAPacketContent(pdf, index, None, 0, length):
            continue
        if not 0 < length.value <= _MAX_BYTES:
            continue
        content = ctypes.create_string_buffer(length.value)
        raw.FPDF_GetXFAPacketContent(pdf, index, content, length.value, length)
        yield name.value.decode("latin-1"), content.raw


def _lines(content: bytes, labels_only: bool) -> Iterator[str]:
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, recover=True, remove_pis=True
    )
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError:
        return
    if root is None:
        return
    for element in root.iter(etree.Element):
        if not labels_only:
            line = element.text or ""
        elif etree.QName(element).localname in _LABELS:
            line = " ".join(str(text) for text in element.itertext())
        else:
            continue
        if line := " ".join(line.split()):
            yield line
