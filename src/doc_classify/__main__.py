"""``python -m doc_classify``."""

from doc_classify.cli import main

main()
