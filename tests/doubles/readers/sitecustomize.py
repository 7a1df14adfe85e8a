"""On PYTHONPATH, makes the processes that read documents do what a document's first words say.

``KILL`` ends the process, ``HANG`` does not end, ``SLOW 0.5`` takes so many seconds.
"""

import os
import signal
import sys
import time

if "doc_classify.pipeline.worker" in sys.orig_argv:
    from doc_classify.extraction.text import TextExtractor

    _read = TextExtractor.extract

    def _extract(self, document, options):
        words = document.path.read_bytes()[:100].split()
        match words[0]:
            case b"KILL":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"HANG":
                time.sleep(3600)
            case b"SLOW":
                time.sleep(float(words[1]))
        return _read(self, document, options)

    TextExtractor.extract = _extract
