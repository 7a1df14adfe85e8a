"""PDF files: text, pages, metadata, forms, scans; and what hostile or damaged ones lead to."""

import io
import random
import re
from pathlib import Path

import pypdfium2
import pytest
import reportlab
from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase.ttfonts import TTFontFile
from reportlab.pdfgen.canvas import Canvas

from doc_classify.errors import (
    DamagedError,
    EmptyDocumentError,
    EncryptedError,
    ExtractionError,
    SourceUnreadableError,
)
from doc_classify.extraction.base import Document
from doc_classify.extraction.options import ExtractionOptions, PageSelection
from doc_classify.extraction.pdf import PdfExtractor, parse_date
from doc_classify.records import Extraction

CORPUS = Path(__file__).parents[2].parent / "shared" / "corpus"
ALL = ExtractionOptions(pages=PageSelection(None, 0))
NO_OCR = ExtractionOptions(pages=PageSelection(None, 0), ocr=False)
SENTENCES = (
    "This agreement is made between the supplier and the customer named below.",
    "The supplier shall deliver the goods within thirty days of the order.",
    "Payment is due within fourteen days after receipt of the invoice.",
    "Either party may terminate this agreement with notice of three months.",
    "Disputes shall be settled by the courts at the seat of the supplier.",
    "Amendments to this agreement must be made in writing to be valid.",
    "The customer shall inspect the goods upon delivery and report defects.",
    "Risk passes to the customer once the goods have left the warehouse.",
)


@pytest.fixture
def extract(tmp_path):
    def run(data: bytes, options: ExtractionOptions = ALL) -> Extraction:
        path = tmp_path / "document.pdf"
        path.write_bytes(data)
        return PdfExtractor().extract(Document(path, path.name, "application/pdf"), options)

    return run


def text_pdf(*pages: str, **canvas_options) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1, **canvas_options)
    for page in pages:
        text = canvas.beginText(72, 750)
        text.setFont("Helvetica", 11)
        text.textLines(page)
        canvas.drawText(text)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def scan(lines=SENTENCES, turn=0) -> Image.Image:
    image = Image.new("L", (1240, 1754), 250)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=28)
    for number, line in enumerate(lines):
        draw.text((120, 150 + 60 * number), line, font=font, fill=20)
    return image.rotate(turn, expand=True)


def image_pdf(*images: Image.Image, draw=None) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1)
    for image in images:
        canvas.setPageSize((A4[1], A4[0]) if image.width > image.height else A4)
        canvas.drawImage(ImageReader(image), 0, 0, *canvas._pagesize)
        if draw:
            draw(canvas)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def recall(text: str, lines=SENTENCES) -> float:
    words = re.findall(r"\w+", " ".join(lines))
    found = set(re.findall(r"\w+", text))
    return sum(word in found for word in words) / len(words)


