"""What a PDF page shows besides text: whether reading it takes OCR, and whether that is safe."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

_COVERED = 0.5
_SHAPES = 100
"""A page whose letters were turned into shapes has more of them, one of plain design fewer."""
_MAX_OBJECTS = 20_000
_MAX_DEPTH = 5

_Matrix = tuple[float, float, float, float, float, float]


class Survey:
    """The images and paths of a page, and of the forms that it is put together from.

    Attributes:
        cover: share of the page that images cover; those that overlap are counted twice.
        shapes: number of images and paths.
        largest_image: width and height of the image with the most pixels.
    """

    def __init__(self, page: Any) -> None:
        import pypdfium2.raw

        self.cover = 0.0
        self.shapes = 0
        self.largest_image = (0, 0)
        self._raw: Any = pypdfium2.raw
        self._seen = 0
        self._left, self._bottom, self._right, self._top = page.get_bbox()
        self._area = (self._right - self._left) * (self._top - self._bottom)
        self._walk(
            page,
            self._raw.FPDFPage_CountObjects,
            self._raw.FPDFPage_GetObject,
            (1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
            0,
        )

    @property
    def is_picture(self) -> bool:
        """Whether a page with hardly any text is likely to show some all the same."""
        return self.cover >= _COVERED or self.shapes >= _SHAPES

    def _walk(
        self,
        parent: Any,
        count: Callable[[Any], int],
        get: Callable[[Any, int], Any],
        matrix: _Matrix,
        depth: int,
    ) -> None:
        raw = self._raw
        for index in range(count(parent)):
            self._seen += 1
            if self._seen > _MAX_OBJECTS:
                return
            item = get(parent, index)
            if not item:
                continue
            kind = raw.FPDFPageObj_GetType(item)
            if kind == raw.FPDF_PAGEOBJ_PATH:
                self.shapes += 1
            elif kind == raw.FPDF_PAGEOBJ_IMAGE:
                self.shapes += 1
                self._add_image(item, matrix)
            elif kind == raw.FPDF_PAGEOBJ_FORM and depth < _MAX_DEPTH:
                own = raw.FS_MATRIX()
                if raw.FPDFPageObj_GetMatrix(item, own):
                    self._walk(
                        item,
                        raw.FPDFFormObj_CountObjects,
                        raw.FPDFFormObj_GetObject,
                        # What is in a form has the form's coordinates.
                        _combined((own.a, own.b, own.c, own.d, own.e, own.f), matrix),
                        depth + 1,
                    )

    def _add_image(self, item: Any, matrix: _Matrix) -> None:
        width, height = ctypes.c_uint(), ctypes.c_uint()
        if self._raw.FPDFImageObj_GetImagePixelSize(item, width, height):
            size = (width.value, height.value)
            self.largest_image = max(
                self.largest_image, size, key=lambda sides: sides[0] * sides[1]
            )
        box = [ctypes.c_float() for _ in range(4)]
        if not self._raw.FPDFPageObj_GetBounds(item, *box) or not self._area > 0:
            return
        left, bottom, right, top = (side.value for side in box)
        a, b, c, d, e, f = matrix
        corners = [(x, y) for x in (left, right) for y in (bottom, top)]
        across = [a * x + c * y + e for x, y in corners]
        down = [b * x + d * y + f for x, y in corners]
        width_seen = min(max(across), self._right) - max(min(across), self._left)
        height_seen = min(max(down), self._top) - max(min(down), self._bottom)
        if width_seen > 0 and height_seen > 0:
            self.cover += width_seen * height_seen / self._area


def _combined(first: _Matrix, second: _Matrix) -> _Matrix:
    """The transformation that does ``first`` and then ``second``."""
    a, b, c, d, e, f = first
    g, h, i, j, k, m = second
    return (
        a * g + b * i,
        a * h + b * j,
        c * g + d * i,
        c * h + d * j,
        e * g + f * i + k,
        e * h + f * j + m,
    )
