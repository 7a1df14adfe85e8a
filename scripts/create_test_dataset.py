#!/usr/bin/env python3
"""Create a folder of realistic, labelled documents: ``doc-classify dataset`` under another name."""

from __future__ import annotations

import sys

from doc_classify.cli import main

if __name__ == "__main__":
    main(["dataset", *sys.argv[1:]])
