"""The import path of the guide; run from the root of the repository."""

from doc_classify.celery_tasks import app as app
from doc_classify.runners.distributed import (
    CeleryDistributedProcessor as CeleryDistributedProcessor,
)
