"""Writes a data set to a folder, with its labels beside the documents."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

from doc_classify.dataset.compose import compose
from doc_classify.dataset.grammar import pick
from doc_classify.dataset.hostile import KEEPS_CATEGORY, make_hostile, wrong_extension
from doc_classify.dataset.model import Content
from doc_classify.dataset.planning import DatasetOptions, Job, make_plan
from doc_classify.dataset.writers import IMAGE_FORMATS, ONE_PAGE, WRITERS
from doc_classify.dataset.writers.scan import write_scan
from doc_classify.errors import ConfigurationError, MissingDependencyError

LABELS_NAME = ".labels.csv"
"""The labels lie among the documents, hidden, so that no run takes them for a document."""

Progress = Callable[[int, int], None]

_DISTRIBUTIONS = {
    "pdf": ("reportlab", "reportlab"),
    **dict.fromkeys(IMAGE_FORMATS, ("reportlab", "reportlab")),
    "eml": ("reportlab", "reportlab"),
    "mbox": ("reportlab", "reportlab"),
    "docx": ("docx", "python-docx"),
    "pptx": ("pptx", "python-pptx"),
    "xlsx": ("openpyxl", "openpyxl"),
    "xls": ("xlwt", "xlwt"),
    "odt": ("odf", "odfpy"),
    "ods": ("odf", "odfpy"),
    "odp": ("odf", "odfpy"),
}


@dataclass(frozen=True, slots=True)
class Label:
    """One row of the labels file.

    ``path`` is relative to the folder, with slashes. ``category`` is empty where a hostile file
    is no document of any. ``pages`` are pages, slides, sheets or messages, empty where a format
    has none. ``hostile`` names what is wrong with the file, ``duplicate_of`` the path of the file
    that this one is a copy of; both are empty for most.
    """

    path: str
    category: str
    format: str
    pages: int | None
    scanned: int
    hostile: str
    duplicate_of: str


@dataclass(frozen=True, slots=True)
class Made:
    """A file in memory, with its label."""

    data: bytes
    label: Label


def generate(
    output: Path, options: DatasetOptions, progress: Progress | None = None
) -> list[Label]:
    """Write the data set to the folder ``output`` and its labels to ``output/.labels.csv``.

    A folder that holds an earlier data set is emptied of it first.

    Raises:
        ConfigurationError: the folder holds other files, or cannot be written to.
        MissingDependencyError: a package that writes one of the formats is not installed.
    """
    _check_packages(options.formats)
    plan = make_plan(options)
    labels: list[Label] = []
    seen: set[bytes] = set()
    try:
        _prepare(output)
        try:
            for made in _make_all(options, plan.jobs):
                made = _distinct(made, options, plan.jobs[len(labels)], seen)
                _store(output, made)
                labels.append(made.label)
                if progress:
                    progress(len(labels), options.count)
            for number, original in enumerate(plan.copies, len(plan.jobs)):
                source = labels[original]
                path = _copy_path(source.path, number)
                copy = replace(source, path=path, duplicate_of=source.path)
                _store(output, Made((output / source.path).read_bytes(), copy))
                labels.append(copy)
                if progress:
                    progress(len(labels), options.count)
        finally:
            # Also when interrupted: what is there is labelled, and a later run may replace it.
            labels.sort(key=lambda label: label.path)
            _write_labels(output / LABELS_NAME, labels)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {output}: {error.strerror}") from error
    return labels


def read_labels(folder: Path) -> list[Label]:
    """The labels of a data set.

    Raises:
        ConfigurationError: the folder has no labels that can be read.
    """
    try:
        with (folder / LABELS_NAME).open(encoding="utf-8", newline="") as file:
            return [
                Label(
                    path=row["path"],
                    category=row["category"],
                    format=row["format"],
                    pages=int(row["pages"]) if row["pages"] else None,
                    scanned=int(row["scanned"]),
                    hostile=row["hostile"],
                    duplicate_of=row["duplicate_of"],
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError) as error:
        raise ConfigurationError(f"{folder} has no readable {LABELS_NAME}: {error}") from error


def summarise(labels: list[Label]) -> str:
    """One line for a person: what a data set consists of."""
    formats = Counter(label.format for label in labels)
    shown = ", ".join(f"{number} {name}" for name, number in formats.most_common())
    return (
        f"{len(labels)} files ({shown}); {sum(label.scanned for label in labels)} scanned, "
        f"{sum(bool(label.hostile) for label in labels)} hostile, "
        f"{sum(bool(label.duplicate_of) for label in labels)} duplicates"
    )


def make(job: Job, seed: int, pages: float, attempt: int = 0) -> Made:
    """Compose and write one file in memory."""
    rng = random.Random(f"{seed}/{job.number}/{attempt}")  # noqa: S311 - reproducible
    language = rng.choices(("en", "de", "fr"), (82, 10, 8))[0]
    length = _draw_pages(rng, pages)
    if job.format in ONE_PAGE:
        length = 1  # the image of one page
    elif job.scanned:
        length = min(length, max(3, round(pages)))  # reading scans takes seconds a page
    content = compose(rng, job.category, language, length)
    written: int | None = None
    extension, category = job.format, job.category
    if job.hostile:
        data = make_hostile(job.hostile, job.format, content, rng, job.first_of_kind)
        if job.hostile == "wrong_extension":
            extension = wrong_extension(job.format, rng)
        if job.hostile not in KEEPS_CATEGORY:
            category = ""
    elif job.scanned:
        data, written = write_scan(content, rng, job.format)
    else:
        data, written = WRITERS[job.format](content, rng)
    path = _path(content, rng, job, extension)
    return Made(data, Label(path, category, job.format, written, int(job.scanned), job.hostile, ""))


def _make_all(options: DatasetOptions, jobs: tuple[Job, ...]) -> Iterator[Made]:
    if options.workers == 1 or len(jobs) < 50:
        for job in jobs:
            yield make(job, options.seed, options.pages)
        return
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        # A window at a time: the pool would otherwise hold all results that nobody has fetched.
        window = options.workers * 64
        for start in range(0, len(jobs), window):
            some = jobs[start : start + window]
            seeds, pages = [options.seed] * len(some), [options.pages] * len(some)
            yield from pool.map(make, some, seeds, pages, chunksize=16)


def _distinct(made: Made, options: DatasetOptions, job: Job, seen: set[bytes]) -> Made:
    """Make a file again, differently, should it be the same as an earlier one by chance."""
    attempt = 0
    while (digest := hashlib.sha256(made.data).digest()[:16]) in seen:
        attempt += 1
        made = make(job, options.seed, options.pages, attempt)
    seen.add(digest)
    return made


def _draw_pages(rng: random.Random, mean: float) -> int:
    if mean <= 1:
        return 1
    return min(1 + int(rng.expovariate(1 / (mean - 1)) + 0.5), round(10 * mean))


def _path(content: Content, rng: random.Random, job: Job, extension: str) -> str:
    """A name as people and machines give it, unique by its number, in one of a few folders."""
    number, written = f"{job.number:05}", content.written
    scan = job.scanned and rng.random() < 0.7
    stem = pick(
        rng,
        (f"scan_{number}", f"IMG_{number}")
        if scan
        else (
            f"{_slug(content.title)}_{number}",
            f"{_slug(content.title)}_{number}",
            f"{_slug(content.reference)}_{number}",
            f"{content.author.split()[-1]} {written:%Y-%m-%d} ({number})",
            f"document {number}",
        ),
    )
    folder = pick(rng, ("", "inbox", f"{written:%Y}/{written:%m}", f"{written:%Y}", "shared/misc"))
    return str(PurePosixPath(folder, f"{stem}.{extension}"))


def _slug(text: str) -> str:
    text = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text)).strip("._-")
    return text[:40] or "untitled"


def _copy_path(path: str, number: int) -> str:
    original = PurePosixPath(path)
    return str(PurePosixPath("copies", f"{original.stem} copy {number:05}{original.suffix}"))


def _store(output: Path, made: Made) -> None:
    path = output / made.label.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.data)


def _write_labels(path: Path, labels: list[Label]) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(Label))
    writer.writerows(astuple(label) for label in labels)
    path.write_text(out.getvalue(), "utf-8")


def _prepare(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if (output / LABELS_NAME).exists():
        root = output.resolve()
        for label in read_labels(output):
            path = output / label.path
            if path.resolve().is_relative_to(root):  # the labels may have been edited
                path.unlink(missing_ok=True)
        (output / LABELS_NAME).unlink()
        _remove_empty_folders(output)
    if next(output.iterdir(), None) is not None:
        raise ConfigurationError(
            f"{output} holds files that are not of an earlier data set; name an empty folder"
        )


def _remove_empty_folders(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            _remove_empty_folders(child)
            if next(child.iterdir(), None) is None:
                child.rmdir()


def _check_packages(formats: tuple[str, ...]) -> None:
    for one in formats:
        module, distribution = _DISTRIBUTIONS.get(one, ("", ""))
        if module and importlib.util.find_spec(module) is None:
            raise MissingDependencyError(distribution, "dataset", f"write {one.upper()} files")
