"""Zip archives with nothing in them that depends on when they were written."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable

_EPOCH = (1980, 1, 1, 0, 0, 0)


def make_zip(parts: Iterable[tuple[str, bytes]]) -> bytes:
    """An archive of named parts; one called ``mimetype`` is stored, as ODF and EPUB ask."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in parts:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.external_attr = 0o600 << 16
            stored = name == "mimetype"
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return out.getvalue()


def with_fixed_times(
    data: bytes, change: Callable[[str, bytes], bytes] = lambda name, part: part
) -> bytes:
    """The same archive with constant dates; ``change`` may replace what is inside a part."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return make_zip((name, change(name, archive.read(name))) for name in archive.namelist())
