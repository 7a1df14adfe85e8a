"""What each extractor reads, beyond the plain case that the golden files hold."""

import io
import sys
import zipfile
from email.message import EmailMessage

import docx
import openpyxl
import pptx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.opc.package import Part
from pptx.opc.packuri import PackURI

from doc_classify.errors import DamagedError, MissingDependencyError, NoTextError
from doc_classify.extraction import Document, extract
from doc_classify.extraction.compressed_rtf import unpack_rtf
from doc_classify.extraction.decoding import decode, is_text_encoding
from doc_classify.extraction.options import ExtractionOptions, PageSelection
from doc_classify.extraction.rtf import rtf_text
from doc_classify.sniffing import sniff_bytes


@pytest.fixture
def read(tmp_path):
    def run(data, name="f", media_type=None, **options):
        path = tmp_path / "f"
        path.write_bytes(data)
        document = Document(path, name, media_type or sniff_bytes(data, name))
        return extract(document, ExtractionOptions(**options))

    return run


def saved(document):
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


# Text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Grüße — “x”", "utf-8"),
        ("Grüße", "utf-8-sig"),
        ("Grüße", "utf-16"),
        ("Grüße", "utf-32"),
        ("Привет, мир! Это обычный русский текст о погоде и делах.", "cp1251"),
        ("Les élèves étaient très étonnés par l'énoncé.", "latin-1"),
        ("日本語の文書を読む。今日はいい天気です。", "shift_jis"),
        ("日本語の文書", "iso2022_jp"),
        ("한국어 문서를 읽습니다. 오늘은 날씨가 좋습니다.", "euc_kr"),
    ],
)
def test_encodings(read, text, encoding):
    assert read(text.encode(encoding)).text == text


def test_declared_encodings_are_used_and_bounded():
    assert decode("naïve".encode("mac_roman"), "mac_roman") == "naïve"
    assert decode(b"\xffx", "idna")
    assert not any(map(is_text_encoding, ("hex", "rot13", "punycode", "no-such", "a\0b", "utf-7")))
    assert decode("é".encode()[:1], cut=True) == ""


def test_long_text_is_cut_and_says_so(read):
    result = read(b"x\n" * 1_000_000, max_characters=1000)
    assert result.truncated
    assert len(result.text) <= 1000


def test_json_escapes_are_resolved(read):
    assert "Köln 😀" in read(rb'{"a": "K\u00f6ln \ud83d\ude00"}', "a.json").text


# Word ---------------------------------------------------------------------------------------


def test_word_reads_what_a_reader_sees(read):
    document = docx.Document()
    paragraph = document.add_paragraph("First")
    paragraph.add_run("\tsecond").add_break()
    paragraph.add_run("third")
    namespaces = nsdecls("w")
    paragraph._p.append(
        parse_xml(f"<w:del {namespaces}><w:r><w:delText>gone</w:delText></w:r></w:del>")
    )
    paragraph._p.append(
        parse_xml(f"<w:moveFrom {namespaces}><w:r><w:t>moved</w:t></w:r></w:moveFrom>")
    )
    paragraph._p.append(parse_xml(f"<w:ins {namespaces}><w:r><w:t> added</w:t></w:r></w:ins>"))
    box = (
        "<w:p><w:r><mc:AlternateContent"
        ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">'
        '<mc:Choice Requires="wps"><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p>'
        "</w:txbxContent></mc:Choice><mc:Fallback><w:t>boxed</w:t></mc:Fallback>"
        "</mc:AlternateContent></w:r></w:p>"
    )
    document.element.body.insert(1, parse_xml(box.replace("<w:p>", f"<w:p {namespaces}>", 1)))
    table = document.add_table(2, 2)
    for number, cell in enumerate(table._cells):
        cell.text = f"cell {number}\nline"
    document.sections[0].header.paragraphs[0].text = "the header"
    document.sections[0].footer.paragraphs[0].text = "the footer"
    document.core_properties.title = "The title"
    result = read(saved(document))
    assert result.text.split("\n") == [
        "the header",
        "First\tsecond",
        "third added",
        "",
        "boxed",
        "",
        "cell 0 line\tcell 1 line",
        "cell 2 line\tcell 3 line",
        "",
        "the footer",
    ]
    assert result.title == "The title"
    assert result.page_count is None


def test_word_with_damaged_end_keeps_its_beginning(read):
    document = docx.Document()
    document.add_paragraph("kept")
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(document))) as old,
        zipfile.ZipFile(buffer, "w") as new,
    ):
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data.replace(b"<w:sectPr", b"<<") if "document" in name else data)
    result = read(buffer.getvalue())
    assert result.text == "kept"
    assert result.problems[0].kind == "damaged"


def test_word_comments_and_charts(read):
    document = docx.Document()
    document.add_comment(document.add_paragraph("body").runs, "a remark", "A. Uthor", "AU")
    assert read(saved(document)).text == "body\n\na remark"


