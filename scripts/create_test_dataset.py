#!/usr/bin/env python3
"""Create a folder of realistic, labelled documents: for trying out, testing and measuring.

The labels go to OUTPUT/.labels.csv (path, category, format, pages, scanned, hostile,
duplicate_of). The name begins with a dot so that classifying the folder does not take the labels
for a document, and so that they move with the folder; `ls -a` shows them.
The same seed and options give the same files, byte for byte, with the same package versions.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from doc_classify.dataset import (
    CATEGORIES,
    FORMATS,
    LABELS_NAME,
    DatasetOptions,
    generate,
    summarise,
)
from doc_classify.errors import ConfigurationError

_PARALLEL_FROM = 1000  # below, starting processes takes longer than they save


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, default = parser.add_argument, DatasetOptions()
    add("--count", type=int, default=default.count, help="files in all (default: %(default)s)")
    add("--output", type=Path, default=Path("test_docs"), help="folder (default: %(default)s)")
    add("--seed", type=int, default=default.seed, help="default: %(default)s")
    add("--formats", type=_names, default=FORMATS, help=f"of {','.join(FORMATS)} (default: all)")
    add("--categories", type=_names, default=CATEGORIES, help=f"of {','.join(CATEGORIES)}")
    add("--scanned", type=float, default=default.scanned, metavar="SHARE",
        help="images without text, 0 to 1 (default: %(default)s)")  # fmt: skip
    add("--hostile", type=float, default=default.hostile, metavar="SHARE",
        help="empty, damaged, encrypted and dangerous files (default: %(default)s)")  # fmt: skip
    add("--duplicates", type=float, default=default.duplicates, metavar="SHARE",
        help="copies of other files (default: %(default)s)")  # fmt: skip
    add("--pages", type=float, default=default.pages, metavar="MEAN",
        help="mean length of a document (default: %(default)s)")  # fmt: skip
    add("--workers", type=int, metavar="N", help="processes (default: one per core from 1,000 on)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is 2 where the request cannot be carried out."""
    args = _parser().parse_args(argv)
    workers = args.workers
    if workers is None:
        workers = (os.cpu_count() or 1) if args.count >= _PARALLEL_FROM else 1
    started = shown = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if done == total or now - shown > 0.2:
            shown = now
            end = "\n" if done == total else ""
            print(f"\r{done:,} of {total:,} files", end=end, file=sys.stderr, flush=True)

    try:
        options = DatasetOptions(
            count=args.count,
            seed=args.seed,
            formats=args.formats,
            categories=args.categories,
            scanned=args.scanned,
            hostile=args.hostile,
            duplicates=args.duplicates,
            pages=args.pages,
            workers=workers,
        )
        labels = generate(args.output, options, progress)
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    elapsed = time.monotonic() - started
    print(f"{args.output}: {summarise(labels)}")
    print(f"labels: {args.output / LABELS_NAME} ({elapsed:.1f} s, {len(labels) / elapsed:.0f}/s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
