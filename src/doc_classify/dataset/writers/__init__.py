"""Writers: one function per format, from a document without a format to the bytes of a file."""

from __future__ import annotations

import random
from collections.abc import Callable

from doc_classify.dataset.model import Content
from doc_classify.dataset.writers.mail import write_eml, write_mbox
from doc_classify.dataset.writers.office import write_docx, write_pptx
from doc_classify.dataset.writers.opendocument import write_odp, write_ods, write_odt
from doc_classify.dataset.writers.pdf import write_pdf
from doc_classify.dataset.writers.sheets import write_csv, write_tsv, write_xls, write_xlsx
from doc_classify.dataset.writers.text import write_json, write_md, write_rtf, write_txt
from doc_classify.dataset.writers.web import write_epub, write_html, write_xml

Written = tuple[bytes, int | None]
"""The bytes of a file, and its pages, slides, sheets or messages; None where it has none."""

WRITERS: dict[str, Callable[[Content, random.Random], Written]] = {
    "pdf": write_pdf,
    "docx": write_docx,
    "pptx": write_pptx,
    "xlsx": write_xlsx,
    "xls": write_xls,
    "odt": write_odt,
    "ods": write_ods,
    "odp": write_odp,
    "epub": write_epub,
    "html": write_html,
    "xml": write_xml,
    "eml": write_eml,
    "mbox": write_mbox,
    "rtf": write_rtf,
    "txt": write_txt,
    "md": write_md,
    "csv": write_csv,
    "tsv": write_tsv,
    "json": write_json,
}
SCAN_FORMATS = ("pdf", "jpg", "tiff", "png", "gif", "bmp", "webp")
IMAGE_FORMATS = SCAN_FORMATS[1:]
ONE_PAGE = ("jpg", "png", "gif", "bmp", "webp")
RARE_FORMATS = ("tsv", "gif", "bmp", "webp")
"""Written only on request. There is no free writer of .msg, .doc, .ppt and .xlsb files."""
ALL_FORMATS = (
    *(name for name in (*WRITERS, *IMAGE_FORMATS) if name not in RARE_FORMATS),
    *RARE_FORMATS,
)
FORMATS = ALL_FORMATS[: -len(RARE_FORMATS)]
"""Those of an ordinary mixture."""