def test_opendocument_comments(read):
    content = (
        '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
        ' xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/"><office:body><office:text>'
        "<text:p>by <text:creator>Eve</text:creator><office:annotation><dc:creator>A</dc:creator>"
        "<dc:date>2024-01-01T00:00:00</dc:date><text:p>a remark</text:p></office:annotation>"
        " end</text:p></office:text></office:body></office:document-content>"
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        archive.writestr("content.xml", content)
    assert read(buffer.getvalue()).text == "by Eve\na remark\n\n end"


# PowerPoint ---------------------------------------------------------------------------------


def test_slides_are_pages_with_their_notes(read):
    show = pptx.Presentation()
    for number in range(1, 7):
        slide = show.slides.add_slide(show.slide_layouts[5])
        slide.shapes.title.text = f"Slide {number}"
        slide.notes_slide.notes_text_frame.text = f"Note {number}"
    cells = slide.shapes.add_table(1, 2, 0, 0, 100, 100).table.rows[0].cells
    cells[0].text, cells[1].text = "left", "right"
    result = read(saved(show))
    assert [page.number for page in result.pages] == [1, 2, 3, 6]
    assert result.page_count == 6
    assert result.pages[0].text.split() == ["Slide", "1", "Note", "1"]
    assert "left\tright" in result.pages[3].text


def test_charts_and_comments_of_slides(read):
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[6])
    data = CategoryChartData()
    data.categories = ["x"]
    data.add_series("s", (1,))
    chart = slide.shapes.add_chart(XL_CHART_TYPE.PIE, 0, 0, 99, 99, data).chart
    chart.has_title = True
    chart.chart_title.text_frame.text = "What the chart shows"
    comment = (
        '<p:cmLst xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main">'
        "<p:cm><p:pos x='1' y='1'/><p:text>a remark</p:text></p:cm></p:cmLst>"
    )
    part = Part(
        PackURI("/ppt/comments/comment1.xml"), "a/b+xml", show.part.package, comment.encode()
    )
    slide.part.relate_to(part, "http://x/relationships/comments")
    text = read(saved(show)).text
    assert "What the chart shows" in text
    assert "a remark" in text


# Spreadsheets -------------------------------------------------------------------------------


def test_sheets_are_pages(read):
    book = openpyxl.Workbook()
    book.active.title = "First"
    book.active.append(["a", 1, 2.5, True, None, "z"])
    for number in range(5):
        book.create_sheet(f"S{number}").append([number])
    result = read(saved(book), pages=PageSelection(1, 1))
    assert [(page.number, page.text) for page in result.pages] == [
        (1, "First\na\t1\t2.5\tTRUE\t\tz"),
        (6, "S4\n4"),
    ]
    assert result.page_count == 6


def test_formatting_far_away_is_no_content(read):
    book = openpyxl.Workbook()
    book.active["A1"] = "here"
    book.active["XFD1048576"].font = openpyxl.styles.Font(bold=True)
    assert read(saved(book)).text == "Sheet\nhere"


@pytest.mark.parametrize("name", ["a.xls", "a.xlsb", "a.ods", "a.XLSX", "a.pdf", "a"])
def test_workbooks_with_wrong_names(tmp_path, name):
    book = openpyxl.Workbook()
    book.active["A1"] = "here"
    path = tmp_path / name
    book.save(tmp_path / "book")
    (tmp_path / "book").rename(path)
    document = Document(path, name, sniff_bytes(path.read_bytes(), name))
    assert extract(document, ExtractionOptions()).text == "Sheet\nhere"


def test_empty_workbook_has_no_text(read):
    with pytest.raises(NoTextError):
        read(saved(openpyxl.Workbook()))


# Mail ---------------------------------------------------------------------------------------


@pytest.fixture
def message():
    message = EmailMessage()
    message["From"] = "Jörg <j@example.org>"
    message["To"] = "a@example.org"
    message["Subject"] = "Übung"
    message["Date"] = "Thu, 13 Jul 2023 14:45:00 +0200"
    message["Message-ID"] = "<1@example.org>"
    message.set_content("Plain body")
    message.add_alternative("<p>HTML body</p>", subtype="html")
    document = docx.Document()
    document.add_paragraph("attached words")
    kind = {"maintype": "application", "subtype": "octet-stream"}
    message.add_attachment(saved(document), filename="r.docx", **kind)
    message.add_attachment(b"\0\1\2", filename="r.bin", **kind)
    inner = EmailMessage()
    inner["Subject"] = "inner"
    inner["Message-ID"] = "<2@example.org>"
    inner.set_content("inner body")
    message.add_attachment(inner)
    return message


def test_mail(read, message):
    result = read(message.as_bytes())
    assert result.text.split("\n") == [
        "From: Jörg <j@example.org>",
        "To: a@example.org",
        "Date: Thu, 13 Jul 2023 14:45:00 +0200",
        "Subject: Übung",
        "Attachments: r.docx, r.bin, inner",
        "",
        "Plain body",
    ]
    assert result.title == "Übung"
    assert result.created == "2023-07-13T14:45:00+02:00"
    assert result.attachments == ("r.docx", "r.bin", "inner")
    assert result.problems == ()


