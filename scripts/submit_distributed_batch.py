#!/usr/bin/env python3
"""Hand a folder to Celery workers: the command ``doc-classify submit`` under another name."""

from __future__ import annotations

import sys

from doc_classify.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "submit")
    main()