def raw_pdf(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A file of these objects, numbered from 1, of which the first is the catalogue."""
    out = io.BytesIO()
    out.write(b"%PDF-1.7\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    for offset in offsets:
        out.write(b"%010d 00000 n \n" % offset)
    out.write(b"trailer\n<</Size %d/Root 1 0 R%s>>\n" % (len(objects) + 1, trailer))
    out.write(b"startxref\n%d\n%%%%EOF\n" % start)
    return out.getvalue()


def stream(body: bytes, entries: bytes = b"") -> bytes:
    return b"<</Length %d%s>>\nstream\n%s\nendstream" % (len(body), entries, body)


# --- text -------------------------------------------------------------------------------------


def test_text_of_every_page(extract):
    result = extract(text_pdf("First page\nof two", "Second page"))
    assert [page.text for page in result.pages] == ["First page\nof two", "Second page"]
    assert [page.number for page in result.pages] == [1, 2]
    assert (result.page_count, result.engine, result.ocr_pages) == (2, "pdf", 0)
    assert result.problems == ()
    assert not result.truncated


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [("3+1", [1, 2, 3, 8]), ("1", [1]), ("0+2", [7, 8]), ("9", [*range(1, 9)])],
)
def test_only_selected_pages_are_read(extract, selection, numbers):
    data = text_pdf(*(f"page {number}" for number in range(1, 9)))
    result = extract(data, ExtractionOptions(pages=PageSelection.parse(selection)))
    assert [page.number for page in result.pages] == numbers
    assert [page.text for page in result.pages] == [f"page {number}" for number in numbers]
    assert result.page_count == 8


def test_words_split_at_the_end_of_a_line_are_joined(extract):
    text = extract(text_pdf("the exam-\nple of the Anglo-\nSaxon kings")).text
    assert "example" in text
    assert "Anglo-Saxon" in text
    assert "\ufffe" not in text
    assert "\r" not in text


def test_a_page_without_anything_is_an_empty_page(extract):
    result = extract(text_pdf("", "text"))
    assert [page.text for page in result.pages] == ["", "text"]
    assert not result.problems


def test_reading_stops_at_enough_characters(extract):
    options = ExtractionOptions(pages=PageSelection(None, 0), max_characters=1_000)
    result = extract(text_pdf(*["word " * 40 + "\n" + "more " * 40] * 20), options)
    assert result.truncated
    assert len(result.pages) < 20


# --- metadata ---------------------------------------------------------------------------------


def test_metadata(extract):
    out = io.BytesIO()
    canvas = Canvas(out, lang="de-AT")
    canvas.setTitle("Über Verträge")
    canvas.setAuthor("Jürgen Groß")
    canvas.drawString(72, 700, "text")
    canvas.save()
    result = extract(out.getvalue())
    assert (result.title, result.author) == ("Über Verträge", "Jürgen Groß")
    # PDFium tells the language since 2025.
    known = hasattr(pypdfium2.raw, "FPDFCatalog_GetLanguage")
    assert result.language == ("de" if known else None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", result.created)
    assert result.modified


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("D:20240131235958+01'30'", "2024-01-31T23:59:58+01:30"),
        ("D:20240131235958+01'30", "2024-01-31T23:59:58+01:30"),
        ("D:20240131235958-0800", "2024-01-31T23:59:58-08:00"),
        ("D:20240131235958Z00'00'", "2024-01-31T23:59:58+00:00"),
        ("D:20240131235958", "2024-01-31T23:59:58"),
        ("20240131", "2024-01-31T00:00:00"),
        ("D:2024", "2024-01-01T00:00:00"),
        ("2024-01-31T10:20:30", "2024-01-31T10:20:30"),
        ("D:20241331000000", None),
        ("D:00000000000000", None),
        ("D:20240230", None),
        ("D:20240131235958+99'99'", "2024-01-31T23:59:58"),
        ("D:191010131235958", None),  # the year 2001 of programs that thought it 19101
        ("Wed Jan 31 2024", None),
        ("٢٠٢٤", None),
        ("", None),
        (None, None),
    ],
)
def test_dates(text, expected):
    assert parse_date(text) == expected


def test_metadata_that_is_not_text(extract):
    data = raw_pdf(
        b"<</Type/Catalog/Pages 2 0 R/Lang(\xfe\xff\xd8\x00)>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]>>",
        b"<</Title(\xfe\xff\xd8\x3d\x00A\xdc)/Author 7/CreationDate(\xff\x00)/ModDate[1 2]>>",
        trailer=b"/Info 4 0 R",
    )
    result = extract(data)
    assert result.created is None
    assert result.modified is None
    assert result.language is None


def test_names_of_attachments(extract):
    pdf = pypdfium2.PdfDocument(text_pdf("a message"))
    for name in ("invoice.xml", "Übersicht.csv"):
        pdf.new_attachment(name).set_data(b"content")
    out = io.BytesIO()
    pdf.save(out)
    pdf.close()
    assert extract(out.getvalue()).attachments == ("invoice.xml", "Übersicht.csv")


def test_form_values_are_read(extract):
    out = io.BytesIO()
    canvas = Canvas(out)
    canvas.drawString(72, 720, "Name of the applicant")
    canvas.acroForm.textfield(name="name", x=250, y=700, width=200, value="Erika Mustermann")
    canvas.showPage()
    canvas.drawString(72, 720, "Remarks")
    canvas.acroForm.textfield(name="remarks", x=250, y=700, width=200, value="none at all")
    canvas.save()
    first, second = extract(out.getvalue()).pages
    assert "Name of the applicant" in first.text
    assert "Erika Mustermann" in first.text
    assert "none at all" in second.text


def test_forms_that_only_one_reader_can_draw(extract):
    template = (
        b'<template xmlns="http://www.xfa.org/schema/xfa-template/3.0/"><subform><field name="f1">'
        b"<caption><value><text>Name of the applicant</text></value></caption></field>"
        b"<script>if (x) y()</script></subform></template>"
    )
    datasets = (
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
        b'<xfa:datasets xmlns:xfa="http://www.xfa.org/schema/xfa-data/1.0/"><xfa:data>'
        b"<name>Erika Mustermann</name><e>&e;</e></xfa:data></xfa:datasets>"
    )
    data = raw_pdf(
        b"<</Type/Catalog/Pages 2 0 R/NeedsRendering true"
        b"/AcroForm<</Fields[]/XFA[(template)6 0 R(datasets)7 0 R]>>>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R"
        b"/Resources<</Font<</F 5 0 R>>>>>>",
        stream(b"BT /F 12 Tf 50 700 Td (Please wait...) Tj ET"),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        stream(template),
        stream(datasets),
    )
    assert extract(data).text == "Name of the applicant\nErika Mustermann\nPlease wait..."


# --- passwords --------------------------------------------------------------------------------


def test_a_password_is_needed(extract):
    data = text_pdf("secret", encrypt=StandardEncryption("user", ownerPassword="owner"))
    with pytest.raises(EncryptedError, match="password"):
        extract(data)


def test_only_the_owner_has_a_password(extract):
    encryption = StandardEncryption("", ownerPassword="owner", canCopy=0, strength=128)
    assert extract(text_pdf("for all to read", encrypt=encryption)).text == "for all to read"


# --- scans ------------------------------------------------------------------------------------


def test_a_scanned_page_is_read(extract):
    result = extract(image_pdf(scan()))
    assert result.pages[0].ocr
    assert recall(result.text) > 0.95
    assert not result.problems


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_scan_that_was_fed_the_wrong_way_round(extract, turn):
    assert recall(extract(image_pdf(scan(turn=turn))).text) > 0.95


def test_scanned_and_typed_pages_side_by_side(extract):
    pdf = pypdfium2.PdfDocument(text_pdf("Some text that was typed. " * 3))
    pdf.import_pages(pypdfium2.PdfDocument(image_pdf(scan())))
    out = io.BytesIO()
    pdf.save(out)
    result = extract(out.getvalue())
    assert [page.ocr for page in result.pages] == [False, True]


def test_a_scan_is_reported_where_ocr_is_off(extract):
    result = extract(image_pdf(scan()), NO_OCR)
    assert result.text == ""
    (problem,) = result.problems
    assert problem.page == 1
    assert "OCR" in problem.message


def test_a_stamp_on_a_scan_does_not_hide_the_scan(extract):
    data = image_pdf(scan(), draw=lambda canvas: canvas.drawString(300, 800, "RECEIVED 12 MAY"))
    result = extract(data)
    assert result.pages[0].ocr
    assert recall(result.text) > 0.95


def test_a_line_of_a_court_on_a_scan_does_not_hide_the_scan(extract):
    header = "FILED: COUNTY CLERK 05/12/2020 INDEX NO. 650123/2020 DOC. NO. 12 RECEIVED 05/12/2020"
    result = extract(image_pdf(scan(), draw=lambda canvas: canvas.drawString(20, 820, header)))
    assert result.pages[0].ocr
    assert recall(result.text) > 0.95


def test_a_scan_with_a_text_layer_is_not_read_again(extract):
    def layer(canvas):
        text = canvas.beginText(72, 700)
        text.setTextRenderMode(3)
        text.textLines("\n".join(SENTENCES))
        canvas.drawText(text)

    result = extract(image_pdf(scan(), draw=layer))
    assert not result.pages[0].ocr
    assert recall(result.text) == 1


def test_text_with_a_small_picture_is_no_scan(extract):
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    canvas.drawImage(ImageReader(scan()), 50, 50, 100, 140)
    canvas.drawString(72, 700, "short")
    canvas.save()
    result = extract(out.getvalue())
    assert result.text == "short"
    assert not result.pages[0].ocr


def test_a_scan_in_strips_within_a_form(extract):
    """Scanners cut pages into strips, and programs wrap what they put on a page."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    image = scan()
    canvas.beginForm("page")
    for strip in range(10):
        box = (0, strip * 175, image.width, min(image.height, (strip + 1) * 175))
        part = image.crop(box)
        top = A4[1] - box[3] * A4[1] / image.height
        height = part.height * A4[1] / image.height
        # The form is drawn at ten times its size.
        canvas.drawImage(ImageReader(part), 0, top / 10, A4[0] / 10, height / 10)
    canvas.endForm()
    canvas.scale(10, 10)
    canvas.doForm("page")
    canvas.save()
    result = extract(out.getvalue())
    assert result.pages[0].ocr
    assert recall(result.text) > 0.95


def test_text_drawn_as_shapes_is_read(extract):
    """Layout programs turn letters into outlines."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    font = ImageFont.load_default(size=36)
    for number, line in enumerate(SENTENCES):
        x = 50.0
        for letter in line:
            canvas.drawPath(_shape(canvas, letter, font, x, 760 - 24 * number), fill=1, stroke=0)
            x += font.getlength(letter) / 3
    canvas.save()
    result = extract(out.getvalue())
    assert result.pages[0].ocr
    assert recall(result.text) > 0.9


def _shape(canvas, letter, font, x, y):
    """The letter as a path, of one rectangle per pixel."""
    path = canvas.beginPath()
    mask = Image.new("1", (48, 48))
    ImageDraw.Draw(mask).text((0, 0), letter, font=font, fill=1)
    for row in range(mask.height):
        for column in range(mask.width):
            if mask.getpixel((column, row)):
                path.rect(x + column / 3, y - row / 3, 0.34, 0.34)
    return path


def test_a_font_without_unicode_values_is_read_by_ocr(extract):
    # Every letter is a glyph of its own number, and nothing says which letter that is.
    letters = sorted(set("".join(SENTENCES)))
    encoding = b" ".join(b"/g%d" % number for number in range(1, len(letters) + 1))
    procs, glyphs = [], []
    font = ImageFont.load_default(size=40)
    for number, letter in enumerate(letters, 1):
        glyph = Image.new("1", (40, 56), 1)
        ImageDraw.Draw(glyph).text((4, 4), letter, font=font, fill=0)
        bits = bytes(~byte & 255 for byte in glyph.tobytes())
        width = max(12, round(font.getlength(letter)))
        glyphs.append(
            stream(
                b"%d 0 0 0 40 56 d1\nq 40 0 0 56 -4 -12 cm\nBI /W 40 /H 56 /IM true /D[1 0] ID "
                % width
                + bits
                + b"\nEI Q"
            )
        )
        procs.append((number, width))
    first = 6
    widths = b" ".join(b"%d" % width for _, width in procs)
    codes = {letter: number for number, letter in enumerate(letters, 1)}
    shown = b"BT /F 0.3 Tf 16 TL 60 780 Td\n"
    for line in SENTENCES:
        shown += b"<" + bytes(codes[c] for c in line).hex().encode() + b"> Tj T*\n"
    shown += b"ET"
    data = raw_pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R"
        b"/Resources<</Font<</F 5 0 R>>>>>>",
        stream(shown),
        b"<</Type/Font/Subtype/Type3/FontBBox[0 0 40 56]/FontMatrix[1 0 0 1 0 0]/FirstChar 1"
        b"/LastChar %d/Widths[%s]/Encoding<</Type/Encoding/Differences[1 %s]>>/CharProcs<<%s>>>>"
        % (
            len(letters),
            widths,
            encoding,
            b" ".join(b"/g%d %d 0 R" % (n, first + n - 1) for n, _ in procs),
        ),
        *glyphs,
    )
    result = extract(data)
    assert result.pages[0].ocr
    assert recall(result.text) > 0.8


def test_glyph_numbers_that_look_like_letters_are_read_by_ocr(extract):
    """Subsets of fonts without a map: "This" comes out as "7KLV"."""
    path = Path(reportlab.__file__).parent / "fonts" / "Vera.ttf"
    font = TTFontFile(str(path))
    glyphs = {letter: font.charToGlyph[ord(letter)] for letter in set("".join(SENTENCES))}
    widths = b" ".join(b"%d[%d]" % (glyphs[c], round(font.charWidths[ord(c)])) for c in glyphs)
    shown = b"BT /F 11 Tf 24 TL 60 780 Td\n"
    for line in SENTENCES:
        shown += b"<" + b"".join(b"%04X" % glyphs[letter] for letter in line) + b"> Tj T*\n"
    data = raw_pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R"
        b"/Resources<</Font<</F 5 0 R>>>>>>",
        stream(shown + b"ET"),
        b"<</Type/Font/Subtype/Type0/BaseFont/AAAAAA+Vera/Encoding/Identity-H"
        b"/DescendantFonts[6 0 R]>>",
        b"<</Type/Font/Subtype/CIDFontType2/BaseFont/AAAAAA+Vera/CIDToGIDMap/Identity"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>"
        b"/FontDescriptor 7 0 R/W[%s]>>" % widths,
        b"<</Type/FontDescriptor/FontName/AAAAAA+Vera/Flags 4/FontBBox[-200 -300 1300 1000]"
        b"/ItalicAngle 0/Ascent 928/Descent -236/CapHeight 730/StemV 80/FontFile2 8 0 R>>",
        stream(path.read_bytes()),
    )
    result = extract(data)
    assert result.pages[0].ocr
    assert recall(result.text) > 0.95
    unread = extract(data, NO_OCR)
    assert unread.text == ""
    assert unread.problems


def test_a_huge_page_is_rendered_within_bounds(extract):
    data = image_pdf(scan()).replace(b"0 0 595.2756 841.8898", b"0 0 14000.00 14000.00")
    options = ExtractionOptions(pages=PageSelection(None, 0), max_image_pixels=3_000_000)
    assert extract(data, options).page_count == 1


def test_a_huge_image_is_not_decoded(extract):
    data = image_pdf(Image.new("1", (6_000, 6_000)))
    options = ExtractionOptions(pages=PageSelection(None, 0), max_image_pixels=30_000_000)
    result = extract(data, options)
    assert [problem.kind for problem in result.problems] == ["limit_exceeded"]
    assert result.problems[0].page == 1


# --- damage -----------------------------------------------------------------------------------


def test_a_bad_page_does_not_cost_the_others(extract):
    data = raw_pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R 9 0 R 4 0 R]/Count 3>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 5 0 R"
        b"/Resources<</Font<</F 6 0 R>>>>>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 5 0 R"
        b"/Resources<</Font<</F 6 0 R>>>>>>",
        stream(b"BT /F 12 Tf 50 700 Td (still here) Tj ET"),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    )
    result = extract(data)
    assert [(page.number, page.text) for page in result.pages] == [
        (1, "still here"),
        (3, "still here"),
    ]
    assert [(problem.kind, problem.page) for problem in result.problems] == [("damaged", 2)]


def test_no_page_can_be_read(extract):
    data = raw_pdf(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[8 0 R 9 0 R]/Count 2>>")
    with pytest.raises(DamagedError, match="page"):
        extract(data)


@pytest.mark.parametrize("data", [b"%PDF-1.7\n", b"%PDF-1.4\n%%EOF\n", b"\0" * 5_000, b"not a PDF"])
def test_no_content(extract, data):
    with pytest.raises(DamagedError):
        extract(data)


def test_no_bytes(extract):
    with pytest.raises(EmptyDocumentError):
        extract(b"")


def test_the_file_is_gone(tmp_path):
    document = Document(tmp_path / "gone.pdf", "gone.pdf", "application/pdf")
    with pytest.raises(SourceUnreadableError):
        PdfExtractor().extract(document, ALL)


def test_a_name_of_any_bytes(tmp_path):
    path = tmp_path / b"\xff\xfe \xe4~.pdf".decode("utf-8", "surrogateescape")
    path.write_bytes(text_pdf("readable"))
    document = Document(path, "x.pdf", "application/pdf")
    assert PdfExtractor().extract(document, ALL).text == "readable"


def _sample() -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1, pageCompression=1)
    canvas.setTitle("Sample")
    canvas.drawString(72, 700, "Some text on the first page")
    canvas.acroForm.textfield(name="name", x=250, y=700, width=200, value="value")
    canvas.showPage()
    canvas.drawImage(ImageReader(Image.new("L", (60, 80), 200)), 0, 0, *A4)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


def test_cut_off_anywhere(extract):
    data = _sample()
    for end in range(0, len(data), max(1, len(data) // 150)):
        try:
            result = extract(data[:end], NO_OCR)
        except ExtractionError as error:
            assert str(error)
        else:
            assert result.pages


def test_bytes_changed_at_random(extract):
    data = _sample()
    rng = random.Random(7)
    for _ in range(300):
        mutated = bytearray(data)
        for _ in range(rng.choice((1, 3, 10, 100))):
            place = rng.randrange(len(mutated))
            mutated[place] = rng.randrange(256)
        if rng.random() < 0.3:
            start = rng.randrange(len(mutated))
            del mutated[start : start + rng.randrange(200)]
        try:
            result = extract(bytes(mutated), ALL if rng.random() < 0.1 else NO_OCR)
        except ExtractionError as error:
            assert str(error)
        else:
            assert result.pages


def test_memory_does_not_grow(extract):
    psutil = pytest.importorskip("psutil")
    process = psutil.Process()
    data = _sample()
    for _ in range(100):
        extract(data, NO_OCR)
    before = process.memory_info().rss
    for _ in range(1_000):
        extract(data, NO_OCR)
    assert process.memory_info().rss - before < 8_000_000


# --- real files -------------------------------------------------------------------------------


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the documents for development are not here")
def test_real_files():
    paths = sorted(CORPUS.glob("originals/**/*.pdf")) + sorted(CORPUS.glob("formats/**/*.pdf"))
    assert paths
    with_text = 0
    for path in paths:
        try:
            result = PdfExtractor().extract(
                Document(path, path.name, "application/pdf"), ExtractionOptions()
            )
        except (DamagedError, EncryptedError):
            continue
        with_text += bool(result.text.strip())
        assert not [problem for problem in result.problems if problem.kind == "damaged"], path
    assert with_text > 0.9 * len(paths)