def test_attachments_on_request(read, message):
    result = read(message.as_bytes(), attachments=True)
    assert "Attachment: r.docx\nattached words" in result.text
    assert "inner body" in result.text
    assert [problem.kind for problem in result.problems] == ["unsupported"]


def test_html_only_mail(read):
    message = EmailMessage()
    message["Message-ID"], message["From"] = "<1@x>", "a@x"
    message.set_content("<p>HTML body</p>", subtype="html")
    assert read(message.as_bytes()).text.endswith("\n\nHTML body")


def test_mailbox_messages_are_pages(read):
    one = "From a@b Thu Jan  1 00:00:00 1970\r\nFrom: a@b\r\nSubject: S{0}\r\n\r\n>From {0}\r\n\r\n"
    result = read("".join(one.format(n) for n in range(6)).encode(), pages=PageSelection(1, 1))
    assert result.page_count == 6
    assert [page.number for page in result.pages] == [1, 6]
    assert result.pages[1].text.endswith("Subject: S5\n\nFrom 5")


def test_mailbox_separators(read):
    head = b"From a@b Thu Jan  1 00:00:00 1970\nFrom: a@b\n\n"
    body = b"one\nFrom here 12:00 no blank line\n\nFrom without a time\n\r\nFrom x 10:00\n\r\n"
    result = read(head + body + head + b"two")
    assert result.page_count == 3
    assert result.pages[0].text.endswith("blank line\n\nFrom without a time")
    assert result.pages[2].text.endswith("two")


@pytest.mark.parametrize(
    ("packed", "text"),
    [  # the examples of [MS-OXRTFCP] 3.1
        (
            "2d0000002b0000004c5a4675f1c5c7a703000a007263706731323542320af32068656c0900206277"
            "05b06c647d0a800fa0",
            "hello world",
        ),
        ("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0", "WXYZ" * 5),
        ("1a0000000c0000004d454c41000000007b5c7274663120787d", "x"),
    ],
)
def test_rich_text_of_outlook(packed, text):
    data = bytes.fromhex(packed)
    assert rtf_text(unpack_rtf(data, 10_000)).strip() == text
    assert len(unpack_rtf(data, 5)) <= 5 + 17
    for end in range(16, len(data)):
        unpack_rtf(data[:end], 10_000)
    with pytest.raises(DamagedError):
        unpack_rtf(data[:15], 10_000)


# Web ----------------------------------------------------------------------------------------


def test_html(read):
    page = (
        "<!doctype html><html lang='de-AT'><head><title>T &amp; U</title><meta charset=latin-1>"
        "<meta name=author content=A><script>no()</script><style>no</style></head>"
        "<body><nav>menu</nav><p>Grüße<br>zwei</p><table><tr><td>1<td>2</table>"
    )
    result = read(page.encode("latin-1"))
    assert (result.title, result.author, result.language) == ("T & U", "A", "de")
    assert "Grüße\nzwei" in result.text
    assert "1\t2" in result.text
    assert "menu" in result.text
    assert "no" not in result.text


def test_long_pages_lose_their_pictures_first_and_their_end_then(read):
    picture = b'<img src="data:image/png;base64,' + b"iVBORw0K" * 1_500_000 + b'">'
    result = read(b"<html><p>first</p>" + picture + b"<p>last</p></html>")
    assert result.text.split() == ["first", "last"]
    assert not result.truncated
    result = read(b"<html><p>first</p>" + b"<p></p>" * 2_000_000 + b"<p>last</p></html>")
    assert result.text == "first"
    assert result.truncated


def test_xhtml_with_closed_title(read):
    page = "<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'><head><title/></head>"
    assert read((page + "<body><a id='x'/><p>words</p></body></html>").encode()).text == "words"


def test_xml(read):
    assert read(b"<?xml version='1.0'?><a>\n  <b>one</b>\n  <c x='no'>two</c></a>").text == (
        "one\n\ntwo"
    )
    feed = b"<?xml version='1.0'?><a><![CDATA[<p>R&amp;D <a href='x'>link</a></p>]]></a>"
    assert read(feed).text.split() == ["R&D", "link"]
    broken = read(b"<?xml version='1.0'?><a><b>one</b><c>two")
    assert broken.text.startswith("one")
    assert broken.problems[0].kind == "damaged"


# RTF ----------------------------------------------------------------------------------------


def test_rtf(read):
    result = read(
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial;}}"
        rb"{\info{\title T\'e9}{\author A}{\creatim\yr2020\mo2\dy3\hr4\min5}}"
        rb"{\pict\wmetafile8 " + b"0a" * 1000 + rb"}\f0 Caf\'e9 \u8364?\par\f1 \'cf\par"
        rb'{\field{\*\fldinst{HYPERLINK "http://x/"}}{\fldrslt{link}}}}'
    )
    assert result.text == "Café €\nП\nlink"
    assert (result.title, result.author, result.created) == ("Té", "A", "2020-02-03T04:05")


# Legacy -------------------------------------------------------------------------------------


def test_old_word_files_without_the_extra_name_it(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "kreuzberg", None)
    with pytest.raises(MissingDependencyError, match=r"doc-classify\[legacy\]"):
        read(b"x", media_type="application/msword")
