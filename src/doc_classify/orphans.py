"""No process of ours outlives the one that started it."""

from __future__ import annotations

import os
import signal
import sys


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies.

    Only Linux can; elsewhere the caller needs another way to notice.
    """
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG in prctl(2)
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
